"""Integrals over the abundances of a unit: over the simplex, or over parts of any size where brightness is free.

The integrand is expanded at a reference point ``c`` of the unit's own, near its maximum:

    exp( pull'(a - c) - (a - c)' gram (a - c) / 2 + beyond(a) ) * prod_k a_k^(alpha_k - 1)

``gram`` is shared by all units or their own; ``beyond`` is what the expansion misses of a likelihood that is not
Gaussian. Points come from :mod:`bayesunmix.distributions.walk`; with uniform abundances and nothing beyond, units in
the interior, at a single face, and of two parts have no integration error at all.

Arrays are laid out units last, ``(K, units)`` and ``(points, units)``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.scipy.special import gammaln

from bayesunmix.distributions import chunks, lanes
from bayesunmix.distributions.walk import (
    Walk,
    bend_of_bounds,
    closed_log_integral,
    left_by_first,
    n_natural,
    second_face,
    walk,
)

_NEWTON_STEPS = 80
BARRIER = 0.1  # smallest exponent that keeps the reference point off the faces
AWAY = 5.0  # standard deviations from a face, beyond which it cuts off next to nothing (3e-7)


class Frame(NamedTuple):
    """What is held fixed while an integral is differentiated: where it is expanded, and its points."""

    order: jax.Array  # (K, units) parts, nearest to a face first
    centre: jax.Array  # (K, units) reference point, parts as given
    force: jax.Array  # (K, units) with which the faces hold the parts there
    base: jax.Array  # (free parts, points) of the open unit cube, the same for all units; K - 1 are free on the simplex
    shift: jax.Array  # (free parts, units) moves them around the cube
    near: jax.Array | None  # (units,) how many parts are within reach of a face; None where that is not known


class Beyond(NamedTuple):
    """What the log integrand has beyond its Gaussian part and its powers.

    ``log(away, shared, own)`` takes the parts from their centre, a list of K arrays (points, units), what all units
    share, and arrays with a leading unit axis; it gives (points, units).
    """

    log: Callable[[list[jax.Array], Any, Any], jax.Array]
    shared: Any
    own: Any
    channels: int  # values per point and unit that it works on at a time


def default_points(n_parts: int, uniform: bool = True) -> int:
    """Points per unit that keep the numerical shift of a posterior well below its width (docs/numerics.md)."""
    if uniform:
        return {1: 1, 2: 1, 3: 16, 4: 16, 5: 32, 6: 32}.get(n_parts, 128)
    return {1: 1, 2: 32, 3: 64, 4: 128, 5: 256, 6: 512}.get(n_parts, 1024)


class Local(NamedTuple):
    """A smooth log integrand at a point of every unit."""

    value: jax.Array  # (units,)
    slope: jax.Array  # (K, units)
    bend: list[list[Any]]  # minus the second derivatives, numbers or (units,)


def frame(
    local: Callable[[jax.Array], Local],
    start: jax.Array,
    concentration,
    key,
    index,
    n_points: int,
    *,
    closed=True,
    gram=None,
) -> Frame:
    """Reference points and integration points of units.

    Parameters
    ----------
    local : callable
        The log integrand without its powers, at points (K, units).
    start : (K, units)
        Positive; sums to one if ``closed``.
    concentration : (K,), or None for ones
    key, index : JAX key, (units,)
        Pick the unit's own points.
    closed : bool
        Whether the parts sum to one.
    gram : (K, K), optional
        Minus the curvature of a log integrand that is quadratic, the same for all units: tells which of them are far
        from the faces.
    """
    n_parts = len(start)
    repelled = jnp.zeros(n_parts, start.dtype) if concentration is None else jnp.maximum(concentration - 1.0, 0.0)
    barrier = jnp.maximum(repelled, BARRIER)
    centre = mode(local, start, barrier, closed=closed)
    force = (barrier - repelled)[:, None] / centre
    n_free = n_parts - 1 if closed else n_parts
    base = jnp.asarray(_sobol(n_free, n_points).T, start.dtype)
    shift = _shifts(key, index, n_free, start.dtype)
    if gram is None or concentration is not None or not n_free:
        return Frame(jnp.argsort(centre, axis=0), centre, force, base, shift, None)
    near = ~(centre > AWAY * jnp.sqrt(jnp.diag(covariance(gram)))[:, None])  # so that NaN is near
    count = near.sum(0)
    # The one part at a face is drawn first, and faces out of reach hold nothing: then there is no integration error.
    first = jnp.where(near & (count == 1), -1.0, centre)
    force = jnp.where(near | (count > 1), force, 0.0)
    return Frame(jnp.argsort(first, axis=0), centre, force, base, shift, count)


def covariance(gram) -> jax.Array:
    """Covariance (K, K) of parts that sum to one under the normal distribution of a quadratic, faces ignored."""
    edges = gram[:-1, :-1] - gram[:-1, -1:] - gram[-1:, :-1] + gram[-1, -1]
    # Of vertices that coincide it is wide, and no infinity; what is added is as large as the rounding of differences.
    reduced = jnp.linalg.inv(edges + 16 * jnp.finfo(edges.dtype).eps * jnp.trace(gram) * jnp.eye(len(edges)))
    last = -reduced.sum(0)
    return jnp.block([[reduced, last[:, None]], [last[None], -last.sum()[None, None]]])


def spread(bend, force, size, *, closed: bool) -> lanes.Lanes:
    """Covariance of the parts of every unit, a list of lists of (units,), about a maximum that faces may hold."""
    n_parts, bounded = len(force), bend_of_bounds(force, size)
    rows = [[bend[i][j] + (bounded[i] if i == j else 0.0) for j in range(n_parts)] for i in range(n_parts)]
    factor = lanes.cholesky(rows)
    one, zero = jnp.ones_like(force[0]), jnp.zeros_like(force[0])
    found = [lanes.solve(factor, [one if i == j else zero for i in range(n_parts)]) for j in range(n_parts)]
    if not closed:
        return found
    sums = [sum(column) for column in found]
    total = sum(sums)
    return [[found[i][j] - sums[i] * sums[j] / total for j in range(n_parts)] for i in range(n_parts)]


def redraw(old: Frame, key, index) -> Frame:
    """The same reference points with fresh integration points, as many as before."""
    return old._replace(shift=_shifts(key, index, len(old.shift), old.shift.dtype))


def quadratic(gram, linear) -> Callable[[jax.Array], Local]:
    """The log integrand ``linear'a - a' gram a / 2`` of every unit."""

    def local(a):
        bent = gram @ a
        return Local((a * (linear - 0.5 * bent)).sum(0), linear - bent, [list(row) for row in gram])

    return local


def mode(
    local: Callable[[jax.Array], Local], start: jax.Array, barrier: jax.Array, *, closed: bool = True
) -> jax.Array:
    """Maximiser of ``local + sum barrier log a`` over positive parts (that sum to one if ``closed``), (K, units).

    Newton steps shortened to 9/10 of the way to the nearest face; a unit whose step does not climb takes it back
    and tries a shorter one.
    """
    n_parts, n_units = start.shape
    tolerance = 1e-7 if start.dtype == jnp.float64 else 1e-4

    def at(a):
        found = local(a)
        height = found.value + (barrier[:, None] * jnp.log(a)).sum(0)
        bend = jnp.stack([jnp.broadcast_to(found.bend[i][j], (n_units,)) for i in range(n_parts) for j in range(i + 1)])
        return height, found.slope, bend

    def direction(a, slope, bend):
        rows = [[bend[i * (i + 1) // 2 + j] for j in range(i + 1)] for i in range(n_parts)]
        for i in range(n_parts):
            rows[i][i] = rows[i][i] + barrier[i] / a[i] ** 2
        factor = lanes.cholesky(rows)
        newton = jnp.stack(lanes.solve(factor, list(slope + barrier[:, None] / a)))
        if closed:
            ones = jnp.stack(lanes.solve(factor, [jnp.ones(n_units, a.dtype)] * n_parts))
            newton = newton - ones * (newton.sum(0) / ones.sum(0))
        reach = jnp.min(jnp.where(newton < 0, -a / jnp.where(newton < 0, newton, -1.0), jnp.inf), axis=0)
        return jnp.minimum(1.0, 0.9 * reach) * newton

    def step(state):
        a, known, length, _, count = state
        move = length * direction(a, *known[1:])
        tried = a + move
        tried = tried / tried.sum(0) if closed else tried
        new = at(tried)
        slack = 1e2 * jnp.finfo(a.dtype).eps * (1.0 + jnp.abs(known[0]))
        good = new[0] >= known[0] - slack
        change = jnp.max(jnp.abs(move) / a)
        keep = lambda new, old: jnp.where(good, new, old)  # noqa: E731
        length = jnp.where(good, jnp.minimum(1.0, 2.0 * length), 0.25 * length)
        return keep(tried, a), jax.tree_util.tree_map(keep, new, known), length, change, count + 1

    unfinished = lambda state: (state[3] > tolerance) & (state[4] < _NEWTON_STEPS)  # noqa: E731
    begin = (start, at(start), jnp.ones(n_units, start.dtype), jnp.array(jnp.inf, start.dtype), jnp.array(0))
    return jax.lax.while_loop(unfinished, step, begin)[0]


# ---------------------------------------------------------------------- the integral


def log_integral(own: Frame, pull, gram, concentration=None, beyond: Beyond | None = None) -> jax.Array:
    """Log of the integral of every unit, (units,), differentiable.

    Parameters
    ----------
    own : Frame
    pull : (K, units)
        Slope of the smooth log integrand at the frame's centre, where it counts as 0.
    gram : (K, K) or (K, K, units)
        Minus its curvature there.
    concentration : (K,), or None for ones
        Exponents; the Dirichlet's normaliser is not included.
    beyond : Beyond, optional
    """
    if not len(own.base):
        return jnp.zeros_like(pull[0])
    eta, held = natural(own, pull, gram, concentration), sorted_hold(own)
    if beyond is None:
        if own.near is None:
            return _log_integral("points", eta, held, own.base, own.shift, None)
        if len(own.base) == 1:  # whatever the faces
            return _log_integral("closed", eta, held, own.base, own.shift, None)
        return _log_integral("both", eta, held, own.base, own.shift, own.near > 1)
    return _log_mean(walk(eta, held, own.base, own.shift), eta.dtype, own.order, beyond)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _log_integral(ways: Literal["closed", "points", "both"], eta, held, base, shift, hard):
    closed = lambda e, h, *_: closed_log_integral(e, h, len(base)) - _past_second_face(e, h, len(base), hard)[0]  # noqa: E731
    return _by(ways, closed, partial(chunks.in_chunks, _raw), hard, eta, held, base, shift)


@_log_integral.defjvp
def _log_integral_jvp(ways, primals, tangents):
    eta, held, base, shift, hard = primals

    def closed(e, h, *_):
        value, its_slope = _forwards(lambda x: closed_log_integral(x, h, len(base)), e)
        cut, slope_of_cut = _past_second_face(e, h, len(base), hard)
        return value - cut, its_slope - slope_of_cut

    def both(e, *fixed):
        value, back = jax.vjp(lambda x: _raw(x, *fixed), e)
        return value, back(jnp.ones_like(value))[0]

    # One pass for value and slope: what a sampler and a guide ask for is always both.
    value, slope = _by(ways, closed, partial(chunks.in_chunks, both), hard, eta, held, base, shift)
    return value, (slope * tangents[0]).sum(0)


def _past_second_face(eta, held, n_free: int, hard) -> tuple[jax.Array, jax.Array]:
    """What the closed form of units that are not ``hard`` lacks where parameters have moved so far that a second part
    would be negative, at least; and its slope. Without it a posterior rises where a unit leaves the simplex."""

    cut = partial(_forwards, lambda x: second_face(x, held, n_free))
    none = jnp.zeros_like(eta[0]), jnp.zeros_like(eta)
    if n_free == 1:  # both faces are in the closed form
        return none
    past = functools.reduce(operator.or_, [part < 0.0 for part in left_by_first(eta, held, n_free)])
    return jax.lax.cond((past & ~hard).any(), cut, lambda _: none, eta)


def _forwards(fn: Callable, eta) -> tuple[jax.Array, jax.Array]:
    """``fn`` of every unit, and its slope in the unit's natural parameters.

    With few numbers a unit and nothing summed, XLA would go the whole way back for each of them.
    """
    along = lambda unit: jax.jvp(fn, (eta,), (jnp.broadcast_to(unit[:, None], eta.shape),))[1]  # noqa: E731
    return fn(eta), jax.vmap(along)(jnp.eye(len(eta), dtype=eta.dtype))


def _raw(eta, held, base, shift) -> jax.Array:
    return _log_mean(walk(eta, held, base, shift), eta.dtype)


def _log_mean(found: Walk, dtype, order=None, beyond: Beyond | None = None) -> jax.Array:
    log_weight = found.log_weight
    if beyond is not None:
        # Named, for these sums over channels are few numbers and dear.
        more = beyond.log(as_given(found.away, order), beyond.shared, beyond.own)
        log_weight = log_weight + checkpoint_name(more, chunks.KEPT)
    top = jax.lax.stop_gradient(log_weight.max(0))
    return found.constant + (top + jnp.log(jnp.exp(log_weight - top).mean(0))).astype(dtype)


def _by(ways: str, closed: Callable, fn: Callable, hard, *arrays):
    """Only the ways that are gone are compiled."""
    if ways == "both":
        return chunks.in_stages(closed, fn, hard, *arrays)
    return (closed if ways == "closed" else fn)(*arrays)


# ---------------------------------------------------------------------- parts and their parameters


def as_given(away: list[jax.Array], order) -> list[jax.Array]:
    """All parts from their centre in the order they were given, from the sorted free ones."""
    return unsorted([*away, -total(away)] if len(away) < len(order) else away, order)


def unsorted(parts: list[jax.Array], order) -> list[jax.Array]:
    """Back from the order of the walk."""
    n_parts = len(order)
    # A choice among marks, not a gather: its derivative is a choice too.
    pick = lambda k: [jnp.where(order[j] == k, parts[j], 0.0) for j in range(n_parts)]  # noqa: E731
    return [total(pick(k)) for k in range(n_parts)]


def total(arrays: list[jax.Array]) -> jax.Array:
    """Their sum, one after the other."""
    return functools.reduce(operator.add, arrays)


def more_points(own: Frame, least: int) -> jax.Array:
    """At least so many points, for what needs more of them than the integral does."""
    n_free, n_points = own.base.shape
    return own.base if n_points >= least else jnp.asarray(_sobol(n_free, least).T, own.base.dtype)


def natural(own: Frame, pull, gram, concentration) -> jax.Array:
    """Natural parameters (., units) of the sorted parts: linear, quadratic (upper triangle), exponents.

    On the simplex in differences to the largest part.
    """
    n_parts, n_free = len(pull), len(own.base)
    tilt = jnp.take_along_axis(pull, own.order, 0)
    if gram.ndim == 3:
        bend_of = jnp.take_along_axis(gram, own.order[:, None], 0)
        bend_of = jnp.take_along_axis(bend_of, own.order[None], 1)
        table = lambda i, j: bend_of[i, j]  # noqa: E731
    else:
        # One row of the gram per unit and pair: a gather from a K x K table.
        table = lambda i, j: gram[own.order[i], own.order[j]]  # noqa: E731
    pairs = list(zip(*np.triu_indices(n_free), strict=True))
    if n_free == n_parts:
        parts = [tilt, jnp.stack([table(i, j) for i, j in pairs])]
    else:
        last = n_parts - 1
        to_last = [table(i, last) for i in range(n_parts)]
        bend = [table(i, j) - to_last[i] - to_last[j] + to_last[last] for i, j in pairs]
        parts = [tilt[:-1] - tilt[-1], jnp.stack(bend)]
    if concentration is not None:
        parts.append(concentration[own.order])
    found = jnp.concatenate(parts)
    assert len(found) == n_natural(n_free) + (0 if concentration is None else n_parts)
    return found


def sorted_hold(own: Frame) -> jax.Array:
    """What the sorted parts are held by, (2 K, units): their centres, then the forces."""
    sort = lambda x: jnp.take_along_axis(x, own.order, 0)  # noqa: E731
    return jnp.concatenate([sort(own.centre), sort(own.force)])


def _shifts(key: jax.Array, index: jax.Array, dimension: int, dtype) -> jax.Array:
    """A random shift per unit, (dimension, units): it depends on ``key`` and the unit's ``index`` alone.

    Units that share points would share their integration error, which then grows with the number of units
    instead of averaging out; and a unit has the same points in whatever batch it is visited.
    """
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (dimension,), dtype), out_axes=1)(index)


@functools.cache
def _sobol(dimension: int, n_points: int) -> np.ndarray:
    from scipy.stats import qmc

    if dimension == 0:
        return np.zeros((n_points, 0))
    return qmc.Sobol(dimension, rng=np.random.default_rng(20240229)).random(n_points)


def log_dirichlet_constant(concentration: jax.Array) -> jax.Array:
    """Log normaliser of the Dirichlet density, ``log Gamma(sum alpha) - sum log Gamma(alpha)``."""
    return gammaln(concentration.sum()) - gammaln(concentration).sum()
