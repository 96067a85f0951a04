"""Writers of small files, made with h5py alone so that they share no code with the readers under test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest


@pytest.fixture
def cube() -> np.ndarray:
    """Integers that differ everywhere, ``(3, 4, 5)``."""
    return np.arange(60, dtype="int16").reshape(3, 4, 5) - 7


def _write_hspy(
    path: Path, experiments: dict[str, tuple[np.ndarray, Sequence[dict[str, Any]], dict[str, str]]]
) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "HyperSpy"
        file.attrs["file_format_version"] = "3.3"
        for title, (data, axes, metadata) in experiments.items():
            group = file.create_group(f"Experiments/{title}")
            group.create_dataset("data", data=data, chunks=True, compression="gzip")
            for i, axis in enumerate(axes):
                node = group.create_group(f"axis-{i}")
                for key, value in {"size": data.shape[i], **axis}.items():
                    if isinstance(value, np.ndarray):
                        node.create_dataset(key, data=value)
                    else:
                        node.attrs[key] = value
            for key, value in metadata.items():
                node_name, _, attribute = key.partition("/")
                group.require_group(f"metadata/{node_name}").attrs[attribute] = value
    return path


@pytest.fixture
def write_hspy() -> Callable[..., Path]:
    """``write_hspy(path, {title: (data, axes, metadata)})`` in the layout of HyperSpy 2."""
    return _write_hspy


@pytest.fixture
def scan_axes() -> list[dict[str, Any]]:
    """Axes of a spectrum image as HyperSpy writes them: y, x and energy loss."""
    return [
        {
            "_type": "UniformDataAxis",
            "name": "y",
            "units": "nm",
            "scale": 0.5,
            "offset": 0.0,
            "navigate": True,
        },
        {
            "_type": "UniformDataAxis",
            "name": "x",
            "units": "nm",
            "scale": 0.25,
            "offset": 1.0,
            "navigate": True,
        },
        {
            "_type": "UniformDataAxis",
            "name": "Energy loss",
            "units": "eV",
            "scale": 8.0,
            "offset": 700.0,
            "navigate": False,
        },
    ]


def _write_usid(
    path: Path,
    data: np.ndarray,
    positions: dict[str, tuple[str, np.ndarray]],
    spectra: dict[str, tuple[str, np.ndarray]],
    *,
    keep: slice = slice(None),
) -> Path:
    """``data`` is (positions, spectra), both with the first dim fastest, as USID asks."""

    def table(dims: dict[str, tuple[str, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        sizes = [len(points) for _, points in dims.values()]
        columns = [i.ravel(order="F") for i in np.indices(sizes)]
        values = [points[i] for i, (_, points) in zip(columns, dims.values(), strict=True)]
        return np.stack(columns, axis=1).astype("u4"), np.stack(values, axis=1).astype("f4")

    with h5py.File(path, "w") as file:
        channel = file.create_group("Measurement_000/Channel_000")
        main = channel.create_dataset("Raw_Data", data=data[keep])
        main.attrs["quantity"] = "Current"
        main.attrs["units"] = "nA"
        for kind, dims in (("Position", positions), ("Spectroscopic", spectra)):
            for part, array in zip(("Indices", "Values"), table(dims), strict=True):
                array = array[keep] if kind == "Position" else array.T
                ancillary = channel.create_dataset(f"{kind}_{part}", data=array)
                ancillary.attrs["labels"] = list(dims)
                ancillary.attrs["units"] = [unit for unit, _ in dims.values()]
                main.attrs[f"{kind}_{part}"] = ancillary.ref
    return path


@pytest.fixture
def write_usid() -> Callable[..., Path]:
    """``write_usid(path, data, {label: (unit, values)}, {label: (unit, values)}, keep=slice)``."""
    return _write_usid


def _write_nsid(
    path: Path, data: np.ndarray, dims: Sequence[tuple[str, str, str, np.ndarray]], attrs: dict[str, str]
) -> Path:
    with h5py.File(path, "w") as file:
        group = file.create_group("Measurement_000/Channel_000/Map")
        main = group.create_dataset("Map", data=data)
        main.attrs.update(attrs)
        for i, (name, units, kind, values) in enumerate(dims):
            scale = group.create_dataset(name, data=values)
            scale.make_scale(name)
            scale.attrs.update({"name": name, "units": units, "quantity": name, "dimension_type": kind})
            main.dims[i].label = name
            main.dims[i].attach_scale(scale)
    return path


@pytest.fixture
def write_nsid() -> Callable[..., Path]:
    """``write_nsid(path, data, [(name, units, dimension_type, values)], attrs)``."""
    return _write_nsid
