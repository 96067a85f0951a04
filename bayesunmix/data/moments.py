"""Mean and covariance of the channels, in one pass over the pixels: all that isotropic or diagonal noise needs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
from scipy.linalg.blas import dsyrk

_CHUNK_BYTES = 2**24


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


def moments(values: np.ndarray) -> Moments:
    """Moments in float64 of ``values`` (pixel, channel), a chunk at a time; pixels with a NaN are left out.

    The moments of the last read-only array are kept: priors and sampler of one fit ask for the same.
    """
    global _last
    if _last is not None and _last[0]() is values:
        return _last[1]
    found = _moments(values)
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        _last = (weakref.ref(values), found)
    return found


def _moments(values: np.ndarray) -> Moments:
    n_channels = values.shape[1]
    rows = max(1, _CHUNK_BYTES // (8 * n_channels))
    origin = np.nan_to_num(np.nanmean(values[:rows], axis=0, dtype=np.float64)) if len(values) else np.zeros(n_channels)
    total, scatter, count = np.zeros(n_channels), np.zeros((n_channels, n_channels), order="F"), 0
    for start in range(0, len(values), rows):
        part = values[start : start + rows] - origin
        complete = np.isfinite(part.sum(axis=1))
        if not complete.all():
            part = part[complete]
        if not len(part):
            continue
        total += part.sum(axis=0)
        scatter = dsyrk(1.0, part.T, beta=1.0, c=scatter, overwrite_c=1)
        count += len(part)
    if not count:
        return Moments(0, origin, np.zeros((n_channels, n_channels)))
    shift = total / count
    upper = scatter / count
    upper = np.triu(upper) + np.triu(upper, 1).T
    upper -= np.outer(shift, shift)
    return Moments(count, origin + shift, upper)
