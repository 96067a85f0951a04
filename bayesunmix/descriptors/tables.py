"""Atoms found by other tools, brought to one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

_ROWS, _COLUMNS = ("y", "row", "row_px"), ("x", "col", "col_px", "column")
_SPECIES = ("species", "class", "element", "category")


def atoms(
    table: Any,
    *,
    columns: Sequence[str] | None = None,
    error: Any = None,
    units: str = "px",
) -> xr.Dataset:
    """Atom positions with their errors, from arrays, tables, or the coordinates that AtomAI gives.

    Parameters
    ----------
    table
        An array (atom, 2 or 3) of y, x and optionally a class; a ``pandas.DataFrame`` with the columns ``y`` and ``x``
        (or ``row`` and ``col``) and optionally ``frame``, ``species`` (or ``class``, ``element``), ``amplitude``,
        ``width``, ``sigma_y``, ``sigma_x`` and ``cov_yx``; a mapping from frame number to such an array or table, as
        AtomAI's predictors return; or an ``xarray.Dataset`` of this form, which is checked.
    columns : sequence of str, optional
        Names of an array's columns where they are not ``("y", "x", "species")``, such as ``("x", "y")``.
    error : optional
        Standard deviation of the positions: a number, one per atom, one per atom and axis, or covariances
        (atom, 2, 2). Without it, and without a column for it, the positions have no ``position_cov``.
    units : str
        Unit of the positions.

    Returns
    -------
    xarray.Dataset
        ``position (atom, axis)`` with axis y, x; ``frame (atom)``; where known ``position_cov (atom, axis,
        other_axis)``, ``species (atom)``, ``amplitude (atom)``, ``width (atom)``.

    Raises
    ------
    TypeError
        For what is none of these.
    ValueError
        For missing columns, positions that are not finite, or errors that are not positive.
    """
    if isinstance(table, xr.Dataset):
        return _checked(table)
    if isinstance(table, Mapping):
        if not table:
            raise ValueError("table: expected at least one frame, got an empty mapping")
        parts = [_fields(part, columns) | {"frame": int(frame)} for frame, part in table.items()]
        kept = set.intersection(*(set(part) for part in parts))
        sizes = [len(part["y"]) for part in parts]
        fields: dict[str, Any] = {
            name: np.concatenate([np.broadcast_to(part[name], n) for part, n in zip(parts, sizes, strict=True)])
            for name in kept
        }
    else:
        fields = _fields(table, columns)
    count = len(fields["y"])
    position = np.stack([fields["y"], fields["x"]], axis=-1).astype(np.float64)
    found: dict[str, Any] = {
        "position": (("atom", "axis"), position, {"units": units}),
        "frame": ("atom", np.broadcast_to(np.asarray(fields.get("frame", 0)), count).astype(int)),
    }
    cov = _covariance(error, count) if error is not None else _covariance_of(fields)
    if cov is not None:
        found["position_cov"] = (("atom", "axis", "other_axis"), cov, {"units": f"{units}²"})
    for name in ("species", "amplitude", "width"):
        if name in fields:
            found[name] = ("atom", np.asarray(fields[name]))
    return _checked(xr.Dataset(found, {"axis": ["y", "x"], "other_axis": ["y", "x"]}))


def _fields(table: Any, columns: Sequence[str] | None) -> dict[str, Any]:
    """Columns of one table by their names here."""
    if hasattr(table, "columns") and hasattr(table, "iloc"):
        given = {str(name): np.asarray(table[name]) for name in table.columns}
    else:
        array = np.asarray(table)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise TypeError(
                "table: expected numbers of shape (atom, 2 or 3), a pandas.DataFrame, or a mapping from frame to one "
                f"of them, got {type(table).__name__} of shape {array.shape} and type {array.dtype}"
            )
        names = tuple(columns) if columns is not None else ("y", "x", "species")[: array.shape[1]]
        if len(names) != array.shape[1]:
            raise ValueError(f"table has {array.shape[1]} columns, their names are {names}: pass columns=(...)")
        given = {name: array[:, i] for i, name in enumerate(names)}
    found = {name: value for name, value in given.items() if name not in _SPECIES}
    for name, others in (("y", _ROWS), ("x", _COLUMNS), ("species", _SPECIES)):
        match = [given[other] for other in others if other in given]
        if match:
            found[name] = match[0]
        elif name != "species":
            raise ValueError(f"table: no column for {name} (one of {', '.join(others)}) among {list(given)}")
    species = found.get("species")
    if species is not None and species.dtype.kind == "f" and np.all(species == np.round(species)):
        found["species"] = species.astype(int)
    return found


def _covariance_of(fields: Mapping[str, Any]) -> np.ndarray | None:
    if "sigma_y" not in fields or "sigma_x" not in fields:
        return None
    y, x = (np.asarray(fields[f"sigma_{axis}"], dtype=np.float64) for axis in "yx")
    between = np.asarray(fields.get("cov_yx", np.zeros_like(y)), dtype=np.float64)
    return np.stack([y**2, between, between, x**2], axis=-1).reshape(-1, 2, 2)


def _covariance(error: Any, count: int) -> np.ndarray:
    error = np.asarray(error, dtype=np.float64)
    if error.shape == (count, 2, 2):
        return error
    if error.shape == (count,):
        error = error[:, None]
    try:
        sds = np.broadcast_to(error, (count, 2))
    except ValueError:
        raise ValueError(
            f"error: expected a number, ({count},), ({count}, 2) or ({count}, 2, 2), got shape {error.shape}"
        ) from None
    return sds[:, :, None] ** 2 * np.eye(2)


def _checked(dataset: xr.Dataset) -> xr.Dataset:
    if "position" not in dataset or dataset["position"].dims != ("atom", "axis") or dataset.sizes["axis"] != 2:
        raise ValueError(f"expected a Dataset with position (atom, axis) of 2 axes, got {dict(dataset.sizes)}")
    bad = ~np.isfinite(dataset["position"].values).all(axis=1)
    if bad.any():
        raise ValueError(f"{bad.sum()} of {bad.size} positions are not finite, the first is atom {np.argmax(bad)}")
    if "position_cov" in dataset:
        cov = dataset["position_cov"].values
        if cov.shape != (dataset.sizes["atom"], 2, 2):
            raise ValueError(f"position_cov: expected shape ({dataset.sizes['atom']}, 2, 2), got {cov.shape}")
        symmetric = np.isfinite(cov).all() and np.allclose(cov, cov.transpose(0, 2, 1), rtol=1e-6, atol=0.0)
        if not symmetric or (np.linalg.eigvalsh(cov) < 0).any():
            raise ValueError("position_cov: expected symmetric positive semi-definite covariances")
    if "frame" not in dataset:
        dataset = dataset.assign(frame=("atom", np.zeros(dataset.sizes["atom"], dtype=int)))
    return dataset
