"""Tests of residuals against exact distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from bayesunmix.misfit import (
    alike_above,
    chi_square_above,
    fisher,
    largest_above,
    neighbours,
    scatter,
    too_many_above,
    too_many_below,
)

LEVEL = 1e-3
EVERY = np.ones((16, 16), bool)


def images(seed: int, count: int):
    """Residuals whose channels are correlated, as independent normal noise never is; pixels are independent."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(0.5 + 0.5 * np.eye(12))
    return [rng.normal(size=(256, 12)) @ root.T + np.linspace(-1, 1, 12) for _ in range(count)]


def test_neighbours_that_are_not_alike() -> None:
    found = [neighbours(one, EVERY) for one in images(0, 400)]
    assert kstest([one.p for one in found], "uniform").pvalue > LEVEL
    # Standard error over 400 images of 480 pairs; correlated channels leave about three independent numbers a pixel.
    assert abs(np.mean([one.moran for one in found])) < 4 / np.sqrt(400 * 480)


def test_every_pixel_against_its_own_neighbours() -> None:
    rng = np.random.default_rng(1)
    found = [neighbours(rng.normal(size=(256, 64)), EVERY).p_value.reshape(16, 16) for _ in range(20)]
    # Given the other pixels of a chessboard those of one colour are independent.
    p = np.stack(found)[:, ::2, ::2].ravel()
    assert kstest(p, "uniform").pvalue > LEVEL


def test_neighbours_that_are_alike() -> None:
    (one,) = images(2, 1)
    one = one.reshape(16, 16, 12)
    one[:5, :5] += 2 * np.sin(np.arange(12))
    found = neighbours(one.reshape(256, 12), EVERY)
    assert found.p < 1e-6
    inside = found.p_value.reshape(16, 16)[:5, :5]
    assert np.median(inside) < 0.05


def test_masked_pixels_have_no_neighbours() -> None:
    kept = np.zeros((4, 4), bool)
    kept[0, 0] = kept[2, 2] = kept[2, 3] = True
    found = neighbours(np.random.default_rng(3).normal(size=(3, 8)), kept)
    np.testing.assert_array_equal(np.isnan(found.p_value), [True, False, False])
    lonely = neighbours(np.ones((2, 8)), np.eye(2, dtype=bool))
    assert lonely.p == 1.0
    assert np.isnan(lonely.p_value).all()


def test_sums_of_squares_of_normal_numbers() -> None:
    total = np.array([5.0, 20.0, 60.0])
    expected = np.full(3, 20.0)
    p = scatter(total, expected, 2 * expected)
    np.testing.assert_allclose(p, 2 * np.minimum(chi2.cdf(total, 20), chi2.sf(total, 20)))


def test_fisher_is_uniform_and_sees_a_few() -> None:
    rng = np.random.default_rng(4)
    assert kstest([fisher(rng.uniform(size=50)) for _ in range(1000)], "uniform").pvalue > LEVEL
    few = rng.uniform(size=1000)
    few[:60] *= 0.01
    assert fisher(few) < LEVEL
    assert fisher(np.ones(10)) == pytest.approx(1.0)


def test_a_few_values_that_stand_out() -> None:
    rng = np.random.default_rng(5)
    found = [rng.normal(size=500) for _ in range(400)]
    again = [np.sort(rng.normal(size=500 * 99))[-99:] for _ in range(400)]
    p = np.array([too_many_above(one, other, 99) for one, other in zip(found, again, strict=True)])
    for level in (0.05, 0.2):
        # Counts are discrete: false alarms at the nominal rate at most.
        assert np.mean(p < level) < level + 3 * np.sqrt(level * (1 - level) / 400)
    found[0][:8] = 6.0
    assert too_many_above(found[0], again[0], 99) < 1e-4


def alike(z: np.ndarray) -> np.ndarray:
    return (z[:, 1:] * z[:, :-1]).sum(1) / (z**2).sum(1)


@pytest.mark.parametrize("n_channels", [8, 40])
def test_white_residuals_follow_their_laws(n_channels: int) -> None:
    """20000 units: four tests at .001 each."""
    z = np.random.default_rng(5).normal(size=(20000, n_channels))
    assert kstest(chi_square_above((z**2).sum(1), n_channels), "uniform").pvalue > LEVEL
    p_largest = largest_above(np.abs(z).max(1), n_channels)
    assert kstest(p_largest, "uniform").pvalue > LEVEL
    assert kstest(alike_above(alike(z), n_channels), "uniform").pvalue > LEVEL
    assert too_many_below(p_largest) > LEVEL
    z[:40, 3] = 6.0
    assert too_many_below(largest_above(np.abs(z).max(1), n_channels)) < LEVEL


def imhof(found: float, eigenvalues: np.ndarray) -> float:
    """Probability of a larger ratio of quadratic forms of normal numbers (Imhof, Biometrika 48, 419 (1961))."""
    t = np.arange(-60.0, 60.0, 0.05)
    a = (eigenvalues - found)[:, None] * np.exp(t)
    angle, log_size = 0.5 * np.arctan(a).sum(0), 0.25 * np.log1p(a**2).sum(0)
    return 0.5 + float((np.sin(angle) * np.exp(-log_size)).sum() * 0.05 / np.pi)


@pytest.mark.parametrize(("n_channels", "tolerance"), [(8, 1.2e-4), (12, 5e-6), (64, 1e-8)])
def test_correlation_of_adjacent_channels_has_its_exact_probability(n_channels: int, tolerance: float) -> None:
    eigenvalues = np.cos(np.pi * np.arange(1, n_channels + 1) / (n_channels + 1))
    found = np.linspace(-0.9, 0.9, 13)
    exact = [imhof(one, eigenvalues) for one in found]
    np.testing.assert_allclose(alike_above(found, n_channels), exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("least", [0.0, 0.01, 0.5])
def test_a_sum_of_logarithms_that_are_cut_off(least: float) -> None:
    """Uniform over 2000 images of 30 pixels; without a cut it is the exact chi-square."""
    p = np.random.default_rng(6).uniform(size=(2000, 30))
    assert kstest([fisher(one, least) for one in p], "uniform").pvalue > LEVEL
    assert fisher(p[0]) == pytest.approx(chi2.sf(-2 * np.log(p[0]).sum(), 60))


def test_one_pixel_does_not_stand_for_all() -> None:
    p = np.random.default_rng(7).uniform(size=1000)
    p[0] = 1e-300
    assert fisher(p) < LEVEL < fisher(p, 0.01)
