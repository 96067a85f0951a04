"""A normal variable of which another one, correlated with it, is known to lie above a bound.

It follows the extended skew-normal distribution (Arnold and Beaver, "The skew-Cauchy distribution", Stat. Probab. Lett.
49, 285 (2000), eq. 1.4; Azzalini, "A class of distributions which includes the normal ones", Scand. J. Stat. 12, 171
(1985), for a bound at the mean).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import log_ndtr, ndtri_exp

_LOWEST, _HIGHEST = -6.0, 30.0  # bounds: below nothing is cut off, above the shape does not change any more
_BOUNDS = 24  # from which all others are interpolated
_PLACES, _REACH = 128, (-6.5, 9.0)  # at which the density is summed, and how far in standard deviations
_STRICT = 0.9999  # correlation of variables that are the same


def standard_quantiles(shares: np.ndarray, low: np.ndarray, correlations: np.ndarray) -> np.ndarray:
    """Quantiles (share, n, correlation), in standard deviations from the mean, of x given that t > ``low`` (n,).

    x and t are standard normal with one of the ``correlations``. To 1e-3 standard deviations; to 1e-2 beyond
    correlations of .99, but for 1, where they are exact.
    """
    low = np.clip(low, _LOWEST, _HIGHEST)
    found = np.empty((len(shares), len(low), len(correlations)))
    same = np.abs(correlations) > _STRICT
    for k in np.flatnonzero(same):
        found[..., k] = _of_cut_off(shares, low) if correlations[k] > 0 else -_of_cut_off(1.0 - shares, low)
    if not same.all():
        # Even steps of this are small where the shape changes fast.
        place = 1.0 / (low - _LOWEST + 1.0)
        nodes = np.linspace(place.min() - 1e-3, place.max() + 1e-3, _BOUNDS)
        at_nodes = _summed(shares, 1.0 / nodes - 1.0 + _LOWEST, correlations[~same])
        found[..., ~same] = np.moveaxis(CubicSpline(nodes, at_nodes, axis=-1)(place), 1, -1)
    return found


def _summed(shares: np.ndarray, low: np.ndarray, correlations: np.ndarray) -> np.ndarray:
    """The same (share, correlation, bound) by sums over the density, for few bounds."""
    own = correlations[:, None]
    mean, sd = _moments(low, own)
    start, end = np.where(own[None] > 0, np.array(_REACH)[:, None, None], -np.array(_REACH[::-1])[:, None, None])
    score = np.linspace(start, end, _PLACES, axis=-1)
    x = mean[..., None] + sd[..., None] * score
    own, bound, apart = own[..., None], low[:, None], np.sqrt(1.0 - own[..., None] ** 2)
    density = np.exp(-0.5 * x**2 + log_ndtr((own * x - bound) / apart) - log_ndtr(-bound)).reshape(-1, _PLACES)
    below = np.zeros_like(density)
    np.cumsum(0.5 * (density[:, 1:] + density[:, :-1]), axis=1, out=below[:, 1:])
    below -= np.gradient(density, axis=1) / 12.0  # Euler and Maclaurin's correction of trapezia
    density, below = density / below[:, -1:], below / below[:, -1:]
    reached = np.stack([_reached(below, density, share).reshape(mean.shape) for share in shares])
    return score[..., 0] + (score[..., 1] - score[..., 0]) * reached


def _of_cut_off(shares: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The same of t itself."""
    mean, sd = _moments(low, 1.0)
    return (-ndtri_exp(log_ndtr(-low) + np.log1p(-shares[:, None])) - mean) / sd


def _moments(low: np.ndarray, correlation: Any) -> tuple[np.ndarray, np.ndarray]:
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
