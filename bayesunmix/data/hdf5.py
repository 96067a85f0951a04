"""HDF5 files other than HyperSpy's: USID, NSID, MATLAB 7.3, and plain data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bayesunmix.data import hspy, rosetta, usid
from bayesunmix.data.arrays import matlab_arrays
from bayesunmix.data.axes import Axis, assemble, bare_dims, text
from bayesunmix.data.entry import Entry, LoadError, without_ambiguity_of_vectors
from bayesunmix.data.lazy import hdf5_array

# NSID's words for axes along which a spectrum (not the scan) runs.
_SIGNAL_TYPES = ("spectral", "reciprocal", "frequency")


def read(path: Path) -> list[Entry]:
    """Every data set of an HDF5 file, by the layout that its content shows."""
    with h5py.File(path, "r") as file:
        if "Experiments" in file and text(file.attrs.get("file_format", "")).startswith("HyperSpy"):
            return hspy.experiments(file, path)
        if not _is_vendor_file(file):
            return usid.main_datasets(file, path) or _matlab(file, path) or _plain(file, path)
    return rosetta.read(path)


def _is_vendor_file(file: h5py.File) -> bool:
    """Tofwerk and Delmic files keep their calibration in ways of their own, which RosettaSciIO knows."""
    delmic = any(name.startswith("Acquisition") and f"{name}/PhysicalData" in file for name in file)
    return "TofDAQ Version" in file.attrs or delmic


def _matlab(file: h5py.File, path: Path) -> list[Entry]:
    nodes = [node for node in file.values() if node is not None]  # None: a link that leads nowhere
    is_matlab = any("MATLAB_class" in node.attrs for node in nodes)
    return matlab_arrays(file, path) if is_matlab else []


def _plain(file: h5py.File, path: Path) -> list[Entry]:
    """Data sets with their dimension scales (NSID has one for every axis), or with none."""
    found: list[h5py.Dataset] = []

    def visit(_: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape and node.dtype.kind in "biufc" and not node.is_scale:
            found.append(node)

    file.visititems(visit)
    if not found:
        raise LoadError(f"{path}: expected data sets with numbers in the HDF5 file, found {sorted(file)}.")
    return without_ambiguity_of_vectors(_entry(dataset, path) for dataset in found)


def _entry(dataset: h5py.Dataset, path: Path) -> Entry:
    location = dataset.name.strip("/")
    attrs = {
        "units": text(dataset.attrs.get("units", "")),
        "long_name": text(dataset.attrs.get("quantity", "")),
        "data_type": text(dataset.attrs.get("data_type", "")),
        "modality": text(dataset.attrs.get("modality", "")),
        "dataset": location,
    }
    axes = [_axis(dataset, i) for i in range(dataset.ndim)]
    title = text(dataset.attrs.get("title", "")) or location.rsplit("/", 1)[-1]
    return Entry(location, assemble(hdf5_array(dataset, path), axes, name=title, attrs=attrs))


def _axis(dataset: h5py.Dataset, i: int) -> Axis:
    dim = dataset.dims[i]
    if not len(dim):
        return Axis(text(dim.label) or bare_dims(dataset.ndim)[i])
    scale = dim[0]
    name = text(scale.attrs.get("name", "")) or text(dim.label) or scale.name.rsplit("/", 1)[-1]
    values = np.asarray(scale[...]) if scale.shape == (dataset.shape[i],) else None
    kind = text(scale.attrs.get("dimension_type", "")).lower()
    return Axis(name, values, text(scale.attrs.get("units", "")), pixel=not kind.startswith(_SIGNAL_TYPES))
