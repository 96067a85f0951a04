"""The mixture of angles: on bond angles of a lattice, beside k-means on the circle, and across the cut of the angle."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

import bayesunmix as bu
from bayesunmix.data.lattices import off_centred_lattice

FAST = bu.SVI(draws=200, steps=40)


def test_variants_of_a_lattice_by_the_angles_of_their_bonds() -> None:
    """Beside k-means on points of the unit circle, the limit that the classes tend to."""
    atoms, truth = off_centred_lattice((16, 16), "four-variant", position_error=0.1, scatter=0.1, seed=0)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    angles = bu.descriptors.bond_angles(vectors)
    model = bu.models.VonMisesMixture(4, weights="equal", dispersion="tied")
    fit = bu.fit(model, angles, FAST, progress=False)
    assert fit.converged
    label = fit.latent()["membership"].sel(statistic="mean").values.argmax(1)
    y = angles["vector"].values
    peer = KMeans(4, n_init=10, random_state=0).fit(np.concatenate([np.cos(y), np.sin(y)], axis=1))
    for other in (peer.labels_, truth["label"].values[vectors["index"].values]):
        # Every class holds the atoms of one other class and none besides.
        pairs = np.unique(np.stack([label, other]), axis=1)
        assert pairs.shape[1] == 4


def test_a_class_across_the_cut_of_the_angle_is_one_class() -> None:
    """Angles around pi come as values near pi and near -pi: half a turn away on the line, neighbours on the circle."""
    rng = np.random.default_rng(0)
    label = rng.random(400) < 0.4
    y = np.where(label, np.pi, 0.5)[:, None] + 0.2 * rng.normal(size=(400, 2))
    y = (y + np.pi) % (2 * np.pi) - np.pi
    assert (np.ptp(y[label], axis=0) > 6.0).all()
    fit = bu.fit(bu.models.VonMisesMixture(2), y, FAST, progress=False)
    share = fit.latent()["membership"].sel(statistic="mean").values
    assert np.mean(share.argmax(1) == label) > 0.99
    draws = fit.posterior["means"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    away = (draws - np.array([[0.5], [np.pi]]) + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(away.mean(0) / away.std(0)).max() < 4


def test_degrees_are_refused() -> None:
    with pytest.raises(ValueError, match="radians"):
        bu.fit(bu.models.VonMisesMixture(2), np.linspace(0, 180, 80).reshape(40, 2), FAST, progress=False)
