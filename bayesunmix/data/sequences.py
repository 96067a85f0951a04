"""The door of every fit to trajectories: sequences of different length in, a padded array out."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.data.units import Units

_DIMS = ("sequence", "time", "feature")


def as_sequences(data: Any, *, mask: Any = None) -> Units:
    """Check trajectories and pad them to one length. The data are not changed.

    Parameters
    ----------
    data
        An ``xarray.DataArray`` (sequence, time[, feature]), with a coordinate ``length (sequence)`` where it is padded;
        a pair ``(X, lengths)`` as in hmmlearn, with ``X`` (frames[, feature]) the sequences one after the other; a
        list of arrays (frames[, feature]) as in deeptime; or an array (time), (sequence, time) or (sequence, time,
        feature). NaN is a missing value, and is integrated out.
    mask : boolean over the sequences, optional
        True = keep.

    Returns
    -------
    Units
        One unit a sequence: ``values`` (sequence, time[, feature]), NaN where missing and beyond the end.

    Raises
    ------
    TypeError
        For values that are not real numbers.
    ValueError
        For infinities, lengths that do not fit, a sequence without a single value, or a mask that does not fit.
    """
    image = as_padded(data)
    values = image.values
    if np.isinf(values).any():
        raise ValueError(f"data: {int(np.isinf(values).sum())} values are infinite; a missing value is NaN")
    count = len(values)
    lengths = np.asarray(image.coords["length"].values, dtype=np.int64)
    keep = np.ones(count, dtype=bool) if mask is None else np.asarray(mask)
    if keep.dtype != bool or keep.shape != (count,) or not keep.any():
        raise ValueError(f"mask: expected booleans for {count} sequences, True = keep at least one, got {mask!r}")
    empty = keep & ~np.isfinite(values).reshape(count, -1).any(1)
    if empty.any():
        raise ValueError(f"data: sequences {np.flatnonzero(empty).tolist()[:5]} hold no value; leave them out")
    kept = np.ascontiguousarray(values[keep])
    kept.flags.writeable = False
    dims = tuple(map(str, image.dims))
    return Units(
        values=kept,
        index=np.flatnonzero(keep),
        pixel_dims=dims[:1],
        pixel_shape=(count,),
        channel_dim=dims[1],
        coords={d: image.coords[d].reset_coords(drop=True).copy(deep=True) for d in dims if d in image.coords},
        name=str(image.name or ""),
        attrs=dict(image.attrs),
        feature_dim=dims[2] if len(dims) == 3 else "",
        lengths=lengths[keep],
    )


def pad(sequences: list[Any]) -> xr.DataArray:
    """Arrays (frames[, feature]) as one (sequence, time[, feature]) with their ``length``."""
    parts = [_unmasked(one) for one in sequences]
    shapes = {part.shape[1:] for part in parts}
    if not parts or len(shapes) > 1 or any(part.ndim not in (1, 2) or not len(part) for part in parts):
        raise ValueError(
            f"expected arrays (frames[, feature]) with the same features, got {[p.shape for p in parts[:5]]}"
        )
    if any(part.dtype.kind not in "fiub" for part in parts):
        raise TypeError(f"data: expected real numbers, got {sorted({str(p.dtype) for p in parts})}")
    if shapes == {(1,)}:
        parts = [part[:, 0] for part in parts]
    lengths = [len(part) for part in parts]
    values = np.full((len(parts), max(lengths), *parts[0].shape[1:]), np.nan)
    for row, part in zip(values, parts, strict=True):
        row[: len(part)] = part
    return xr.DataArray(values, dims=_DIMS[: values.ndim], coords={"length": ("sequence", lengths)})


def as_padded(data: Any) -> xr.DataArray:
    """Trajectories as one float64 array (sequence, time[, feature]) with ``length``, NaN beyond the ends."""
    image = _as_array(data)
    if image.dtype.kind not in "fiub":
        raise TypeError(f"data: expected real numbers, got {image.dtype}")
    count, steps = image.shape[:2]
    lengths = np.atleast_1d(image.coords["length"].values if "length" in image.coords else np.full(count, steps))
    if lengths.shape != (count,) or (lengths < 1).any() or (lengths > steps).any() or (lengths % 1).any():
        raise ValueError(f"length: expected a whole number from 1 to {steps} for each of {count} sequences")
    values = np.array(image.values, dtype=np.float64)
    values[np.arange(steps) >= lengths[:, None]] = np.nan
    return image.copy(data=values).assign_coords(length=(image.dims[0], lengths.astype(np.int64)))


def _as_array(data: Any) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        raise TypeError(f"expected one DataArray, got an xarray.Dataset; choose one of {list(data.data_vars)}")
    if isinstance(data, tuple) and len(data) == 2:
        frames, lengths = _unmasked(data[0]), np.asarray(data[1])
        whole = lengths.ndim == 1 and lengths.dtype.kind in "iuf" and (lengths >= 1).all() and not (lengths % 1).any()
        if not whole or lengths.sum() != len(frames):
            raise ValueError(
                f"lengths: expected whole numbers from 1 that add to the {len(frames)} frames, got {lengths.tolist()}"
            )
        data = np.split(frames, np.cumsum(lengths.astype(np.int64))[:-1])
    if isinstance(data, list | tuple):
        return pad(list(data))
    if not isinstance(data, xr.DataArray):
        values = _unmasked(data)
        if values.ndim == 2 and 1 < values.shape[1] <= 4 and len(values) >= 10 * values.shape[1]:
            warnings.warn(
                f"read as {len(values)} sequences of {values.shape[1]} frames; one sequence of {len(values)} frames "
                f"with {values.shape[1]} features goes in as (X, [len(X)])",
                UserWarning,
                stacklevel=2,
            )
        values = values[None] if values.ndim == 1 else values
        data = xr.DataArray(values, dims=_DIMS[: values.ndim] if values.ndim < 4 else None)
    if data.ndim == 1:
        data = data.expand_dims("sequence")
    if data.ndim not in (2, 3) or 0 in data.shape:
        raise ValueError(f"data: expected dims (sequence, time) or (sequence, time, feature), got {dict(data.sizes)}")
    return data


def _unmasked(values: Any) -> np.ndarray:
    """A masked array with NaN where it is masked; anything else as NumPy takes it."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        return np.where(np.ma.getmaskarray(values), np.nan, values.data)
    return np.asarray(values)
