"""Draws of latents in a netCDF file, written a chunk of units at a time: more of them than memory holds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import numpy as np
import xarray as xr

from bayesunmix._netcdf import appears_whole, check_target, shown
from bayesunmix.data.units import Units

_CHUNK_BYTES = 2**20  # in the file

Arrays = Mapping[str, tuple[np.ndarray, tuple[str, ...]]]  # (unit, *own dims, draw), and the names of the own dims


def write_draws(path: Any, units: Units, parts: Iterator[tuple[slice, Arrays]]) -> xr.Dataset:
    """Write draws of the units, a slice of them at a time in their order, on the pixel grid; and open them.

    The file appears under its name only when it is whole, in place of an older one; pixels that were masked hold NaN.

    Parameters
    ----------
    path : str or Path
    units : Units
    parts : iterator of (slice, Arrays)
        Which units, and their draws.

    Returns
    -------
    xarray.Dataset
        Dims (draw, pixel dims, own dims), read from the file when it is used.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When ``path`` lies in no folder, or is one.
    ValueError
        For a dim whose name netCDF cannot hold.
    """
    path = Path(os.fspath(path))
    check_target(path, "draws.nc")
    slashed = [dim for dim in (*units.pixel_dims, *units.inner_dims) if "/" in dim]
    if slashed:
        raise ValueError(f"dim {slashed[0]!r}: names in a netCDF file hold no '/'; rename it, or leave out path")
    first = next(parts)
    labels = _labels(units, first[1])
    with appears_whole(path) as temporary:
        xr.Dataset(coords=_plain(labels)).to_netcdf(temporary, engine="h5netcdf")
        with h5netcdf.File(temporary, "a") as file:
            for part, arrays in itertools.chain([first], parts):
                for name, (values, own) in arrays.items():
                    variable = file.variables.get(name)
                    if variable is None:
                        variable = _variable(file, units, name, values, own)
                    _put(variable, units, part, units.without_padding(values, own, np.nan, part))
    # Labels as they are in memory: not all that they can be comes back from a file.
    written = xr.open_dataset(path, engine="h5netcdf", decode_cf=False).assign_coords(labels)
    for name in first[1]:
        written[name].attrs.clear()
    return written


def _labels(units: Units, arrays: Arrays) -> dict[str, Any]:
    """Coordinates of the pixel dims and of the latents' own."""
    dims = set(units.pixel_dims)
    labels: dict[str, Any] = {}
    for values, own in arrays.values():
        dims.update(own)
        sizes = zip(own, values.shape[1:-1], strict=True)
        labels |= {dim: np.arange(size) for dim, size in sizes if dim != units.channel_dim}
    labels |= {dim: coord for dim, coord in units.coords.items() if dim in dims}
    # A latent may be called as the dim of its parts, as states are.
    return {dim: label for dim, label in labels.items() if dim not in arrays}


def _plain(labels: Mapping[str, Any]) -> dict[str, xr.Variable]:
    """Those that netCDF holds, for other readers: without what would have their numbers read as others."""
    found = {}
    for dim, label in labels.items():
        values = np.asarray(label)
        if values.dtype.kind in "iufU":
            attrs = shown(getattr(label, "attrs", {}))
            found[dim] = xr.Variable(dim, values, {k: v for k, v in attrs.items() if " since " not in v})
        elif values.dtype.kind in "mM":
            found[dim] = xr.Variable(dim, values)
    return found


def _variable(file: h5netcdf.File, units: Units, name: str, values: np.ndarray, own: tuple[str, ...]) -> Any:
    """A new array (draw, pixel dims, own dims) in the file."""
    dims = ("draw", *units.pixel_dims, *own)
    shape = (values.shape[-1], *units.pixel_shape, *values.shape[1:-1])
    for dim, size in zip(dims, shape, strict=True):
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    # All draws of some pixels side by side: as they arrive, and as means and quantiles over draws read them.
    before, width, after = len(units.pixel_shape), units.pixel_shape[-1], shape[1 + len(units.pixel_shape) :]
    fitting = _CHUNK_BYTES // (values.dtype.itemsize * shape[0] * max(1, int(np.prod(after))))
    chunks = (shape[0], *[1] * (before - 1), max(1, min(width, fitting)), *after)
    return file.create_variable(name, dims, values.dtype, fillvalue=values.dtype.type(np.nan), chunks=chunks)


def _put(variable: Any, units: Units, part: slice, values: np.ndarray) -> None:
    """Write values (unit, *own, draw) of a slice of the units, row by row of the pixel grid."""
    rows, columns = np.divmod(units.index[part], units.pixel_shape[-1])
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        first, last = columns[start], columns[stop - 1]
        block = np.full((last - first + 1, *values.shape[1:]), np.nan, values.dtype)
        block[columns[start:stop] - first] = values[start:stop]
        row = map(int, np.unravel_index(rows[start], units.pixel_shape[:-1]))
        variable[(slice(None), *row, slice(int(first), int(last) + 1))] = np.moveaxis(block, -1, 0)
