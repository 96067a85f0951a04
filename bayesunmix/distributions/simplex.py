"""Integrals over the simplex against a Gaussian-times-Dirichlet integrand, one per unit.

For abundances ``a`` on the simplex of K parts the unit's integrand, taken relative to its value at a reference point
``c`` and with the volume element of the first K - 1 parts, is

    exp( pull'(a - c) - (a - c)' gram (a - c) / 2 ) * prod_k a_k^(alpha_k - 1)

with one K x K ``gram`` for all units and a K-vector ``pull`` per unit. The parts are drawn one after the other, each
from a normal distribution truncated to what is left of the sum (the simulator of Geweke, Hajivassiliou and Keane;
Genz, J. Comput. Graph. Stat. 1, 141 (1992)), and the integral is the mean over points of the product of the
truncated masses. Two choices make it nearly exact: parts at a face come first, the largest part is what the others
leave; and the exponential tilt at ``c``, near the constrained maximum, stays with its own part (Botev, J. R. Stat.
Soc. B 79, 125 (2017)). A unit in the interior, and one at a single face, then has no integration error at all, and
neither has any unit of two parts. Other exponents than alpha = 1 enter as a weight; where one is below 1 the part is
drawn from the power law near that end (:func:`_with_ends`).

For alpha = 1 the points move with the parameters, so a derivative of the integral is exact wherever the integral is.
Arrays are laid out units last, ``(K, units)`` and ``(points, units)``, so that everything is elementwise over lanes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, ndtri

from bayesunmix.distributions import lanes, truncated

_NEWTON_STEPS = 80
_BARRIER = 0.1  # smallest exponent that keeps the reference point off the faces
_WORK = jnp.float32  # precision of what there is one of per point
_LANES = 2**18  # points times units that are worked on together
_LOG_ROOT_2PI = 0.9189385332046727


class Frame(NamedTuple):
    """What is held fixed while an integral is differentiated: where it is expanded, and its points."""

    order: jax.Array  # (K, units) parts, nearest to a face first
    centre: jax.Array  # (K, units) reference point, parts as given
    force: jax.Array  # (K, units) with which the faces hold the parts there
    base: jax.Array  # (K - 1, points) of the open unit cube, the same for all units
    shift: jax.Array  # (K - 1, units) moves them around the cube


def default_points(n_parts: int, uniform: bool = True) -> int:
    """Points per unit that keep the numerical shift of a posterior well below its width (docs/numerics.md)."""
    if uniform:
        return {1: 1, 2: 1, 3: 16, 4: 16, 5: 32, 6: 64}.get(n_parts, 128)
    return {1: 1, 2: 64, 3: 64, 4: 128, 5: 256, 6: 512}.get(n_parts, 1024)


def frame(gram, linear, concentration, key, index, n_points: int) -> Frame:
    """Reference points and integration points of units.

    Parameters
    ----------
    gram, linear : (K, K), (K, units)
        Gaussian part ``linear'a - a' gram a / 2``.
    concentration : (K,), or None for ones
    key, index : JAX key, (units,)
        Pick the unit's own points.
    """
    n_parts = len(linear)
    repelled = jnp.zeros(n_parts, linear.dtype) if concentration is None else jnp.maximum(concentration - 1.0, 0.0)
    barrier = jnp.maximum(repelled, _BARRIER)
    centre = mode(gram, linear, barrier)
    force = (barrier - repelled)[:, None] / centre
    base = jnp.asarray(_sobol(n_parts - 1, n_points).T, linear.dtype)
    return Frame(jnp.argsort(centre, axis=0), centre, force, base, _shifts(key, index, n_parts - 1, linear.dtype))


def redraw(old: Frame, key, index) -> Frame:
    """The same reference points with fresh integration points, as many as before."""
    return old._replace(shift=_shifts(key, index, len(old.shift), old.shift.dtype))


def mode(gram: jax.Array, linear: jax.Array, barrier: jax.Array) -> jax.Array:
    """Maximiser over the simplex of ``linear'a - a'gram a/2 + sum barrier log a``, shape (K, units).

    Newton steps on the plane sum(a) = 1, shortened to 9/10 of the way to the nearest face: the log barrier keeps
    the problem strictly concave, so the iteration converges from the centre.
    """
    n_parts, n_units = linear.shape
    tolerance = 1e-7 if linear.dtype == jnp.float64 else 1e-4

    def step(a: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = linear - gram @ a + barrier[:, None] / a
        hessian = [
            [gram[i, j] + (barrier[i] / a[i] ** 2 if i == j else 0.0) for j in range(n_parts)] for i in range(n_parts)
        ]
        factor = lanes.cholesky([[jnp.broadcast_to(h, (n_units,)) for h in row] for row in hessian])
        newton = jnp.stack(lanes.solve(factor, list(slope)))
        ones = jnp.stack(lanes.solve(factor, [jnp.ones(n_units, linear.dtype)] * n_parts))
        move = newton - ones * (newton.sum(0) / ones.sum(0))
        reach = jnp.min(jnp.where(move < 0, -a / jnp.where(move < 0, move, -1.0), jnp.inf), axis=0)
        a = a + jnp.minimum(1.0, 0.9 * reach) * move
        return a / a.sum(0), jnp.max(jnp.abs(move) / a)

    def unfinished(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, change, count = state
        return (change > tolerance) & (count < _NEWTON_STEPS)

    start = jnp.full((n_parts, n_units), 1.0 / n_parts, linear.dtype)
    body = lambda state: (*step(state[0]), state[2] + 1)  # noqa: E731
    a, _, _ = jax.lax.while_loop(unfinished, body, (start, jnp.array(jnp.inf, linear.dtype), jnp.array(0)))
    return a


# ---------------------------------------------------------------------- the integral


def log_integral(own: Frame, pull: jax.Array, gram: jax.Array, concentration: jax.Array | None) -> jax.Array:
    """Log of the integral of every unit, (units,); differentiable in ``pull`` (K, units), ``gram``, ``concentration``.

    ``pull`` is the linear coefficient at the frame's centre. The Dirichlet's normaliser is not included.
    """
    if len(own.centre) == 1:
        return jnp.zeros_like(pull[0])
    return _log_integral(_natural(own, pull, gram, concentration), _held(own), own.base, own.shift)


class Moments(NamedTuple):
    """Moments of the features (a, products a_k a_m for k <= m, log a unless the concentration is 1)."""

    mean: jax.Array  # (features, units)
    covariance: jax.Array  # (features, features, units)


def moments(own: Frame, pull: jax.Array, gram: jax.Array, concentration: jax.Array | None) -> Moments:
    """Moments of the abundances given the data, from weighted points and, for what is inside, exactly."""
    n_parts, n_units = pull.shape
    n_logs = 0 if concentration is None else n_parts
    rows, columns = np.triu_indices(n_parts)
    if n_parts == 1:
        one = jnp.concatenate([jnp.ones((2, n_units), pull.dtype), jnp.zeros((n_logs, n_units), pull.dtype)])
        return Moments(one, jnp.zeros((len(one), len(one), n_units), pull.dtype))
    eta = _natural(own, pull, gram, concentration)
    first, second = _in_chunks(_natural_moments, eta, _held(own), _more_points(own, 64), own.shift)
    # From features v_j and v_i v_j of the sorted, reduced v = a - c to those of a.
    reduce = _reduction(own, pull.dtype)  # (K - 1, K, units), v = reduce' of the first parts; a - c = sum_j v_j e_j
    pairs = list(zip(*np.triu_indices(n_parts - 1), strict=True))
    size = len(first) - n_logs
    to_linear = jnp.concatenate([reduce, jnp.zeros((len(pairs), n_parts, n_units), pull.dtype)])
    products = []
    for k, m in zip(rows, columns, strict=True):
        by_linear = own.centre[k] * reduce[:, m] + own.centre[m] * reduce[:, k]
        by_pair = [
            reduce[i, k] * reduce[i, m] if i == j else reduce[i, k] * reduce[j, m] + reduce[j, k] * reduce[i, m]
            for i, j in pairs
        ]
        products.append(jnp.concatenate([by_linear, jnp.stack(by_pair)]))
    to_products = jnp.stack(products, axis=1)
    change = jnp.concatenate([to_linear, to_products], axis=1)  # (natural, features, units)
    offset = jnp.concatenate([own.centre, own.centre[rows] * own.centre[columns]])
    mean = offset + jnp.einsum("efn,en->fn", change, first[:size])
    covariance = jnp.einsum("efn,edn,dgn->fgn", change, second[:size, :size], change, optimize=[(0, 1), (0, 1)])
    if not n_logs:
        return Moments(mean, covariance)
    back = jnp.argsort(own.order, axis=0)
    logs = jnp.take_along_axis(first[size:], back, 0)
    crossed = jnp.take_along_axis(jnp.einsum("efn,edn->fdn", change, second[:size, size:]), back[None], 1)
    squares = jnp.take_along_axis(second[size:, size:], back[None], 1)
    squares = jnp.take_along_axis(squares, back[:, None], 0)
    top = jnp.concatenate([covariance, crossed], axis=1)
    bottom = jnp.concatenate([jnp.swapaxes(crossed, 0, 1), squares], axis=1)
    return Moments(jnp.concatenate([mean, logs]), jnp.concatenate([top, bottom]))


def _natural_moments(eta, held, base, shift) -> tuple[jax.Array, jax.Array]:
    """Mean (features, units) and covariance (features, features, units) of v_j, v_i v_j (i <= j) and the logs.

    The same points without bounds follow a normal distribution, whose moments are known: what the points miss of
    those is added, in proportion to the share of the normal inside the simplex (a control variate). Without it
    the many units inside, which tell little about the endmembers, would drown in noise those at a face.
    """
    n_free = len(held) // 2 - 1
    pairs = list(zip(*np.triu_indices(n_free), strict=True))

    def features(e, c, points, moves):
        walk = _walk(e, c, points, moves, every=True)
        free = _walk(e, c, points, moves, every=True, bounded=False)
        stack = lambda away, logs: jnp.stack(  # noqa: E731
            [jnp.broadcast_to(x, walk.log_weight.shape) for x in [*away, *(away[i] * away[j] for i, j in pairs), *logs]]
        )
        return stack(walk.away, walk.logs), stack(free.away, []), walk.log_weight, jnp.exp(walk.log_inside).mean(0)

    bounded, free, log_weight, inside = _in_chunks(features, eta, held, base, shift, least=2)
    weight = jax.nn.softmax(log_weight, axis=0)
    even = jnp.full_like(weight, 1.0 / len(weight))
    mean, covariance = _weighted_moments(bounded.astype(eta.dtype), weight.astype(eta.dtype))
    seen_mean, seen_covariance = _weighted_moments(free.astype(eta.dtype), even.astype(eta.dtype))
    true_mean, true_covariance = _normal_moments(eta, held)
    share = inside.astype(eta.dtype)
    size = len(true_mean)
    mean = mean.at[:size].add(share * (true_mean - seen_mean))
    return mean, covariance.at[:size, :size].add(share * (true_covariance - seen_covariance))


def _weighted_moments(features, weight):
    """Mean and covariance of features (., points, units) under weights (points, units) that sum to one."""
    mean = (features * weight).sum(1)
    spread = (features - mean[:, None]) * jnp.sqrt(weight)
    return mean, jnp.einsum("isn,jsn->ijn", spread, spread)


def _normal_moments(eta, held):
    """Mean and covariance of v_j and v_i v_j under the normal distribution of the proposal, without bounds."""
    n_parts = len(held) // 2
    n_free = n_parts - 1
    pairs = list(zip(*np.triu_indices(n_free), strict=True))
    normal = _proposal(eta, held[:n_parts], held[n_parts:], eta[n_free + len(pairs) :])
    mean: list[jax.Array] = []
    root: list[list[jax.Array]] = []  # v = mean + root z, row by row
    for j in range(n_free):
        mean.append(normal.expected(j, mean) + normal.slope[j] * normal.scale[j] ** 2)
        own = [-sum(normal.mixing[i, j] * root[i][m] for i in range(m, j)) for m in range(j)]
        root.append([*own, normal.scale[j]])
    cov = {
        (i, j): sum(root[i][m] * root[j][m] for m in range(min(i, j) + 1)) for i in range(n_free) for j in range(n_free)
    }
    of_pair = lambda i, j: cov[i, j] + mean[i] * mean[j]  # noqa: E731
    crossed = lambda i, j, k: cov[i, j] * mean[k] + cov[i, k] * mean[j]  # noqa: E731

    def between(i, j, k, m):
        # Of v_i v_j and v_k v_m (Isserlis).
        fourth = cov[i, k] * cov[j, m] + cov[i, m] * cov[j, k]
        second = mean[i] * (mean[k] * cov[j, m] + mean[m] * cov[j, k])
        return fourth + second + mean[j] * (mean[k] * cov[i, m] + mean[m] * cov[i, k])

    rows = [[cov[i, j] for j in range(n_free)] + [crossed(i, *p) for p in pairs] for i in range(n_free)]
    rows += [[crossed(i, *p) for i in range(n_free)] + [between(*p, *q) for q in pairs] for p in pairs]
    return jnp.stack([*mean, *(of_pair(i, j) for i, j in pairs)]), jnp.stack([jnp.stack(row) for row in rows])


def nodes(own: Frame, pull: jax.Array, gram: jax.Array, concentration: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Points of the abundances (K, points, units) and their weights (points, units), which sum to one."""
    n_parts, n_units = pull.shape
    if n_parts == 1:
        return jnp.ones((1, 1, n_units), pull.dtype), jnp.ones((1, n_units), pull.dtype)
    base = _more_points(own, 32)
    walk = _walk(_natural(own, pull, gram, concentration), _held(own), base, own.shift, every=True)
    away, log_weight = walk.away, walk.log_weight
    moved = jnp.stack([jnp.broadcast_to(v, log_weight.shape) for v in [*away, -sum(away)]]).astype(pull.dtype)
    moved = jnp.take_along_axis(moved, jnp.argsort(own.order, axis=0)[:, None], 0)
    points = jnp.maximum(own.centre[:, None] + moved, 0.0)
    return points, jax.nn.softmax(log_weight.astype(pull.dtype), axis=0)


def _more_points(own: Frame, least: int) -> jax.Array:
    """At least so many points, for what needs more of them than the integral does."""
    n_free, n_points = own.base.shape
    return own.base if n_points >= least else jnp.asarray(_sobol(n_free, least).T, own.base.dtype)


def _natural(own: Frame, pull, gram, concentration) -> jax.Array:
    """Natural parameters (., units) in differences of the sorted parts to the largest: linear, quadratic, exponents.

    The quadratic ones are the upper triangle of a (K - 1, K - 1) matrix.
    """
    n_parts = len(pull)
    tilt = jnp.take_along_axis(pull, own.order, 0)
    # One row of the gram's differences per unit and pair: a gather from a K x K table.
    table = lambda i, j: gram[own.order[i], own.order[j]]  # noqa: E731
    last = n_parts - 1
    to_last = [table(i, last) for i in range(n_parts)]
    bend = [
        table(i, j) - to_last[i] - to_last[j] + to_last[last]
        for i, j in zip(*np.triu_indices(n_parts - 1), strict=True)
    ]
    parts = [tilt[:-1] - tilt[-1], jnp.stack(bend)]
    if concentration is not None:
        parts.append(concentration[own.order])
    return jnp.concatenate(parts)


def _held(own: Frame) -> jax.Array:
    """What the sorted parts are held by, (2 K, units): their centres, then the forces."""
    sort = lambda x: jnp.take_along_axis(x, own.order, 0)  # noqa: E731
    return jnp.concatenate([sort(own.centre), sort(own.force)])


def _reduction(own: Frame, dtype) -> jax.Array:
    """Direction in which every free part moves the abundances, (K - 1, K, units)."""
    unit = jax.nn.one_hot(own.order, len(own.order), axis=1, dtype=dtype)  # (K, K, units)
    return unit[:-1] - unit[-1]


@jax.custom_jvp
def _log_integral(eta, held, base, shift):
    return _in_chunks(_raw, eta, held, base, shift)


@_log_integral.defjvp
def _log_integral_jvp(primals, tangents):
    eta, *rest = primals

    def both(e, *fixed):
        value, back = jax.vjp(lambda x: _raw(x, *fixed), e)
        return value, back(jnp.ones_like(value))[0]

    n_free = len(rest[0]) // 2 - 1
    if len(eta) == n_free * (n_free + 3) // 2:
        value, slope = _in_chunks(both, eta, *rest)
    else:
        # Where a part changes from one law to the next (_with_ends) the weight jumps, and a derivative through the
        # points would miss how the jump moves: the moments are the derivative, with an error of their own.
        value, mean = _in_chunks(_raw, eta, *rest), _natural_moments(eta, *rest)[0]
        rows, columns = np.triu_indices(n_free)
        factor = np.concatenate([np.ones(n_free), np.where(rows == columns, -0.5, -1.0), np.ones(n_free + 1)])
        slope = mean * factor[:, None].astype(mean.dtype)
    return value, (slope * tangents[0]).sum(0)


def _in_chunks(fn: Callable, eta, held, base, shift, least: int = 1):
    """``fn`` over chunks of the units, so that what it holds at a time does not grow with the image.

    More than one chunk also keeps XLA from computing ``fn`` anew in everything that uses its results.
    """
    n_units = eta.shape[1]
    count = max(least, -(-n_units * base.shape[1] // _LANES))
    if count == 1:
        return fn(eta, held, base, shift)
    size = -(-n_units // count)
    split = lambda x: jnp.moveaxis(  # noqa: E731
        jnp.pad(x, ((0, 0), (0, count * size - n_units)), mode="edge").reshape(len(x), count, size), 1, 0
    )
    found = jax.lax.map(lambda x: fn(x[0], x[1], base, x[2]), (split(eta), split(held), split(shift)))
    join = lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], count * size)[..., :n_units]  # noqa: E731
    return jax.tree_util.tree_map(join, found)


def _raw(eta, held, base, shift) -> jax.Array:
    walk = _walk(eta, held, base, shift, every=False)
    top = jax.lax.stop_gradient(walk.log_weight.max(0))
    return walk.constant + (top + jnp.log(jnp.exp(walk.log_weight - top).mean(0))).astype(eta.dtype)


class _Walk(NamedTuple):
    """The sorted parts drawn at every point, each list with one entry per part."""

    away: list[jax.Array]  # from the centre, all but the last part; (points, units)
    logs: list[jax.Array]  # of all parts, where exponents other than 1 need them
    log_weight: jax.Array  # integrand over proposal
    log_inside: jax.Array  # share of the normal distributions within their bounds
    constant: jax.Array  # (units,) to be added to the weight


class _Proposal(NamedTuple):
    """Normal distributions that the parts are drawn from, a list with one entry per free part."""

    slope: list[jax.Array]  # of the exponential that a face holds the part with
    location: list[jax.Array]  # of the normal factor, from the centre
    scale: list[jax.Array]
    mixing: dict[tuple[int, int], jax.Array]  # how a part follows those before it
    constant: jax.Array

    def expected(self, j: int, away):
        """Location of part ``j`` given those before it."""
        return self.location[j] - sum(self.mixing[i, j] * (away[i] - self.location[i]) for i in range(j))


def _proposal(eta, centre, force, alpha) -> _Proposal:
    """The exponent as ``slope'v - (v - location)' bend (v - location) / 2``.

    The faces' forces, frozen, stay with their own parts; what else pulls moves all of them.
    """
    n_free = len(centre) - 1
    pairs = list(zip(*np.triu_indices(n_free), strict=True))
    tilt, bend = list(eta[:n_free]), dict(zip(pairs, eta[n_free : n_free + len(pairs)], strict=True))
    if len(alpha):
        tilt, bend = _with_barrier(tilt, bend, alpha, centre)
    scale, mixing = _downward(bend, n_free)
    slope = [force[-1] - force[j] for j in range(n_free)]
    pull = [t - s for t, s in zip(tilt, slope, strict=True)]
    location: list[jax.Array] = []
    down = list(pull)
    for i in reversed(range(n_free)):
        down[i] = pull[i] - sum(mixing[i, j] * down[j] for j in range(i + 1, n_free))
    for j in range(n_free):
        location.append(down[j] * scale[j] ** 2 - sum(mixing[i, j] * location[i] for i in range(j)))
    constant = 0.5 * sum(p * v for p, v in zip(pull, location, strict=True))
    return _Proposal(slope, location, scale, mixing, jnp.zeros_like(constant) if len(alpha) else constant)


def _walk(eta, held, base, shift, *, every: bool, bounded: bool = True) -> _Walk:
    """Draw the sorted parts one after the other.

    What belongs to a unit is computed in the precision of ``eta``; what belongs to a point, in float32, which is
    enough because it is relative to the unit's centre. Without ``every`` the last free part is not drawn where its
    value does not matter; without ``bounded`` parts follow their normal distributions, whatever their sign.
    """
    n_parts = len(held) // 2
    n_free = n_parts - 1
    centre, alpha = held[:n_parts], eta[n_free * (n_free + 3) // 2 :]
    exact = _proposal(eta, centre, held[n_parts:], alpha)
    proposal, centre, alpha, base, shift = jax.tree_util.tree_map(
        lambda x: x.astype(_WORK), (exact, centre, alpha, base, shift)
    )
    tiny = jnp.finfo(_WORK).eps
    room, log_room = jnp.ones((), _WORK), jnp.zeros((), _WORK)
    log_weight = log_inside = jnp.zeros((base.shape[1], eta.shape[1]), _WORK)
    away: list[jax.Array] = []
    logs: list[jax.Array] = []
    for j in range(n_free):
        one = _Part(proposal.slope[j], proposal.scale[j], proposal.expected(j, away))
        u = jnp.clip((base[j][:, None] + shift[j]) % 1.0, tiny, 1.0 - tiny)
        if not bounded:
            away.append(one.location + one.scale * ndtri(u))
            continue
        low, high, mass = one.mass(-centre[j], room - centre[j])
        log_inside = log_inside + jnp.minimum(mass - one.log_total, 0.0)
        if len(alpha):
            v, log_x, room, log_room, log_q = _with_ends(
                one, u, centre[j], room, log_room, alpha[j], alpha[j + 1 :].sum(0)
            )
            log_weight = log_weight - log_q
            logs.append(log_x)
            away.append(v)
            continue
        log_weight = log_weight + mass
        if every or j < n_free - 1:
            v = one.draw(u, low, high, -centre[j], room - centre[j])
            room = room - (centre[j] + v)
            away.append(v)
    if not len(alpha) or not bounded:
        return _Walk(away, logs, log_weight, log_inside, exact.constant)
    logs.append(log_room)
    log_weight = log_weight + _exponent(eta.astype(_WORK), away)
    log_weight = log_weight + sum((a - 1.0) * x for a, x in zip(alpha, logs, strict=True))
    return _Walk(away, logs, log_weight, log_inside, exact.constant)


def _exponent(eta, away):
    """Gaussian part of the log integrand."""
    n_free = len(away)
    total = sum(t * v for t, v in zip(eta, away, strict=False))
    for bend, i, j in zip(eta[n_free:], *np.triu_indices(n_free), strict=False):
        total = total - (0.5 if i == j else 1.0) * bend * away[i] * away[j]
    return total


def _with_barrier(tilt, bend, alpha, centre):
    """Slope and curvature that the proposal follows where the exponents pull the parts off the faces.

    The expansion of ``(alpha - 1) log a`` at the centre, its curvature reduced: a gamma's tail is longer than a
    normal's.
    """
    n_free = len(tilt)
    pulls = [jnp.maximum(a - 1.0, 0.0) for a in alpha]
    slopes = [p / c for p, c in zip(pulls, centre, strict=True)]
    curves = [p * (1.0 - 0.6 / (1.0 + p)) / c**2 for p, c in zip(pulls, centre, strict=True)]
    curve = {(i, j): b + curves[-1] + (curves[i] if i == j else 0.0) for (i, j), b in bend.items()}
    return [tilt[j] + slopes[j] - slopes[-1] for j in range(n_free)], curve


def _downward(bend, n_free: int):
    """Standard deviation of every part given those before it, later ones integrated out, and how it follows them.

    ``v' bend v = sum_j ((v_j + sum_{i<j} mixing_ij v_i) / scale_j)^2``.
    """
    left = dict(bend)
    scale, mixing = [jnp.zeros(())] * n_free, {}
    for j in reversed(range(n_free)):
        # Rounding can push a pivot to zero, and parts that the data do not tell apart have none.
        floor = jnp.finfo(left[j, j].dtype).eps * jnp.abs(bend[j, j]) + 1e-6
        pivot = jnp.maximum(left[j, j], floor)
        scale[j] = 1.0 / jnp.sqrt(pivot)
        for i in range(j):
            mixing[i, j] = left[i, j] / pivot
        for i in range(j):
            for k in range(i, j):
                left[i, k] = left[i, k] - mixing[i, j] * left[k, j]
    return scale, mixing


class _Part(NamedTuple):
    """Exponent of one part v (from its centre) given those before it: slope v - (v - expected)^2 / (2 scale^2)."""

    slope: jax.Array
    scale: jax.Array
    expected: jax.Array

    @property
    def location(self):
        return self.expected + self.slope * self.scale**2

    @property
    def log_total(self):
        """Log of the integral of the exponential over all v."""
        return self.exponent(self.location) + jnp.log(self.scale) + _LOG_ROOT_2PI

    def exponent(self, v):
        return self.slope * v - 0.5 * ((v - self.expected) / self.scale) ** 2

    def mass(self, lowest, highest):
        """Bounds in standard deviations, and log of the integral of the exponential between them."""
        location = self.location
        low, high = jnp.broadcast_arrays((lowest - location) / self.scale, (highest - location) / self.scale)
        top = self.exponent(jnp.clip(location, lowest, highest))
        return low, high, top + jnp.log(self.scale) + truncated.log_mass(low, high)

    def draw(self, u, low, high, lowest, highest):
        return jnp.clip(self.location + self.scale * truncated.quantile(u, low, high), lowest, highest)


def _with_ends(one: _Part, u, centre, room, log_room, alpha, rest):
    """Draw a part where exponents below 1 make the integrand singular: at 0 (``alpha``) or where nothing is left
    (``rest``).

    A power law near such an end and the truncated normal between, in proportion to their approximate masses.
    Returns the part from its centre, its log, what is left, its log, and the log density of the proposal.
    """
    # In shares of the room, which may be less than float32 holds: its logarithm is kept beside it.
    tiny, eps = jnp.finfo(u.dtype).tiny, jnp.finfo(u.dtype).eps
    room = jnp.maximum(room, 1e6 * tiny)
    edge = jnp.minimum(one.scale / room, 1.0) / 3.0
    at_low, at_high = jnp.where(alpha < 1.0, edge, 0.0), jnp.where(rest < 1.0, edge, 0.0)
    lowest, highest = room * at_low - centre, room * (1.0 - at_high) - centre
    low, high, log_mass = one.mass(lowest, highest)
    span = 1.0 - at_low - at_high
    middle = jnp.clip((centre + one.location) / room, at_low + 0.1 * span, 1.0 - at_high - 0.1 * span)
    log_low, log_high = jnp.log(jnp.maximum(at_low, eps)), jnp.log(jnp.maximum(at_high, eps))
    half_low, half_high = 0.5 * at_low, 1.0 - 0.5 * at_high
    shares = [
        jnp.where(
            alpha < 1.0,
            log_room
            + alpha * log_low
            - jnp.log(alpha)
            + one.exponent(room * half_low - centre)
            + (rest - 1.0) * jnp.log1p(-half_low),
            -jnp.inf,
        ),
        log_mass + (alpha - 1.0) * jnp.log(middle) + (rest - 1.0) * jnp.log1p(-middle),
        jnp.where(
            rest < 1.0,
            log_room
            + rest * log_high
            - jnp.log(rest)
            + one.exponent(room * half_high - centre)
            + (alpha - 1.0) * jnp.log(half_high),
            -jnp.inf,
        ),
    ]
    log_share = jax.nn.log_softmax(jnp.stack(jnp.broadcast_arrays(*shares)), axis=0)
    share = jnp.exp(log_share)
    is_low, is_high = u < share[0], u > 1.0 - share[2]
    is_middle = ~(is_low | is_high)
    # Every branch gets arguments that keep its derivative finite where it is not taken.
    at_u = lambda chosen, value, size: jnp.where(chosen, value / jnp.where(chosen, size, 1.0), 0.5)  # noqa: E731
    u_low, u_high = at_u(is_low, u, share[0]), at_u(is_high, 1.0 - u, share[2])
    u_middle = jnp.clip(at_u(is_middle, u - share[0], share[1]), eps, 1.0 - eps)
    v_middle = one.draw(u_middle, low, high, lowest, highest)
    part_middle = jnp.clip((centre + v_middle) / room, eps, 1.0 - eps)
    # Shares of the room that the part takes and leaves, in logarithms.
    log_takes_low, log_leaves_high = log_low + jnp.log(u_low) / alpha, log_high + jnp.log(u_high) / rest
    pick = lambda at_low, at_high, between: jnp.where(is_low, at_low, jnp.where(is_high, at_high, between))  # noqa: E731
    log_takes = pick(log_takes_low, jnp.log1p(-jnp.exp(log_leaves_high)), jnp.log(part_middle))
    log_leaves = pick(jnp.log1p(-jnp.exp(log_takes_low)), log_leaves_high, jnp.log1p(-part_middle))
    v = jnp.where(is_middle, v_middle, room * jnp.exp(log_takes) - centre)
    log_q = pick(
        log_share[0] + jnp.log(alpha) - alpha * log_low + (alpha - 1.0) * log_takes_low - log_room,
        log_share[2] + jnp.log(rest) - rest * log_high + (rest - 1.0) * log_leaves_high - log_room,
        log_share[1] + one.exponent(v_middle) - log_mass,
    )
    return v, log_room + log_takes, room * jnp.exp(log_leaves), log_room + log_leaves, log_q


# ---------------------------------------------------------------------- points


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
