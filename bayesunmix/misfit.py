"""Tests of residuals that are independent and standard under a right model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesunmix.spatial import neighbour_pairs


class Neighbours(NamedTuple):
    """Whether residual spectra of adjacent pixels are alike."""

    moran: float  # correlation of adjacent residual spectra
    p: float  # probability of a larger one, over the whole image
    p_value: np.ndarray  # the same for every unit and its own neighbours, (unit,); NaN without neighbours


def fisher(p_values: np.ndarray) -> float:
    """One p-value from independent ones: Fisher's sum of logarithms, which weighs small values."""
    from scipy.stats import chi2

    return float(chi2.sf(-2.0 * np.log(p_values).sum(), 2 * p_values.size))


def neighbours(residual: np.ndarray, kept: np.ndarray) -> Neighbours:
    """Moran's I of residual spectra (unit, channel), centred by channel; ``kept`` is boolean over the pixel grid.

    Its distribution is normal with the moments over all ways of dealing the spectra to the pixels: correlation between
    channels or a misfit that all pixels share does not look like structure in the image.
    """
    from scipy.sparse import coo_array
    from scipy.stats import norm

    pairs = neighbour_pairs(kept)
    n_units = len(residual)
    if not len(pairs):
        return Neighbours(0.0, 1.0, np.full(n_units, np.nan))
    away = residual - residual.mean(0)
    square = (away**2).sum(1, dtype=np.float64)
    ones = np.ones(len(pairs), away.dtype)
    touch = coo_array((ones, (pairs[:, 0], pairs[:, 1])), (n_units, n_units)).tocsr()
    touch = touch + touch.T
    degree = np.asarray(touch.sum(1)).ravel()
    local = (away * (touch @ away)).sum(1, dtype=np.float64)
    # Over all pairs of different units: the mean of their products is minus the mean square over n - 1.
    spread = np.maximum(((away @ (away.T @ away)) * away).sum(1, dtype=np.float64) - square**2, 0.0) / (n_units - 1)
    expected = -square / (n_units - 1)
    z = (local.sum() / 2.0 - len(pairs) * expected.mean()) / np.sqrt(
        len(pairs) * max(spread.mean(), np.finfo(float).tiny)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.where(degree > 0, (local - degree * expected) / np.sqrt(degree * spread), np.nan)
    return Neighbours(float(local.sum() / (2 * len(pairs)) / square.mean()), float(norm.sf(z)), norm.sf(own))


def scatter(total: np.ndarray, expected: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Two-sided p-values of sums of squares against a scaled chi-square of the same mean and variance."""
    from scipy.stats import chi2

    variance = np.maximum(variance, 1e-6 * expected)
    degrees = 2.0 * expected**2 / variance
    below = chi2.cdf(total * degrees / expected, degrees)
    above = chi2.sf(total * degrees / expected, degrees)
    return np.minimum(1.0, 2.0 * np.minimum(below, above))


def too_many_above(found: np.ndarray, highest: np.ndarray, replicates: int) -> float:
    """Probability of so many units above thresholds that one unit, and a tenth of one, exceeds on average.

    Parameters
    ----------
    found : (unit,)
    highest : (replicates,)
        The highest values of all units in all replicates.
    replicates : int

    The number above a threshold is Poisson; of the two probabilities the smaller counts, doubled.
    """
    from scipy.stats import poisson

    ordered = np.sort(highest)[::-1]
    least = 1.0
    for rank in {replicates, max(1, replicates // 10)}:
        above = np.sum(found > ordered[rank - 1])
        least = min(least, 2.0 * float(poisson.sf(above - 1, rank / replicates)))
    return least
