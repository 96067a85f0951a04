"""Datasets in one netCDF-4 file that comes back to the bit, or not at all."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

# Everything that is no array stands in one JSON text: netCDF attributes know no nesting, and HDF5 limits
# their size.
_TEXT, _DIGEST = "description", "sha256"


def write(path: Path, title: str, description: dict[str, Any], groups: Mapping[str, xr.Dataset]) -> None:
    """Write datasets as groups, and a nested description beside them.

    The file appears under its name only when it is whole.
    """
    plain = {name: _plain(dataset) for name, dataset in groups.items()}
    about = {**description, "groups": {name: entry for name, (_, entry) in plain.items()}}
    text = json.dumps(_keyed(about), default=_as_json)
    digest = _digest(text, {name: dataset for name, (dataset, _) in plain.items()})
    with appears_whole(path) as file:
        root = xr.Dataset({_TEXT: ((), text)}, attrs={"title": title, _DIGEST: digest})
        root.to_netcdf(file, engine="h5netcdf")
        for name, (dataset, _) in plain.items():
            dataset.to_netcdf(file, group=name, mode="a", engine="h5netcdf", encoding=_unaltered(dataset))


def read_description(path: Path) -> dict[str, Any]:
    """The description that :func:`write` put into a file.

    Raises
    ------
    ValueError
        When there is none.
    """
    about = json.loads(_read_text(path)[0])
    if not isinstance(about, dict):
        raise ValueError(f"expected a description, got {type(about).__name__}")
    return about


def read_groups(path: Path) -> dict[str, xr.Dataset]:
    """The datasets that :func:`write` put into a file.

    Raises
    ------
    ValueError
        When a number, a name or a letter is not what was written.
    """
    text, digest = _read_text(path)
    try:
        entries = json.loads(text)["groups"]
        stored = {name: _read_plain(path, name, entry) for name, entry in entries.items()}
    except (KeyError, OSError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: the file is damaged: {error}") from error
    if _digest(text, stored) != digest:
        raise ValueError(f"{path}: the file is damaged, or was changed after it was written: its checksum differs")
    return {name: _restored(dataset, entries[name]) for name, dataset in stored.items()}


def _plain(dataset: xr.Dataset) -> tuple[xr.Dataset, dict[str, Any]]:
    """A dataset that netCDF holds to the bit, and what it cannot hold: types, attributes, coordinates."""
    flat = dataset.reset_coords()
    about: dict[str, Any] = {
        "attrs": dict(dataset.attrs),
        "coords": sorted(map(str, dataset.coords)),
        "variables": {},
    }
    arrays = {}
    for name in flat.variables:
        variable = flat.variables[name]
        values = np.asarray(variable.values)
        about["variables"][str(name)] = {"dtype": values.dtype.str, "attrs": dict(variable.attrs)}
        if values.dtype.kind in "mM":
            values = values.view(np.int64)
        elif values.dtype.kind == "b":
            values = values.astype(np.int8)
        elif values.dtype.kind not in "iufU" and not all(isinstance(v, str) for v in values.flat):
            raise TypeError(f"cannot save {name!r} of type {values.dtype}: expected numbers, times or texts")
        elif values.dtype.kind in "iuf":
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
        # For other readers of the file; this one takes the attributes from the description.
        arrays[str(name)] = xr.Variable(variable.dims, values, shown(variable.attrs))
    return xr.Dataset(arrays), about


def shown(attrs: Mapping[Any, Any]) -> dict[Any, str]:
    """The attributes that other readers of a file look for."""
    return {k: v for k, v in attrs.items() if k in ("units", "long_name") and isinstance(v, str)}


def _unaltered(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
    return {name: {"_FillValue": None} for name in dataset.variables}


def _digest(text: str, datasets: Mapping[str, xr.Dataset]) -> str:
    """SHA-256 of the description, and of the names, shapes and exact values of all arrays."""
    found = hashlib.sha256(text.encode())
    for group in sorted(datasets):
        for name in sorted(map(str, datasets[group].variables)):
            variable = datasets[group].variables[name]
            values = np.ascontiguousarray(variable.values)
            found.update(f"{group} {name} {variable.dims} {values.shape}".encode())
            found.update(values.tobytes() if values.dtype.kind in "iuf" else "\0".join(map(str, values.flat)).encode())
    return found.hexdigest()


def _read_text(path: Path) -> tuple[str, str]:
    with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as file:
        if _TEXT not in file or _DIGEST not in file.attrs:
            raise ValueError("no description in it")
        return str(file[_TEXT].values), str(file.attrs[_DIGEST])


def _read_plain(path: Path, name: str, about: dict[str, Any]) -> xr.Dataset:
    with xr.open_dataset(path, group=name, engine="h5netcdf", decode_cf=False, cache=False) as file:
        found = {key: file.variables[key] for key in about["variables"]}
        return xr.Dataset({key: xr.Variable(v.dims, np.asarray(v.values)) for key, v in found.items()})


def _restored(dataset: xr.Dataset, about: dict[str, Any]) -> xr.Dataset:
    arrays = {
        key: xr.Variable(
            v.dims, v.values.astype(about["variables"][key]["dtype"], copy=False), about["variables"][key]["attrs"]
        )
        for key, v in ((str(key), v) for key, v in dataset.variables.items())
    }
    return xr.Dataset(arrays, attrs=about["attrs"]).set_coords(about["coords"])


def check_target(path: Path, example: str) -> None:
    """Refuse a path that no file can be written to, with an ``example`` of a name.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected the name of a file, got a folder; for instance {path / example}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {path.parent} to write into; make it first")


@contextlib.contextmanager
def appears_whole(path: Path):
    """A temporary name beside ``path`` that becomes ``path`` when nothing went wrong."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mode = os.umask(0)
        os.umask(mode)
        temporary.chmod(0o666 & ~mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _keyed(value: Any) -> Any:
    """The same nesting with texts as keys."""
    if isinstance(value, Mapping):
        return {str(key): _keyed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_keyed(inner) for inner in value]
    return value


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        return np.asarray(value).tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
