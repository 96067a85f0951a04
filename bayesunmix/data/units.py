"""The door of every fit: an image and a mask in, checked units (pixels) as a plain array out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from bayesunmix._memory import share_one_pool
from bayesunmix.data import checks
from bayesunmix.data.axes import bare_dims
from bayesunmix.data.rows import Rows
from bayesunmix.data.sharing import independent, sharing

_SLAB_BYTES = 2**26
_HASH_BYTES = 2**22
_IN_FILE_BYTES = 2**27  # of an image that is not in memory, and need not be
_SHARED_BYTES = 2**25  # new pages for a second copy of more than this take as long as a small fit
_SEEN = 2**14  # values of a shared image by which it is told that it has been changed
_EXACT_IN_FLOAT32 = 2**24
_EXACT_IN_FLOAT64 = 2**53


@dataclass(frozen=True, eq=False)
class Units:
    """The fitted units of an image, and what is needed to go back to it.

    Attributes
    ----------
    values : numpy.ndarray or Rows
        ``(unit, channel)``, float32 or float64, read-only: the kept pixels in C order of the pixel grid. Images of more
        than 128 MiB in a file, or of dask, stay there (:class:`~bayesunmix.data.rows.Rows`).
    index : numpy.ndarray
        ``(unit,)``, flat position of each unit in the pixel grid.
    pixel_dims, pixel_shape, channel_dim
        Names and sizes of the pixel dims; name of the last dim.
    coords : dict of str to xarray.DataArray
        Coordinates of the pixel and channel dims where the image has them, with their units in ``attrs``.
    feature_dim : str
        Of sequences with several features: name of their last dim; the channel dim is then that of time.
    lengths : numpy.ndarray, optional
        ``(unit,)``, frames of each sequence; what lies beyond is padding.
    members : numpy.ndarray, optional
        ``(unit, k)`` of int, what each unit is made of, where units share parts and so depend on one another.
    seen : numpy.ndarray, optional
        Some of the values as they were, where memory is shared with the image.
    name, attrs
        Of the image; the unit of the values is ``attrs["units"]`` where it is known.
    """

    values: np.ndarray
    index: np.ndarray
    pixel_dims: tuple[str, ...]
    pixel_shape: tuple[int, ...]
    channel_dim: str
    coords: dict[str, xr.DataArray] = field(default_factory=dict)
    name: str = ""
    attrs: dict[str, Any] = field(default_factory=dict)
    feature_dim: str = ""
    lengths: np.ndarray | None = None
    members: np.ndarray | None = None
    seen: np.ndarray | None = None

    def unchanged(self) -> None:
        """See whether an image whose memory is shared still holds what it did.

        Raises
        ------
        ValueError
            When it does not. A change of few values may pass.
        """
        if self.seen is not None and not np.array_equal(_some(self.values), self.seen, equal_nan=True):
            raise ValueError(
                "expected the image as it was fitted, got one that has been changed in place since: its memory is "
                f"shared with the fit (images of more than {_SHARED_BYTES >> 20} MiB are not copied). Fit it again, or "
                "hand image.copy() to bu.fit and change the original"
            )

    @property
    def inner_dims(self) -> tuple[str, ...]:
        """Names of the axes of one unit."""
        return (self.channel_dim, self.feature_dim) if self.feature_dim else (self.channel_dim,)

    @cached_property
    def shared(self) -> csr_array | None:
        """Ones (unit, unit) where two different units share parts; None where units are independent."""
        return None if self.members is None else sharing(self.members)

    @cached_property
    def independent(self) -> np.ndarray | None:
        """Units (unit,) that share nothing with one another, as many as are easily found; None where none share."""
        return None if self.members is None else independent(self.members)

    @property
    def n_units(self) -> int:
        """Number of kept pixels."""
        return self.values.shape[0]

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.values.shape[1]

    @property
    def keep(self) -> xr.DataArray:
        """Boolean over the pixel dims, True where a pixel is fitted."""
        flat = np.zeros(int(np.prod(self.pixel_shape)), dtype=bool)
        flat[self.index] = True
        return self._image(flat, (), {})

    @property
    def advice(self) -> str:
        """A hint for who gave an image without any calibration, else nothing."""
        if self.coords or self.lengths is not None or self.attrs.get("units"):
            return ""
        return (
            "; no axis has units, so maps are in pixels and spectra in channels: an xarray.DataArray whose coords have "
            'attrs["units"], as from bu.load, labels them'
        )

    def to_map(
        self,
        values: Any,
        dims: Sequence[str] = (),
        coords: Mapping[str, Any] | None = None,
        fill: float = np.nan,
        axis: int = 0,
        copy: bool = True,
    ) -> xr.DataArray:
        """Put values of the units back on the pixel grid.

        Parameters
        ----------
        values : array
            ``(unit, *rest)``, or with the unit at ``axis``.
        dims : sequence of str
            Names of ``rest``.
        coords : mapping, optional
            Coordinates of ``dims``; that of the channel dim is known already.
        fill : float
            Value of the pixels that were masked.
        axis : int
            Where the units are in ``values``.
        copy : bool
            Whether the result must not share memory with ``values``, as it may where no pixel is masked.

        Returns
        -------
        xarray.DataArray
            Dims ``pixel_dims + dims``. Integers and booleans become floats where ``fill`` is NaN.

        Raises
        ------
        ValueError
            When the shape of ``values`` does not fit.
        """
        rows = np.moveaxis(np.asarray(values), axis, 0)
        if rows.ndim != 1 + len(dims) or rows.shape[0] != self.n_units:
            raise ValueError(
                f"expected {self.n_units} units followed by axes {tuple(dims)}, got shape {rows.shape} "
                f"(the unit axis moved first from {axis})"
            )
        n_pixels, rows = int(np.prod(self.pixel_shape)), self.without_padding(rows, dims, fill)
        dtype = np.result_type(rows.dtype, fill)
        if self.n_units == n_pixels:
            flat = rows.astype(dtype, copy=copy)
        else:
            flat = np.full((n_pixels, *rows.shape[1:]), fill, dtype)
            flat[self.index] = rows
        return self._image(flat, tuple(dims), coords or {})

    def without_padding(
        self, rows: np.ndarray, dims: Sequence[str], fill: float, part: slice = slice(None)
    ) -> np.ndarray:
        """Values ``(unit, *dims, ...)`` of the units in ``part``, with ``fill`` beyond the end of each sequence."""
        if self.lengths is None or not dims or dims[0] != self.channel_dim:
            return rows
        beyond = np.arange(rows.shape[1]) >= self.lengths[part, None]
        return np.where(beyond.reshape(*beyond.shape, *[1] * (rows.ndim - 2)), fill, rows)

    def _image(self, flat: np.ndarray, dims: tuple[str, ...], coords: Mapping[str, Any]) -> xr.DataArray:
        all_dims = self.pixel_dims + dims
        known = {dim: coord for dim, coord in self.coords.items() if dim in all_dims}
        return xr.DataArray(flat.reshape(self.pixel_shape + flat.shape[1:]), dims=all_dims, coords={**known, **coords})


def as_units(data: Any, *, mask: Any = None, likelihood: str = "normal", entries: bool = False) -> Units:
    """Check an image and take out the pixels that are to be fitted. The image is not changed.

    Parameters
    ----------
    data : xarray.DataArray or array
        Real numbers with the spectral axis last. A bare array of 2, 3 or 4 axes gets the dims
        ``(pixel, channel)``, ``(y, x, channel)`` or ``(frame, y, x, channel)``. Data in a file or of dask are
        read a slab at a time.
    mask : xarray.DataArray, array or "finite", optional
        Boolean over the pixel dims, True = keep. ``"finite"`` keeps the pixels whose channels are all finite.
    likelihood : str
        With ``"poisson"`` the kept values must be counts.
    entries : bool
        With ``mask="finite"``, keep every pixel with a finite channel; what is not finite becomes NaN, an entry that
        was not measured.

    Returns
    -------
    Units
        Floats keep their precision (half becomes single); integers become float32 where it holds each of them
        exactly, else float64; byte order becomes the machine's. Floating-point images of more than 32 MiB in
        memory of which every pixel is kept are shared and not copied: leave them as they are while the result
        is in use (:meth:`Units.unchanged`).

    Raises
    ------
    TypeError
        For values that are not real numbers.
    ValueError
        For data without a spectral axis of two or more channels, a mask that does not fit or keeps nothing,
        NaN or infinity in a kept pixel, a constant image, and what is not a count under
        ``likelihood="poisson"``.

    Warns
    -----
    UserWarning
        Once, with their number, where kept pixels are zero in every channel.

    Examples
    --------
    >>> from bayesunmix.data import as_units
    >>> counts = np.arange(24).reshape(2, 3, 4)
    >>> units = as_units(counts, mask=counts[..., 0] > 0)
    >>> units.n_units, units.pixel_dims, units.channel_dim
    (5, ('y', 'x'), 'channel')
    >>> units.to_map(units.values.sum(1)).values.tolist()
    [[nan, 22.0, 38.0], [54.0, 70.0, 86.0]]
    """
    image = _as_image(data)
    entries = entries and isinstance(mask, str) and mask == "finite"
    keep = _keep(image, mask, entries=entries)
    index = np.flatnonzero(keep)
    pixel_dims = tuple(map(str, image.dims[:-1]))
    where = checks.Where(index, pixel_dims, keep.shape)
    if image.nbytes > _IN_FILE_BYTES and not isinstance(image.variable._data, np.ndarray):
        values: Any = _in_file(image, where, likelihood, entries)
    else:
        values = _gather(image, keep)
        if entries:
            values = np.where(np.isfinite(values), values, np.nan)
        values = _checked(values, where, likelihood, entries)
        checks.varied(values)
        checks.warn_of_zeros(checks.zero_everywhere(values), where, str(image.dims[-1]))
        values = _floating(values)
        values.flags.writeable = False
    held = image.variable._data
    shared = isinstance(held, np.ndarray) and isinstance(values, np.ndarray) and np.may_share_memory(held, values)
    return Units(
        values=values,
        index=index,
        pixel_dims=pixel_dims,
        pixel_shape=keep.shape,
        channel_dim=str(image.dims[-1]),
        coords=_plain_coords(image),
        name=str(image.name or ""),
        attrs=dict(image.attrs),
        seen=_some(values) if shared else None,
    )


def _some(values: np.ndarray) -> np.ndarray:
    """Of all pixels and channels, evenly."""
    return values.ravel()[np.linspace(0, values.size - 1, _SEEN).astype(np.int64)]


def _checked(values: np.ndarray, where: checks.Where, likelihood: str, entries: bool) -> np.ndarray:
    """The values, unless one of them cannot be fitted."""
    if not entries:
        checks.finite(values, where)
    if likelihood == "poisson":
        checks.counts(values, where)
    return values


def _in_file(image: xr.DataArray, where: checks.Where, likelihood: str, entries: bool) -> Rows:
    """The kept pixels left where they are, after they were looked at once."""
    share_one_pool()
    raw = Rows(image, where.index, image.dtype.newbyteorder("="), gaps=entries)
    empty, lowest, highest = np.zeros(len(raw), dtype=bool), [], []
    step = max(1, _SLAB_BYTES // (raw.shape[1] * raw.dtype.itemsize))
    for start in range(0, len(raw), step):
        part = slice(start, start + step)
        values = _checked(raw[part], replace(where, index=where.index[part]), likelihood, entries)
        empty[part] = checks.zero_everywhere(values)
        lowest.append(np.nanmin(values))
        highest.append(np.nanmax(values))
        if values.dtype.kind == "f":
            checks.in_double(values)
    checks.varied(np.array([lowest, highest]))
    checks.warn_of_zeros(empty, where, str(image.dims[-1]))
    return Rows(image, where.index, _float_type(raw.dtype, min(lowest), max(highest)), gaps=entries)


def data_hash(units: Units) -> str:
    """SHA-256 of what is fitted, 64 hexadecimal digits: shape, kept pixels, values.

    Values are little-endian float32 where that holds each of them, else float64: the same numbers give the same hash
    whatever their precision, byte order, names and machine.
    """
    head = hashlib.sha256(repr((tuple(map(int, units.pixel_shape)), units.n_channels)).encode())
    head.update(units.index.astype("<i8").tobytes())
    return _digest(units.values, head.copy(), "<f4") or _digest(units.values, head, "<f8")


def _digest(values: np.ndarray, digest: Any, dtype: str) -> str:
    """The hash that goes on with values as ``dtype``; empty where that changes one of them."""
    rows = max(1, _HASH_BYTES // (8 * values.shape[1]))
    for start in range(0, len(values), rows):
        part = values[start : start + rows]
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(part, dtype)
        if kept.dtype.itemsize < part.dtype.itemsize and not np.array_equal(kept, part, equal_nan=True):
            return ""
        digest.update(kept.data)
    return digest.hexdigest()


def _as_image(data: Any) -> xr.DataArray:
    if isinstance(data, xr.Dataset):
        raise TypeError(f"expected one image, got an xarray.Dataset; choose one of {list(data.data_vars)}")
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError("expected an array without a mask of its own; pass data.data and mask=~data.mask")
    if not isinstance(data, xr.DataArray):
        if not hasattr(data, "__dask_graph__"):
            data = checks.one_array(data)
        data = xr.DataArray(data, dims=("pixel", "channel") if data.ndim == 2 else bare_dims(data.ndim))
    checks.known_sizes(data)
    checks.real_numbers(data)
    checks.dims(data)
    return data


def _plain_coords(image: xr.DataArray) -> dict[str, xr.DataArray]:
    """Coordinates named like their dim, but for multi-indices, whose entries are tuples."""
    return {
        str(dim): image.coords[dim].reset_coords(drop=True).copy(deep=True)
        for dim in image.dims
        if dim in image.coords and image.indexes[dim].nlevels == 1
    }


def _keep(image: xr.DataArray, mask: Any, *, entries: bool = False) -> np.ndarray:
    """Boolean array over the pixel dims, True = keep."""
    if mask is None:
        return np.ones(image.shape[:-1], dtype=bool)
    if not isinstance(mask, str):
        keep = checks.fitting_mask(image, mask)
        advice = "True means keep: if yours marks what to leave out, pass ~mask"
    elif mask == "finite":
        enough = np.any if entries else np.all
        keep = np.concatenate([enough(np.isfinite(block), axis=-1) for _, block in _slabs(image)])
        advice = "every pixel holds NaN or infinity"
    else:
        raise ValueError(f"expected a boolean mask or mask='finite', got mask={mask!r}")
    if not keep.any():
        raise ValueError(f"the mask keeps none of the {keep.size} pixels; {advice}")
    return keep


def _slabs(image: xr.DataArray) -> Iterator[tuple[slice, np.ndarray]]:
    """The image in pieces along its first dim, so that data in a file never are in memory twice."""
    n = image.shape[0]
    if image.chunks:
        sizes = image.chunks[0]
    else:
        step = max(1, _SLAB_BYTES * n // max(1, image.nbytes))
        sizes = tuple(min(step, n - start) for start in range(0, n, step))
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        yield rows, np.asarray(image[rows].values)
        start += size


def _gather(image: xr.DataArray, keep: np.ndarray) -> np.ndarray:
    """Kept pixels ``(unit, channel)`` of the image's type in native byte order: a new array, but for large images."""
    held = image.variable._data if isinstance(image.variable._data, np.ndarray) else None
    plain = held is not None and held.flags.c_contiguous and held.dtype.isnative
    if held is not None and plain and held.nbytes > _SHARED_BYTES and keep.all():
        return held.reshape(-1, held.shape[-1])
    values = np.empty((np.count_nonzero(keep), image.shape[-1]), dtype=image.dtype.newbyteorder("="))
    start = 0
    for rows, block in _slabs(image):
        kept = block.reshape(-1, block.shape[-1]) if keep[rows].all() else block[keep[rows]]
        values[start : start + len(kept)] = kept
        start += len(kept)
    return values


def _floating(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "f":
        checks.in_double(values)
        return values.astype(_float_type(values.dtype), copy=False)
    return values.astype(_float_type(values.dtype, values.min(), values.max()))


def _float_type(dtype: np.dtype, lowest: Any = 0, highest: Any = 0) -> type:
    """Single or double precision, whichever holds every value."""
    if dtype.kind == "f":
        return np.float32 if dtype.itemsize <= 4 else np.float64
    largest = max(abs(int(lowest)), abs(int(highest)))
    if largest > _EXACT_IN_FLOAT64:
        raise ValueError(f"integers up to {largest} do not fit into double precision; divide them before fitting")
    return np.float32 if largest <= _EXACT_IN_FLOAT32 else np.float64
