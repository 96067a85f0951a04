"""Entries that were not measured, guessed from those that were: for priors and starting points, never for a fit."""

from __future__ import annotations

import numpy as np

from bayesunmix.data.purest import principal_plane

_SWEEPS = 30
_SETTLED = 1e-3  # change of the guesses, in units of their own spread


def filled(values: np.ndarray, rank: int) -> np.ndarray:
    """The image (unit, channel) with what its ``rank`` principal components say in place of NaN.

    A copy only where there are gaps. Every channel needs an entry.

    References
    ----------
    Kiers, "Weighted least squares fitting using ordinary least squares algorithms", Psychometrika 62, 251 (1997).
    """
    gap = np.isnan(values)
    if not gap.any():
        return values
    found = np.where(gap, np.nanmean(values, axis=0), values)
    spread = found.std() or 1.0
    for _ in range(_SWEEPS):
        centre, axes, _ = principal_plane(found, rank)
        guess = (centre + (found - centre) @ axes.T @ axes)[gap]
        moved = np.abs(guess - found[gap]).max()
        found[gap] = guess
        if moved < _SETTLED * spread:
            break
    return found
