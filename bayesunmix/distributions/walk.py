"""Non-negative parts drawn one after the other from a Gaussian times powers, as an importance sample.

The integrand of a unit, relative to its value at a reference point ``c``, is

    exp( pull'v - v'bend v / 2 ) * prod_k a_k^(alpha_k - 1),    v = a - c, every part a_k >= 0

on one of two domains. *Closed*: the parts sum to one; the last is what the others leave, and ``v`` holds the K - 1
others. *Open*: K parts of any size. Each part is drawn from a normal distribution truncated to what is left of the sum
(the simulator of Geweke, Hajivassiliou and Keane; Genz, J. Comput. Graph. Stat. 1, 141 (1992)), and the integral is
the mean over points of the product of the truncated masses. Parts at a face come first, and the exponential tilt at
``c``, near the constrained maximum, stays with its own part (Botev, J. R. Stat. Soc. B 79, 125 (2017)). A unit in the
interior, and one at a single face, then has no integration error at all.

Exponents other than 1 make the integrand singular at the faces: a fixed share of the points is then drawn from a power
law at each end instead (:class:`~bayesunmix.distributions.part_laws.Ends`), and every point is weighted by the density
of the whole mixture, so that the weights stay bounded and smooth in the parameters.

Points move with the parameters. Arrays are laid out units last, ``(parts, units)`` and ``(points, units)``, so that
everything is elementwise over lanes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from bayesunmix.distributions import chunks
from bayesunmix.distributions.part_laws import REACH, Ends, Part, laws
from bayesunmix.distributions.truncated import LOG_ROOT_2PI

_WORK = jnp.float32  # precision of what there is one of per point


class Walk(NamedTuple):
    """The sorted parts drawn at every point, each list with one entry per part."""

    away: list[jax.Array]  # from the centre, free parts only; (points, units)
    logs: list[jax.Array]  # of all parts, where exponents other than 1 need them
    log_weight: jax.Array  # integrand over proposal
    log_inside: jax.Array  # share of the normal distributions within their bounds
    constant: jax.Array  # (units,) to be added to the weight
    even: jax.Array  # (points, 1) 1 where every part came from its normal distribution, else 0


class Proposal(NamedTuple):
    """Normal distributions that the parts are drawn from, a list with one entry per free part."""

    slope: list[jax.Array]  # of the exponential that a face holds the part with
    location: list[jax.Array]  # of the normal factor, from the centre
    scale: list[jax.Array]
    mixing: dict[tuple[int, int], jax.Array]  # how a part follows those before it
    constant: jax.Array

    def expected(self, j: int, away):
        """Location of part ``j`` given those before it."""
        return self.location[j] - sum(self.mixing[i, j] * (away[i] - self.location[i]) for i in range(j))


def n_natural(n_free: int) -> int:
    """Number of linear and quadratic natural parameters of a unit."""
    return n_free * (n_free + 3) // 2


def proposal(eta, held, n_free: int) -> Proposal:
    """The exponent as ``slope'v - (v - location)' bend (v - location) / 2``.

    ``eta`` (., units) holds the linear and the quadratic coefficients of the free parts (upper triangle), and the
    exponents of all parts if they are not 1; ``held`` (2 K, units) the parts at the centre and the forces of their
    faces. The forces, frozen, stay with their own parts; what else pulls moves all of them.
    """
    n_parts = len(held) // 2
    centre, force, alpha = held[:n_parts], held[n_parts:], eta[n_natural(n_free) :]
    closed = n_free < n_parts
    pairs = list(zip(*np.triu_indices(n_free), strict=True))
    tilt, bend = list(eta[:n_free]), dict(zip(pairs, eta[n_free : n_natural(n_free)], strict=True))
    if len(alpha):
        tilt, bend = _with_barrier(tilt, bend, alpha, centre)
    slope = [(force[-1] if closed else 0.0) - force[j] for j in range(n_free)]
    pull = [t - s for t, s in zip(tilt, slope, strict=True)]
    # What of the pull a location follows: where the data bend little it would be far off, and the face's slope serves.
    bounded = bend_of_bounds(force, 1.0 if closed else centre.sum(0))
    ridge = [jnp.where(f > 0.0, b, 0.0) for f, b in zip(force[:n_free], bounded[:n_free], strict=True)]
    steep = {(i, j): b + (ridge[i] if i == j else 0.0) for (i, j), b in bend.items()}
    damped_scale, damped_mixing = _downward(steep, n_free)
    location = _solved(damped_scale, damped_mixing, pull)
    slope = [s + r * v for s, r, v in zip(slope, ridge, location, strict=True)]
    constant = 0.5 * sum((p - r * v) * v for p, r, v in zip(pull, ridge, location, strict=True))
    scale, mixing = _downward(bend, n_free)
    return Proposal(slope, location, scale, mixing, jnp.zeros_like(constant) if len(alpha) else constant)


def bend_of_bounds(force, size) -> list[jax.Array]:
    """Curvatures of all parts of a simplex of this ``size`` where data bend nothing.

    A face that holds its part with a force leaves it an exponential distribution; and nothing is wider than the even
    distribution over the simplex.
    """
    return [f**2 + len(force) * (len(force) + 1) / size**2 for f in force]


def _solved(scale, mixing, right) -> list[jax.Array]:
    """Solution of the linear equations whose matrix :func:`_downward` took apart."""
    found: list[jax.Array] = []
    down = list(right)
    for i in reversed(range(len(right))):
        down[i] = right[i] - sum(mixing[i, j] * down[j] for j in range(i + 1, len(right)))
    for j in range(len(right)):
        found.append(down[j] * scale[j] ** 2 - sum(mixing[i, j] * found[i] for i in range(j)))
    return found


def normal_moments(eta, held, n_free: int) -> tuple[list[jax.Array], list[list[jax.Array]]]:
    """Mean and root of the covariance of the sorted free parts under their normal distributions, without bounds.

    ``v_i = mean_i + sum_m root_im z_m`` with standard normal z.
    """
    normal = proposal(eta, held, n_free)
    return _means(normal, []), _root(normal)


def _means(normal: Proposal, known: list[jax.Array]) -> list[jax.Array]:
    """Mean of every free part, given the first ones."""
    mean = list(known)
    for j in range(len(known), len(normal.scale)):
        mean.append(normal.expected(j, mean) + normal.slope[j] * normal.scale[j] ** 2)
    return mean


def _root(normal: Proposal) -> list[list[jax.Array]]:
    root: list[list[jax.Array]] = []
    for j, scale in enumerate(normal.scale):
        row = []
        for m in range(len(normal.scale)):
            terms = [-normal.mixing[i, j] * root[i][m] for i in range(j)]
            row.append(scale if m == j else sum(terms, start=jnp.zeros_like(scale)))
        root.append(row)
    return root


def closed_log_integral(eta, held, n_free: int) -> jax.Array:
    """Log integral of units of which only the first sorted part comes near a face, (units,); exponents are 1."""
    exact = proposal(eta, held, n_free)
    normal, centre = jax.tree_util.tree_map(lambda x: x.astype(_WORK), (exact, held[0]))
    first = Part(normal.slope[0], normal.scale[0], normal.location[0])
    mass = first.mass(-centre, 1.0 - centre)[2]
    others = sum((jnp.log(scale) + LOG_ROOT_2PI for scale in normal.scale[1:]), start=jnp.zeros_like(mass))
    return exact.constant + (mass + others).astype(eta.dtype)


def left_by_first(eta, held, n_free: int) -> list[jax.Array]:
    """The other sorted parts of such units, (units,) each, where the first keeps to its side of its face."""
    return _others(proposal(eta, held, n_free), held)


def _others(normal: Proposal, held) -> list[jax.Array]:
    lowest = -held[0]
    first = jnp.clip(normal.location[0] + normal.slope[0] * normal.scale[0] ** 2, lowest, 1.0 + lowest)
    free = _means(normal, [first])[1:]
    return [c + v for c, v in zip(held[1 : len(held) // 2], [*free, -first - sum(free)], strict=True)]


def second_face(eta, held, n_free: int) -> jax.Array:
    """What the face that another part of such a unit is farthest past takes of the log integral at least, (units,)."""
    normal = proposal(eta, held, n_free)
    root = _root(normal)
    rows = [*root[1:], [sum(column) for column in zip(*root, strict=True)]]
    # The normal distribution function is below exp(-x^2 / 2) there.
    squares = [
        jnp.minimum(place, 0.0) ** 2 / sum(r**2 for r in row)
        for place, row in zip(_others(normal, held), rows, strict=True)
    ]
    return 0.5 * functools.reduce(jnp.maximum, squares)


def scores(base, shift) -> list[jax.Array]:
    """Standard normal numbers (points, units), one array a free part, in place of a walk that meets no face."""
    pairs = zip(base.astype(_WORK), shift.astype(_WORK), strict=True)
    return [ndtri(_coordinate(start, move)) for start, move in pairs]


class _Powers(NamedTuple):
    """Of a part, or of all, where exponents are other than 1."""

    law: jax.Array  # (points,) which law it is drawn from
    alpha: jax.Array  # (units,)
    rest: jax.Array  # of the parts after it, together


class _Own(NamedTuple):
    """What a part has of its own before any is drawn; or all free parts, each array with one row per part."""

    slope: jax.Array  # (units,)
    scale: jax.Array
    location: jax.Array
    mixing: jax.Array  # (free parts, units) how it follows each of those before it
    centre: jax.Array
    shift: jax.Array
    start: jax.Array  # (points,) in the unit interval
    powers: _Powers | None


class _Drawn(NamedTuple):
    """What the parts drawn so far leave, (points, units)."""

    number: jax.Array
    moved: jax.Array  # (free parts, points, units) from where they are expected first, 0 of those not drawn yet
    room: jax.Array  # for the others, where all sum to one
    log_room: jax.Array
    log_weight: jax.Array
    log_inside: jax.Array


def walk(eta, held, base, shift, bounded: bool = True) -> Walk:
    """Draw the sorted parts one after the other.

    What belongs to a unit is computed in the precision of ``eta``; what belongs to a point, in float32, which is
    enough because it is relative to the unit's centre. Without ``bounded`` parts follow their normal distributions,
    whatever their sign, and weights count for nothing.
    """
    n_parts, n_free = len(held) // 2, len(base)
    closed = n_free < n_parts
    exact = proposal(eta, held, n_free)
    normal, centre, alpha, base, shift = jax.tree_util.tree_map(
        lambda x: x.astype(_WORK), (exact, held[:n_parts], eta[n_natural(n_free) :], base, shift)
    )
    law, start = laws(base, closed) if len(alpha) else (jnp.ones_like(base), base)
    even = (law == 1).all(0)[:, None].astype(_WORK)
    if not bounded:
        away, zero = list[jax.Array](), jnp.zeros((base.shape[1], eta.shape[1]), _WORK)
        for j, score in enumerate(scores(start, shift)):
            one = Part(normal.slope[j], normal.scale[j], normal.expected(j, away))
            away.append(one.location + one.scale * score)
        return Walk(away, [], zero, zero, exact.constant, even)
    found, away, logs = _one_by_one(normal, centre, alpha, law, start, shift, closed)
    log_weight = found.log_weight
    if len(alpha):
        logs = [*logs, found.log_room] if closed else logs
        log_weight = log_weight + _exponent(eta.astype(_WORK), away)
        log_weight = log_weight + sum((a - 1.0) * x for a, x in zip(alpha, logs, strict=True))
    return Walk(away, logs, log_weight, found.log_inside, exact.constant, even)


def _one_by_one(normal: Proposal, centre, alpha, law, start, shift, closed: bool):
    """What the free parts leave, and lists of them and of their logs, if there are exponents.

    In a loop, which is compiled once, whatever their number.
    """
    parts = range(len(shift))
    zero = jnp.zeros((start.shape[1], shift.shape[1]), _WORK)
    nothing = _Drawn(jnp.array(0), jnp.zeros((len(parts), *zero.shape), _WORK), zero + 1.0, zero, zero, zero)
    powers = None
    if len(alpha):
        powers = _Powers(law, alpha[: len(parts)], jnp.stack([alpha[j + 1 :].sum(0) for j in parts]))
    own = _Own(
        jnp.stack(normal.slope),
        jnp.stack(normal.scale),
        jnp.stack(normal.location),
        jnp.stack([jnp.stack([normal.mixing.get((i, j), zero[0]) for i in parts]) for j in parts]),
        centre[: len(parts)],
        shift,
        start,
        powers,
    )
    one = functools.partial(_next_part, closed=closed)
    found, (away, logs) = jax.lax.scan(one, nothing, own)
    return found, list(away), [] if logs is None else list(logs)


def _next_part(so_far: _Drawn, own: _Own, *, closed: bool) -> tuple[_Drawn, tuple[jax.Array, jax.Array | None]]:
    """One part from its centre, and its log, if there are exponents."""
    one = Part(own.slope, own.scale, own.location - (own.mixing[:, None] * so_far.moved).sum(0))
    u, room, log_room = _coordinate(own.start, own.shift), so_far.room, so_far.log_room
    lowest = -own.centre
    highest = room - own.centre if closed else jnp.maximum(one.location, lowest) + REACH * one.scale
    little = jnp.zeros((), bool)
    if own.powers is not None and closed:
        # So little is left that rounding would eat it: even, whatever the exponent.
        little = (room < 1e-4 * own.centre) & (room < 0.1 * one.scale)
        highest = jnp.where(little, lowest + one.scale, highest)
    low, width, mass = one.mass(lowest, highest)
    log_inside = so_far.log_inside + jnp.minimum(mass - one.log_total, 0.0)
    v, log_x, gained = one.draw(u, low, width, lowest, highest), None, mass
    if own.powers is None:
        room = room - (own.centre + v)
    else:
        x = jnp.where(little, room * u, own.centre + v)
        mass = jnp.where(little, one.exponent(lowest) + log_room, mass)
        law, alpha, rest = own.powers
        ends = Ends(one, own.centre, room if closed else None, alpha, rest)
        v, log_x, log_left, log_q = ends.draw(law[:, None], u, log_room, x, mass, little)
        gained = -log_q
        if closed:
            room, log_room = jnp.exp(log_left), log_left
    moved = jax.lax.dynamic_update_index_in_dim(so_far.moved, v - own.location, so_far.number, 0)
    left = _Drawn(so_far.number + 1, moved, room, log_room, so_far.log_weight + gained, log_inside)
    return left, (v, log_x)


def _coordinate(start, shift) -> jax.Array:
    """In the open unit interval, (points, units)."""
    tiny = jnp.finfo(_WORK).eps
    return jnp.clip((start[:, None] + shift) % 1.0, tiny, 1.0 - tiny)


def walk_apart(eta, held, base, shift) -> Walk:
    """The walk kept apart from the loop that it is in, and done once for all who use it."""
    return chunks.apart(walk, shift, eta, held, base, shift)


def stacked(parts: list[jax.Array], like: jax.Array) -> jax.Array:
    """The parts as one array (parts, points, units), spread over the points and units of ``like``."""
    return jnp.stack([jnp.broadcast_to(one, like.shape) for one in parts])


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
    if n_free == len(centre):  # open: nothing hangs together
        last_slope = last_curve = 0.0
    else:
        last_slope, last_curve = slopes[-1], curves[-1]
    curve = {(i, j): b + last_curve + (curves[i] if i == j else 0.0) for (i, j), b in bend.items()}
    return [tilt[j] + slopes[j] - last_slope for j in range(n_free)], curve


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
