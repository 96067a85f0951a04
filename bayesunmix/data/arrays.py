"""Bare arrays: NumPy ``.npy`` and ``.npz``, MATLAB ``.mat``. Nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from bayesunmix.data.axes import bare_dims, text
from bayesunmix.data.entry import Entry, LoadError, without_ambiguity_of_vectors
from bayesunmix.data.lazy import Key, hdf5_array, on_demand

_OBJECTS = (
    "holds Python objects (a pickle), which can run code and are never read. "
    "Save the numbers alone: np.save(path, np.asarray(array, dtype=float), allow_pickle=False)."
)
_MATLAB_NUMBERS = ("int", "uint", "single", "double", "logical")


def read_npy(path: Path) -> list[Entry]:
    """The array of an ``.npy`` file, memory-mapped; changing it does not change the file."""
    with path.open("rb") as file:
        shape, dtype = _npy_header(file)
    if dtype.hasobject:
        raise LoadError(f"{path}: {_OBJECTS}")
    if dtype.kind not in "biufc":
        raise LoadError(f"{path}: expected an array of numbers, found type {dtype}.")
    # An empty array cannot be mapped.
    array = np.load(path, mmap_mode="c", allow_pickle=False) if all(shape) else np.zeros(shape, dtype)
    return [Entry(path.stem, _bare(array, path.stem))]


def read_npz(path: Path) -> list[Entry]:
    """The numeric arrays of an ``.npz`` file with at least one dim."""
    entries, objects = [], []
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            with archive.open(member) as file:
                shape, dtype = _npy_header(file)
            if dtype.hasobject:
                objects.append(name)
            elif dtype.kind in "biufc" and shape:
                fetch = partial(_fetch_npz, path, name)
                entries.append(Entry(name, _bare(on_demand(f"{path}: {name}", shape, dtype, fetch), name)))
    if objects and not entries:
        raise LoadError(f"{path}: {', '.join(objects)} {_OBJECTS}")
    return without_ambiguity_of_vectors(entries)


def read_mat(path: Path) -> list[Entry]:
    """The numeric arrays of a MATLAB file, version 4 to 7 (SciPy) or 7.3 (HDF5)."""
    if h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return matlab_arrays(file, path)
    from scipy.io import loadmat, whosmat

    names = [name for name, _, kind in whosmat(path) if kind.startswith(_MATLAB_NUMBERS)]
    # An empty list of names would be taken as "all of them", cells and structures included.
    arrays = loadmat(path, variable_names=names, mat_dtype=True) if names else {}
    return _matlab_entries((name, xr.DataArray(arrays[name], dims=_dims(arrays[name]))) for name in names)


def matlab_arrays(file: h5py.File, path: Path) -> list[Entry]:
    """The numeric arrays of a MATLAB 7.3 file, also inside structures; HDF5 keeps their axes in reverse."""
    found: list[tuple[str, xr.DataArray]] = []

    def visit(location: str, node: Any) -> None:
        kind = text(node.attrs.get("MATLAB_class", b""))
        hidden = location.startswith("#") or "MATLAB_empty" in node.attrs
        if isinstance(node, h5py.Dataset) and kind.startswith(_MATLAB_NUMBERS) and not hidden:
            dims = _dims(node)
            data = xr.DataArray(hdf5_array(node, path), dims=dims[::-1])
            found.append((location, data.transpose(*dims)))

    file.visititems(visit)
    return _matlab_entries(found)


def _matlab_entries(arrays: Iterable[tuple[str, xr.DataArray]]) -> list[Entry]:
    """Numbers are left out, and row and column vectors, which MATLAB keeps as matrices, become vectors."""
    entries = []
    for name, data in arrays:
        if data.ndim == 2 and 1 in data.shape:
            data = data.squeeze(drop=True)
            data = data.rename({dim: "channel" for dim in data.dims})
        if data.ndim and data.dtype.kind in "biufc":
            data.name = name.rsplit("/", 1)[-1]
            data.attrs["dataset"] = name
            entries.append(Entry(name, data))
    return without_ambiguity_of_vectors(entries)


def _npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    return shape, dtype


def _fetch_npz(path: Path, name: str, key: Key) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name][key]


def _dims(array: Any) -> tuple[str, ...]:
    return bare_dims(array.ndim)


def _bare(array: Any, name: str) -> xr.DataArray:
    return xr.DataArray(array, dims=_dims(array), name=name, attrs={"dataset": name})
