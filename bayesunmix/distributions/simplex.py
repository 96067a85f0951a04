"""Integrals over the simplex against a Gaussian-times-Dirichlet integrand, one per unit.

For abundances ``a`` on the simplex of K parts the unit's integrand is

    exp( linear'(a - centre) - (a - centre)' gram (a - centre) / 2 ) * prod_k a_k^(alpha_k - 1)

with one K x K ``gram`` for all units and a K-vector ``linear`` per unit. In log-ratio coordinates
``a = softmax(B v)``, ``B`` an orthonormal basis of the vectors that sum to zero, the volume element adds
``sqrt(K) prod_k a_k``, the logarithm of the integrand has one maximum (it is concave in ``a`` for every
alpha > 0), and its negative Hessian there is ``B' (S gram S + sum_k alpha_k (e_k - a)(e_k - a)') B`` with
``S = diag(a) - a a'``. Importance sampling starts from that mode and curvature.

Arrays are laid out units last, ``(K, units)`` and ``(K, points, units)``, so that everything is elementwise
over lanes.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from bayesunmix.distributions import lanes

# Student-t with 4 degrees of freedom: its quantile is in closed form and its tails cover the exponential tails of
# log-ratios. The first proposal is widened; the second matches the mean and covariance that the first one
# found, which
# brings in the skewness near the faces.
_WIDEN = 1.15
_MATCHING_ROUNDS = 1
_GOLDEN = 0.6180339887498949
_NEWTON_STEPS = 80


class Proposal(NamedTuple):
    """Student-t in log-ratio coordinates, one per unit."""

    location: jax.Array  # (K-1, units)
    scale: jax.Array  # (K-1, K-1, units), triangular one way or the other


class Nodes(NamedTuple):
    """A quadrature rule per unit: points on the simplex and what their weight lacks of the integrand."""

    points: jax.Array  # (K, points, units)
    log_points: jax.Array  # their logarithms, kept because they underflow less and cost as much again
    log_weight: jax.Array  # (points, units): minus log proposal density, volume element included


def default_points(n_parts: int, concentration: float = 1.0) -> int:
    """Points per unit that keep the numerical shift of a posterior well below its width (docs/numerics.md).

    Below a concentration of 3/4 the integrand piles up at the corners and takes more points.
    """
    if n_parts == 1:
        return 1
    base = {2: 64, 3: 64, 4: 128, 5: 256, 6: 512}.get(n_parts, 1024)
    if concentration >= 0.75:
        return base
    return (32 if n_parts <= 3 else 8) * base


@functools.cache
def _log_ratio_basis(n_parts: int) -> np.ndarray:
    """Helmert basis (K, K-1), orthonormal and orthogonal to the ones."""
    basis = np.zeros((n_parts, n_parts - 1))
    for j in range(1, n_parts):
        basis[:j, j - 1] = 1.0
        basis[j, j - 1] = -j
        basis[:, j - 1] /= math.sqrt(j * (j + 1))
    return basis


def mode(gram: jax.Array, linear: jax.Array, concentration: jax.Array) -> jax.Array:
    """Maximiser over the simplex of ``linear'a - a'gram a/2 + sum alpha log a``, shape (K, units).

    Newton steps on the plane sum(a) = 1, shortened to 9/10 of the way to the nearest face: the log barrier of
    the Dirichlet keeps the problem strictly concave, so the iteration converges from the centre.
    """
    n_parts, n_units = linear.shape
    tolerance = 1e-9 if linear.dtype == jnp.float64 else 1e-5

    def step(a: jax.Array) -> tuple[jax.Array, jax.Array]:
        slope = linear - gram @ a + concentration[:, None] / a
        hessian = [
            [gram[i, j] + (concentration[i] / a[i] ** 2 if i == j else 0.0) for j in range(n_parts)]
            for i in range(n_parts)
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


def propose(
    gram: jax.Array, linear: jax.Array, concentration: jax.Array, centre: jax.Array, uniforms: jax.Array
) -> Proposal:
    """Proposal of every unit: the curvature at its mode, then the mean and covariance found with that.

    Parameters
    ----------
    gram, linear, concentration
        Integrand, ``linear`` taken at ``centre``: shapes (K, K), (K, units), (K,).
    centre : (K, units)
        The mode, from :func:`mode`; its gradient is not followed but rebuilt by one Newton step.
    uniforms : (K - 1, points, units)
        Points in the open unit cube.
    """
    n_parts = linear.shape[0]
    if n_parts == 1:
        empty = jnp.zeros((0, linear.shape[1]), linear.dtype)
        return Proposal(empty, empty[None, :0])
    basis = jnp.asarray(_log_ratio_basis(n_parts), linear.dtype)

    def slope_and_factor(a: jax.Array) -> tuple[jax.Array, lanes.Lanes]:
        pull = linear - gram @ (a - centre)
        slope = a * (pull - (a * pull).sum(0)) + concentration[:, None] - concentration.sum() * a
        # (e_k - a)' B and S B, both (K, K-1, units).
        corner = basis[:, :, None] - jnp.einsum("kn,ki->in", a, basis)[None]
        spread = a[:, None] * corner
        bent = jnp.einsum("kl,lin->kin", gram, spread)
        curvature = [
            [
                (spread[:, i] * bent[:, j]).sum(0) + (concentration[:, None] * corner[:, i] * corner[:, j]).sum(0)
                for j in range(n_parts - 1)
            ]
            for i in range(n_parts - 1)
        ]
        return basis.T @ slope, lanes.cholesky(curvature)

    # One differentiable Newton step from the frozen mode carries the exact derivative of the mode (implicit
    # function theorem), so log_prob agrees with its gradient.
    centre = jax.lax.stop_gradient(centre)
    slope, factor = slope_and_factor(centre)
    step = jnp.stack(lanes.solve([[jax.lax.stop_gradient(f) for f in row] for row in factor], list(slope)))
    v_mode = basis.T @ jnp.log(centre) + step
    _, factor = slope_and_factor(jax.nn.softmax(basis @ v_mode, axis=0))

    proposal = _from_curvature(v_mode, factor)
    for stage in range(_MATCHING_ROUNDS):
        # The points that shape a proposal are not the ones that use it: reuse would bias the integral.
        turn = jnp.asarray(_GOLDEN * (stage + 1), uniforms.dtype)
        v, nodes = _place(proposal, (uniforms + turn) % 1.0)
        integrand = exponent(gram, linear, concentration, centre, nodes)
        proposal = _matched(proposal, v, jax.nn.softmax(integrand, axis=0))
    return proposal


def place(proposal: Proposal, uniforms: jax.Array) -> Nodes:
    """The quadrature rule of a proposal at points (K - 1, points, units) of the open unit cube."""
    size = proposal.location.shape[0]
    if size == 0:
        one = jnp.ones((1, 1, proposal.location.shape[1]), proposal.location.dtype)
        return Nodes(one, jnp.zeros_like(one), jnp.zeros_like(one[0]))
    return _place(proposal, uniforms)[1]


def exponent(gram: jax.Array, pull: jax.Array, concentration: jax.Array, centre: jax.Array, nodes: Nodes) -> jax.Array:
    """Log integrand over proposal at the nodes, relative to the Gaussian part at ``centre``: shape (points, units).

    ``pull`` (K, units) is the linear coefficient at ``centre``. Written in the K - 1 differences to the last
    part, term by
    term: XLA fuses that into one loop over the lanes, which a contraction over K would break into many.
    """
    last = len(nodes.points) - 1
    away = [nodes.points[k] - centre[k] for k in range(last)]
    total = nodes.log_weight
    for k in range(last + 1):
        total = total + (concentration[k] - 1.0) * nodes.log_points[k]
    for k in range(last):
        slope = pull[k] - pull[last]
        for m in range(k + 1):
            bend = gram[k, m] - gram[k, last] - gram[m, last] + gram[last, last]
            slope = slope - (0.5 if m == k else 1.0) * bend * away[m]
        total = total + away[k] * slope
    return total


@jax.custom_jvp
def log_sum(exponent: jax.Array) -> jax.Array:
    """Log of the sum of exponentials over the points, (units,)."""
    top = exponent.max(0)
    return top + jnp.log(jnp.exp(exponent - top).sum(0))


@log_sum.defjvp
def _log_sum_jvp(primals, tangents):
    (exponent,), (moved,) = primals, tangents
    top = exponent.max(0)
    weight = jnp.exp(exponent - top)
    total = weight.sum(0)
    return top + jnp.log(total), (weight * moved).sum(0) / total


def _from_curvature(location: jax.Array, factor: lanes.Lanes) -> Proposal:
    """Widened inverse square root of a curvature with lower factor ``factor``."""
    size = len(factor)
    unit = [[jnp.full_like(location[0], float(i == c)) for i in range(size)] for c in range(size)]
    columns = [jnp.stack(lanes.solve_upper(factor, column)) for column in unit]
    return Proposal(location, _WIDEN * jnp.stack(columns, axis=1))


def _matched(proposal: Proposal, v: jax.Array, weights: jax.Array) -> Proposal:
    """Location and covariance of weighted points, shrunk to the present ones when few points carry the weight."""
    size = len(proposal.location)
    location = (v * weights).sum(1)
    away = (v - location[:, None]) * jnp.sqrt(weights)
    trust = 1.0 / (weights**2).sum(0)
    prior = 2.0 * size
    now = [[(away[i] * away[j]).sum(0) for j in range(size)] for i in range(size)]
    before = [[(proposal.scale[i] * proposal.scale[j]).sum(0) for j in range(size)] for i in range(size)]
    covariance = [
        [(trust * now[i][j] + prior * before[i][j]) / (trust + prior) for j in range(size)] for i in range(size)
    ]
    low = lanes.cholesky(covariance)
    zero = jnp.zeros_like(location[0])
    scale = jnp.stack([jnp.stack([low[i][c] if c <= i else zero for c in range(size)]) for i in range(size)])
    return Proposal(location, scale)


def _place(proposal: Proposal, uniforms: jax.Array) -> tuple[jax.Array, Nodes]:
    """Log-ratio coordinates (K-1, points, units) of a proposal at points of the unit cube, and the nodes there."""
    size = len(proposal.location)
    basis = _log_ratio_basis(size + 1)
    t, log_t = _student4(uniforms)
    offset = [sum(proposal.scale[i, c][None] * t[c] for c in range(size)) for i in range(size)]
    v = [proposal.location[i] + offset[i] for i in range(size)]
    ratios = [sum(float(basis[k, i]) * v[i] for i in range(size)) for k in range(size + 1)]
    top = functools.reduce(jnp.maximum, ratios)
    log_sum = top + jnp.log(sum(jnp.exp(r - top) for r in ratios))
    log_points = [r - log_sum for r in ratios]
    log_det = sum(jnp.log(jnp.abs(proposal.scale[i, i])) for i in range(size))
    stacked = jnp.stack(log_points)
    log_weight = stacked.sum(0) - log_t.sum(0) + (log_det + 0.5 * math.log(size + 1))
    return jnp.stack(v), Nodes(jnp.exp(stacked), stacked, log_weight)


def _student4(uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quantile of Student's t with 4 degrees of freedom and its log density there (Shaw 2006, section 3)."""
    alpha = jnp.clip(4.0 * uniform * (1.0 - uniform), jnp.finfo(uniform.dtype).tiny, 1.0)
    root = jnp.sqrt(alpha)
    q = jnp.cos(jnp.arccos(jnp.minimum(root, 1.0 - 1e-7)) / 3.0) / root
    t = jnp.sign(uniform - 0.5) * 2.0 * jnp.sqrt(jnp.maximum(q - 1.0, 0.0))
    return t, math.log(0.375) - 2.5 * jnp.log1p(t**2 / 4.0)


def shifted_points(key: jax.Array, index: jax.Array, n_parts: int, n_points: int, dtype) -> jax.Array:
    """A Sobol set of its own for every unit: one scrambled set with a random shift per unit, (K-1, points, units).

    Units that share points would share their integration error, which then grows with the number of units
    instead of averaging out. The shift depends on ``key`` and the unit's ``index`` alone, so a unit has the same
    points in whatever batch it is visited.
    """
    if n_parts == 1:
        return jnp.zeros((0, 1, index.shape[0]), dtype)
    base = jnp.asarray(_sobol(n_parts - 1, n_points), dtype)
    shift = jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i), (n_parts - 1,), dtype))(index)
    tiny = jnp.finfo(dtype).eps
    return jnp.clip((base.T[:, :, None] + shift.T[:, None, :]) % 1.0, tiny, 1.0 - tiny)


@functools.cache
def _sobol(dimension: int, n_points: int) -> np.ndarray:
    from scipy.stats import qmc

    return qmc.Sobol(dimension, rng=np.random.default_rng(20240229)).random(n_points)


def log_dirichlet_constant(concentration: jax.Array) -> jax.Array:
    """Log normaliser of the Dirichlet density, ``log Gamma(sum alpha) - sum log Gamma(alpha)``."""
    return gammaln(concentration.sum()) - gammaln(concentration).sum()
