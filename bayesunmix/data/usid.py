"""USID: a two-dimensional main data set (position, spectroscopic) with four ancillary ones that index it.

Specification: https://pycroscopy.github.io/USID/h5_usid.html
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayesunmix.data.axes import Axis, assemble, quantity_and_units, text
from bayesunmix.data.entry import Entry, LoadError
from bayesunmix.data.lazy import Key, on_demand

_LINKS = ("Position_Indices", "Position_Values", "Spectroscopic_Indices", "Spectroscopic_Values")


def main_datasets(file: h5py.File, path: Path) -> list[Entry]:
    """Every main data set with numbers, as an N-dimensional image; none in a file of another kind."""
    found: list[h5py.Dataset] = []

    def visit(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.ndim == 2 and all(link in node.attrs for link in _LINKS):
            found.append(node)

    file.visititems(visit)
    numeric = [dataset for dataset in found if dataset.dtype.kind in "biufc"]
    if found and not numeric:
        names = [dataset.name for dataset in found]
        raise LoadError(f"{path}: the USID main data sets {names} hold compound values, not numbers.")
    return [_entry(dataset, path) for dataset in numeric]


def _entry(dataset: h5py.Dataset, path: Path) -> Entry:
    location = dataset.name.strip("/")
    positions = _ancillary(dataset, "Position", path)
    spectra = _ancillary(dataset, "Spectroscopic", path)
    axes = [*_grid(*positions, pixel=True), *_grid(*spectra, pixel=False)]
    shape = tuple(len(axis.values) for axis in axes if axis.values is not None)
    quantity, units = quantity_and_units(text(dataset.attrs.get("quantity", "")))
    attrs = {
        "units": text(dataset.attrs.get("units", "")) or units,
        "long_name": quantity,
        "dataset": location,
    }
    fetch = partial(_fetch, path, dataset.name, shape)
    data = on_demand(f"{path}: {dataset.name}", shape, dataset.dtype, fetch)
    return Entry(location, assemble(data, axes, name=location.rsplit("/", 1)[-1], attrs=attrs))


def _fetch(path: Path, location: str, shape: tuple[int, ...], key: Key) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return file[location][...].reshape(shape)[key]


def _ancillary(dataset: h5py.Dataset, kind: str, path: Path) -> tuple[np.ndarray, np.ndarray, list[str], list[str]]:
    """Indices and values as ``(entry, dim)``, labels and units of the dims."""
    file = dataset.file
    indices, values = (file[dataset.attrs[f"{kind}_{part}"]] for part in ("Indices", "Values"))
    labels, units = ([text(word) for word in np.atleast_1d(indices.attrs.get(key, []))] for key in ("labels", "units"))
    table, points = np.asarray(indices[...]), np.asarray(values[...])
    if kind == "Spectroscopic":
        table, points = table.T, points.T
    expected = dataset.shape[kind == "Spectroscopic"]
    if table.ndim != 2 or table.shape != points.shape or len(table) != expected:
        raise LoadError(
            f"{path}: {dataset.name} has {expected} entries along its {kind.lower()} axis, its ancillary "
            f"data sets have {table.shape} and {points.shape}; the USID file is damaged."
        )
    n_dims = table.shape[1]
    return table, points, (labels + [""] * n_dims)[:n_dims], (units + [""] * n_dims)[:n_dims]


def _grid(indices: np.ndarray, values: np.ndarray, labels: list[str], units: list[str], *, pixel: bool) -> list[Axis]:
    """The axes of a complete grid, slowest first, without those of length one.

    Entries that do not fill a grid in order (a spiral scan, a scan that was stopped) stay on a single axis.
    """
    changes = np.count_nonzero(np.diff(indices, axis=0), axis=0)
    order = [i for i in np.argsort(changes, kind="stable") if changes[i]]
    unique = {i: np.unique(indices[:, i], return_index=True, return_inverse=True) for i in order}
    sizes = [len(unique[i][0]) for i in order]
    if int(np.prod(sizes)) == len(indices):
        grid = np.indices(sizes).reshape(len(sizes), -1)
        if all(np.array_equal(unique[i][2], column) for i, column in zip(order, grid, strict=True)):
            return [Axis(labels[i], values[unique[i][1], i], units[i], pixel) for i in order]
    return [Axis("position" if pixel else "channel", np.arange(len(indices)), "", pixel)]
