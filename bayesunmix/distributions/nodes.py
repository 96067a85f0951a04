"""Weighted points of the parts of every unit given its data."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesunmix.distributions import chunks, simplex
from bayesunmix.distributions.walk import normal_moments, scores, stacked, walk, walk_apart
from bayesunmix.distributions.weighted import WeightedPoints

_SMALL = -7.0  # log of a part, a thousandth


class Nodes(NamedTuple):
    """The parts of every unit on weighted points."""

    points: jax.Array  # (K, points, units)
    weights: jax.Array  # (points, units), which sum to one
    logs: jax.Array | None  # of the parts, where there are exponents: those below rounding too


def nodes(
    own: simplex.Frame, pull, gram, concentration=None, beyond: simplex.Beyond | None = None, least: int = 32
) -> Nodes:
    """Weighted points of the parts given the data, on at least so many points."""
    if not len(own.base):
        whole = jnp.ones((1, 1, pull.shape[1]), pull.dtype)
        return Nodes(whole, whole[0], None if concentration is None else jnp.zeros_like(whole))
    eta, held, base = (
        simplex.natural(own, pull, gram, concentration),
        simplex.sorted_hold(own),
        simplex.more_points(own, least),
    )

    def one(e, h, base, shift, order, data):
        found = walk_apart(e, h, base, shift)
        away, log_weight = simplex.as_given(found.away, order), found.log_weight
        if beyond is not None:
            log_weight = log_weight + beyond.log(away, beyond.shared, data)
        logs = stacked(simplex.unsorted(found.logs, order), log_weight) if found.logs else None
        return stacked(away, log_weight), log_weight, logs

    def with_points(*arrays):
        data, channels = ((), 1) if beyond is None else (beyond.own, beyond.channels)
        # In one chunk XLA would walk anew for every part and for the weights: ten times as long.
        return chunks.over_chunks(one, arrays, data, channels, least=2)

    arrays = (eta, held, base, own.shift, own.order)
    if beyond is None and own.near is not None:

        def normal(e, h, base, shift, order):
            # Far from all faces: all points alike.
            normals = lambda e, h, base, shift: jnp.stack(scores(base, shift))  # noqa: E731
            z = chunks.in_chunks(normals, e, h, base, shift, least=2)
            mean, root = jax.tree_util.tree_map(lambda x: x.astype(z.dtype), normal_moments(e, h, len(base)))
            away = [mean[i] + sum(root[i][m] * z[m] for m in range(i + 1)) for i in range(len(base))]
            return stacked(simplex.as_given(away, order), z[0]), jnp.zeros_like(z[0]), None

        away, log_weight, logs = chunks.in_stages(normal, with_points, own.near > 0, *arrays)
    else:
        away, log_weight, logs = with_points(*arrays)
    points = jnp.maximum(own.centre[:, None] + away.astype(pull.dtype), 0.0)
    if logs is not None:
        # A small part is what rounding leaves of its distance from the centre.
        points = jnp.where(logs < _SMALL, jnp.exp(logs.astype(pull.dtype)), points)
    return Nodes(points, jax.nn.softmax(log_weight.astype(pull.dtype), axis=0), logs)


def one_each(own: simplex.Frame, pull, gram, key, least: int = 32) -> jax.Array:
    """One draw of the parts of every unit given the data, (K, units), from a frame that knows which are near a face."""
    if not len(own.base):
        return jnp.ones_like(pull)
    assert own.near is not None
    eta, held = simplex.natural(own, pull, gram, None), simplex.sorted_hold(own)
    pick = jax.random.uniform(key, own.near.shape, jnp.float32)

    def walked(e, h, base, shift, order):
        found = walk_apart(e, h, base, shift)
        return stacked(simplex.as_given(found.away, order), found.log_weight), found.log_weight

    def alone(e, h, base, shift, order, _):
        # Their points weigh all alike, so that any one is a draw. Past all faces: at other globals than those where the
        # frame was made another part may come near one.
        return walked(e, h, jnp.zeros_like(base[:, :1]), shift, order)[0][:, 0]

    def among_points(e, h, base, shift, order, pick):
        away, log_weight = walked(e, h, base, shift, order)
        return WeightedPoints(away, jax.nn.softmax(log_weight, axis=0)).picked(pick)

    hard = (own.near > 1) & (len(own.base) > 1)  # of two parts none is
    arrays = (eta, held, simplex.more_points(own, least), own.shift, own.order, pick)
    away = chunks.in_stages(alone, among_points, hard, *arrays)
    return jnp.maximum(own.centre + away.astype(pull.dtype), 0.0)


def missed_covariance(own: simplex.Frame, pull, gram, concentration=None, least: int = 32) -> jax.Array:
    """What the points of :func:`nodes` miss of the covariance of the first free parts, (free, free, units).

    Without bounds the parts follow normal distributions, whose covariance is known: what the points miss of it, in
    proportion to the share of those inside the bounds (a control variate).
    """
    if not len(own.base):
        return jnp.zeros((0, 0, pull.shape[1]), pull.dtype)
    eta, base = simplex.natural(own, pull, gram, concentration), simplex.more_points(own, least)
    arrays = (eta, simplex.sorted_hold(own), base, own.shift, own.order)
    return chunks.over_chunks(lambda e, h, b, s, o, _: _missed(e, h, b, s, o), arrays, (), 1)


def _missed(eta, held, base, shift, order):
    log_inside = walk(eta, held, base, shift).log_inside
    n_free = len(base)
    free = walk(eta, held, base, shift, bounded=False)
    even = free.even / free.even.sum()
    x = simplex.as_given(free.away, order)[:n_free]
    x = [v - (even * v).sum(0) for v in x]
    _, root = normal_moments(eta, held, n_free)
    columns = [simplex.as_given([root[i][m] for i in range(n_free)], order)[:n_free] for m in range(n_free)]
    known = lambda i, j: simplex.total([c[i] * c[j] for c in columns])  # noqa: E731
    seen = lambda i, j: (even * x[i] * x[j]).sum(0)  # noqa: E731
    share = (even * jnp.exp(log_inside)).sum(0)
    return jnp.stack([jnp.stack([share * (known(i, j) - seen(i, j)) for j in range(n_free)]) for i in range(n_free)])
