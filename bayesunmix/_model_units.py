"""What a model takes for its units, and what these are called."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import xarray as xr

from bayesunmix.data.sequences import as_sequences
from bayesunmix.data.units import Units, as_units
from bayesunmix.descriptors.vectors import as_vectors


def units_of(model: Any, data: Any, mask: Any = None) -> Units:
    """Data through the door that the model's units ask for."""
    if of_sequences(model):
        return as_sequences(data, mask=mask)
    entries = getattr(model, "missing_entries", False)
    return as_units(data, mask=mask, likelihood=getattr(model, "likelihood", "normal"), entries=entries)


def received(model: Any, data: Any, mask: Any, covariates: dict[str, Any]) -> tuple[Units, dict[str, Any]]:
    """Units and covariates; neighbour vectors bring their covariance and say which of them share no atom."""
    members = None
    if isinstance(data, xr.Dataset):
        vectors = as_vectors(data, mask)
        if vectors.measurement_cov is not None and takes(model, "measurement_cov"):
            covariates = {"measurement_cov": vectors.measurement_cov, **covariates}
        data, mask, members = vectors.data, vectors.keep, vectors.members
    units = units_of(model, data, mask)
    if members is not None:
        units = replace(units, members=members)
    return units, as_arrays(covariates, units.pixel_dims, units.pixel_shape, units.index)


def as_arrays(
    covariates: dict[str, Any], dims: tuple[Hashable, ...], shape: tuple[int, ...], index: Any = slice(None)
) -> dict[str, Any]:
    """Covariates without the containers of other libraries; of a map over the pixel ``dims`` the units at ``index``.

    Raises
    ------
    ValueError
        When a map has other sizes than the image.
    """
    return {name: _as_array(name, value, dims, shape, index) for name, value in covariates.items()}


def _as_array(name: str, value: Any, dims: tuple[Hashable, ...], shape: tuple[int, ...], index: Any) -> Any:
    if isinstance(value, xr.DataArray) and dims and set(dims) <= set(value.dims):
        maps = value.transpose(*dims, ...).values
        if maps.shape[: len(dims)] != shape:
            raise ValueError(
                f"{name}: expected a map of {dict(zip(dims, shape, strict=True))}, got {dict(value.sizes)}: cut it as "
                "the image is cut"
            )
        return maps.reshape(-1, *maps.shape[len(dims) :])[index]
    foreign = hasattr(value, "__array__") and not isinstance(value, np.ndarray | np.generic | jax.Array)
    return np.asarray(value) if foreign else value


def sufficient(model: Any, units: Units) -> tuple[Any, Any]:
    """Model and values for globals and latents: fewer numbers a unit where they say the same."""
    return model.sufficient(units.values) if hasattr(model, "sufficient") else (model, units.values)


def for_globals(model: Any, values: Any) -> tuple[Any, Any]:
    """Model and values for the globals alone: fewer units where those say the same."""
    return model.for_globals(values) if hasattr(model, "for_globals") else (model, values)


def takes(model: Any, name: str) -> bool:
    """Whether a model has a covariate of this name."""
    call = model if inspect.isfunction(model) else type(model).__call__
    found = inspect.signature(call).parameters
    return name in found or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values())


def of_sequences(model: Any) -> bool:
    """Whether the units of a model are sequences, whose data come as (sequence, time[, feature])."""
    return getattr(model, "unit", "pixel") == "sequence"


def words(model: Any) -> tuple[str, str]:
    """What the units of a model are called, and what each of them is made of."""
    if of_sequences(model):
        return "sequences", "frames"
    return ("vectors", "features") if getattr(model, "unit", "pixel") == "vector" else ("pixels", "channels")


def name_of(model: Any) -> str:
    """Of a class or a function."""
    return getattr(model, "__name__", type(model).__name__)
