"""Putting a simulator's truth beside a fit whose endmembers come in another order."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr


def endmember_draws(fit: Any) -> xr.DataArray:
    """Endmembers ``(draw, endmember, channel)``; one draw when the model holds them fixed."""
    channel = fit.data.dims[-1]
    if "endmembers" in fit.posterior:
        draws = fit.posterior["endmembers"].stack(sample=("chain", "draw"), create_index=False)
        draws = draws.drop_vars(("chain", "draw"), errors="ignore").rename(sample="draw")
        draws = draws.transpose("draw", "endmember", ...)
    else:
        fixed = np.asarray(fit.model.endmembers, float)[None]
        draws = xr.DataArray(fixed, dims=("draw", "endmember", channel), name="endmembers")
        draws = draws.assign_coords(endmember=np.arange(fixed.shape[1]))
    if channel in fit.data.coords:
        draws = draws.assign_coords({channel: fit.data.coords[channel]})
    draws.attrs = dict(fit.data.attrs)
    return draws


def matched(fit: Any, truth: xr.Dataset) -> xr.Dataset:
    """`truth` with its endmembers in the order of the fit's, paired so that the spectra differ least in all.

    Raises
    ------
    ValueError
        When the truth has fewer endmembers than the fit.
    """
    from scipy.optimize import linear_sum_assignment

    found = endmember_draws(fit).mean("draw")
    true = truth["endmembers"].transpose("endmember", ...)
    if true.sizes["endmember"] < found.sizes["endmember"]:
        raise ValueError(
            f"the truth has {true.sizes['endmember']} endmembers but the fit {found.sizes['endmember']}: "
            "leave truth out to draw this fit"
        )
    distance = np.linalg.norm(found.values[:, None] - true.values[None], axis=-1)
    _, order = linear_sum_assignment(distance)
    return truth.isel(endmember=order)
