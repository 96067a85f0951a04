"""A normal variable of which another one, correlated with it, is known to lie above a bound.

It follows the extended skew-normal distribution (Arnold and Beaver, "The skew-Cauchy distribution", Stat. Probab. Lett.
49, 285 (2000), eq. 1.4; Azzalini, "A class of distributions which includes the normal ones", Scand. J. Stat. 12, 171
(1985), for a bound at the mean).
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import log_ndtr, ndtri_exp

_LOWEST, _HIGHEST = -6.0, 30.0  # bounds: below nothing is cut off, above the shape does not change any more
_BOUNDS = 24  # from which all others are interpolated
_PLACES, _REACH = 128, (-6.5, 9.0)  # at which the density is summed, and how far in standard deviations
_STRICT = 0.9999  # correlation of variables that are the same


def standard_quantiles(shares: np.ndarray, low: np.ndarray, correlation: float) -> np.ndarray:
    """Quantiles (share, n), in standard deviations from the mean, of x given that t > ``low`` (n,).

    x and t are standard normal with this ``correlation``. To 1e-3 standard deviations; to 1e-2 beyond correlations of
    .99, but for 1, where they are exact.
    """
    low = np.clip(low, _LOWEST, _HIGHEST)
    if abs(correlation) > _STRICT:
        return _of_cut_off(shares, low) if correlation > 0 else -_of_cut_off(1.0 - shares, low)
    # Even steps of this are small where the shape changes fast.
    place = 1.0 / (low - _LOWEST + 1.0)
    nodes = np.linspace(place.min() - 1e-3, place.max() + 1e-3, _BOUNDS)
    found = _summed(shares, 1.0 / nodes - 1.0 + _LOWEST, correlation)
    return CubicSpline(nodes, found, axis=1)(place)


def _summed(shares: np.ndarray, low: np.ndarray, correlation: float) -> np.ndarray:
    """The same by sums over the density, for few bounds."""
    above = log_ndtr(-low)
    mean, sd = _moments(low, correlation)
    score = np.linspace(*_REACH if correlation > 0 else (-_REACH[1], -_REACH[0]), _PLACES)
    x = mean[:, None] + sd[:, None] * score
    apart = np.sqrt(1.0 - correlation**2)
    density = np.exp(-0.5 * x**2 + log_ndtr((correlation * x - low[:, None]) / apart) - above[:, None])
    below = np.zeros_like(density)
    np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1, out=below[:, 1:])
    below -= np.gradient(density, axis=1) / 12.0  # Euler and Maclaurin's correction of trapezia
    density, below = density / below[:, -1:], below / below[:, -1:]
    return np.stack([score[0] + (score[1] - score[0]) * _reached(below, density, share) for share in shares])


def _of_cut_off(shares: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The same of t itself."""
    mean, sd = _moments(low, 1.0)
    return (-ndtri_exp(log_ndtr(-low) + np.log1p(-shares[:, None])) - mean) / sd


def _moments(low: np.ndarray, correlation: float) -> tuple[np.ndarray, np.ndarray]:
    hazard = np.exp(-0.5 * low**2 - log_ndtr(-low)) / np.sqrt(2.0 * np.pi)
    return correlation * hazard, np.sqrt(1.0 - correlation**2 * hazard * (hazard - low))


def _reached(below: np.ndarray, density: np.ndarray, share: float) -> np.ndarray:
    """After how many steps rows of sums reach ``share``, densities lines between their entries."""
    rows, after = np.arange(len(below)), (below < share).sum(1)
    start, end = density[rows, after - 1], density[rows, after]
    missing = share - below[rows, after - 1]
    # Of start u + (end - start) u^2 / 2 = missing.
    root = np.sqrt(np.maximum(start**2 + 2.0 * (end - start) * missing, 0.0))
    return after - 1 + 2.0 * missing / (start + root)
