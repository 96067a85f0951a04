"""What the engine found, as datasets with the names of the model and the coordinates of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.data.units import Units


def named_posterior(model: Any, values: dict[str, np.ndarray], units: Units) -> xr.Dataset:
    """Draws (chain, draw, ...) of the globals: dims from the model, the channel coordinate from the data."""
    dims = getattr(model, "dims", {})
    arrays = {}
    for name, value in values.items():
        own = dims.get(name) or tuple(f"{name}_dim_{i}" for i in range(value.ndim - 2))
        own = tuple(units.channel_dim if d == "channel" else d for d in own)
        coords: dict[str, Any] = {
            d: np.arange(n) for d, n in zip(own, value.shape[2:], strict=True) if d != units.channel_dim
        }
        if units.channel_dim in own and units.channel_dim in units.coords:
            coords[units.channel_dim] = units.coords[units.channel_dim]
        arrays[name] = xr.DataArray(value, dims=("chain", "draw", *own), coords=coords)
    chains, draws = next(iter(values.values())).shape[:2]
    return xr.Dataset(arrays, coords={"chain": np.arange(chains), "draw": np.arange(draws)})


def named_diagnostics(found: Any, posterior: xr.Dataset) -> xr.Dataset:
    """Diagnostics of the engine on the dims of the posterior, the extremes of each site beside them."""
    arrays = {name: xr.DataArray(value, dims=dims) for name, (dims, value) in found.arrays.items()}
    for kind, by_name in found.per_parameter.items():
        for name, value in by_name.items():
            dims = posterior[name].dims[2:]
            arrays[f"{kind}_{name}"] = xr.DataArray(value, dims=dims, coords={d: posterior[d] for d in dims})
    attrs = {"converged": int(found.converged), "verdict": found.verdict}
    for kind, by_name in found.per_parameter.items():
        if by_name:
            extreme = np.nanmax if kind == "rhat" else np.nanmin
            arrays[kind] = xr.DataArray(
                [float(extreme(v)) for v in by_name.values()], dims="site", coords={"site": list(by_name)}
            )
    return xr.Dataset(arrays, attrs=attrs)
