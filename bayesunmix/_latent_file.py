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

from bayesunmix._netcdf import appears_whole
from bayesunmix.data.units import Units

_CHUNK_BYTES = 2**20  # in the file

Arrays = Mapping[str, tuple[np.ndarray, tuple[str, ...]]]  # (unit, *own dims, draw), and the names of the own dims


def write_draws(path: Any, units: Units, parts: Iterator[tuple[slice, Arrays]]) -> None:
    """Write draws of the units, a slice of them at a time in their order, on the pixel grid.

    The file appears under its name only when it is whole; pixels that were masked hold NaN.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When ``path`` lies in no folder, or is one.
    """
    path = Path(os.fspath(path))
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, got a folder; for instance {path / 'draws.nc'}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write into; make it first")
    first = next(parts)
    with appears_whole(path) as temporary:
        _coordinates(units, first[1]).to_netcdf(temporary, engine="h5netcdf")
        with h5netcdf.File(temporary, "a") as file:
            for part, arrays in itertools.chain([first], parts):
                for name, (values, own) in arrays.items():
                    variable = file.variables.get(name) or _variable(file, units, name, values, own)
                    _put(variable, units, part, units.without_padding(values, own, np.nan, part))


def _coordinates(units: Units, arrays: Arrays) -> xr.Dataset:
    labels: dict[str, Any] = {dim: coord for dim, coord in units.coords.items() if dim in units.pixel_dims}
    for values, own in arrays.values():
        labels |= {dim: units.coords.get(dim, np.arange(n)) for dim, n in zip(own, values.shape[1:-1], strict=True)}
    if units.channel_dim not in units.coords:
        labels.pop(units.channel_dim, None)
    # A latent may be called as the dim of its parts, as states are.
    return xr.Dataset(coords={dim: label for dim, label in labels.items() if dim not in arrays})


def _variable(file: h5netcdf.File, units: Units, name: str, values: np.ndarray, own: tuple[str, ...]) -> Any:
    dims = ("draw", *units.pixel_dims, *own)
    shape = (values.shape[-1], *units.pixel_shape, *values.shape[1:-1])
    for dim, size in zip(dims, shape, strict=True):
        if dim not in file.dimensions:
            file.dimensions[dim] = size
    # Draws of pixels side by side: as a chunk arrives, and as a map or a pixel is read.
    before, width, after = len(units.pixel_shape), units.pixel_shape[-1], shape[1 + len(units.pixel_shape) :]
    fitting = _CHUNK_BYTES // (values.dtype.itemsize * shape[0] * max(1, int(np.prod(after))))
    chunks = (shape[0], *[1] * (before - 1), max(1, min(width, fitting)), *after)
    return file.create_variable(name, dims, values.dtype, fillvalue=values.dtype.type(np.nan), chunks=chunks)


def _put(variable: Any, units: Units, part: slice, values: np.ndarray) -> None:
    rows, columns = np.divmod(units.index[part], units.pixel_shape[-1])
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        first, last = columns[start], columns[stop - 1]
        block = np.full((last - first + 1, *values.shape[1:]), np.nan, values.dtype)
        block[columns[start:stop] - first] = values[start:stop]
        row = tuple(map(int, np.unravel_index(rows[start], units.pixel_shape[:-1]))) if units.pixel_shape[:-1] else ()
        variable[(slice(None), *row, slice(int(first), int(last) + 1))] = np.moveaxis(block, -1, 0)
