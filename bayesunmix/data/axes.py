"""Names, order and calibration of the dims: from what a file says of its axes to a DataArray."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

_UNSAID = {"", "_none_", "none", "undefined", "<undefined>", "unknown"}
_QUANTITIES = ("energy", "wavelength")


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis as a file describes it; ``pixel`` tells where from what (navigation from signal)."""

    name: str = ""
    values: np.ndarray | None = None
    units: str = ""
    pixel: bool = True


def uniform(size: int, scale: float = 1.0, offset: float = 0.0) -> np.ndarray:
    """Coordinate of an axis with a constant step, shape ``(size,)``."""
    return float(offset) + float(scale) * np.arange(size)


def text(value: Any) -> str:
    """A file's string attribute as ``str``; the various ways of saying nothing become ``""``."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(())[()]
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if not isinstance(value, str) or value.strip().lower() in _UNSAID:
        return ""
    return value.strip()


def dim_name(name: str) -> str:
    """The dim for an axis called ``name``.

    Lower case, with every run of other signs as one underscore: ``"Raman shift"`` becomes ``raman_shift``.
    Names that begin with energy or wavelength become that word alone, so ``"Energy loss"`` and
    ``"Energy (eV)"`` both are ``energy``. The name as given stays in the coordinate's ``attrs["long_name"]``.
    """
    plain = re.sub(r"[\W_]+", "_", name.lower()).strip("_")
    return next((word for word in _QUANTITIES if plain.startswith(word)), plain)


def bare_dims(ndim: int) -> tuple[str, ...]:
    """Dims of an array without any: an image is ``(y, x)``, a spectrum image ``(y, x, channel)``."""
    if ndim == 2:
        return ("y", "x")
    names = ("frame", "y", "x", "channel")[max(0, 4 - ndim) :]
    return tuple(f"axis_{i}" for i in range(ndim - len(names))) + names


def quantity_and_units(label: str) -> tuple[str, str]:
    """Split a label such as ``"Intensity (Counts)"`` or ``"Current [nA]"``."""
    match = re.fullmatch(r"(.*?)\s*[(\[]([^()\[\]]*)[)\]]", label)
    return (match[1], match[2]) if match else (label, "")


def _fill_names(axes: Sequence[Axis]) -> list[str]:
    """Dims for pixel axes followed by signal axes; a name that comes twice gets a number."""
    names = [dim_name(axis.name) for axis in axes]
    pixels = [i for i, axis in enumerate(axes) if axis.pixel]
    signal = [i for i, axis in enumerate(axes) if not axis.pixel]
    if len(signal) > 1 and len(pixels) == 1:
        names[pixels[0]] = names[pixels[0]] or "frame"
    if len(signal) == 1:
        names[signal[0]] = names[signal[0]] or "channel"
    for group, words in ((pixels, ("x", "y", "z")), (signal, ("x", "y", "kx", "ky"))):
        free = iter([word for word in words if word not in names])
        for i in reversed(group):
            names[i] = names[i] or next(free, f"axis_{i}")
    for i, name in enumerate(names):
        repeats = names[:i].count(name)
        names[i] = f"{name}_{repeats + 1}" if repeats else name
    return names


def assemble(data: Any, axes: Sequence[Axis], *, name: str = "", attrs: dict[str, Any] | None = None) -> xr.DataArray:
    """Put the values and the axes of a file together, the pixel axes first and the spectral axis last.

    Parameters
    ----------
    data : array
        Values, in the order of ``axes``; in memory, memory-mapped, of dask or of :mod:`bayesunmix.data.lazy`.
    axes : sequence of Axis
        One an axis of ``data``.
    name, attrs
        Title, and attributes; empty ones are left out.

    Returns
    -------
    xarray.DataArray
        Its coordinates carry ``units`` and ``long_name`` in their attributes where the file gives them.
    """
    order = sorted(range(len(axes)), key=lambda i: not axes[i].pixel)
    names = dict(zip(order, _fill_names([axes[i] for i in order]), strict=True))
    dims = [names[i] for i in range(len(axes))]
    coords = {}
    for dim, axis in zip(dims, axes, strict=True):
        if axis.values is not None:
            said = {"units": axis.units, "long_name": axis.name}
            coords[dim] = (dim, np.asarray(axis.values), {key: word for key, word in said.items() if word})
    image = xr.DataArray(data, dims=dims, coords=coords, name=name.replace("/", "_") or None)
    image.attrs.update({key: value for key, value in (attrs or {}).items() if value not in ("", None)})
    return image.transpose(*(dims[i] for i in order))
