"""Quantiles of a normal variable of which another one is known to lie above a bound."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, truncnorm

from bayesunmix.distributions.skewed import standard_quantiles

LOW = np.array([-5.0, -3.0, -1.4, -0.3, 0.0, 0.8, 2.0, 3.5])
SHARES = np.array([0.01, 0.05, 0.5, 0.95, 0.99])


def moments(low: np.ndarray, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd, from those of a truncated normal variable and of what it leaves."""
    cut = truncnorm(low, np.inf)
    return correlation * cut.mean(), np.sqrt(1.0 - correlation**2 * (1.0 - cut.var()))


@pytest.mark.parametrize("correlation", [0.0, 0.3, -0.6, 0.9, -0.97])
def test_so_much_lies_below(correlation: float) -> None:
    """Against the bivariate normal distribution function."""
    both = multivariate_normal(cov=[[1.0, correlation], [correlation, 1.0]])
    mean, sd = moments(LOW, correlation)
    found = mean + sd * standard_quantiles(SHARES, LOW, np.array([0.5, correlation]))[..., 1]
    for share, row in zip(SHARES, found, strict=True):
        below = (norm.cdf(row) - both.cdf(np.stack([row, LOW], axis=-1))) / norm.sf(LOW)
        # A thousandth of a standard deviation, of densities up to .7 / sd, and the error of the reference.
        np.testing.assert_allclose(below, share, atol=1e-3, rtol=0)


@pytest.mark.parametrize("correlation", [1.0, -1.0])
def test_the_variable_itself(correlation: float) -> None:
    mean, sd = moments(LOW, correlation)
    found = mean + sd * standard_quantiles(SHARES, LOW, np.array([0.5, correlation]))[..., 1]
    shares = SHARES[:, None] if correlation > 0 else 1.0 - SHARES[:, None]
    np.testing.assert_allclose(found, correlation * truncnorm.ppf(shares, LOW, np.inf), atol=1e-9)


def test_far_beyond_the_bound_it_follows_an_exponential_law() -> None:
    """Its own standard deviation is then a twentieth, and a thousandth, of that without a bound."""
    found = standard_quantiles(SHARES, np.array([20.0, 1e3]), np.ones(1))[..., 0]
    expected = np.broadcast_to(-np.log1p(-SHARES)[:, None] - 1.0, found.shape)
    np.testing.assert_allclose(found, expected, atol=2 * 5 / 20**2)  # to first order in (low excess)^2 / low^2
