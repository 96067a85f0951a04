"""The only importer of ArviZ: 0.23 on Python 3.11, 1.x on Python 3.12 and later."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.fit import Fit
from bayesunmix.predict import log_likelihood as log_likelihood_of

_NAME = "data"  # of the observed site: its own name, "y", is taken by an axis of most images
# What the diagnostics of NUTS are called there.
_STATISTICS = {"tree_steps": "n_steps", "accept": "acceptance_rate", "diverging": "diverging"}


def to_arviz(fit: Fit, log_likelihood: bool = False) -> Any:
    """A fit as ArviZ knows it.

    Parameters
    ----------
    fit : Fit
    log_likelihood : bool
        Add the pointwise log-likelihood, the pixel's own latent integrated out.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.23) or xarray.DataTree (1.x)
        Groups ``posterior``, ``observed_data`` ("data"), ``sample_stats`` of NUTS, ``constant_data``
        (covariates) where there are any, and ``log_likelihood`` ("data") when asked. Where pixels were masked,
        the kept ones stand along one dim, "pixel", so that nothing is NaN.
    """
    import arviz

    groups = {
        "posterior": fit.posterior,
        "observed_data": xr.Dataset({_NAME: _kept(fit, fit.data)}),
    }
    statistics = {
        theirs: fit.diagnostics[ours].assign_coords({d: fit.posterior[d] for d in ("chain", "draw")})
        for ours, theirs in _STATISTICS.items()
        if ours in fit.diagnostics and fit.diagnostics[ours].dims == ("chain", "draw")
    }
    if statistics:
        groups["sample_stats"] = xr.Dataset(statistics)
    if fit.covariates:
        groups["constant_data"] = xr.Dataset(
            {
                name: (tuple(f"{name}_dim_{i}" for i in range(np.ndim(v))), np.asarray(v))
                for name, v in fit.covariates.items()
            }
        )
    if log_likelihood:
        groups["log_likelihood"] = xr.Dataset({_NAME: _kept(fit, log_likelihood_of(fit))})
    if _is_new():
        return xr.DataTree.from_dict(groups)
    return arviz.InferenceData(**groups)  # type: ignore[arg-type]


def _is_new() -> bool:
    """Whether this is ArviZ 1, whose parts are packages of their own."""
    import arviz

    return int(arviz.__version__.split(".")[0]) >= 1


def psis(log_weights: np.ndarray, efficiency: float) -> tuple[np.ndarray, np.ndarray]:
    """Pareto-smoothed importance weights of every unit.

    Parameters
    ----------
    log_weights : (unit, draw)
    efficiency : float
        Effective draws over draws.

    Returns
    -------
    Smoothed log weights (unit, draw), normalised, and the shape k of every unit's tail (unit,); infinite where
    there are too few draws to tell, 0 where all weights are equal.
    """
    # Rounding alone makes no tail.
    alike = np.ptp(log_weights, axis=1) < 1e-10
    if _is_new():
        from arviz_stats.base import array_stats

        smoothed, shape = array_stats.psislw(log_weights, r_eff=efficiency, axis=-1)
    else:
        import arviz

        smoothed, shape = arviz.psislw(log_weights, efficiency)
    return np.asarray(smoothed), np.where(alike, 0.0, shape)


def relative_efficiency(posterior: xr.Dataset) -> float:
    """Effective draws over draws, on average over the parameters; 1 for a single chain of independent draws."""
    if posterior.sizes["chain"] == 1:
        return 1.0
    import arviz

    found = arviz.ess(posterior, method="mean")
    every = np.concatenate([np.ravel(values) for values in found.data_vars.values()])
    return float(every.mean()) / (posterior.sizes["chain"] * posterior.sizes["draw"])


def _kept(fit: Fit, image: xr.DataArray) -> xr.DataArray:
    """An image as it is, or where pixels were masked the kept ones along the dim "pixel"."""
    units = fit.units
    if units.n_units == np.prod(units.pixel_shape):
        return image
    stacked = image.stack(pixel=units.pixel_dims, create_index=False) if len(units.pixel_dims) > 1 else image
    (dim,) = set(stacked.dims) - {units.channel_dim, "chain", "draw"}
    stacked = stacked.isel({dim: units.index}).rename({} if dim == "pixel" else {dim: "pixel"})
    last = [units.channel_dim] if units.channel_dim in stacked.dims else []
    return stacked.transpose(*(d for d in stacked.dims if d not in ("pixel", *last)), "pixel", *last)
