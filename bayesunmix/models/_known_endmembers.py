"""What known endmembers must be, alone and beside the data."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize import nnls

_MISFIT = 0.5  # of the length of the mean spectrum
_SAME = 1e-6


def checked(endmembers: Any, n_endmembers: int, support: str) -> np.ndarray:
    """Known endmembers as float64 (endmember, channel).

    Raises
    ------
    TypeError
        When they are not real numbers.
    ValueError
        For another shape, what is not finite, and negative values under "nonnegative" support.
    """
    try:
        known = np.asarray(endmembers)
    except ValueError as error:
        raise ValueError(
            f"endmembers: expected one array (endmember, channel), got rows that differ: {error}"
        ) from error
    if known.dtype.kind not in "iuf":
        raise TypeError(f"endmembers: expected real numbers, got type {known.dtype}")
    known = known.astype(np.float64)
    if known.ndim != 2 or len(known) != n_endmembers or not np.isfinite(known).all():
        raise ValueError(f"endmembers: expected finite numbers of shape ({n_endmembers}, channel), got {known.shape}")
    if not known.any():
        raise ValueError("endmembers: every one of them is zero in every channel")
    if support == "nonnegative" and known.min() < 0:
        raise ValueError(
            f"endmembers: expected no negative values, got {known.min():.3g}; allow them with "
            'endmember_support="real", or clip them with np.maximum(endmembers, 0)'
        )
    return known


def warn_of_twins(known: np.ndarray) -> None:
    """Warn where mixtures of some endmembers equal mixtures of others, so that no data tell them apart."""
    near = _SAME * np.linalg.norm(known, axis=1).max()
    edges = known[1:] - known[0]
    if len(edges) == 0 or np.linalg.matrix_rank(edges, tol=near) == len(edges):
        return
    which = "some of the endmembers are mixtures of others"
    twins = np.argwhere(np.tril(np.linalg.norm(known[:, None] - known, axis=-1) <= near, -1))
    if len(twins):
        which = f"endmembers {twins[0][1]} and {twins[0][0]} are the same spectrum"
    warnings.warn(
        f"{which}: the data cannot tell their abundances apart, only the prior does; leave one out",
        UserWarning,
        stacklevel=2,
    )


def compare_with_data(known: np.ndarray, values: np.ndarray, *, any_scale: bool) -> None:
    """Compare the mean spectrum of ``values`` (unit, channel) with the mixtures of known endmembers.

    Raises
    ------
    ValueError
        When another unit of the endmembers would explain it and this one does not.

    Warns
    -----
    UserWarning
        When no unit would.
    """
    mean = values.mean(0)
    size = np.linalg.norm(mean)
    if size**2 < 10 * values.var(0).sum() / len(values):  # nothing but noise
        return
    unit = np.linalg.norm(known, axis=1).max()
    weights, scaled_misfit = nnls(known.T / unit, mean)
    misfit = scaled_misfit if any_scale else _simplex_misfit(known, mean)
    if misfit < _MISFIT * size:
        return
    factor = weights.sum() / unit
    if not any_scale and scaled_misfit < _MISFIT * misfit and factor > 0:
        raise ValueError(
            f"endmembers: their best mixture misses the mean spectrum of the data by {misfit / size:.3g} times its "
            f"length, and by {scaled_misfit / size:.2g} when all of them are multiplied by {factor:.3g}: give both in "
            "the same units, or let the brightness of pixels vary with brightness=True"
        )
    warnings.warn(
        f"the best mixture of the known endmembers misses the mean spectrum of the data by {misfit / size:.0%} of its "
        "length: check their channel axis and units, and look at bu.check(fit)",
        UserWarning,
        stacklevel=2,
    )


def _simplex_misfit(known: np.ndarray, mean: np.ndarray) -> float:
    """Distance of a spectrum from the mixtures with weights that sum to one."""
    unit = max(np.linalg.norm(known, axis=1).max(), np.linalg.norm(mean))
    # A heavy row holds the sum at one.
    heavy = 1e4
    design = np.vstack([known.T / unit, np.full(len(known), heavy)])
    weights, _ = nnls(design, np.append(mean / unit, heavy))
    return float(np.linalg.norm(weights / weights.sum() @ known - mean))
