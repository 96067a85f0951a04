"""A fit in one netCDF file, and back."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix import _netcdf
from bayesunmix.data.units import Units
from bayesunmix.fit import Fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.context import computing
from bayesunmix.inference.program import compile_model
from bayesunmix.inference.run import settings_as_dict

FORMAT, VERSION = "bayesunmix fit", 1
_MODELS = "bayesunmix.models"
_METHODS: dict[str, type[SVI] | type[NUTS] | type[Gibbs]] = {"SVI": SVI, "NUTS": NUTS, "Gibbs": Gibbs}


def save_fit(fit: Fit, path: Any) -> None:
    """Write a fit as a netCDF-4 file with the groups posterior, diagnostics, units, coords, model,
    covariates, truth.

    The file appears under its name only when it is whole.

    Raises
    ------
    TypeError
        When the model or a covariate holds what is neither number, text nor array.
    FileNotFoundError, IsADirectoryError
        When ``path`` lies in no folder, or is one.
    """
    path = _as_path(path)
    _netcdf.check_target(path, "fit.nc")
    units = fit.units
    model, model_arrays = _pack_model(fit.model)
    covariates, covariate_arrays = _pack_fields(fit.covariates, "covariate")
    groups: dict[str, xr.Dataset] = {
        "posterior": fit.posterior,
        "diagnostics": fit.diagnostics,
        "units": _pack_units(units),
        "model": model_arrays,
        "covariates": covariate_arrays,
    }
    for dim, coord in units.coords.items():
        groups[f"coords/{dim}"] = xr.Dataset({"values": ("position", coord.values, coord.attrs)})
    if fit.truth is not None:
        groups["truth"] = fit.truth
    description = {
        "format": FORMAT,
        "version": VERSION,
        "finished": fit.finished,
        "model": model,
        "method": settings_as_dict(fit.method),
        "provenance": fit.provenance,
        "covariates": covariates,
        "units": {
            "pixel_dims": units.pixel_dims,
            "pixel_shape": units.pixel_shape,
            "channel_dim": units.channel_dim,
            "feature_dim": units.feature_dim,
            "name": units.name,
            "attrs": units.attrs,
        },
    }
    _netcdf.write(path, f"{FORMAT}, version {VERSION}", description, groups)


def read_fit(path: Any, model: Any = None) -> Fit:
    """Read a fit that :func:`save_fit` wrote.

    Parameters
    ----------
    path : str or Path
    model : optional
        The model, where it is not one of the package: a file holds numbers and never code.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        When there is no file.
    TypeError
        When ``path`` is no path, or ``model`` no model.
    ValueError
        When the file is no fit, is damaged or of a later version, or when ``model`` is needed or does not
        fit.
    """
    path = _as_path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file that fit.save wrote, got a folder; try {path / 'fit.nc'}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one that fit.save wrote")
    if model is not None and (isinstance(model, type) or not callable(model)):
        raise TypeError(f"model: expected the model that was fitted, got {model!r}")
    about = _described(path)
    groups = _netcdf.read_groups(path)
    units = _read_units(about["units"], groups)
    covariates = _unpack_fields(about["covariates"], groups["covariates"])
    method = dict(about["method"])
    settings = _METHODS[method.pop("name")](**method)
    if model is None:
        model = _unpack_model(path, about["model"], groups["model"])
    elif hasattr(model, "bind") and not getattr(model, "bound", False):
        model = model.bind(units.values)
    _check_model(path, model, units, covariates, groups["posterior"])
    return Fit(
        model=model,
        method=settings,
        units=units,
        posterior=groups["posterior"],
        diagnostics=groups["diagnostics"],
        finished=about["finished"],
        provenance=about["provenance"],
        covariates=covariates,
        truth=groups.get("truth"),
    )


def _as_path(path: Any) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise TypeError(f"path: expected the name of a file, got {path!r}")
    return Path(path)


def _described(path: Path) -> dict[str, Any]:
    foreign = f"{path}: not a fit that fit.save wrote"
    try:
        about = _netcdf.read_description(path)
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{foreign}: {error}") from error
    if about.get("format") != FORMAT:
        raise ValueError(foreign)
    if about["version"] > VERSION:
        raise ValueError(
            f"{path}: written by a later bayesunmix (file version {about['version']}, here {VERSION}): update"
        )
    return about


# ---------------------------------------------------------------------- the model


def _pack_model(model: Any) -> tuple[dict[str, Any], xr.Dataset]:
    """Name and hyper-parameters of a model of the package; the name alone of any other."""
    name = getattr(model, "__name__", type(model).__name__)
    if not type(model).__module__.startswith(_MODELS + "."):
        return {"name": name, "own": True}, xr.Dataset()
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    plain, arrays = _pack_fields(fields, name)
    return {"name": name, "own": False, "fields": plain}, arrays


def _unpack_model(path: Path, about: dict[str, Any], arrays: xr.Dataset) -> Any:
    name = about["name"]
    if about["own"]:
        raise ValueError(
            f"{path}: fitted with a model of your own, {name!r}, of which the file holds no code: "
            "pass it, load_fit(path, model=...)"
        )
    # By name, so that the engine needs to know no model.
    cls = getattr(importlib.import_module(_MODELS), name, None)
    if cls is None:
        raise ValueError(f"{path}: fitted with the model {name!r}, which this version of bayesunmix does not have")
    try:
        return cls(**_unpack_fields(about["fields"], arrays))
    except TypeError as error:
        raise ValueError(f"{path}: {name} has other hyper-parameters in this version of bayesunmix: {error}") from error


def _check_model(path: Path, model: Any, units: Units, covariates: dict[str, Any], posterior: xr.Dataset) -> None:
    """Whether the program has the sites that the file holds draws of, and of their shapes."""
    with computing():
        y = jnp.asarray(units.values)
        program, numbers = compile_model(model, y, covariates)
        at = partial(program.evaluate, numbers, y=y, covariates=covariates)
        sites = jax.eval_shape(lambda z: at(z=z).values, jnp.zeros(program.size))
    held = {str(name): draws.shape[2:] for name, draws in posterior.data_vars.items()}
    missing = sorted({name for name, _ in program.shapes} - set(held))
    if missing:
        raise ValueError(
            f"{path}: the model has sites {missing} of which the file holds no draws (it has {sorted(held)}): "
            "pass the model that was fitted"
        )
    for name, _ in program.shapes:
        if sites[name].shape != held[name]:
            raise ValueError(
                f"{path}: the model's {name!r} has shape {sites[name].shape}, the draws in the file {held[name]}: "
                "pass the model that was fitted"
            )


def _pack_fields(fields: Mapping[str, Any], owner: str) -> tuple[dict[str, Any], xr.Dataset]:
    """Plain values, and arrays as a dataset."""
    plain, arrays = {}, {}
    for name, value in fields.items():
        if value is None or isinstance(value, bool | int | float | str):
            plain[name] = value
        elif isinstance(value, np.generic) and value.dtype.kind in "biuf":
            plain[name] = value.item()
        elif hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biuf":
            array = np.asarray(value)
            arrays[name] = (tuple(f"{name}_{i}" for i in range(array.ndim)), array)
        elif isinstance(value, Mapping | list | tuple):
            plain[name] = _nested(value, f"{owner}: cannot save {name}")
        else:
            raise TypeError(f"{owner}: cannot save {name}={value!r}; expected a number, a text or an array of numbers")
    return plain, xr.Dataset(arrays)


def _nested(value: Any, cannot: str) -> Any:
    """Mappings and lists of plain values; arrays become lists, whose numbers JSON keeps to the bit."""
    if isinstance(value, Mapping):
        return {str(key): _nested(inner, cannot) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_nested(inner, cannot) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biuf":
        return np.asarray(value).tolist()
    raise TypeError(f"{cannot}: it holds {value!r}; expected numbers, texts and arrays")


def _unpack_fields(plain: Mapping[str, Any], arrays: xr.Dataset) -> dict[str, Any]:
    return {**plain, **{str(name): array.values for name, array in arrays.data_vars.items()}}


# ---------------------------------------------------------------------- units


def _pack_units(units: Units) -> xr.Dataset:
    dims = ("unit", "channel", "feature")[: units.values.ndim]
    arrays = {"values": (dims, units.values), "index": (("unit",), units.index)}
    if units.lengths is not None:
        arrays["lengths"] = (("unit",), units.lengths)
    if units.members is not None:
        arrays["members"] = (("unit", "member"), units.members)
    return xr.Dataset(arrays)


def _read_units(about: dict[str, Any], groups: Mapping[str, xr.Dataset]) -> Units:
    values = groups["units"]["values"].values
    values.flags.writeable = False
    coords = {}
    feature_dim = about.get("feature_dim", "")
    for dim in (*about["pixel_dims"], about["channel_dim"], feature_dim):
        if f"coords/{dim}" in groups:
            axis = groups[f"coords/{dim}"]["values"]
            coords[dim] = xr.DataArray(axis.values, {dim: (dim, axis.values, axis.attrs)}, (dim,), dim, axis.attrs)
    return Units(
        values=values,
        index=groups["units"]["index"].values,
        pixel_dims=tuple(about["pixel_dims"]),
        pixel_shape=tuple(about["pixel_shape"]),
        channel_dim=about["channel_dim"],
        coords=coords,
        name=about["name"],
        attrs=about["attrs"],
        feature_dim=feature_dim,
        lengths=groups["units"]["lengths"].values if "lengths" in groups["units"] else None,
        members=groups["units"]["members"].values if "members" in groups["units"] else None,
    )
