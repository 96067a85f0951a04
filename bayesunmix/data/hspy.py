"""HyperSpy's own files: ``.hspy`` (HDF5) and ``.zspy`` (the same tree in Zarr).

Layout: ``Experiments/<title>/data`` beside groups ``axis-0``, ``axis-1``, ... in the order of the array's
axes, whose attributes hold name, units, navigate, and scale and offset (or the coordinate as array ``axis``).
See https://hyperspy.org/rosettasciio/file_specification/ for the specification.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayesunmix.data.axes import Axis, assemble, quantity_and_units, text, uniform
from bayesunmix.data.entry import Entry, LoadError
from bayesunmix.data.lazy import Key, hdf5_array, on_demand


def read(path: Path) -> list[Entry]:
    """Every experiment of an ``.hspy`` file."""
    with h5py.File(path, "r") as file:
        return experiments(file, path)


def experiments(file: h5py.File, path: Path) -> list[Entry]:
    """Every experiment of an open HDF5 file with HyperSpy's layout."""
    return _entries(file, path, lambda dataset: hdf5_array(dataset, path))


def read_zarr(path: Path) -> list[Entry]:
    """Every experiment of a ``.zspy`` folder or zip file."""
    try:
        import zarr
    except ImportError as error:
        raise LoadError(f"{path}: .zspy files need zarr: pip install 'bayesunmix[io]'") from error
    store = str(path) if path.is_dir() else zarr.storage.ZipStore(str(path), mode="r")
    return _entries(zarr.open_group(store, mode="r"), path, partial(_zarr_array, path))


def _zarr_array(path: Path, array: Any) -> Any:
    """The values of a Zarr array, unless decoding it would run a pickle."""
    codecs = str(getattr(array, "metadata", "")) + str(getattr(array, "filters", ""))
    if "pickle" in codecs.lower():
        raise LoadError(
            f"{path}: data set {array.name!r} is stored with the pickle codec, which can run code and is "
            "never read. Save it again from HyperSpy without that codec."
        )
    return on_demand(f"{path}: {array.name}", array.shape, array.dtype, partial(_fetch_zarr, array))


def _fetch_zarr(array: Any, key: Key) -> Any:
    return array[key]


def _entries(root: Any, path: Path, values: Any) -> list[Entry]:
    if "Experiments" not in root:
        raise LoadError(
            f"{path}: expected HyperSpy's layout with a group 'Experiments', found {sorted(root.keys())}. "
            "If another program wrote it, give it that program's file extension (plain HDF5: .h5)."
        )
    group = root["Experiments"]
    entries = [_entry(group[title], title, path, values) for title in sorted(group.keys())]
    if not entries:
        raise LoadError(f"{path}: the HyperSpy file holds no experiment. Save the signal again.")
    return entries


def _entry(experiment: Any, title: str, path: Path, values: Any) -> Entry:
    where = f"{path}: experiment {title!r}"
    if "data" not in experiment:
        raise LoadError(f"{where}: expected an array 'data', found {sorted(experiment.keys())}.")
    dataset = experiment["data"]
    if dataset.dtype.kind not in "biufc":
        raise LoadError(
            f"{where}: expected numbers on a grid, found type {dataset.dtype} (a ragged or object signal). "
            "Convert it in HyperSpy and save it again."
        )
    axes = [_axis(experiment, i, size, where) for i, size in enumerate(dataset.shape)]
    general, signal = _metadata(experiment, "General"), _metadata(experiment, "Signal")
    quantity, units = quantity_and_units(text(signal.get("quantity", "")))
    attrs = {
        "units": units,
        "long_name": quantity,
        "signal_type": text(signal.get("signal_type", "")),
        "original_filename": text(general.get("original_filename", "")),
        "dataset": title,
    }
    name = text(general.get("title", "")) or title
    return Entry(title, assemble(values(dataset), axes, name=name, attrs=attrs))


def _metadata(experiment: Any, node: str) -> dict[str, Any]:
    location = f"metadata/{node}"
    return dict(experiment[location].attrs) if location in experiment else {}


def _axis(experiment: Any, i: int, size: int, where: str) -> Axis:
    if f"axis-{i}" not in experiment:
        raise LoadError(f"{where}: expected a group 'axis-{i}' for axis {i} of the data; found none.")
    group = experiment[f"axis-{i}"]
    said = dict(group.attrs)
    if "axis" in group:
        values = np.asarray(group["axis"][...])
    elif "scale" in said:
        values = uniform(int(said.get("size", size)), said["scale"], said.get("offset", 0.0))
    else:
        raise LoadError(
            f"{where}: axis {i} is given by a formula, which is not evaluated here. In HyperSpy, call "
            "convert_to_non_uniform_axis() on it and save again."
        )
    if len(values) != size:
        raise LoadError(f"{where}: axis {i} has {len(values)} points, the data {size}; the file is damaged.")
    name, units = text(said.get("name", "")), text(said.get("units", ""))
    return Axis(name, values, units, bool(said.get("navigate", False)))
