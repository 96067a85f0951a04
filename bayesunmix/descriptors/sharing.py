"""Which vectors are independent: atoms none of whose vectors share an atom."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr

_UNLIKE = 4.0  # standard errors of a random choice, at which the mean of those chosen is not that of all


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


def independent(members: np.ndarray) -> np.ndarray:
    """A large set of units no two of which have a member in common, as booleans (unit,).

    Units with the fewest rivals still in play are taken first (the minimum-degree rule), which packs lattices densely.

    Parameters
    ----------
    members : (unit, k) of int
        What each unit is made of.
    """
    n_units = len(members)
    order = np.argsort(members, axis=None, kind="stable")
    unit = order // members.shape[1]
    _, starts = np.unique(members.ravel()[order], return_index=True)
    shared = np.split(unit, starts[1:])
    rivals: list[set[int]] = [set() for _ in range(n_units)]
    for group in shared:
        listed = group.tolist()
        for one in listed:
            rivals[one].update(listed)
    degree = np.array([len(r) - 1 for r in rivals])
    for one, r in enumerate(rivals):
        r.discard(one)
    waiting = [(int(d), i) for i, d in enumerate(degree)]
    heapq.heapify(waiting)
    in_play = np.ones(n_units, dtype=bool)
    chosen = np.zeros(n_units, dtype=bool)
    while waiting:
        seen, one = heapq.heappop(waiting)
        if not in_play[one] or seen != degree[one]:
            continue
        chosen[one] = True
        in_play[one] = False
        gone = [other for other in rivals[one] if in_play[other]]
        in_play[gone] = False
        for other in gone:
            for third in rivals[other]:
                if in_play[third]:
                    degree[third] -= 1
                    heapq.heappush(waiting, (int(degree[third]), third))
    return chosen


def unlike_all(values: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether the ``chosen`` units (unit,) differ from all, ``values`` (unit, feature), by more than a random choice.

    So they do where atoms of one kind share more than those of another: of a molecule of three only one is taken.
    """
    count, total = int(chosen.sum()), len(values)
    if count in (0, total):
        return False
    error = values.std(axis=0) * np.sqrt(1.0 / count - 1.0 / total)
    away = np.abs(values[chosen].mean(axis=0) - values.mean(axis=0))
    return bool((away > _UNLIKE * np.maximum(error, 1e-12)).any())
