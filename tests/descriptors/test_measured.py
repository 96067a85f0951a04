"""Measured atoms: polar displacements of BiFeO3, graphene from the image to the atoms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

import bayesunmix as bu


@pytest.fixture(scope="module")
def bismuth_ferrite(real_data):
    bi = np.loadtxt(real_data("atoms_bfo/Bi_positions_refined.txt"))
    fe = np.loadtxt(real_data("atoms_bfo/Fe_positions_refined.txt"))
    table = pd.DataFrame(
        {
            "x": np.concatenate([bi[:, 0], fe[:, 0]]),
            "y": np.concatenate([bi[:, 1], fe[:, 1]]),
            "species": ["Bi"] * len(bi) + ["Fe"] * len(fe),
        }
    )
    # The file gives no errors; half a pixel is about what refinement of such an image leaves.
    atoms = bu.atoms(table, error=0.5)
    tabulated = np.loadtxt(real_data("atoms_bfo/result_refined.txt"))
    return bu.descriptors.neighbour_vectors(atoms, 4, species=("Fe", "Bi")), tabulated


def test_off_centring_of_iron_is_the_tabulated_one(bismuth_ferrite) -> None:
    vectors, tabulated = bismuth_ferrite
    assert vectors["complete"].values.sum() > 1050
    distance, which = cKDTree(vectors["position"].values[:, ::-1]).query(tabulated[:, :2])
    assert distance.max() < 1e-3
    moved = bu.descriptors.off_centring(vectors)["displacement"].values[which]
    whole = np.isfinite(moved).all(axis=1)
    assert whole.mean() > 0.99
    # The table holds x and y to six decimals.
    np.testing.assert_allclose(moved[whole, 1], tabulated[whole, 4], atol=1e-5)
    np.testing.assert_allclose(moved[whole, 0], tabulated[whole, 5], atol=1e-5)


def test_cells_of_bismuth_ferrite_that_were_refined_wrongly_are_a_class(bismuth_ferrite) -> None:
    """Of 1072 cells two have a neighbour that is no neighbour: of two classes, these are one."""
    vectors, _ = bismuth_ferrite
    fit = bu.fit(bu.models.GaussianMixture(2, covariance="positions"), vectors, progress=False)
    assert fit.converged
    share = fit.latent()["membership"].sel(statistic="mean").values
    cells = vectors["vector"].values.reshape(len(share), -1)
    away = np.abs(cells - np.nanmedian(cells, axis=0)).max(axis=1)
    odd = share[:, 1] > 0.5
    assert 1 <= odd.sum() <= 5
    assert odd[np.nanargmax(away)]


def test_carbon_of_graphene_from_its_image(real_data) -> None:
    """Atoms found in the image against those of the authors' network, whose positions are means of a segmentation."""
    image = np.load(real_data("graphene_stem/G-Si-2nm.npy"))
    network = bu.atoms(np.load(real_data("graphene_stem/G-Si-2nm-coord.npy"), allow_pickle=True).item())
    # The first ring is not resolved in the autocorrelation of this image, so the distance is given; it is noisy.
    found = bu.descriptors.find_atoms(image, separation=18, threshold=2.5)
    distance, _ = cKDTree(found["position"].values).query(network["position"].values)
    assert np.mean(distance < 5.0) > 0.85
    error = np.sqrt(np.trace(found["position_cov"].values, axis1=1, axis2=2) / 2)
    assert 0.05 < np.median(error) < 2.0
    vectors = bu.descriptors.neighbour_vectors(found, 3)
    bonds = vectors["vector"].values[vectors["complete"].values].reshape(-1, 3, 2)
    length = np.linalg.norm(bonds, axis=-1)
    # 1.42 A between carbon neighbours, 2 nm over 256 pixels.
    assert np.median(length) * 20.0 / 256 == pytest.approx(1.42, rel=0.1)
