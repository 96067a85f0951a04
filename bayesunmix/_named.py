"""What the engine found, as datasets with the names of the model and the coordinates of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from bayesunmix.data.units import Units

_LAZY_BYTES = 2**24  # of what follows from other parameters, from which it waits until it is looked at


def derived(model: Any, values: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a model derives from named values, and need not be kept beside them."""
    return {name: fn(values) for name, fn in getattr(model, "derived", {}).items()}


class _Derived(BackendArray):
    """Draws (chain, draw, ...) of what follows from other parameters of the same draw, computed at every look."""

    def __init__(self, fn: Callable[[dict[str, np.ndarray]], np.ndarray], values: dict[str, np.ndarray]):
        one = fn({name: value[:1, :1] for name, value in values.items()})
        self.fn, self.values = fn, values
        self.shape, self.dtype = (*next(iter(values.values())).shape[:2], *one.shape[2:]), one.dtype

    def __getitem__(self, key):
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._look)

    def _look(self, key):
        return self.fn({name: value[key[:2]] for name, value in self.values.items()})[(..., *key[2:])]


def named_posterior(model: Any, values: dict[str, np.ndarray], units: Units) -> xr.Dataset:
    """Draws (chain, draw, ...) of the globals: dims from the model, the channel coordinate from the data."""
    arrays: dict[str, xr.Variable] = {}
    coords: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        own = getattr(model, "dims", {}).get(name) or tuple(f"{name}_dim_{i}" for i in range(value.ndim - 2))
        own = tuple(units.channel_dim if d == "channel" else d for d in own)
        coords.update({d: np.arange(n) for d, n in zip(own, value.shape[2:], strict=True) if d != units.channel_dim})
        if units.channel_dim in own and units.channel_dim in units.coords:
            coords[units.channel_dim] = units.coords[units.channel_dim]
        arrays[name] = xr.Variable(("chain", "draw", *own), value)

    for name, value in values.items():
        add(name, value)
    for name, fn in getattr(model, "derived", {}).items():
        if name not in values:
            later = _Derived(fn, values)
            large = later.dtype.itemsize * int(np.prod(later.shape)) > _LAZY_BYTES
            add(name, LazilyIndexedArray(later) if large else fn(values))
    chains, draws = next(iter(values.values())).shape[:2]
    return xr.Dataset(arrays, coords={**coords, "chain": np.arange(chains), "draw": np.arange(draws)})


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
