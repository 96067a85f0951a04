"""Arrays that are read from their file when they are first used, without dask.

A reader wraps the way to fetch a block; xarray's own machinery for file backends does the rest: selecting and
transposing read nothing, and what was read once is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from xarray.backends import BackendArray
from xarray.core import indexing

from bayesunmix.data.entry import LoadError

Key = tuple[int | slice, ...]


class _FileArray(BackendArray):
    """Adapter from ``fetch(key)`` to what xarray expects of a file backend."""

    def __init__(self, source: str, shape: tuple[int, ...], dtype: np.dtype, fetch: Callable[[Key], Any]):
        self.source, self.shape, self.dtype, self.fetch = source, shape, dtype, fetch

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._block)

    def _block(self, key: Key) -> np.ndarray:
        try:
            return np.asarray(self.fetch(key))
        except Exception as error:  # HDF5, zip, Zarr and what decodes their blocks each have their own
            raise LoadError(
                f"{self.source}: expected {self.shape} values of type {self.dtype}, "
                f"found damaged or missing data ({error}). Copy the file again from its origin."
            ) from error


def on_demand(source: str, shape: tuple[int, ...], dtype: Any, fetch: Callable[[Key], Any]) -> Any:
    """An array for a DataArray to hold: its values are ``fetch(key)``, with an integer or slice an axis."""
    array: Any = indexing.LazilyIndexedArray(_FileArray(source, tuple(shape), np.dtype(dtype), fetch))
    return indexing.MemoryCachedArray(indexing.CopyOnWriteArray(array))


def _fetch_hdf5(path: Path, location: str, key: Key) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return file[location][key]


def hdf5_array(dataset: h5py.Dataset, path: Path) -> Any:
    """The values of an HDF5 data set; the file is opened only while a block is read."""
    fetch = partial(_fetch_hdf5, path, dataset.name)
    return on_demand(f"{path}: {dataset.name}", dataset.shape, dataset.dtype, fetch)
