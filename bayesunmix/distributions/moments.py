"""Moments of the abundances on the simplex given Gaussian data, for the curvature of the likelihood."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.distributions import chunks, simplex, truncated
from bayesunmix.distributions.walk import normal_moments, stacked, walk, walk_apart

_POINTS = 64


class Moments(NamedTuple):
    """Moments of the features (a, products a_k a_m for k <= m, log a unless the concentration is 1)."""

    mean: jax.Array  # (features, units)
    covariance: jax.Array  # (features, features, units)
    cut: Cut | None = None  # of the parts, where it is known


class Cut(NamedTuple):
    """Covariances of parts of which one comes near its face at most: that without faces, less what the face takes."""

    covariance: jax.Array  # (K, K) without faces, the same for all units
    first: jax.Array  # (units,) which part is nearest to its face
    lost: jax.Array  # (units,) share of that part's variance which its face takes; 0 out of reach
    hard: jax.Array  # (units,) more parts are near: the covariance is another

    def along(self, k: int) -> jax.Array:
        """How the parts (K,) go with one standard deviation of part ``k``."""
        return self.covariance[k] / jnp.sqrt(self.covariance[k, k])


def moments(own: simplex.Frame, pull: jax.Array, gram: jax.Array, concentration: jax.Array | None) -> Moments:
    """From weighted points and, where one part at most is near its face, exactly."""
    n_parts, n_units = pull.shape
    n_logs = 0 if concentration is None else n_parts
    rows, columns = np.triu_indices(n_parts)
    if n_parts == 1:
        one = jnp.concatenate([jnp.ones((2, n_units), pull.dtype), jnp.zeros((n_logs, n_units), pull.dtype)])
        return Moments(one, jnp.zeros((len(one), len(one), n_units), pull.dtype))
    eta = simplex.natural(own, pull, gram, concentration)
    points = simplex.more_points(own, _POINTS)
    arrays = (eta, simplex.sorted_hold(own), points, own.shift)
    with_points = partial(chunks.in_chunks, _natural_moments)
    if n_logs or own.near is None:
        first, second = with_points(*arrays)
    else:
        closed = lambda e, h, *_: _closed_moments(e, h, n_parts - 1)  # noqa: E731
        first, second = chunks.in_stages(closed, with_points, own.near > 1, *arrays)
    # From features v_j and v_i v_j of the sorted, reduced v = a - c to those of a.
    reduce = _reduction(own, pull.dtype)  # (K - 1, K, units), v = reduce' of the first parts; a - c = sum_j v_j e_j
    i, j = np.triu_indices(n_parts - 1)
    size = len(first) - n_logs
    to_linear = jnp.concatenate([reduce, jnp.zeros((len(i), n_parts, n_units), pull.dtype)])
    by_linear = own.centre[rows] * reduce[:, columns] + own.centre[columns] * reduce[:, rows]
    # Whole arrays at a time: as one array a product and pair these were a third of all that was compiled here.
    turned = jnp.where((i == j)[:, None, None], 0.0, reduce[j][:, rows] * reduce[i][:, columns])
    by_pair = reduce[i][:, rows] * reduce[j][:, columns] + turned
    to_products = jnp.concatenate([by_linear, by_pair])
    change = jnp.concatenate([to_linear, to_products], axis=1)  # (natural, features, units)
    offset = jnp.concatenate([own.centre, own.centre[rows] * own.centre[columns]])
    mean = offset + jnp.einsum("efn,en->fn", change, first[:size])
    covariance = jnp.einsum("efn,edn,dgn->fgn", change, second[:size, :size], change, optimize=[(0, 1), (0, 1)])
    if not n_logs:
        return Moments(mean, covariance, _cut(own, gram, arrays))
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
    n_free = len(base)

    def parts(e, c, points, moves):
        found = walk_apart(e, c, points, moves)
        free = walk(e, c, points, moves, bounded=False)
        inside = (free.even * jnp.exp(found.log_inside)).sum(0) / free.even.sum()
        even = jnp.broadcast_to(free.even / free.even.sum(), found.log_weight.shape)
        like = found.log_weight
        return stacked([*found.away, *found.logs], like), stacked(free.away, like), like, even, inside

    def features(found):
        away = found[:n_free].astype(eta.dtype)
        products = [away[i] * away[i:] for i in range(n_free)]
        return jnp.concatenate([away, *products, found[n_free:].astype(eta.dtype)])

    bounded, free, log_weight, even, inside = chunks.in_chunks(parts, eta, held, base, shift, least=2)
    weight = jax.nn.softmax(log_weight, axis=0)
    mean, covariance = _weighted_moments(features(bounded), weight.astype(eta.dtype))
    seen_mean, seen_covariance = _weighted_moments(features(free), even.astype(eta.dtype))
    true_mean, true_covariance = _normal_moments(eta, held, n_free)
    share = inside.astype(eta.dtype)
    size = len(true_mean)
    mean = mean.at[:size].add(share * (true_mean - seen_mean))
    return mean, covariance.at[:size, :size].add(share * (true_covariance - seen_covariance))


def _weighted_moments(features, weight):
    """Mean and covariance of features (., points, units) under weights (points, units) that sum to one."""
    mean = (features * weight).sum(1)
    spread = (features - mean[:, None]) * jnp.sqrt(weight)
    return mean, jnp.einsum("isn,jsn->ijn", spread, spread)


def _normal_moments(eta, held, n_free: int):
    """Mean and covariance of v_j and v_i v_j under the normal distribution of the proposal, without bounds."""
    means, root = normal_moments(eta, held, n_free)
    return _of_products(jnp.stack(means), _covariance(root))


def _closed_moments(eta, held, n_free: int):
    """The same with the face of the first part, which alone is in reach."""
    means, root = normal_moments(eta, held, n_free)
    low = _low(means, root, held)
    excess, variance = truncated.above(low)
    along = jnp.stack([row[0] for row in root])
    mean = jnp.stack(means) + along * (low + excess)
    covariance = _covariance(root) - along[:, None] * along * (1.0 - variance)
    return _of_products(mean, covariance, along, *truncated.lean(low, excess))


def _low(means, root, held):
    """The face of the first part, in standard deviations from its mean."""
    return -(held[0] + means[0]) / root[0][0]


def _cut(own: simplex.Frame, gram, arrays) -> Cut | None:
    if own.near is None:
        return None
    eta, held, base, _ = arrays
    low = _low(*normal_moments(eta, held, len(base)), held)
    lost = jnp.where(own.near == 1, 1.0 - truncated.above(low)[1], 0.0)
    return Cut(simplex.covariance(gram), own.order[0], lost, own.near > 1)


def _covariance(root):
    n_free = len(root)
    zero = jnp.zeros_like(root[0][0])
    lower = jnp.stack([jnp.stack([root[i][m] if m <= i else zero for m in range(n_free)]) for i in range(n_free)])
    return jnp.einsum("imn,jmn->ijn", lower, lower)


def _of_products(mean, cov, along=None, third=None, fourth=None):
    """Mean and covariance of v_j and v_i v_j, from those of v.

    Of a normal v, or of one that along ``along`` (free, units) follows another law, with such cumulants.
    """
    i, j = np.triu_indices(len(mean))
    crossed = cov[:, i] * mean[j] + cov[:, j] * mean[i]
    if along is not None:
        pair = along[i] * along[j]
        crossed = crossed + third * along[:, None] * pair
    # Of v_i v_j and v_k v_m (Isserlis).
    k, m, i, j = i[None], j[None], i[:, None], j[:, None]
    between = cov[i, k] * cov[j, m] + cov[i, m] * cov[j, k]
    between = between + mean[i] * crossed[j[:, 0]] + mean[j] * crossed[i[:, 0]]
    if along is not None:
        between = between + third * pair[:, None] * (mean[k] * along[m] + mean[m] * along[k])
        between = between + fourth * pair[:, None] * pair
    above = jnp.concatenate([cov, crossed], axis=1)
    below = jnp.concatenate([jnp.swapaxes(crossed, 0, 1), between], axis=1)
    products = cov[i[:, 0], j[:, 0]] + mean[i[:, 0]] * mean[j[:, 0]]
    return jnp.concatenate([mean, products]), jnp.concatenate([above, below])


def _reduction(own: simplex.Frame, dtype) -> jax.Array:
    """Direction in which every free part moves the abundances, (K - 1, K, units)."""
    unit = jax.nn.one_hot(own.order, len(own.order), axis=1, dtype=dtype)  # (K, K, units)
    return unit[:-1] - unit[-1]
