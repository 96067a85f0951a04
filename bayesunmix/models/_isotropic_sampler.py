"""Gibbs sampler of linear factor models whose channels are all alike: one noise level, priors without a direction.

The sampler of :mod:`bayesunmix.models._factor_sampler`, along the eigenvectors of the channel covariance. Each of the
pixels that complete ones are turned to has one entry there, loadings on their principal axes are orthogonal in every
metric that a conditional asks for, and precisions are the same in all channels: what is left of a sweep are a few
passes over (chain, component, channel), two sets of normal numbers, and matrices of the size of the components.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesunmix.data.moments import Moments
from bayesunmix.models._factor_sampler import Priors, dispersed, inverse_wishart_half, opposite, wishart
from bayesunmix.models._normals import normals
from bayesunmix.models._principal_axes import normal_axes

_SINGLE = 512  # channels


class State(NamedTuple):
    """One point of every chain; channels along the eigenvectors."""

    components: np.ndarray  # (c, K, P)
    mean: np.ndarray  # (c, P)
    noise: np.ndarray  # (c, 1), variance


class IsotropicSampler:
    """What :mod:`bayesunmix.inference.gibbs` runs: start, sweep, values.

    Parameters
    ----------
    found : Moments
        Of complete pixels.
    priors : Priors
        Scales of one entry; the mean in the channels' own basis.
    start : dict
        Most likely ``components``, ``mean`` and ``noise_scale`` in the channels' own basis.
    reference : numpy.ndarray, optional
        (K, P), decides the signs of principal axes.
    """

    def __init__(
        self, found: Moments, priors: Priors, start: dict[str, np.ndarray], reference: np.ndarray | None = None
    ):
        basis = found.eigenvectors
        self.priors, self.count = priors, float(found.count)
        kept = found.eigenvalues > 1e-13 * found.eigenvalues[0]
        kept[found.count - 1 :] = False
        self._roots = np.sqrt(found.count * np.where(kept, found.eigenvalues, 0.0))
        self._rank = int(kept.sum())
        self._free = found.count - 1 - self._rank
        self._origin, self._prior_mean = found.mean @ basis, priors.mean @ basis
        self._components, self._mean = start["components"] @ basis, start["mean"] @ basis
        self._noise = np.atleast_1d(np.asarray(start["noise_scale"]) ** 2)
        self._reference = None if reference is None else reference @ basis
        # Single precision is enough to turn the loadings of many channels back: their axes are found before.
        self._turn = basis.T.astype(np.float32) if len(basis) >= _SINGLE else basis.T
        self._centre = basis @ self._origin

    def start(self, rng: np.random.Generator, chains: int) -> State:
        """Chains spread about the most likely values, more widely than their posterior."""
        components, noise = dispersed(rng, chains, self._components, self._noise, self.count)
        return State(components, np.broadcast_to(self._mean, (chains, len(self._mean))), noise)

    def sweep(self, state: State, rng: np.random.Generator) -> State:
        """One round through every conditional, in the order of the general sampler."""
        count, noise, components = self.count, state.noise, state.components
        chains, size, channels = components.shape
        tight, mean_tight = self.priors.scale[0] ** -2.0, self.priors.mean_scale[0] ** -2.0
        strength, axes = np.linalg.eigh(components @ components.transpose(0, 2, 1))
        strength, turn = strength.clip(0.0), axes.transpose(0, 2, 1)  # all there is to the gram of the components
        white = normals(rng, (chains, 2 * size + 1, channels))
        # Scores of the turned pixels about the principal axes, over their standard deviations ``root``: one a
        # direction, one with the mean, and those of nothing but noise.
        root = 1.0 / np.sqrt(1.0 + strength / noise)
        scores = ((root / noise)[:, :, None] * turn) @ components
        scores *= self._roots
        scores += white[:, :size]
        pull = _along(turn, _along(components, self._origin - state.mean)) / noise
        big = np.sqrt(count)
        first = big * pull * root + rng.standard_normal((chains, size))
        inner = scores[:, :, : self._rank]
        square = inner @ inner.transpose(0, 2, 1) + _outer(first, first) + wishart(rng, self._free, chains, size)
        square *= _outer(root, root)
        total = big * first * root
        # Scores and mean shifted together, then the mean.
        precision = count + mean_tight * strength
        pull = mean_tight * _along(turn, _along(components, state.mean - self._prior_mean)) - total
        shift = opposite(0.0, pull / precision, precision, rng.standard_normal((chains, size)))
        mixed = _outer(total, shift)
        square += mixed + mixed.transpose(0, 2, 1) + count * _outer(shift, shift)
        total += count * shift
        explained, moved = (np.stack([total, shift])[:, :, None] @ turn @ components)[:, :, 0]
        precision = count / noise + mean_tight
        pull = (count * self._origin - explained) / noise + mean_tight * self._prior_mean
        mean = opposite(state.mean - moved, pull / precision, precision, white[:, size])
        # Strengths given loadings, then given scores.
        identity, floor = np.eye(size), self.priors.floor
        given = (floor + tight * strength)[:, :, None] * identity
        before = inverse_wishart_half(rng, self.priors.dof + channels, given)
        scatter = before @ square @ before.transpose(0, 2, 1)
        after = inverse_wishart_half(rng, self.priors.dof + count, floor * identity + scatter)
        # Loadings for scores of that strength, whose prior is one normal for all. They and what they leave are sums of
        # ``parts``: sums of scores times data, the mean's deviation, and normal numbers.
        parts = np.empty((chains, 2 * size + 1, channels))
        np.multiply(scores, self._roots, out=parts[:, :size])
        np.subtract(mean, self._origin, out=parts[:, size])
        parts[:, size + 1 :] = white[:, size + 1 :]
        values, vectors = np.linalg.eigh(scatter)
        values = values.clip(0.0)[:, :, None]
        half = vectors.transpose(0, 2, 1) @ before
        cross = np.zeros((chains, size, 2 * size + 1))
        cross[:, :, :size] = half * root[:, None]
        cross[:, :, size] = -_along(half, total)
        precision = values / noise[:, :, None] + tight
        loadings = cross / (noise[:, :, None] * precision)
        loadings[:, :, size + 1 :] = identity / np.sqrt(precision)
        # Noise.
        gram = parts @ parts.transpose(0, 2, 1)
        left = self._roots @ self._roots + count * gram[:, size, size]
        left += ((loadings @ gram) * (values * loadings - 2.0 * cross)).sum((1, 2))
        shape = self.priors.noise_shape + 0.5 * count * channels
        drawn = (self.priors.noise_rate + 0.5 * left.clip(0.0)[:, None]) / rng.standard_gamma(shape, (chains, 1))
        return State((after @ vectors @ loadings) @ parts, mean, drawn)

    def values(self, state: State) -> dict[str, np.ndarray]:
        """Sites of the program, (c, ...), channels still along the eigenvectors."""
        return {"components": state.components, "mean": state.mean, "noise_scale": np.sqrt(state.noise[:, 0])}

    def finished(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same in the channels' own basis, for any number of states at once.

        They come on their principal axes, which are found before anything is rounded.
        """
        if values["components"].shape[-2]:
            values = normal_axes(values, self._reference)
        # One product of two matrices: a stack of small ones is many times slower.
        components, away = (
            (flat.reshape(-1, len(self._turn)).astype(self._turn.dtype, copy=False) @ self._turn).reshape(flat.shape)
            for flat in (values["components"], values["mean"] - self._origin)
        )
        return {**values, "components": components, "mean": self._centre + away}


def _along(matrix: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Every chain's ``matrix`` times its vector."""
    return (matrix @ vectors[..., None])[..., 0]


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of every chain's two vectors."""
    return left[:, :, None] * right[:, None]
