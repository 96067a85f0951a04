"""Spectra that are zero within noise in many channels."""

from __future__ import annotations

import numpy as np

_SHARE = 0.25  # of the values; half-normal spectra of the prior have a few per cent
_CLEAR = 5.0  # standard deviations
_ZERO = 2.0  # standard deviations: a normal law about zero cut off there has its mean at 1.3, an exponential one at 1


def said_of_each(
    value: np.ndarray, slope: np.ndarray, precision: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the data say of every entry (endmember, channel) by itself: centre and standard deviation of a normal law.

    ``slope`` is that of the log likelihood at ``value``, ``precision`` (channel, endmember, endmember) minus its second
    derivatives. Of the same channel, entries that are clear follow, and dark ones stay where they are. The deviation is
    infinite where the data say nothing, and for endmembers that are not ``free``.
    """
    own = np.diagonal(precision, axis1=1, axis2=2).T
    clear = value**2 * np.maximum(own, 0.0) > _CLEAR**2
    centre, error = np.array(value, np.float64), np.full(value.shape, np.inf)
    for channel in range(value.shape[1]):
        for k in np.flatnonzero(free):
            others = np.flatnonzero(clear[:, channel] & (np.arange(len(value)) != k))
            coupling = precision[channel, k, others]
            lever = np.linalg.lstsq(precision[channel][np.ix_(others, others)], coupling, rcond=None)[0]
            left = precision[channel, k, k] - lever @ coupling
            if left > 0:
                centre[k, channel] += (slope[k, channel] - lever @ slope[others, channel]) / left
                error[k, channel] = left**-0.5
    return centre, error


def dark_remarks(draws: np.ndarray) -> list[str]:
    """A remark where many values of spectra ``draws`` (chain, draw, endmember, channel) may be zero.

    A prior without any mass at zero takes all of them for small, and what mixes spectra in such channels moves the
    others: 90 % intervals of peaks on nothing held about half (``benchmarks/dark_channels.py``).
    """
    mean, sd = draws.mean((0, 1)), draws.std((0, 1))
    lit = (mean > _CLEAR * sd).any(0)  # where all are dark, nothing moves another spectrum
    share = float(np.mean((mean < _ZERO * sd)[:, lit])) if lit.any() else 0.0
    if share < _SHARE:
        return []
    return [
        f"{share:.0%} of the endmember values are zero within noise in channels where others are not, and if they are "
        'exactly zero, intervals of those others hold less than they say: LinearUnmixing(..., sparsity="learned") '
        "expects such spectra (docs/linear-unmixing.md)"
    ]
