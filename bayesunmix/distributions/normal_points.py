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
_SIDE = 2.5  # sds from the mode, where the height of each side is looked at
_SIDE_STEPS = 30
_SIDES = (0.25, 8.0)  # least and most stretch
_LOG_2PI = 1.8378770664093453


class Local(NamedTuple):
    """A concave log integrand at one point of every unit."""

    value: jax.Array  # (units,)
    slope: jax.Array  # (units, K)
    bend: list[list[Any]]  # minus the second derivatives, lower triangle of (units,)


class Frame(NamedTuple):
    """What is held fixed while an integral is differentiated."""

    centre: jax.Array  # (units, K) mode, where the search for it starts at other parameters
    base: jax.Array  # (points / 2, K) of the open unit cube, the same for all units
    shift: jax.Array  # (units, K) moves them around the cube
    sides: jax.Array  # (units, 2 K) their widths, where the search for them starts at other parameters


def frame(local: Callable[[jax.Array], Local], n_units: int, size: int, n_points: int, key, index, dtype) -> Frame:
    """Mode of every unit's integrand over ``size`` latents, and where its points come from."""
    centre = _mode(local, jnp.zeros((n_units, size), dtype))
    base = jnp.asarray(_sobol(size, max(n_points // 2, 1)), dtype)
    sides = _sides(local, centre, jnp.ones((n_units, 2 * size), dtype))
    return Frame(centre, base, shifts(key, index, size, dtype) if size else centre, sides)


def shifts(key: jax.Array, index: jax.Array, size: int, dtype) -> jax.Array:
    """A shift per unit that depends on ``key`` and the unit's ``index`` alone, (units, size)."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (size,), dtype))(index)


def points(own: Frame, local: Callable[[jax.Array], Local], still: Callable[[jax.Array], Local]):
    """Latents (points, units, K), in pairs opposite each other, and the log density they were drawn with.

    ``local`` is the log integrand as it is now, ``still`` the same without derivatives in its parameters. The points go
    with its mode and its widths. Left where the frame was made they would miss more of the integral the farther the
    parameters move, which makes a posterior too narrow: of 32 points a quarter of its log density, 2 sd away.

    They are normal on each side of the mode, so wide that the integrand and they fall alike to 2.5 standard deviations.
    Where one channel takes over from another it has a kink, of which the curvature at the mode knows nothing. Of a
    normal integrand the sides are alike, and its integral has no error.
    """
    size = own.centre.shape[1]
    if not size:
        return own.centre[None], jnp.zeros((1, len(own.centre)), own.centre.dtype)
    centre = jax.lax.stop_gradient(_mode(still, jax.lax.stop_gradient(own.centre)))
    # A Newton step of length 0 gives the mode its derivative (implicit function theorem).
    middle = centre + _ascent(local(centre)._replace(bend=still(centre).bend))
    top = local(middle)
    lower = lanes.cholesky(top.bend)
    sides = jax.lax.stop_gradient(_sides(still, centre, jax.lax.stop_gradient(own.sides)))
    sides = _moved(local, middle, top, lower, sides)
    white = _normal((own.base[:, None] + own.shift) % 1.0)
    side = jnp.where(white > 0, sides[:, :size], sides[:, size:])
    spread = jnp.stack(lanes.solve_upper(lower, list(jnp.moveaxis(side * white, -1, 0))), axis=-1)
    log_root = jnp.log(side).sum(-1) - sum(jnp.log(lower[k][k]) for k in range(size))
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

    def step(state):
        z, known, length, _, count = state
        move = length[:, None] * _ascent(known)
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


def _axes(lower, size: int, dtype) -> list[jax.Array]:
    """Steps (units, K) to where sides are looked at: along every axis, then against it."""
    ones = jnp.ones(lower[0][0].shape, dtype)
    along = [jnp.stack(lanes.solve_upper(lower, [ones * (j == k) for j in range(size)]), axis=-1) for k in range(size)]
    return [sign * _SIDE * axis for sign in (1.0, -1.0) for axis in along]


def _sides(local: Callable[[jax.Array], Local], centre: jax.Array, start: jax.Array) -> jax.Array:
    """Stretches (units, 2 K) of the axes at whose ends the integrand has fallen as a normal one, by Newton steps.

    Along every axis a concave integrand falls ever more steeply, so that steps from too far lead back at once.
    """
    size = centre.shape[1]
    if not size:
        return start
    top = local(centre)
    axes = _axes(lanes.cholesky(top.bend), size, centre.dtype)
    tolerance = 1e-9 if start.dtype == jnp.float64 else 1e-4

    def step(state):
        sides, _, count = state
        new = []
        for stretch, axis in zip(sides.T, axes, strict=True):
            there = local(centre + stretch[:, None] * axis)
            steep = jnp.maximum(-(there.slope * axis).sum(-1), 1e-3)
            new.append(jnp.clip(stretch - (top.value - there.value - 0.5 * _SIDE**2) / steep, *_SIDES))
        found = jnp.stack(new, axis=-1)
        return found, jnp.abs(found - sides).max(), count + 1

    unfinished = lambda state: (state[1] > tolerance) & (state[2] < _SIDE_STEPS)  # noqa: E731
    return jax.lax.while_loop(unfinished, step, (start, jnp.array(jnp.inf, start.dtype), jnp.array(0)))[0]


def _moved(local: Callable[[jax.Array], Local], middle: jax.Array, top: Local, lower, sides: jax.Array) -> jax.Array:
    """The same stretches with their derivatives (implicit function theorem); those at a limit have none."""
    found = []
    for stretch, axis in zip(sides.T, _axes(lower, middle.shape[1], middle.dtype), strict=True):
        there = local(middle + stretch[:, None] * axis)
        drop = top.value - there.value
        steep = jax.lax.stop_gradient(jnp.maximum(-(there.slope * axis).sum(-1), 1e-3))
        free = (stretch > _SIDES[0]) & (stretch < _SIDES[1])
        found.append(stretch - jnp.where(free, (drop - jax.lax.stop_gradient(drop)) / steep, 0.0))
    return jnp.stack(found, axis=-1)


def _ascent(found: Local) -> jax.Array:
    """Newton's step of every unit, (units, K)."""
    return jnp.stack(lanes.solve(lanes.cholesky(found.bend), list(found.slope.T)), axis=-1)


@functools.cache
def _sobol(dimension: int, n_points: int) -> np.ndarray:
    from scipy.stats import qmc

    if dimension == 0:
        return np.zeros((n_points, 0))
    return qmc.Sobol(dimension, rng=np.random.default_rng(20240301)).random(n_points)
