"""Quasi-random points of normal latents, around the mode of every unit's own integrand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from bayesunmix.distributions import lanes

_WIDER = 1.1  # than the curvature at the mode says: an integrand's tails fall as slowly as the prior's
_NEWTON_STEPS = 60
_LOG_2PI = 1.8378770664093453


class Local(NamedTuple):
    """A concave log integrand at one point of every unit."""

    value: jax.Array  # (units,)
    slope: jax.Array  # (units, K)
    bend: list[list[Any]]  # minus the second derivatives, lower triangle of (units,)


class Frame(NamedTuple):
    """What is held fixed while an integral is differentiated."""

    centre: jax.Array  # (units, K) mode
    root: jax.Array  # (units, K, K) of the covariance there
    base: jax.Array  # (points / 2, K) of the open unit cube, the same for all units
    shift: jax.Array  # (units, K) moves them around the cube


def frame(local: Callable[[jax.Array], Local], n_units: int, size: int, n_points: int, key, index, dtype) -> Frame:
    """Mode and curvature of every unit's integrand over ``size`` latents, and where its points come from."""
    centre = _mode(local, jnp.zeros((n_units, size), dtype))
    base = jnp.asarray(_sobol(size, max(n_points // 2, 1)), dtype)
    if not size:
        return Frame(centre, jnp.zeros((n_units, 0, 0), dtype), base, centre)
    lower = lanes.cholesky(local(centre).bend)
    one, none = jnp.ones(n_units, dtype), jnp.zeros(n_units, dtype)
    columns = [lanes.solve_upper(lower, [one if i == j else none for i in range(size)]) for j in range(size)]
    root = jnp.stack([jnp.stack(column, axis=-1) for column in columns], axis=-1)
    return Frame(centre, root, base, shifts(key, index, size, dtype))


def shifts(key: jax.Array, index: jax.Array, size: int, dtype) -> jax.Array:
    """A shift per unit that depends on ``key`` and the unit's ``index`` alone, (units, size)."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (size,), dtype))(index)


def points(own: Frame, slope) -> tuple[jax.Array, jax.Array]:
    """Latents (points, units, K), in pairs opposite each other, and the log density they were drawn with.

    ``slope`` (units, K) is that of the log integrand at the centre as it is now, 0 at the parameters that the frame was
    made with: the points go with the mode, one Newton step.
    """
    size = own.centre.shape[1]
    if not size:
        return own.centre[None], jnp.zeros((1, len(own.centre)), own.centre.dtype)
    white = _normal((own.base[:, None] + own.shift) % 1.0)
    spread = jnp.einsum("nij,snj->sni", own.root, white)
    middle = own.centre + jnp.einsum("nij,nkj,nk->ni", own.root, own.root, slope)
    log_root = jnp.log(jnp.abs(jnp.diagonal(own.root, axis1=1, axis2=2))).sum(1)
    log_density = -0.5 * (white**2).sum(-1) - log_root - size * (np.log(_WIDER) + 0.5 * _LOG_2PI)
    return middle + _WIDER * spread, log_density


def standard(size: int, n_points: int, dtype) -> jax.Array:
    """Points of a standard normal law, (points, size), of equal weight."""
    return _normal(jnp.asarray(_sobol(size, n_points // 2), dtype))


def _normal(cube):
    """Points of the open cube as normal ones, in pairs opposite each other along the first axis."""
    white = ndtri(jnp.clip(cube, 1e-7, 1.0 - 1e-7))
    return jnp.concatenate([white, -white])


def _mode(local: Callable[[jax.Array], Local], start: jax.Array) -> jax.Array:
    """Maximiser of a concave function of every unit, by Newton steps that are shortened until they climb."""
    size = start.shape[1]
    if not size:
        return start
    tolerance = 1e-7 if start.dtype == jnp.float64 else 1e-4

    def direction(found: Local):
        return jnp.stack(lanes.solve(lanes.cholesky(found.bend), list(found.slope.T)), axis=-1)

    def step(state):
        z, known, length, _, count = state
        move = length[:, None] * direction(known)
        new = local(z + move)
        slack = 1e2 * jnp.finfo(z.dtype).eps * (1.0 + jnp.abs(known.value))
        good = new.value >= known.value - slack

        def keep(one, other):
            return jnp.where(good[:, None] if one.ndim == 2 else good, one, other)

        length = jnp.where(good, jnp.minimum(1.0, 2.0 * length), 0.25 * length)
        return keep(z + move, z), jax.tree_util.tree_map(keep, new, known), length, jnp.abs(move).max(), count + 1

    unfinished = lambda state: (state[3] > tolerance) & (state[4] < _NEWTON_STEPS)  # noqa: E731
    ones, far = jnp.ones(len(start), start.dtype), jnp.array(jnp.inf, start.dtype)
    return jax.lax.while_loop(unfinished, step, (start, local(start), ones, far, jnp.array(0)))[0]


@functools.cache
def _sobol(dimension: int, n_points: int) -> np.ndarray:
    from scipy.stats import qmc

    if dimension == 0:
        return np.zeros((n_points, 0))
    return qmc.Sobol(dimension, rng=np.random.default_rng(20240301)).random(n_points)
