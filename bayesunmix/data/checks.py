"""What an image, a mask and their values must be; each message says expected, got and how to fix."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

# Dims that results have beside those of the data.
_TAKEN = ("chain", "draw", "unit", "statistic", "parameter", "endmember", "component", "state")
_PART = 2**20  # values looked at together
_FIRST = 16  # channels


def one_array(data: Any) -> np.ndarray:
    """Whatever NumPy takes for an array; lists whose rows differ in length are none."""
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(f"expected one array (..., channel), got rows of different lengths: {error}") from error


def known_sizes(image: xr.DataArray) -> None:
    """No dim whose size dask has not worked out."""
    if not all(isinstance(n, int | np.integer) for n in image.shape):
        raise ValueError(
            f"expected an array of known shape, got {image.shape}; call compute_chunk_sizes() on the dask array first"
        )


def in_double(values: np.ndarray) -> None:
    """Extended precision may hold numbers beyond double precision."""
    if values.dtype.itemsize > 8:
        largest = np.abs(values).max()
        if largest > np.finfo(np.float64).max:
            raise ValueError(f"values up to {largest:.3g} do not fit into double precision; divide them before fitting")


def real_numbers(image: xr.DataArray) -> None:
    """Integers or floats, not complex, boolean, text or objects."""
    if image.dtype.kind == "c":
        raise TypeError("expected real values, got complex ones; fit abs(data), data.real or data.imag")
    if image.dtype.kind not in "iuf":
        raise TypeError(f"expected numbers, got type {image.dtype}; convert them with data.astype(float)")


def dims(image: xr.DataArray) -> None:
    """Pixel dims first, then a spectral dim of two or more channels."""
    if image.ndim < 2:
        raise ValueError(
            f"expected pixel dims and a spectral dim last, such as (y, x, energy), got dims {image.dims}; "
            "a single spectrum cannot be decomposed"
        )
    last = image.dims[-1]
    if last in ("y", "x", "z", "pixel"):
        raise ValueError(
            f"expected the spectral dim last, got dims {image.dims}, which end with a pixel dim; an image "
            "without spectra cannot be decomposed. If there is a spectral dim, move it to the end with "
            f"data.transpose(..., 'energy'); if {last!r} is it, rename it with data.rename({last}='channel')"
        )
    taken = [dim for dim in image.dims if dim in _TAKEN]
    if taken:
        raise ValueError(f"the dims {taken} have a meaning of their own in results; rename them in the data")
    if 0 in image.shape:
        raise ValueError(f"expected at least one pixel and two channels, got shape {image.shape}")
    if image.shape[-1] < 2:
        raise ValueError(f"expected two or more channels along the last dim {last!r}, got {image.shape}")


def fitting_mask(image: xr.DataArray, mask: Any) -> np.ndarray:
    """The mask as a boolean array in the order of the pixel dims."""
    pixel_dims, shape = image.dims[:-1], image.shape[:-1]
    if isinstance(mask, xr.DataArray):
        if set(mask.dims) != set(pixel_dims):
            raise ValueError(f"expected a mask over the pixel dims {pixel_dims}, got dims {mask.dims}")
        mask = mask.transpose(*pixel_dims)
    keep = np.asarray(mask)
    if keep.dtype != bool:
        raise ValueError(f"expected a boolean mask (True = keep), got {keep.dtype}; pass mask.astype(bool)")
    if keep.shape != shape:
        raise ValueError(f"expected a mask of shape {shape} over pixel dims {pixel_dims}, got {keep.shape}")
    if isinstance(mask, xr.DataArray):
        for dim in set(pixel_dims) & set(mask.indexes) & set(image.indexes):
            if not mask.indexes[dim].equals(image.indexes[dim]):
                raise ValueError(
                    f"the mask and the image have other coordinates along {dim!r}: they show other pixels. "
                    "If they are the same pixels all the same, pass mask.values"
                )
    return keep


@dataclass(frozen=True, eq=False)
class Where:
    """Names the pixels of units in messages."""

    index: np.ndarray
    dims: tuple[str, ...]
    shape: tuple[int, ...]

    def pixels(self, bad: Any, limit: int = 3) -> str:
        """Such as ``2 of 10 kept pixels, at (y=0, x=3), (y=4, x=1)``, counted from zero."""
        found = np.flatnonzero(bad)
        positions = zip(*np.unravel_index(self.index[found[:limit]], self.shape), strict=True)
        named = [", ".join(f"{d}={int(i)}" for d, i in zip(self.dims, p, strict=True)) for p in positions]
        more = ", ..." if len(found) > limit else ""
        return f"{len(found)} of {len(bad)} kept pixels, at ({'), ('.join(named)}){more}"


def finite(values: np.ndarray, where: Where) -> None:
    """No NaN and no infinity in a kept pixel."""
    if values.dtype.kind != "f":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        # A product of vectors takes a third of the time of a sum, and is finite unless values are huge.
        if all(np.isfinite(np.dot(part.ravel(), part.ravel())) for part in _parts(values)):
            return
    for test, words in ((np.isnan(values), "NaN"), (np.isinf(values), "infinite values")):
        if test.any():
            found = where.pixels(test.any(axis=1))
            raise ValueError(
                f"the data hold {np.count_nonzero(test)} {words} in {found}; leave these pixels out with "
                "mask='finite' (--mask finite on the command line), or pass a boolean mask (True = keep)"
            )


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Some rows at a time."""
    rows = max(1, _PART // max(1, values[:1].size))
    return (values[start : start + rows] for start in range(0, len(values), rows))


def varied(values: np.ndarray) -> None:
    """Not the same value everywhere."""
    low = high = values.flat[0]
    for part in _parts(values):
        low, high = np.fmin(low, np.fmin.reduce(part, axis=None)), np.fmax(high, np.fmax.reduce(part, axis=None))
        if low < high:
            return
    raise ValueError(
        f"every kept value is {low}: a constant image holds nothing to fit. Check the file, the data set and the mask"
    )


def counts(values: np.ndarray, where: Where) -> None:
    """Whole numbers from zero up."""
    negative = (values < 0).any(axis=1)
    if negative.any():
        raise ValueError(
            f"likelihood='poisson' expects counts, got negative values in {where.pixels(negative)}; "
            "fit the raw counts, or use likelihood='normal'"
        )
    broken = np.zeros(0, dtype=bool)
    if values.dtype.kind == "f":
        broken = ((values != np.rint(values)) & ~np.isnan(values)).any(axis=1)
    if broken.any():
        raise ValueError(
            f"likelihood='poisson' expects whole counts, got fractions in {where.pixels(broken)}; "
            "fit the counts before they were scaled, or use likelihood='normal'"
        )


def zero_everywhere(values: np.ndarray) -> np.ndarray:
    """Rows that are zero in every channel: most show in their first, or their first few, that they are not."""
    empty = values[:, 0] == 0
    for width in (_FIRST, values.shape[1]):
        doubtful = np.flatnonzero(empty)
        for some in np.array_split(doubtful, max(1, doubtful.size * width // _PART)):
            empty[some] = ~values[some, :width].any(axis=1)
    return empty


def warn_of_zeros(empty: np.ndarray, where: Where, channel_dim: str) -> None:
    """One warning with the number of pixels that are zero in every channel, marked in ``empty``."""
    if empty.any():
        warnings.warn(
            f"every channel is zero in {where.pixels(empty)}; if they are no measurement, leave them out "
            f"with mask=(data != 0).any({channel_dim!r})",
            UserWarning,
            stacklevel=4,  # the caller of bu.fit
        )
