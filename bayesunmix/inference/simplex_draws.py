"""Draws of a posterior that is normal but for walls along the faces of the endmembers' simplex.

How the simplex moves as a whole, ``M``, is drawn from its own density, and all other globals, ``t``, from the normal
law of the mode (:mod:`bayesunmix.inference.simplex_moves`). Importance weights make these draws of the posterior, and
the tail of the weights says whether they can be relied on. Points are

    z(M, t) = those with endmembers  M M_t^-1 W(location + F t),    t orthogonal, whitened, to the directions of M

with ``M_t`` the ``M`` that the normal law has at ``t``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size

from bayesunmix._keys import generator
from bayesunmix.inference.importance import FEWEST, Weighted, resampled, smoothed
from bayesunmix.inference.layered import push
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.simplex_moves import (
    MIXES,
    Moves,
    Simplex,
    as_mix,
    draw_mixes,
    endmembers_at,
    placed,
    remixed,
)
from bayesunmix.inference.target import Data, log_density, slopes_at

_CHAINS = 4  # of M
_FEWEST = FEWEST / _CHAINS  # independent draws that one must be worth for the others to be drawn
_TRIED = 200  # draws of M that are looked at first
_POINTS = 1000  # at least
_PAIRS, _LEAPS = 16, 3  # of antithetic draws behind a shift of the normal law; and shifts at most
_CLOSE = 0.01  # squared length of a shift in posterior sds


class _Coordinates(NamedTuple):
    """The normal law, and its directions of ``M``."""

    location: jax.Array  # (size,)
    factor: Any
    along: jax.Array  # (size, K (K - 1)), whitened and orthonormal
    steep: jax.Array  # (size, K (K - 1)), F'^-1 along

    def beside(self, white: np.ndarray) -> np.ndarray:
        """Without what goes along ``M``."""
        along = np.asarray(self.along)
        return white - (white @ along) @ along.T


def simplex_draws(
    program: Program,
    mode: Mode,
    simplex: Simplex,
    draws: int,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> Weighted | None:
    """So many draws of the posterior with the ``simplex`` at the mode; None where it is held by other than faces."""
    key_mix, key_normal = jax.random.split(key)
    drawn = _mixes(program, mode, simplex, key_mix, tell)
    if drawn is None:
        return None
    tell(_CHAINS, _CHAINS + 1, "weights")
    location, factor = jax.device_put((mode.z, mode.factor))
    own = _coordinates(program, location, mode.data, simplex, factor)
    rng = generator(key_normal)
    shift = _shift(program, mode.data, simplex, own, drawn.mixes, rng)
    if shift is None:
        return None
    count = max(_POINTS, draws)
    white = own.beside(rng.standard_normal((count, len(shift))))
    chosen = (np.arange(count) * len(drawn.mixes)) // count
    points, mixes = shift + white, drawn.mixes[chosen]
    z, log_density = jax.device_get(_points(program, mode.data, simplex, own, points, mixes))
    log_weight = log_density - drawn.heights[chosen] + 0.5 * (white**2).sum(1)
    if not np.isfinite(log_weight).any():
        return None
    weight, shape, effective = smoothed(log_weight)
    # Weights lose some points, and what draws of M have in common others.
    return Weighted(resampled(rng, z, weight, draws), shape, effective * min(1.0, drawn.worth / count))


class _Mixes(NamedTuple):
    """Draws of ``M``, chain after chain."""

    mixes: np.ndarray  # (n, K, K)
    heights: np.ndarray  # (n,)
    worth: float  # independent draws, in its worst entry


def _mixes(program: Program, mode: Mode, simplex: Simplex, key, tell) -> _Mixes | None:
    found = []
    for chain in range(_CHAINS):
        tell(chain, _CHAINS + 1, "simplex of the endmembers")
        found.append(jax.block_until_ready(draw_mixes(simplex, jax.random.fold_in(key, chain), MIXES)))
        # Dark channels, which have no room below, hold the simplex as no face does.
        if chain == 0 and not (_worth(found[0].mixes[None]) > _FEWEST and _in_support(program, mode, found[0]) > 0.5):
            return None
    mixes, heights = np.stack([one.mixes for one in found]), np.concatenate([one.heights for one in found])
    if not (np.isfinite(mixes).all() and np.isfinite(heights).all()):
        return None
    return _Mixes(mixes.reshape(-1, *mixes.shape[2:]), heights, _worth(mixes))


def _worth(mixes) -> float:
    """Independent draws that those of chains (chain, draw, K, K) are worth, in their worst entry; 0 for no numbers."""
    flat = np.asarray(mixes)[..., :-1].reshape(*mixes.shape[:2], -1)
    return float(np.min(effective_sample_size(flat))) if np.isfinite(flat).all() else 0.0


def _shift(
    program: Program, data: Data, simplex: Simplex, own: _Coordinates, mixes: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """From the mode to the mean of the normal law, whitened: what slopes at opposite points leave on average."""
    shift = np.zeros(len(own.location))
    for _ in range(_LEAPS):
        half = own.beside(rng.standard_normal((_PAIRS, len(shift))))
        points = shift + np.stack([half, -half], axis=1).reshape(-1, len(shift))
        both = mixes[rng.integers(len(mixes), size=_PAIRS)].repeat(2, 0)
        slopes = _slopes(program, data, simplex, own, points, both)
        step = own.beside((slopes + points).reshape(_PAIRS, 2, -1).mean(1)) - shift
        step = step[np.isfinite(step).all(1)]
        if len(step) < _PAIRS // 2:
            return None
        moved = step.mean(0)
        shift = shift + moved
        if (moved**2).sum() < _CLOSE + 2.0 * step.var(0, ddof=1).sum() / len(step):
            break
    return shift


def _in_support(program: Program, mode: Mode, moves: Moves) -> float:
    """Share of draws of ``M`` whose endmembers are allowed, where only ``M`` differs from the mode."""
    tried = moves.mixes[:: max(1, len(moves.mixes) // _TRIED)]
    return float(_allowed(program, mode.z, mode.data, moves.simplex, tried).mean())


@partial(jax.jit, static_argnames="program")
def _allowed(program: Program, z, data: Data, simplex: Simplex, mixes):
    there = lambda mix: placed(program, z, data, mix @ simplex.endmembers)  # noqa: E731
    return jax.lax.map(lambda mix: jnp.isfinite(there(mix)).all(), mixes)


@partial(jax.jit, static_argnames="program")
def _coordinates(program: Program, location, data: Data, simplex: Simplex, factor) -> _Coordinates:
    def mix(white):
        endmembers, _ = endmembers_at(program, location + factor @ white, data)
        return simplex.mix(endmembers)[:, :-1].ravel()

    along = jnp.linalg.qr(jax.jacrev(mix)(jnp.zeros_like(location)).T)[0]
    return _Coordinates(location, factor, along, push(factor, along.T).T)


def _at(program: Program, data: Data, simplex: Simplex, own: _Coordinates, white, mix):
    """Globals at ``(M, t)``, and the log of their volume by that of these."""
    normal = own.location + own.factor @ white
    moved = remixed(program, normal, data, simplex, mix)
    back = lambda w: placed(program, normal, data, w)  # noqa: E731
    unit = jnp.eye(mix.size - len(mix), dtype=white.dtype)
    # How the globals go along with M, beside how they go along with the normal law's directions of it.
    turned = jax.vmap(
        lambda e: own.steep.T @ jax.jvp(back, (moved.here,), ((as_mix(e) - jnp.eye(len(mix))) @ moved.alone,))[1]
    )
    return moved.z, moved.log_volume + jnp.linalg.slogdet(turned(unit))[1]


@partial(jax.jit, static_argnames="program")
def _points(program: Program, data: Data, simplex: Simplex, own: _Coordinates, whites, mixes):
    """Globals at many ``(M, t)``, and the log density by the volume of these."""

    def one(white, mix):
        z, volume = _at(program, data, simplex, own, white, mix)
        return z, log_density(program, z, data) + volume

    return jax.lax.map(lambda x: one(*x), (whites, mixes))


def _slopes(program: Program, data: Data, simplex: Simplex, own: _Coordinates, whites, mixes) -> np.ndarray:
    """Slopes in ``t`` of that log density.

    By the slopes in the globals that are compiled already: of all that is computed here the likelihood takes longest to
    compile.
    """
    light = data._replace(y=data.y[:1], rules={})
    z = _places(program, light, simplex, own, whites, mixes)
    slopes = slopes_at(program, z, data)[1]
    return jax.device_get(_pulled(program, light, simplex, own, whites, mixes, slopes))


@partial(jax.jit, static_argnames="program")
def _places(program: Program, data: Data, simplex: Simplex, own: _Coordinates, whites, mixes):
    return jax.lax.map(lambda x: _at(program, data, simplex, own, *x)[0], (whites, mixes))


@partial(jax.jit, static_argnames="program")
def _pulled(program: Program, data: Data, simplex: Simplex, own: _Coordinates, whites, mixes, slopes):
    def height(white, mix, slope):
        z, volume = _at(program, data, simplex, own, white, mix)
        return slope @ z + volume

    return jax.lax.map(lambda x: jax.grad(height)(*x), (whites, mixes, slopes))
