"""The search for the purest pixels, which starts every unmixing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from bayesunmix.data.counts import purest_shapes
from bayesunmix.data.purest import principal_plane, purest_pixels


def mixtures(n_endmembers: int, n_units: int = 200, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Endmembers, and mixtures of them among which every endmember is pure once, at random places."""
    rng = np.random.default_rng(n_endmembers)
    endmembers = rng.gamma(2.0, 1.0, (n_endmembers, 12))
    abundance = rng.dirichlet(np.ones(n_endmembers), n_units)
    abundance[rng.choice(n_units, n_endmembers, replace=False)] = np.eye(n_endmembers)
    values = abundance @ endmembers
    return endmembers, values + noise * rng.normal(size=values.shape)


def distance(found: np.ndarray, truth: np.ndarray) -> float:
    """Largest distance of a found endmember from its own, in the best assignment."""
    gaps = np.linalg.norm(found[:, None] - truth[None], axis=-1)
    return float(gaps[linear_sum_assignment(gaps)].max())


@pytest.mark.parametrize("n_endmembers", [2, 3, 4, 6])
def test_pure_pixels_are_found(n_endmembers: int) -> None:
    truth, values = mixtures(n_endmembers)
    assert distance(purest_pixels(values, n_endmembers), truth) < 1e-8


@pytest.mark.parametrize("n_endmembers", [2, 4])
def test_the_order_of_the_pixels_does_not_matter(n_endmembers: int) -> None:
    _, values = mixtures(n_endmembers, noise=0.05)
    shuffled = np.random.default_rng(9).permutation(values)
    assert distance(purest_pixels(values, n_endmembers), purest_pixels(shuffled, n_endmembers)) < 1e-8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_seed_does_not_matter(seed: int) -> None:
    _, values = mixtures(4, noise=0.05)
    assert distance(purest_pixels(values, 4), purest_pixels(values, 4, seed=seed)) < 1e-8


def test_scale_and_type_do_not_matter() -> None:
    _, values = mixtures(3, noise=0.05)
    found = purest_pixels(values, 3)
    for factor in (1e-6, 1e6):
        assert distance(purest_pixels(factor * values, 3) / factor, found) < 1e-9
    assert distance(purest_pixels(values.astype(np.float32), 3), found) < 1e-5


def test_one_endmember_is_the_mean() -> None:
    _, values = mixtures(3)
    np.testing.assert_allclose(purest_pixels(values, 1), values.mean(0)[None], rtol=1e-12)


def test_noise_across_the_plane_is_not_taken_for_a_spectrum() -> None:
    """Vertices lie in the principal plane: what a pixel's noise adds across it is gone."""
    _, values = mixtures(3, noise=0.2)
    mean, axes, _ = principal_plane(values, 2)
    away = purest_pixels(values, 3) - mean
    np.testing.assert_allclose(away, away @ axes.T @ axes, atol=1e-9)


def test_the_plane_leaves_the_noise() -> None:
    """Variance per channel beyond the plane of noiseless mixtures is zero, and positive with noise."""
    _, clean = mixtures(3)
    _, noisy = mixtures(3, noise=0.1)
    np.testing.assert_allclose(principal_plane(clean, 2)[2], 0.0, atol=1e-12)
    # 10 of the 12 directions are left to noise of variance .01.
    np.testing.assert_allclose(principal_plane(noisy, 2)[2].sum(), 10 * 0.01, rtol=0.1)


@pytest.mark.parametrize("values", [np.ones((5, 4)), np.ones((2, 4)), np.eye(4)[:2]], ids=["flat", "few flat", "few"])
def test_degenerate_data_do_not_hang(values: np.ndarray) -> None:
    """More endmembers than the data span: finite vertices all the same."""
    found = purest_pixels(values, 3)
    assert found.shape == (3, 4)
    assert np.isfinite(found).all()


def test_purest_shapes_of_pixels_that_differ_in_brightness() -> None:
    """Without noise shapes are exact, and so are scales of ten to one where many pixels are pure."""
    truth = mixtures(3)[0] * np.array([[1.0], [3.0], [0.3]])
    rng = np.random.default_rng(0)
    shares = np.concatenate([rng.dirichlet(np.ones(3), 200), np.repeat(np.eye(3), 100, axis=0)])
    brightness = rng.gamma(10.0, 0.1, len(shares))
    brightness[200:] /= brightness[200:].reshape(3, 100).mean(1).repeat(100)
    found = purest_shapes((brightness[:, None] * shares) @ truth, 3, least=1e-9)
    order = linear_sum_assignment(-np.corrcoef(truth, found)[:3, 3:])[1]
    shape = found[order] / found[order].sum(1, keepdims=True)
    np.testing.assert_allclose(shape, truth / truth.sum(1, keepdims=True), atol=1e-8)
    np.testing.assert_allclose(found[order].sum(1), truth.sum(1), rtol=0.3)
