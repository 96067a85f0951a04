"""Fits as ArviZ knows them: which of their arrays stand in which of its groups."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
import xarray as xr

from bayesunmix._arviz import as_groups
from bayesunmix._keys import as_key
from bayesunmix.fit import Fit
from bayesunmix.inference.context import computing
from bayesunmix.inference.replicates import moments_pass
from bayesunmix.inference.units import chunks
from bayesunmix.predict import POINTS
from bayesunmix.predict import log_likelihood as log_likelihood_of

_NAME = "data"  # of the observed site: its own name, "y", is taken by an axis of most images
# What the diagnostics of NUTS are called there.
_STATISTICS = {"tree_steps": "n_steps", "accept": "acceptance_rate", "diverging": "diverging"}


def to_arviz(fit: Fit, log_likelihood: bool = False, predictive: int = 0, *, max_bytes: int = 2**31) -> Any:
    """A fit as ArviZ knows it.

    Parameters
    ----------
    fit : Fit
    log_likelihood : bool
        Add the pointwise log-likelihood, the pixel's own latent integrated out. Where latents are sample sites it is
        conditional on them: a warning says so, and the group's ``attrs["conditional"]`` is 1.
    predictive : int
        Add so many draws of every pixel measured again, and of the two parts of their uncertainty.
    max_bytes : int
        The most that these may take.

    Returns
    -------
    arviz.InferenceData (ArviZ 0.23) or xarray.DataTree (1.x)
        Groups ``posterior``, ``observed_data`` ("data"), ``sample_stats`` of NUTS, ``constant_data``
        (covariates) where there are any, and ``log_likelihood`` ("data") when asked. With ``predictive`` also
        ``posterior_predictive`` with "data" (the pixel measured again), "expected" (E(y | latent, globals), whose
        standard deviation over draws is the epistemic part) and "noise" (sd of y given both, whose root mean square
        is the aleatoric part). Where pixels were masked, the kept ones stand along one dim, "pixel", so that nothing
        is NaN.

    Raises
    ------
    MemoryError
        When the predictive draws would take more than ``max_bytes``.
    """
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
        found = log_likelihood_of(fit)
        conditional = found.attrs["conditional"]
        if conditional:
            warnings.warn(
                "the log-likelihood is conditional on the latents of every pixel: WAIC and LOO of it reward every "
                "component that is added",
                stacklevel=2,
            )
        groups["log_likelihood"] = xr.Dataset({_NAME: _kept(fit, found)}, attrs={"conditional": conditional})
    if predictive:
        groups["posterior_predictive"] = _predictive(fit, predictive, max_bytes)
    return as_groups(groups)


def _predictive(fit: Fit, draws: int, max_bytes: int) -> xr.Dataset:
    """Draws of what the pixels should show, of its noise, and of a measurement."""
    units = fit.units
    needed = 3 * draws * units.values.size * 8
    if needed > max_bytes:
        raise MemoryError(
            f"{draws} predictive draws need {needed / 2**30:.2g} GiB, more than max_bytes={max_bytes / 2**30:.2g} GiB: "
            "ask for fewer, or use bayesunmix.uncertainty, which keeps none"
        )
    parts = []
    with computing():
        chosen = fit.draws(draws)
        key_points, key_draws = jax.random.split(as_key(POINTS))
        held = 3 * chosen.size * units.values[0].size
        for part, chunk in chunks(chosen, units.values, fit.covariates, key_points, held=held):
            found = moments_pass(*chosen, chunk, jax.random.fold_in(key_draws, part.start))
            parts.append(np.stack(found))  # (part, draw, unit, ...)
    values = np.moveaxis(np.concatenate(parts, axis=2), (0, 1), (-2, -1))
    names = ["expected", "noise", _NAME]
    image = units.to_map(values, (*units.inner_dims, "part", "draw"), {"draw": np.arange(chosen.size)})
    by_name = {name: image.isel(part=i).expand_dims(chain=[0]) for i, name in enumerate(names)}
    return xr.Dataset({n: _kept(fit, v.transpose("chain", "draw", ...)) for n, v in by_name.items()})


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
