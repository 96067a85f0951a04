"""Pixels of a mixture of known endmembers that say of the noise level what they say together.

About the plane of the mixtures the data of a pixel scatter in P - K + 1 directions, whatever its abundances, and in the
plane it counts which share of a normal distribution about the data lies between the faces: all of it, or for a pixel
that comes near one face what is on this side of it. So the squares of such pixels are enough, summed, and their
distances from that face (:class:`~bayesunmix.distributions.pooled_noise.PooledNoise`). Pixels near an edge are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np

from bayesunmix.distributions.pooled_noise import PooledNoise
from bayesunmix.distributions.simplex import AWAY
from bayesunmix.models._hyperparameters import hyperparameters

_FEWEST = 2**13  # pixels that are worth it
_FEWEST_LEFT, _FEWEST_NEAR = 2**8, 2**10  # so that other images of a size have as many
_MARGIN = 1.1  # times the likeliest noise level: of so many pixels, a dozen standard deviations
_CERTAIN = 1e2  # standard deviations from a face


@hyperparameters
@dataclass(frozen=True, eq=False)
class Pooled:
    """What is left of such pixels."""

    square: Any  # sum of squared distances from the plane
    freedom: Any  # directions about it, summed
    distances: Any  # (near,) from the one face that is in reach, in standard deviations at a noise level of one
    constant: Any  # of the log density
    noise_scale: Any  # the likeliest level, but for faces, of all pixels

    def law(self, noise_scale: Any) -> PooledNoise:
        """Distribution of the sum of squares."""
        return PooledNoise(noise_scale, self.freedom, self.distances, self.constant)


def pool(endmembers: np.ndarray, values: np.ndarray, n_channels: int) -> tuple[Pooled | None, np.ndarray]:
    """Pixels of ``values`` (unit, number) taken together, and the numbers of those that are left; None and all where
    that is not worth it.

    ``endmembers`` (K, number) and values are those of :func:`~bayesunmix.models._sufficient.summarised`.
    """
    every, (n_parts, _) = np.arange(len(values)), endmembers.shape
    # Units last: sums over a few numbers of each then go along lanes.
    edges, away = endmembers[1:] - endmembers[0], np.ascontiguousarray((values - endmembers[0]).T)
    lengths = np.linalg.svd(edges, compute_uv=False)
    if len(values) < _FEWEST or n_parts == 1 or lengths[-1] < 1e-6 * lengths[0]:
        return None, every
    turn = np.linalg.pinv(edges).T
    parts = turn @ away
    squares = ((away - edges.T @ parts) ** 2).sum(0)
    freedom = n_channels - n_parts + 1
    noise = np.sqrt(squares.mean() / freedom)
    if noise == 0.0:
        return None, every
    parts = np.vstack([1.0 - parts.sum(0), parts])
    turn = np.vstack([-turn.sum(0), turn])
    covariance = turn @ turn.T  # of the abundances, at a noise level of one
    nearest, hard = _faces(parts, noise**2 * covariance)
    count = _rounded(hard, _FEWEST_LEFT)
    if count > len(values) // 2:
        return None, every
    hard[np.flatnonzero(~hard)[: count - hard.sum()]] = True
    kept, together = np.flatnonzero(hard), ~hard
    near = together & (nearest < AWAY * _MARGIN)
    distances = np.full(_rounded(near, _FEWEST_NEAR), _CERTAIN * noise)
    distances[: near.sum()] = noise * nearest[near]
    # Of a unit: uniform abundances, the plane's own volume, and the normal density.
    constant = lgamma(n_parts) - np.log(lengths).sum() - 0.5 * freedom * log(2.0 * pi)
    number = len(values) - len(kept)
    square = float(squares[together].sum())
    return Pooled(square, float(number * freedom), distances, float(number * constant), float(noise)), kept


def _faces(mean: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations (unit,) of normal abundances from the nearest face, and whether another one is in reach.

    ``mean`` (K, unit).
    """
    sd = np.sqrt(np.diag(covariance))
    room = mean / sd[:, None]
    nearest, hard = room.min(0), np.zeros(mean.shape[1], bool)
    close = np.flatnonzero(nearest < AWAY * _MARGIN)
    room, low = room[:, close], nearest[close]
    first, every = room.argmin(0), np.arange(len(close))
    slope = (covariance / (sd * sd[:, None]))[:, first]
    # The nearest face pushes its part away, at least to where it is, at most by Mills' ratio; the others go with it.
    at_least = np.maximum(-low, 0.0)
    at_most = 0.5 * (np.sqrt(low**2 + 4.0 * _MARGIN**2) - low)
    room += slope * np.where(slope < 0.0, at_most, at_least)
    room[first, every] = np.inf
    hard[close] = room.min(0) < AWAY * _MARGIN
    return nearest, hard


def _rounded(chosen: np.ndarray, least: int) -> int:
    """From the number of pixels the next power of two up: nothing is compiled anew for some more."""
    return int(2 ** np.ceil(np.log2(max(least, chosen.sum()))))
