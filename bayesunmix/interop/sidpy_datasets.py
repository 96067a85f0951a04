"""sidpy datasets to images with named axes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.data.axes import Axis, assemble, text

# sidpy's word for "nobody said".
_UNSAID = "generic"
_SIGNALS = ("SPECTRAL", "RECIPROCAL", "CHANNEL")
_KINDS = {"y": "spatial", "x": "spatial", "z": "spatial", "time": "temporal", "frame": "temporal"}


def from_sidpy(dataset: Any) -> xr.DataArray:
    """A sidpy dataset as an image with named, calibrated axes, the spectral axis last.

    Parameters
    ----------
    dataset : sidpy.Dataset
        Dimensions of type spectral, reciprocal or channel are signal axes, all others pixel axes; where none is
        called so, the last one is taken for it. Values stay in their dask array.

    Returns
    -------
    xarray.DataArray
        Units in ``coords[...].attrs["units"]``; ``attrs`` hold ``units``, ``long_name`` (sidpy's quantity) and
        ``modality``.

    Raises
    ------
    TypeError
        When it is no sidpy dataset.
    """
    dimensions = getattr(dataset, "_axes", None)
    if dimensions is None or not hasattr(dataset, "quantity"):
        raise TypeError(f"expected a sidpy.Dataset, got {type(dataset).__name__}")
    kinds = [dimensions[i].dimension_type.name for i in range(dataset.ndim)]
    spectral = [kind in _SIGNALS for kind in kinds]
    if not any(spectral) and set(kinds) != {"SPATIAL"}:
        spectral[-1] = True
    axes = [
        Axis(_said(d.name), np.asarray(d.values), _said(d.units), pixel=not inner)
        for d, inner in zip((dimensions[i] for i in range(dataset.ndim)), spectral, strict=True)
    ]
    attrs = {"units": dataset.units, "long_name": dataset.quantity, "modality": dataset.modality}
    from dask.array import Array

    plain = Array(dataset.dask, name=dataset.name, chunks=dataset.chunks, dtype=dataset.dtype, shape=dataset.shape)
    image = assemble(plain, axes, name=_said(dataset.title), attrs={key: _said(word) for key, word in attrs.items()})
    for dim, i in zip(image.dims, sorted(range(dataset.ndim), key=lambda i: spectral[i]), strict=True):
        if spectral[i] and _said(dimensions[i].quantity):
            image.coords[dim].attrs["long_name"] = _said(dimensions[i].quantity)
    return image


def to_sidpy(array: xr.DataArray) -> Any:
    """An image, or any array of results, as a sidpy dataset with its dimensions and units.

    Parameters
    ----------
    array : xarray.DataArray
        Such as ``fit.data`` or ``fit.latent()["abundance"].sel(statistic="mean")``. Dims y, x and z become spatial,
        time and frame temporal, any other one spectral; labels that are no numbers become their position.

    Returns
    -------
    sidpy.Dataset

    Raises
    ------
    ImportError
        When sidpy is not installed.
    TypeError
        For anything but a DataArray.
    """
    if not isinstance(array, xr.DataArray):
        raise TypeError(
            f"expected an xarray.DataArray, got {type(array).__name__}; of a fit take fit.data, or "
            'fit.latent()["abundance"].sel(statistic="mean")'
        )
    try:
        import sidpy
    except ImportError as error:
        raise ImportError("bu.to_sidpy needs sidpy: pip install sidpy") from error
    said = {"units": array.attrs.get("units"), "quantity": array.attrs.get("long_name")}
    dataset = sidpy.Dataset.from_array(array.data, title=str(array.name or _UNSAID))
    dataset.units, dataset.quantity = (str(said[key] or _UNSAID) for key in ("units", "quantity"))
    dataset.modality = str(array.attrs.get("modality") or _UNSAID)
    kinds = [_KINDS.get(str(dim), "spectral") for dim in array.dims]
    for i, (dim, kind) in enumerate(zip(array.dims, kinds, strict=True)):
        dataset.set_dimension(i, _dimension(sidpy, array, dim, kind))
    dataset.data_type = _data_type(kinds)
    return dataset


def _dimension(sidpy: Any, array: xr.DataArray, dim: Any, kind: str) -> Any:
    coord = array.coords.get(dim)
    numbers = coord is not None and coord.dtype.kind in "iuf"
    values = np.asarray(coord.values) if coord is not None and numbers else np.arange(array.sizes[dim])
    attrs = coord.attrs if coord is not None else {}
    quantity, units = (str(attrs.get(key) or _UNSAID) for key in ("long_name", "units"))
    return sidpy.Dimension(values, name=str(dim), quantity=quantity, units=units, dimension_type=kind)


def _data_type(kinds: list[str]) -> str:
    """sidpy's name for an array with dimensions of these kinds."""
    counts = (kinds.count("spatial"), kinds.count("spectral"), kinds.count("temporal"))
    known = {(2, 1, 0): "spectral_image", (2, 0, 0): "image", (2, 0, 1): "image_stack", (0, 1, 0): "spectrum"}
    return known.get(counts, "unknown")


def _said(word: Any) -> str:
    return "" if word == _UNSAID else text(word)
