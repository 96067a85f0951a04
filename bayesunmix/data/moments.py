"""Mean and covariance of the channels, in one pass over the pixels: all that isotropic or diagonal noise needs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg.blas import dsyrk, ssyrk

_CHUNK_BYTES = 2**24
_ORIGIN_ROWS = 256  # whose mean is near enough
_MANY_PRODUCTS = 2**34  # pixels times channels squared, from which single precision is worth a check
_HARMLESS = 1e-2  # posterior sds of the variance along the worst direction


@dataclass(frozen=True, eq=False)
class Moments:
    """What a normal model with one covariance sees of complete pixels.

    Attributes
    ----------
    count : int
        Pixels.
    mean : numpy.ndarray
        (channel,)
    covariance : numpy.ndarray
        (channel, channel), divided by ``count``.
    """

    count: int
    mean: np.ndarray
    covariance: np.ndarray

    @cached_property
    def _eigen(self) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = scipy.linalg.eigh(self.covariance, driver="evd")
        return values[::-1].clip(0.0), np.ascontiguousarray(vectors[:, ::-1])

    @property
    def eigenvalues(self) -> np.ndarray:
        """(channel,), largest first."""
        return self._eigen[0]

    @property
    def eigenvectors(self) -> np.ndarray:
        """(channel, channel), a column each."""
        return self._eigen[1]


_last: tuple[weakref.ref, Moments] | None = None


def moments(values: np.ndarray, *, last: bool = False) -> Moments:
    """Moments in float64 of ``values`` (pixel, channel), a chunk at a time; pixels with a NaN are left out.

    The moments of the last read-only array are kept, as priors and sampler of one fit ask for the same, until someone
    asks for the ``last`` time: of many channels they are a tenth of a large image.
    """
    global _last
    if _last is not None and _last[0]() is values:
        found = _last[1]
    else:
        found = _moments(values)
        if isinstance(values, np.ndarray) and not values.flags.writeable:
            _last = (weakref.ref(values), found)
    if last:
        _last = None
    return found


def _moments(values: np.ndarray) -> Moments:
    if values.dtype == np.float32 and len(values) * values.shape[1] ** 2 > _MANY_PRODUCTS:
        found = _summed(values, np.float32)
        if rounding(found) < _HARMLESS:
            return found
    return _summed(values, np.float64)


def rounding(found: Moments) -> float:
    """How far products in single precision move the variance along any direction, at most, in its posterior sds.

    Their error is relative to the variance of the channels, and counts beside what the other channels do not explain
    of it, ``1 / (inverse covariance)_pp``: few strong components make it matter. It grows with the root of the
    number of channels; of 64 to 1024 the error was .3 to .6 of this bound. Errors of strong components, and of a level
    of noise that all channels share, are a tenth of it and less.
    """
    if found.eigenvalues[-1] <= 0.0:
        return np.inf
    inverse = (found.eigenvectors**2) @ (1.0 / found.eigenvalues)
    inflation = float((np.diag(found.covariance) * inverse).mean())
    unit = np.finfo(np.float32).eps / 2
    return 2.0 * inflation * unit * np.sqrt(len(inverse) * found.count / 2)


def _summed(values: np.ndarray, dtype: type) -> Moments:
    """Moments with the products of a chunk taken in ``dtype``, and chunks added up in double precision."""
    n_channels = values.shape[1]
    rows = max(1, _CHUNK_BYTES // (np.dtype(dtype).itemsize * n_channels))
    head = values[: min(rows, _ORIGIN_ROWS)]
    known = np.isfinite(head)
    origin = np.where(known, head, 0.0).sum(axis=0, dtype=np.float64) / known.sum(axis=0).clip(1)
    origin = origin.astype(dtype)
    total, scatter, count = np.zeros(n_channels), np.zeros((n_channels, n_channels), order="F"), 0
    product = np.zeros_like(scatter, dtype) if dtype == np.float32 else scatter
    room = np.empty((min(rows, len(values)), n_channels), dtype)
    for start in range(0, len(values), rows):
        taken = values[start : start + rows]
        part = np.subtract(taken, origin, out=room[: len(taken)])
        sums = part.sum(axis=0)
        if not np.isfinite(sums).all():
            part = part[np.isfinite(part.sum(axis=1))]
            sums = part.sum(axis=0)
        if not len(part):
            continue
        total += sums
        if dtype == np.float32:
            product = ssyrk(1.0, part.T, c=product, overwrite_c=1)
            scatter += product
        else:
            scatter = dsyrk(1.0, part.T, beta=1.0, c=scatter, overwrite_c=1)
        count += len(part)
    origin = origin.astype(np.float64)
    if not count:
        return Moments(0, origin, np.zeros((n_channels, n_channels)))
    shift = total / count
    scatter /= count
    for p in range(n_channels):  # the other half was not written
        scatter[p, p:] -= shift[p] * shift[p:]
        scatter[p:, p] = scatter[p, p:]
    return Moments(count, origin + shift, scatter)
