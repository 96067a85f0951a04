"""Draws of counts against the Poisson distribution they come from."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

from bayesunmix.distributions.counting import Counts


@pytest.mark.parametrize("rate", [0.02, 1.5, 40.0, 300.0])
def test_draws_follow_the_distribution(rate: float) -> None:
    """Chi-square of 20000 draws over counts of which at least 5 are expected; false alarm 1 in 1000 each."""
    draws = np.asarray(Counts(np.full((200, 100), rate)).sample(jax.random.key(3))).ravel()
    law = stats.poisson(rate)
    low, high = int(law.ppf(5 / draws.size)), int(law.isf(5 / draws.size))
    edges = np.arange(low, high + 1)
    seen = [np.sum(draws <= low), *(np.sum(draws == k) for k in edges[1:-1]), np.sum(draws >= max(high, low + 1))]
    expected = [law.cdf(low), *law.pmf(edges[1:-1]), law.sf(max(high, low + 1) - 1)]
    assert np.sum(seen) == draws.size
    chi2 = np.sum((np.array(seen) - draws.size * np.array(expected)) ** 2 / (draws.size * np.array(expected)))
    assert stats.chi2(len(seen) - 1).sf(chi2) > 1e-3


def test_dark_and_bright_channels_in_one_array_and_every_shape() -> None:
    rate = np.geomspace(1e-3, 1e3, 70)
    draws = np.asarray(Counts(rate).sample(jax.random.key(0), (4000,)))
    assert draws.shape == (4000, 70)
    # 70 means, each within 4.5 standard errors.
    assert np.all(np.abs(draws.mean(0) - rate) < 4.5 * np.sqrt(rate / 4000) + 1e-3)
    assert np.all(draws == np.round(draws)) and draws.min() == 0
    assert np.asarray(Counts(3.0).sample(jax.random.key(1))).shape == ()
    assert np.asarray(Counts(np.ones((2, 3))).sample(jax.random.key(1), (5,))).shape == (5, 2, 3)
