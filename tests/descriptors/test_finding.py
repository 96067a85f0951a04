"""Atoms found in simulated images: all of them, where they are, with errors that mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import cKDTree

import bayesunmix as bu
from bayesunmix.data.lattices import atom_image
from bayesunmix.descriptors.candidates import usual_separation

SPACING, SIDE = 12.0, 6


def crystal(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions on a jittered square lattice, and heights of two species."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 2, indexing="ij"), -1).reshape(-1, 2)
    heights = np.where(grid.sum(1) % 2, 1.0, 0.6)
    return SPACING * (grid + 1) + 0.5 * rng.normal(size=grid.shape), heights


def shot(seed: int, dose: float = 100.0) -> tuple[xr.DataArray, np.ndarray]:
    positions, heights = crystal(seed)
    return atom_image(positions, (84, 84), amplitude=heights, width=2.2, dose=dose, seed=seed), positions


def errors(found: xr.Dataset, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Error (atom, 2) and claimed covariance of the atom found at every true position."""
    distance, nearest = cKDTree(found["position"].values).query(positions)
    assert distance.max() < 2.0
    return found["position"].values[nearest] - positions, found["position_cov"].values[nearest]


def test_every_atom_is_found_with_an_honest_error() -> None:
    """Over a few images: no bias, 90 % ellipses that cover .90, both within 3 standard errors across images."""
    covered, shift, images = [], [], 10
    for seed in range(images):
        image, positions = shot(seed)
        found = bu.descriptors.find_atoms(image, noise="poisson")
        assert found.sizes["atom"] == SIDE**2 and found.attrs["rejected"] == 0
        error, cov = errors(found, positions)
        covered.append(np.mean(np.einsum("ni,nij,nj->n", error, np.linalg.inv(cov), error) < 4.605))
        shift.append(error.mean(0))
    assert abs(np.mean(covered) - 0.9) < 3 * max(np.std(covered, ddof=1), 0.05) / np.sqrt(images)
    assert (np.abs(np.mean(shift, 0)) < 3.5 * np.std(shift, 0, ddof=1) / np.sqrt(images)).all()


def test_a_weak_atom_of_normal_noise_and_its_width() -> None:
    positions, heights = crystal(3)
    image = atom_image(positions, (84, 84), amplitude=heights, width=2.2, dose=None, noise_scale=0.05, seed=1)
    found = bu.descriptors.find_atoms(image)
    error, _ = errors(found, positions)
    assert found.attrs["noise_scale"] == pytest.approx(0.05, rel=0.1)
    z = (found["width"].values - 2.2) / found["width_sd"].values
    assert abs(z.mean()) < 4 / np.sqrt(z.size) and 0.5 < z.std() < 1.5
    assert np.sqrt((error**2).mean()) < 0.3


def test_units_and_frames_come_from_the_image() -> None:
    image, positions = shot(0)
    scaled = image.assign_coords(y=("y", 5.0 + 0.02 * image["y"].values, {"units": "nm"}))
    scaled = scaled.assign_coords(x=("x", 0.02 * image["x"].values, {"units": "nm"}))
    pixel = bu.descriptors.find_atoms(image, noise="poisson")
    stack = xr.concat([scaled, scaled], "frame")
    found = bu.descriptors.find_atoms(stack, noise="poisson")
    assert found["position"].attrs["units"] == "nm" and found.sizes["atom"] == 2 * len(positions)
    np.testing.assert_array_equal(found["frame"], np.repeat([0, 1], len(positions)))
    first = found.isel(atom=slice(0, len(positions)))
    np.testing.assert_allclose(first["position"].values, [5.0, 0.0] + 0.02 * pixel["position"].values, rtol=1e-10)
    np.testing.assert_allclose(first["position_cov"].values, 0.02**2 * pixel["position_cov"].values, rtol=1e-10)
    np.testing.assert_allclose(first["width"].values, 0.02 * pixel["width"].values, rtol=1e-10)


def test_what_is_no_atom_is_left_out() -> None:
    """A bright smear and a hot pixel are candidates, and not atoms."""
    image, positions = shot(2)
    spoiled = image.values.copy()
    spoiled[40:44, 37:46] += 400.0
    spoiled[66, 66] += 5000.0
    found = bu.descriptors.find_atoms(image.copy(data=spoiled), noise="poisson")
    assert found.attrs["rejected"] >= 1
    near = cKDTree(positions).query(found["position"].values)[0]
    assert np.median(near) < 0.2
    hot = cKDTree(found["position"].values).query([66.0, 66.0])[0]
    assert hot > 1.0


def test_separation_from_the_autocorrelation() -> None:
    image, _ = shot(1)
    assert usual_separation(image.values) == pytest.approx(SPACING, abs=1.0)
    with pytest.raises(ValueError, match="pass separation"):
        usual_separation(atom_image(np.array([[32.0, 32.0]]), (64, 64), width=6.0, dose=None).values)


@pytest.mark.parametrize(
    ("image", "options", "kind", "message"),
    [
        (np.zeros((5, 5)), {}, ValueError, "at least 8 x 8"),
        (np.full((16, 16), np.nan), {}, ValueError, "256 of 256 pixels are not finite"),
        (np.zeros(16), {}, TypeError, r"\(y, x\)"),
        (np.full((16, 16), -1.0), {"noise": "poisson"}, ValueError, "counts"),
        (np.full((16, 16), 0.5), {"noise": "poisson"}, ValueError, "counts"),
        (np.zeros((16, 16)), {"noise": "gamma"}, ValueError, 'expected "normal" or "poisson"'),
        (np.zeros((32, 32)), {"separation": 8}, ValueError, "no spot stands"),
    ],
)
def test_what_cannot_be_searched(image, options, kind, message) -> None:
    with pytest.raises(kind, match=message):
        bu.descriptors.find_atoms(image, **options)
