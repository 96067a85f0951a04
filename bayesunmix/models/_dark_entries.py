"""Spectra that are zero within noise in many channels."""

from __future__ import annotations

import numpy as np

_SHARE = 0.25  # of the values; half-normal spectra of the prior have a few per cent
_CLEAR = 5.0  # standard deviations
_ZERO = 2.0  # standard deviations: a normal law about zero cut off there has its mean at 1.3, an exponential one at 1


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
