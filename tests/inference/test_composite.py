"""Draws of a composite posterior, moved to the spread of dependent units."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunmix.data.sharing import sharing
from bayesunmix.inference.composite import LEAST, spread

UNITS = 4000
ROW = np.stack([np.arange(UNITS), np.arange(1, UNITS + 1)], axis=1)


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 2.0), (-1.0, LEAST)])
def test_a_mean_of_overlapping_pairs(sign, expected) -> None:
    """Units are sums or differences of neighbours in a row of standard normal numbers, of variance 2 each.

    The mean of sums has twice the variance that independent units would give it. Differences telescope to next to none,
    which is more than can be trusted.
    """
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=UNITS + 1)
    y = numbers[:-1] + sign * numbers[1:]
    posterior = y.mean() + np.sqrt(2.0 / UNITS) * rng.normal(size=(500, 1))
    slope = (y - posterior.mean())[:, None] / 2.0
    moved = spread(posterior, slope, sharing(ROW))
    np.testing.assert_allclose(moved.mean(0), posterior.mean(0))
    # The covariance of neighbours, 1 of variance 2, is known to sqrt(1.5 / UNITS), and so is the ratio: 4 of them.
    np.testing.assert_allclose(moved.var() / posterior.var(), expected, atol=4 * np.sqrt(1.5 / UNITS))


def test_units_that_share_nothing_leave_draws_where_they_were() -> None:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(40, 3)) @ rng.normal(size=(3, 3))
    alone = sharing(np.arange(20)[:, None])
    np.testing.assert_allclose(spread(draws, rng.normal(size=(20, 3)), alone), draws, atol=1e-12)


def test_the_covariance_is_the_sandwich_even_of_few_draws() -> None:
    """Also where there are fewer draws than globals, in the space that they span."""
    rng = np.random.default_rng(2)
    for n_draws in (50, 4):
        draws, slope = rng.normal(size=(n_draws, 6)), 0.02 * rng.normal(size=(200, 6))
        shared = sharing(rng.integers(0, 300, (200, 3)))
        own = np.cov(draws.T)
        expected = own + own @ slope.T @ (shared @ slope) @ own
        np.testing.assert_allclose(np.cov(spread(draws, slope, shared).T), expected, atol=1e-10)
