"""Files to DataArrays: which reader takes a file, and which of its data sets is meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import xarray as xr

from bayesunmix.data import arrays, envi, hdf5, hspy, netcdf, rosetta
from bayesunmix.data.entry import Entry, LoadError, not_a

# Data up to this size are read at once, so that a damaged file is reported by `load` and not by a later step.
EAGER_BYTES = 2**28

_T = TypeVar("_T")
_Reader = Callable[[Path], list[Entry]]
_READERS: dict[str, tuple[str, _Reader]] = {
    ".hspy": ("an HDF5 file written by HyperSpy", hspy.read),
    ".zspy": ("a Zarr group written by HyperSpy", hspy.read_zarr),
    ".nc": ("a netCDF file", netcdf.read),
    ".nc4": ("a netCDF file", netcdf.read),
    ".cdf": ("a netCDF file", netcdf.read),
    ".npy": ("a NumPy .npy array", arrays.read_npy),
    ".npz": ("a NumPy .npz archive", arrays.read_npz),
    ".mat": ("a MATLAB .mat file", arrays.read_mat),
    ".h5": ("an HDF5 file", hdf5.read),
    ".hf5": ("an HDF5 file", hdf5.read),
    ".hdf5": ("an HDF5 file", hdf5.read),
}


@dataclass(frozen=True)
class DatasetInfo:
    """What a file says of one data set: ``units`` maps a dim to its unit, where it has one."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    dims: tuple[str, ...]
    units: dict[str, str]
    value_units: str = ""


def load(path: str | Path, dataset: str | None = None) -> xr.DataArray:
    """Read a spectrum image, image or spectrum with its calibration.

    HyperSpy ``.hspy`` and ``.zspy``, netCDF ``.nc``, NumPy ``.npy`` and ``.npz``, MATLAB ``.mat``, ENVI
    ``.hdr`` (or the binary file beside it), USID, NSID and other HDF5 ``.h5 .hf5 .hdf5`` are read here; every
    other format goes through RosettaSciIO, which ``pip install 'bayesunmix[io]'`` brings. Nothing is ever
    unpickled.

    Parameters
    ----------
    path : str or Path
        The file.
    dataset : str, optional
        Which data set of the file; its full name as :func:`info` lists it, or the last part of it.
        Needed only where there are several.

    Returns
    -------
    xarray.DataArray
        The pixel dims first and the spectral dim last, such as ``(y, x, energy)``. Dims without a name are
        ``y``, ``x`` and ``channel``; names become lower case, and ``Energy loss`` becomes ``energy`` (the
        name as given is in ``coords[dim].attrs["long_name"]``). Units are in ``coords[dim].attrs["units"]``
        and, for the values, in ``attrs["units"]``, each only where the file gives one. The title is ``name``;
        ``attrs`` also hold the file's name (``source``) and the data set's (``dataset``). Values have the
        type of the file, byte order included. Above 256 MiB they stay in the file until they are used, where
        its format allows.

    Raises
    ------
    LoadError
        (an ``OSError`` and a ``ValueError``) where there is no such file, where it is empty, damaged or of
        another type than its name says, where what reads it is not installed, or where it holds several data
        sets and ``dataset`` does not choose one of them.
    TypeError
        For a ``path`` that is none.
    """
    path = _existing(path)
    expected, read = _reader(path)
    image = _choose(_guarded(partial(read, path), path, expected), path, dataset).data
    if image.size == 0:
        raise LoadError(f"{path}: data set {image.name!r} of shape {image.shape} holds no values; expected {expected}.")
    image.attrs.setdefault("source", path.name)
    return _guarded(image.load, path, expected) if image.nbytes <= EAGER_BYTES else image


def info(path: str | Path) -> list[DatasetInfo]:
    """List the data sets of a file without reading their values (but those of MATLAB files before 7.3).

    Parameters
    ----------
    path : str or Path
        The file, of any type that :func:`load` reads.

    Returns
    -------
    list of DatasetInfo
        One a data set, with the names that ``load(path, dataset=...)`` takes.

    Raises
    ------
    LoadError
        As :func:`load`, but for the choice of a data set.
    """
    path = _existing(path)
    expected, read = _reader(path)
    return [_describe(entry) for entry in _guarded(partial(read, path), path, expected)]


def _existing(path: str | Path) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"path: expected the name of a file, got {path!r}")
    path = Path(path).expanduser()
    try:
        exists = path.exists()
    except OSError as error:
        raise LoadError(f"{str(path)[:80]}...: no name of a file: {error.strerror}.") from error
    if not exists:
        raise LoadError(f"{path}: there is no such file.")
    if path.is_dir() and path.suffix.lower() != ".zspy":
        raise LoadError(f"{path}: expected a file, found a folder. Name a file in it.")
    if path.is_file():
        try:
            with path.open("rb") as file:
                first = file.read(1)
        except OSError as error:
            raise LoadError(f"{path}: the file cannot be opened: {error.strerror}.") from error
        if not first:
            raise not_a(path, "data", "Copy the file again from its origin.")
    return path


def _reader(path: Path) -> tuple[str, _Reader]:
    """What a file is expected to be, and what reads it."""
    if envi.header_of(path):
        return "an ENVI header and its binary file", envi.read
    return _READERS.get(path.suffix.lower(), (f"a file of type {path.suffix!r}", rosetta.read))


def _guarded(step: Callable[[], _T], path: Path, expected: str) -> _T:
    """Do a step of reading; whatever the libraries behind it raise on damaged bytes becomes a LoadError."""
    try:
        return step()
    except LoadError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise not_a(path, expected, f"Reading failed with {cause}. Copy the file again.") from error


def _describe(entry: Entry) -> DatasetInfo:
    data = entry.data
    units = {str(dim): str(data[dim].attrs["units"]) for dim in data.dims if "units" in data[dim].attrs}
    return DatasetInfo(
        name=entry.name,
        shape=data.shape,
        dtype=str(data.dtype),
        dims=tuple(map(str, data.dims)),
        units=units,
        value_units=str(data.attrs.get("units", "")),
    )


def _choose(entries: list[Entry], path: Path, dataset: str | None) -> Entry:
    if not entries:
        raise LoadError(f"{path}: expected at least one array of numbers, found none.")
    listing = "\n".join(f"  {e.name!r}  shape {e.data.shape}  {e.data.dtype}" for e in entries)
    if dataset is None:
        candidates = [entry for entry in entries if not entry.auxiliary]
        if len(candidates) == 1:
            return candidates[0]
        raise LoadError(
            f"{path}: the file holds {len(entries)} data sets; choose one with "
            f'bu.load(path, dataset="{candidates[0].name}"), or --dataset {candidates[0].name} on the command line:'
            f"\n{listing}"
        )
    exact = [entry for entry in entries if entry.name == dataset]
    by_last_part = [entry for entry in entries if entry.name.rsplit("/", 1)[-1] == dataset]
    matches = exact or by_last_part
    if len(matches) != 1:
        count = "several data sets" if matches else "no data set"
        raise LoadError(f"{path}: {count} called {dataset!r}; the file holds:\n{listing}")
    return matches[0]
