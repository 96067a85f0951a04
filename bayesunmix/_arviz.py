"""All that ArviZ does for us, 0.23 on Python 3.11 and 1.x on Python 3.12 and later."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

SHAPE_LIMIT = 0.7  # of the Pareto tail of weights: beyond, what they weigh is not to be trusted


def is_new() -> bool:
    """Whether this is ArviZ 1, whose parts are packages of their own."""
    import arviz

    return int(arviz.__version__.split(".")[0]) >= 1


def psis(log_weight: np.ndarray, efficiency: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Importance weights whose largest are smoothed by a generalised Pareto distribution.

    Parameters
    ----------
    log_weight : (unit, draw)
        As they come, up to a constant of each unit.
    efficiency : float
        Effective draws over draws.

    Returns
    -------
    Smoothed log weights (unit, draw), which sum to one, and the shape k of every unit's tail (unit,); infinite where
    there are too few draws to tell, 0 where all weights are equal.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", J. Mach. Learn. Res. 25(72), 1 (2024).
    """
    weights, shape = np.zeros_like(log_weight), np.zeros(len(log_weight))
    # Rounding alone makes no tail.
    apart = np.ptp(log_weight, axis=1) > 1e-10
    if apart.any() and is_new():
        from arviz_stats.base import array_stats

        # Its argument is the log density of what is left out, whose inverse is the weight.
        weights[apart], shape[apart] = array_stats.psislw(-log_weight[apart], r_eff=efficiency, axis=-1)
    elif apart.any():
        import arviz

        weights[apart], shape[apart] = arviz.psislw(log_weight[apart], efficiency)
    top = weights.max(1, keepdims=True)
    return weights - top - np.log(np.exp(weights - top).sum(1, keepdims=True)), shape


def relative_efficiency(posterior: xr.Dataset) -> float:
    """Effective draws over draws, on average over the parameters; 1 for a single chain of independent draws."""
    if posterior.sizes["chain"] == 1:
        return 1.0
    import arviz

    found = arviz.ess(posterior, method="mean")
    every = np.concatenate([np.ravel(values) for values in found.data_vars.values()])
    return float(every.mean()) / (posterior.sizes["chain"] * posterior.sizes["draw"])


def as_groups(groups: dict[str, xr.Dataset]) -> Any:
    """Datasets by name as an ``InferenceData`` of ArviZ 0.23, or the tree that 1.x takes."""
    if is_new():
        return xr.DataTree.from_dict(groups)
    import arviz

    return arviz.InferenceData(**groups)  # type: ignore[arg-type]
