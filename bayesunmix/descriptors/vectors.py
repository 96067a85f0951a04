"""Neighbour vectors as a fit takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr


class Vectors(NamedTuple):
    """Neighbour vectors as :func:`bayesunmix.fit` takes them."""

    data: xr.DataArray  # (atom, feature)
    keep: np.ndarray  # (atom,) complete and not masked
    measurement_cov: np.ndarray | None  # (kept, feature, feature)
    members: np.ndarray | None  # (kept, 1 + neighbours): the atoms whose positions enter


def read_vectors(path: Path) -> xr.Dataset | None:
    """Neighbour vectors from the file that ``vectors.to_netcdf(path)`` wrote; None for a file of anything else."""
    if path.suffix not in (".nc", ".nc4") or not path.is_file() or not h5py.is_hdf5(path):
        return None
    with xr.open_dataset(path, engine="h5netcdf") as dataset:
        if not {"vector", "neighbour", "complete"} <= set(dataset.variables):
            return None
        return dataset.load()


def as_vectors(dataset: xr.Dataset, mask: Any = None) -> Vectors:
    """Take apart a Dataset of neighbour vectors.

    Raises
    ------
    TypeError
        When the Dataset has no ``vector (atom, feature)``.
    ValueError
        When the mask does not fit, or no atom is left.
    """
    if "vector" not in dataset or dataset["vector"].ndim != 2:
        raise TypeError(
            f"expected one image, or neighbour vectors with vector (atom, feature); got an xarray.Dataset of "
            f"{list(dataset.data_vars)}: choose one of its variables"
        )
    data = dataset["vector"]
    keep = dataset["complete"].values.copy() if "complete" in dataset else np.ones(len(data), dtype=bool)
    if isinstance(mask, str) and mask == "finite":
        keep &= np.isfinite(data.values).all(axis=1)
    elif mask is not None:
        given = np.asarray(mask)
        if given.shape != keep.shape or given.dtype != bool:
            raise ValueError(f"mask: expected booleans of shape {keep.shape}, got {given.dtype} of {given.shape}")
        keep &= given
    if not keep.any():
        raise ValueError("no atom has all its neighbours: nothing to fit; check n_neighbours and tolerance")
    cov = dataset["vector_cov"].values[keep] if "vector_cov" in dataset else None
    members = None
    if "neighbour" in dataset and "index" in dataset:
        members = np.column_stack([dataset["index"].values, dataset["neighbour"].values])[keep]
    return Vectors(data, keep, cov, members)
