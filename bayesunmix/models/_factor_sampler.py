"""Gibbs sampler of linear factor models with normal noise: exact, and blind to the number of complete pixels.

Turning the pixels of a data matrix among themselves changes neither the prior of their scores nor the likelihood. So N
complete pixels are the same as: one pixel that holds the mean (times root N), one for each eigenvector of the channel
covariance, and N - 1 - rank pixels of nothing but noise, whose scores enter through a Wishart matrix.

A sweep draws, each from its exact conditional (c chains side by side, K components, P channels):

1. the scores, the components first turned to the principal axes of ``W h^-1 W'`` so that scores are independent;
2. a common shift of scores and mean, along which the data do not change; then the mean;
3. the strength matrix Omega twice, once given the loadings and once given scores of variance Omega (interweaving, Yu
   and Meng 2011), which moves explained variances by a whole posterior width at a time;
4. loadings, all channels at once through one eigen-decomposition; 5. the noise; 6. entries that are missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bayesunmix.data.moments import Moments

_LEAN = 0.5  # correlation of a mean with the one before, its sign turned


class State(NamedTuple):
    """One point of every chain, channels in units in which their noise is alike."""

    components: np.ndarray  # (c, K, P)
    mean: np.ndarray  # (c, P)
    noise: np.ndarray  # (c, P), variances, or (c, 1) for one of all channels
    missing: np.ndarray  # (c, entries): what stands for the entries that were not measured


class _Sums(NamedTuple):
    """What a draw of the scores leaves for the other conditionals, weighted by the pixels' precision."""

    score: np.ndarray  # (c, K), of scores
    score2: np.ndarray  # (c, K, K), of z z', unweighted
    weighted2: np.ndarray  # (c, K, K), of w z z'
    weighted: np.ndarray  # (c, K), of w z
    cross: np.ndarray  # (c, K, P), of w z (y - origin)'


@dataclass(frozen=True)
class Priors:
    """Numbers of the priors, in the units that the sampler works in."""

    scale: np.ndarray  # (P,) of loadings, or (1,)
    dof: float
    floor: float
    mean: np.ndarray  # (P,)
    mean_scale: np.ndarray  # (P,) or (1,)
    noise_shape: float
    noise_rate: np.ndarray  # (P,) or (1,) for one noise variance


class Compressed:
    """Complete pixels without a row factor, as eigenvectors of their covariance."""

    def __init__(self, found: Moments):
        self.count = self.weight = float(found.count)
        kept = found.eigenvalues > 1e-13 * found.eigenvalues[0]
        kept[found.count - 1 :] = False
        self.rows = np.sqrt(found.count * found.eigenvalues[kept])[:, None] * found.eigenvectors[:, kept].T
        self.origin = found.mean
        self.square = found.count * np.diag(found.covariance)  # (P,) sum of (y - origin)^2
        self.free = found.count - 1 - len(self.rows)

    def scores(self, state: State, weighted: np.ndarray, precision: np.ndarray, rng) -> _Sums:
        chains, size, _ = weighted.shape
        variance = (1.0 / precision)[:, :, None]
        root = np.sqrt(variance)
        z = (weighted @ self.rows.T) * variance
        z += root * rng.standard_normal(z.shape)
        big = np.sqrt(self.count)
        pull = weighted @ (self.origin - state.mean)[:, :, None]
        first = big * pull * variance + root * rng.standard_normal((chains, size, 1))
        square = z @ z.transpose(0, 2, 1) + first @ first.transpose(0, 2, 1)
        square += root * wishart(rng, self.free, chains, size) * root.transpose(0, 2, 1)
        total = big * first[:, :, 0]
        return _Sums(total, square, square, total, z @ self.rows)

    def squares(self, state: State) -> np.ndarray:
        """Weighted sum of squared deviations from the origin, (c, P)."""
        return np.broadcast_to(self.square, state.mean.shape)


class Explicit:
    """Pixels one by one: with a variance of their own, or with entries that are missing."""

    def __init__(self, values: np.ndarray, row_factor: np.ndarray | None):
        values = np.asarray(values, dtype=np.float64)
        self.origin = np.nan_to_num(np.nanmean(values, axis=0))
        self.rows = values - self.origin
        self.absent = np.nonzero(~np.isfinite(self.rows))
        self.rows[self.absent] = 0.0
        self.weights = np.ones(len(values)) if row_factor is None else 1.0 / np.asarray(row_factor, dtype=np.float64)
        self.count = float(len(values))
        self.weight = float(self.weights.sum())
        self._scores: list[np.ndarray] = []

    def _fill(self, state: State, chain: int) -> np.ndarray:
        self.rows[self.absent] = state.missing[chain]
        return self.rows

    def scores(self, state: State, weighted: np.ndarray, precision: np.ndarray, rng) -> _Sums:
        chains = len(weighted)
        parts, self._scores = [], []
        for c in range(chains):
            rows = self._fill(state, c)
            pull = weighted[c] @ (self.origin - state.mean[c])
            variance = 1.0 / (1.0 + np.outer(self.weights, precision[c] - 1.0))
            z = self.weights[:, None] * (rows @ weighted[c].T + pull) * variance
            z += np.sqrt(variance) * rng.standard_normal(z.shape)
            heavy = self.weights[:, None] * z
            parts.append((z.sum(0), z.T @ z, heavy.T @ z, heavy.sum(0), heavy.T @ rows))
            self._scores.append(z)
        return _Sums(*(np.stack(part) for part in zip(*parts, strict=True)))

    def squares(self, state: State) -> np.ndarray:
        return np.stack([self.weights @ self._fill(state, c) ** 2 for c in range(len(state.mean))])

    def sums_of(self, state: State) -> np.ndarray:
        """Weighted sum of deviations from the origin, (c, P)."""
        return np.stack([self.weights @ self._fill(state, c) for c in range(len(state.mean))])

    def impute(self, state: State, move: np.ndarray, shift: np.ndarray, rng) -> State:
        """Entries that are missing, given scores ``z @ move + shift`` and everything else."""
        at, channel = self.absent
        if not len(at):
            return state
        filled = np.empty_like(state.missing)
        for c, z in enumerate(self._scores):
            scores = z[at] @ move[c] + shift[c]
            centre = (scores * state.components[c].T[channel]).sum(1) + (state.mean[c] - self.origin)[channel]
            scale = np.sqrt(np.broadcast_to(state.noise[c], self.origin.shape)[channel] / self.weights[at])
            filled[c] = centre + scale * rng.standard_normal(len(at))
        return state._replace(missing=filled)


def dispersed(
    rng: np.random.Generator, chains: int, components: np.ndarray, noise: np.ndarray, count: float
) -> tuple[np.ndarray, np.ndarray]:
    """Loadings and noise variances of every chain, about those given more widely than their posterior."""
    stretch = np.exp(0.3 * rng.standard_normal((chains, len(components), 1)))
    white = rng.standard_normal((chains, *components.shape))
    spread = stretch * components + 3.0 * np.sqrt(noise / count) * white
    return spread, noise * np.exp(0.3 * rng.standard_normal((chains, 1)))


def _bartlett(rng, dof: float, chains: int, size: int) -> np.ndarray:
    """Lower triangular factors of Wishart matrices of unit scale."""
    factor = rng.standard_normal((chains, size, size)) * np.tri(size, k=-1)
    factor.reshape(chains, -1)[:, :: size + 1] = np.sqrt(rng.chisquare(dof - np.arange(size), (chains, size)))
    return factor


def wishart(rng, dof: int, chains: int, size: int) -> np.ndarray:
    """Wishart matrices of unit scale, singular ones too."""
    factor = rng.standard_normal((chains, size, max(dof, 0))) if dof < size else _bartlett(rng, dof, chains, size)
    return factor @ factor.transpose(0, 2, 1)


def inverse_wishart_half(rng, dof: float, scale: np.ndarray) -> np.ndarray:
    """H (c, K, K) of which H' H is a draw from InverseWishart(dof, scale); ``scale`` (c, K, K).

    Scores times H and loadings solved by its transpose differ by a rotation from those of the symmetric root, which is
    all that it would be needed for: conditionals turn with them, and nothing that is kept of a sweep knows a rotation.
    """
    chains, size, _ = scale.shape
    return np.linalg.solve(_bartlett(rng, dof, chains, size), np.linalg.cholesky(scale).transpose(0, 2, 1))


def opposite(now: Any, centre: np.ndarray, precision: Any, white: np.ndarray) -> np.ndarray:
    """Normal numbers of so much ``precision`` about ``centre`` that lean to its other side (Adler 1981).

    They leave the law of ``now`` as it is, as independent ones do, but the averages of a chain vary a third as much:
    of a thousand channels the largest R-hat of independent draws misses its limit by chance in six fits of ten. What
    scores and mean can shift together is most of what a mean varies along strong components.
    """
    return centre - _LEAN * (now - centre) + white * np.sqrt((1.0 - _LEAN**2) / precision)


def _gram(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """``x weight x'`` for ``x`` (c, K, P) and weights (..., P), or (..., 1) where they are alike."""
    across = x.transpose(0, 2, 1)
    if weight.shape[-1] == 1:
        return weight[..., None] * (x @ across)
    return (x * weight[..., None, :]) @ across


class FactorSampler:
    """What :mod:`bayesunmix.inference.gibbs` runs: start, sweep, values.

    ``start`` holds most likely values and ``width`` (P,) the unit that every channel is measured in.
    """

    def __init__(self, pixels: Compressed | Explicit, priors: Priors, start: dict[str, np.ndarray], width: np.ndarray):
        self.pixels, self.priors, self.width = pixels, priors, width
        self._components, self._mean = start["components"], start["mean"]
        self._noise = np.atleast_1d(np.asarray(start["noise_scale"]) ** 2)

    def start(self, rng: np.random.Generator, chains: int) -> State:
        """Chains spread about the most likely values, more widely than their posterior."""
        mean = self._mean
        components, noise = dispersed(rng, chains, self._components, self._noise, self.pixels.count)
        absent = np.zeros((chains, 0))
        if isinstance(self.pixels, Explicit):
            at, channel = self.pixels.absent
            scale = np.broadcast_to(np.sqrt(self._noise), mean.shape)
            absent = scale[channel] * rng.standard_normal((chains, len(at)))
        return State(components, np.broadcast_to(mean, (chains, len(mean))), noise, absent)

    def sweep(self, state: State, rng: np.random.Generator) -> State:
        """One round through every conditional."""
        pixels, priors = self.pixels, self.priors
        chains, size, channels = state.components.shape
        noise = state.noise
        # Scores, about the principal axes in units of the noise.
        axes = np.linalg.eigh(_gram(state.components, 1.0 / noise))
        components = axes.eigenvectors.transpose(0, 2, 1) @ state.components
        state = state._replace(components=components)
        sums = pixels.scores(state, components / noise[:, None], 1.0 + axes.eigenvalues.clip(0.0), rng)
        # About their own mean deviations add up to nothing.
        plain = pixels.sums_of(state) if isinstance(pixels, Explicit) else np.zeros((chains, 1))
        mean, sums, shift = self._move_mean(state, sums, plain, rng)
        away = mean - pixels.origin
        cross = sums.cross
        cross -= sums.weighted[:, :, None] * away[:, None]
        # Strengths given loadings, then given scores.
        tight, identity = priors.scale**-2.0, np.eye(size)
        first = inverse_wishart_half(rng, priors.dof + channels, priors.floor * identity + _gram(components, tight))
        across = first.transpose(0, 2, 1)
        given = priors.floor * identity + first @ sums.score2 @ across
        second = inverse_wishart_half(rng, priors.dof + pixels.count, given)
        # Loadings for scores of variance Omega, whose prior is one normal for all.
        values, vectors = np.linalg.eigh(first @ sums.weighted2 @ across)
        values = values.clip(0.0)[:, :, None]
        precision = values / noise[:, None] + tight
        cross = (vectors.transpose(0, 2, 1) @ first) @ cross
        loadings = cross / (noise[:, None] * precision)
        white = rng.standard_normal((chains, size, channels))
        white /= np.sqrt(precision)
        loadings += white
        # Noise.
        left = pixels.squares(state) - 2.0 * away * plain + pixels.weight * away**2
        more = (0.5 * values) * loadings
        more -= cross
        more *= loadings
        left = (left + 2.0 * more.sum(1)).clip(0.0)
        single = len(priors.noise_rate) == 1
        if single:
            left = left.sum(1, keepdims=True)
        shape = priors.noise_shape + 0.5 * pixels.count * (channels if single else 1)
        drawn = (priors.noise_rate + 0.5 * left) / rng.standard_gamma(shape, left.shape)
        state = State((second @ vectors) @ loadings, mean, drawn, state.missing)
        if isinstance(pixels, Explicit):
            move = np.linalg.solve(second.transpose(0, 2, 1), first).transpose(0, 2, 1)  # first' second^-1
            state = pixels.impute(state, move, np.einsum("ck,ckl->cl", shift, move), rng)
        return state

    def _move_mean(self, state: State, sums: _Sums, plain: np.ndarray, rng) -> tuple[np.ndarray, _Sums, np.ndarray]:
        """Scores and mean shifted together, then the mean; with the sums of the shifted scores, and the shift."""
        pixels, priors = self.pixels, self.priors
        components = state.components
        chains, size, channels = components.shape
        tight = priors.mean_scale**-2.0
        precision = pixels.count * np.eye(size) + _gram(components, tight)
        pull = (components @ (tight * (state.mean - priors.mean))[:, :, None])[:, :, 0] - sums.score
        half = np.linalg.cholesky(precision)
        along = opposite(0.0, np.linalg.solve(half, pull[..., None]), 1.0, rng.standard_normal((chains, size, 1)))
        shift = np.linalg.solve(half.transpose(0, 2, 1), along)[..., 0]
        outer = shift[:, :, None] * shift[:, None]

        def moved(square, total, weight):
            mixed = total[:, :, None] * shift[:, None]
            return square + mixed + mixed.transpose(0, 2, 1) + weight * outer

        sums = _Sums(
            sums.score + pixels.count * shift,
            moved(sums.score2, sums.score, pixels.count),
            moved(sums.weighted2, sums.weighted, pixels.weight),
            sums.weighted + pixels.weight * shift,
            sums.cross + shift[:, :, None] * plain[:, None] if plain.any() else sums.cross,
        )
        explained = (sums.weighted[:, None] @ components)[:, 0]
        precise = pixels.weight / state.noise + tight
        centre = (plain + pixels.weight * pixels.origin - explained) / state.noise + tight * priors.mean
        now = state.mean - (shift[:, None] @ components)[:, 0]
        mean = opposite(now, centre / precise, precise, rng.standard_normal((chains, channels)))
        return mean, sums, shift

    def values(self, state: State) -> dict[str, np.ndarray]:
        """Sites of the program, (c, ...), channels still in the sampler's units."""
        scale = np.sqrt(state.noise)
        noise_scale = scale[:, 0] if len(self.priors.noise_rate) == 1 else scale
        return {"components": state.components, "mean": state.mean, "noise_scale": noise_scale}

    def finished(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same in the channels' own units, for any number of states at once."""
        return {**values, "components": values["components"] * self.width, "mean": values["mean"] * self.width}
