"""A fit in one netCDF file, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix.data.units import Units
from bayesunmix.fit import Fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.precision import native_precision
from bayesunmix.inference.program import compile_model
from bayesunmix.inference.run import settings_as_dict

FORMAT, VERSION = "bayesunmix fit", 1
_MODELS = "bayesunmix.models"
_METHODS: dict[str, type[SVI] | type[NUTS] | type[Gibbs]] = {"SVI": SVI, "NUTS": NUTS, "Gibbs": Gibbs}
# Everything that is no array stands in one JSON text: netCDF attributes know no nesting, and HDF5 limits
# their size.
_TEXT = "description"


def save_fit(fit: Fit, path: Any) -> None:
    """Write a fit as a netCDF-4 file with the groups posterior, diagnostics, units, coords, model,
    covariates, truth.

    The file appears under its name only when it is whole.

    Raises
    ------
    TypeError
        When the model or a covariate holds what is neither number, text nor array.
    """
    path = Path(path)
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
    plain = {name: _plain(dataset) for name, dataset in groups.items()}
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
        "groups": {name: about for name, (_, about) in plain.items()},
    }
    text = json.dumps(_keyed(description), default=_as_json)
    with _appears_whole(path) as file:
        root = xr.Dataset({_TEXT: ((), text)}, attrs={"title": f"{FORMAT}, version {VERSION}"})
        root.to_netcdf(file, engine="h5netcdf")
        for name, (dataset, _) in plain.items():
            dataset.to_netcdf(file, group=name, mode="a", engine="h5netcdf", encoding=_unaltered(dataset))


def read_fit(path: Any, model: Any = None) -> Fit:
    """Read a fit that :func:`save_fit` wrote.

    Parameters
    ----------
    path : str or Path
    model : optional
        The model, where it is not one of the package: a file holds numbers and never code.

    Raises
    ------
    FileNotFoundError
        When there is no file.
    ValueError
        When the file is no fit, is damaged or of a later version, or when ``model`` is needed or does not
        fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one that fit.save wrote")
    about = _read_description(path)
    try:
        groups = {name: _read_group(path, name, entry) for name, entry in about["groups"].items()}
        units = _read_units(about["units"], groups)
        covariates = _unpack_fields(about["covariates"], groups["covariates"])
        method = dict(about["method"])
        settings = _METHODS[method.pop("name")](**method)
    except (KeyError, OSError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{path}: the file is a fit but damaged: {error}") from error
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
    with native_precision():
        program, _ = compile_model(model, jnp.asarray(units.values), covariates)
    missing = sorted({name for name, _ in program.shapes} - set(map(str, posterior.data_vars)))
    if missing:
        raise ValueError(
            f"{path}: the model has sites {missing} of which the file holds no draws (it has "
            f"{sorted(map(str, posterior.data_vars))}): pass the model that was fitted"
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
    if units.independent is not None:
        arrays["independent"] = (("unit",), units.independent)
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
        independent=groups["units"]["independent"].values if "independent" in groups["units"] else None,
    )


# ---------------------------------------------------------------------- netCDF


def _plain(dataset: xr.Dataset) -> tuple[xr.Dataset, dict[str, Any]]:
    """A dataset that netCDF holds to the bit, and what it cannot hold: types, attributes, coordinates."""
    flat = dataset.reset_coords()
    about: dict[str, Any] = {
        "attrs": dict(dataset.attrs),
        "coords": sorted(map(str, dataset.coords)),
        "variables": {},
    }
    arrays = {}
    for name in flat.variables:
        variable = flat.variables[name]
        values = np.asarray(variable.values)
        about["variables"][str(name)] = {"dtype": values.dtype.str, "attrs": dict(variable.attrs)}
        if values.dtype.kind in "mM":
            values = values.view(np.int64)
        elif values.dtype.kind == "b":
            values = values.astype(np.int8)
        elif values.dtype.kind not in "iufU" and not all(isinstance(v, str) for v in values.flat):
            raise TypeError(f"cannot save {name!r} of type {values.dtype}: expected numbers, times or texts")
        elif values.dtype.kind in "iuf":
            values = values.astype(values.dtype.newbyteorder("="), copy=False)
        # For other readers of the file; this one takes the attributes from the description.
        shown = {k: v for k, v in variable.attrs.items() if k in ("units", "long_name") and isinstance(v, str)}
        arrays[str(name)] = xr.Variable(variable.dims, values, shown)
    return xr.Dataset(arrays), about


def _unaltered(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
    return {name: {"_FillValue": None} for name in dataset.variables}


def _read_group(path: Path, name: str, about: dict[str, Any]) -> xr.Dataset:
    with xr.open_dataset(path, group=name, engine="h5netcdf", decode_cf=False, cache=False) as file:
        arrays = {}
        for key, entry in about["variables"].items():
            variable = file.variables[key]
            values = np.asarray(variable.values).astype(entry["dtype"], copy=False)
            arrays[key] = xr.Variable(variable.dims, values, entry["attrs"])
    return xr.Dataset(arrays, attrs=about["attrs"]).set_coords(about["coords"])


def _read_description(path: Path) -> dict[str, Any]:
    foreign = f"{path}: not a fit that fit.save wrote"
    try:
        with xr.open_dataset(path, engine="h5netcdf", decode_cf=False) as file:
            if _TEXT not in file:
                raise ValueError(foreign)
            about = json.loads(str(file[_TEXT].values))
    except (OSError, KeyError, RuntimeError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{foreign}: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(foreign)
    if about["version"] > VERSION:
        raise ValueError(
            f"{path}: written by a later bayesunmix (file version {about['version']}, here {VERSION}): update"
        )
    return about


@contextlib.contextmanager
def _appears_whole(path: Path):
    """A temporary name beside ``path`` that becomes ``path`` when nothing went wrong."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mode = os.umask(0)
        os.umask(mode)
        temporary.chmod(0o666 & ~mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _keyed(value: Any) -> Any:
    """The same nesting with texts as keys."""
    if isinstance(value, Mapping):
        return {str(key): _keyed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_keyed(inner) for inner in value]
    return value


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        return np.asarray(value).tolist()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)
