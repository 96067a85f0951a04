"""Tests of residuals against exact distributions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

from bayesunmix.misfit import fisher, neighbours, scatter, too_many_above

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
