"""Tests of residuals that are independent and standard under a right model.

Of noise that is normal the laws of three sums over the channels of a unit are known, and nothing needs to be simulated:
``chi_square_above``, ``largest_above`` and ``alike_above`` give the probability of more than what was ``found`` (unit,)
in so many channels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesunmix.spatial import neighbour_pairs


class Neighbours(NamedTuple):
    """Whether residual spectra of adjacent pixels are alike."""

    moran: float  # correlation of adjacent residual spectra
    p: float  # probability of a larger one, over the whole image
    p_value: np.ndarray  # the same for every unit and its own neighbours, (unit,); NaN without neighbours


def chi_square_above(found: np.ndarray, channels: int) -> np.ndarray:
    """Of a larger sum of squared residuals."""
    from scipy.stats import chi2

    return chi2.sf(found, channels)


def largest_above(found: np.ndarray, channels: int) -> np.ndarray:
    """Of a larger residual in any channel, whatever its sign."""
    from scipy.stats import norm

    with np.errstate(divide="ignore"):  # found may be zero
        return -np.expm1(channels * np.log1p(-2.0 * norm.sf(found)))


def alike_above(found: np.ndarray, channels: int) -> np.ndarray:
    """Of a larger correlation of adjacent residuals, ``sum z_i z_(i+1) / sum z_i^2``.

    A ratio of quadratic forms whose matrix has 1/2 for every two channels side by side. It is symmetric, and a beta
    distribution with its variance and kurtosis has its probabilities to 1e-4 in 8 channels and 4e-6 in 12 (by Imhof's
    integral, Biometrika 48, 419 (1961)).
    """
    from scipy.stats import beta

    n = float(channels)
    second, fourth = (n - 1.0) / 2.0, (3.0 * n - 5.0) / 8.0  # traces of the matrix's square and fourth power
    variance = 2.0 * second / (n * (n + 2.0))
    kurtosis = (12.0 * second**2 + 48.0 * fourth) / (n * (n + 2.0) * (n + 4.0) * (n + 6.0)) / variance**2
    shape = 1.5 * (kurtosis - 1.0) / (3.0 - kurtosis)
    reach = np.sqrt(variance * (2.0 * shape + 1.0))
    return beta.sf(0.5 + 0.5 * found / reach, shape, shape)


def fisher(p_values: np.ndarray, least: float = 0.0) -> float:
    """One p-value from independent ones: Fisher's sum of logarithms, which weighs small values.

    None counts for less than ``least``, so that a few pixels do not stand for all. The sum of logarithms that are cut
    off follows a scaled chi-square closely: mean and variance are taken from their exact law.
    """
    from scipy.stats import chi2

    sum_of_logs = -2.0 * np.log(np.maximum(p_values, least)).sum()
    cut = least * (1.0 - np.log(least)) if least else 0.0
    mean, square = 2.0 * (1.0 - least), 8.0 * (1.0 - cut)
    degrees = 2.0 * mean**2 / (square - mean**2)  # of one; without a least value 2
    return float(chi2.sf(sum_of_logs * degrees / mean, degrees * p_values.size))


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
    """
    ordered = np.sort(highest)[::-1]
    ranks = {replicates, max(1, replicates // 10)}
    return _too_many({rank / replicates: int(np.sum(found > ordered[rank - 1])) for rank in ranks})


def too_many_below(p_values: np.ndarray) -> float:
    """The same from exact p-values: of so many below one over their number, and a tenth of it."""
    return _too_many({expected: int(np.sum(p_values < expected / len(p_values))) for expected in (1.0, 0.1)})


def _too_many(seen: dict[float, int]) -> float:
    """From how many were seen where so many were expected: that is Poisson; the smallest p counts, doubled."""
    from scipy.stats import poisson

    return min(1.0, 2.0 * min(float(poisson.sf(count - 1, expected)) for expected, count in seen.items()))
