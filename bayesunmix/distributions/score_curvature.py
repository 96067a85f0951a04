"""Slope and curvature of an unmixing likelihood in its own parameters, from weighted points of the latent.

Louis's identity (Louis, J. R. Stat. Soc. B 44, 226 (1982)): the observed Hessian is the mean of the complete-data
Hessian plus the covariance of the complete-data score over the latent. A unit's score has a value per endmember and
channel; its covariance is kept as a few columns: its regression on the parts, exactly, and one random combination of
what the regression leaves, whose square has the right mean. One matrix product over all units then gives the Hessian.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, polygamma

from bayesunmix.distributions import lanes
from bayesunmix.distributions.channel_laws import Law
from bayesunmix.distributions.nodes import Nodes

_CELLS = 2**22  # points times units times channels that are worked on together


class Scores(NamedTuple):
    """Parameters whose curvature is wanted, as in :class:`~bayesunmix.distributions.detected.DetectedUnmixing`."""

    law: Law
    endmembers: jax.Array
    noise: tuple
    concentration: jax.Array | None
    brightness_shape: jax.Array | None


def curvature(scores: Scores, value, nodes: Nodes, missed) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gradient and Hessian of the summed log marginal density.

    Parameters
    ----------
    scores : Scores
    value : (units, channel)
    nodes : Nodes
        Parts h of every unit on weighted points; they sum to one unless there is a brightness.
    missed : (free, free, units)
        What the points miss of the covariance of the free parts.

    Returns
    -------
    gradient : dict of arrays shaped like the parameters
    hessian : dict of dicts of arrays, the axes of the row parameter first
    """
    if not scores.law.any_unit:
        return _in_this_unit(scores, value, nodes, missed)
    # What is summed in single precision has powers of the unit that it does not hold.
    unit = 2.0 ** jnp.round(jnp.log2(jnp.maximum(scores.endmembers.max(), jnp.finfo(value.dtype).tiny)))
    noise = tuple(x / unit for x in scores.noise)
    in_unit = scores._replace(endmembers=scores.endmembers / unit, noise=noise)
    gradient, hessian = _in_this_unit(in_unit, value / unit, nodes, missed)
    size = {name: unit if name == "endmembers" or name in scores.law.noise else 1.0 for name in gradient}
    return (
        {p: g / size[p] for p, g in gradient.items()},
        {p: {q: block / size[p] / size[q] for q, block in row.items()} for p, row in hessian.items()},
    )


def _in_this_unit(scores: Scores, value, nodes: Nodes, missed) -> tuple[dict[str, Any], dict[str, Any]]:
    points, weights, logs = nodes
    n_points, n_units = weights.shape
    n_channels = scores.endmembers.shape[1]
    columns = _columns(points, weights, missed, closed=scores.brightness_shape is None)
    size = max(1, min(n_units, _CELLS // (n_points * n_channels)))
    count = -(-n_units // size)
    extra = count * size - n_units
    own = {"points": points, "weights": weights, "columns": columns}
    if logs is not None:
        own["logs"] = logs
    own = {name: jnp.moveaxis(x, -1, 0) for name, x in own.items()}
    own["value"] = value
    # Units that fill the last chunk have no weight.
    pad = lambda x: jnp.pad(x, ((0, extra), *((0, 0),) * (x.ndim - 1)))  # noqa: E731
    own = {name: pad(x) for name, x in own.items()}
    fill = jnp.full((extra, *points.shape[:2]), 1.0 / len(points), points.dtype)
    own["points"] = own["points"].at[n_units:].set(fill)
    own = {name: x.reshape(count, size, *x.shape[1:]) for name, x in own.items()}
    zero = jax.tree_util.tree_map(
        lambda s: jnp.zeros(s.shape, value.dtype),
        jax.eval_shape(lambda x: _sums(scores, x), {name: x[0] for name, x in own.items()}),
    )

    def add(total, chunk):
        found = _sums(scores, chunk)
        return jax.tree_util.tree_map(lambda t, f: t + f.astype(t.dtype), total, found), None

    sums = jax.lax.scan(add, zero, own)[0]
    return _assembled(scores, sums, n_units)


def _columns(points, weights, missed, *, closed: bool):
    """Combinations of a unit's points, (columns, S, units), whose squares sum to the covariance of its scores.

    A column holds weights that sum to zero: the parts, whitened, and a random combination orthogonal to them.
    """
    x = points[:-1] if closed else points
    root = jnp.sqrt(weights)
    sign = jax.random.rademacher(jax.random.key(0), weights.shape, points.dtype)
    left = root * sign
    left = left - weights * (root * sign).sum(0)
    if not len(x):
        return left[None]
    x = x - (weights * x).sum(1)[:, None]
    n_free = len(x)
    spread = [[(weights * x[i] * x[j]).sum(0) for j in range(n_free)] for i in range(n_free)]
    tiny = jnp.finfo(points.dtype).tiny
    for i in range(n_free):
        spread[i][i] = spread[i][i] * (1.0 + 1e-8) + tiny
    factor = lanes.cholesky(spread)
    white = lanes.solve_lower(factor, list(x))
    left = left - weights * sum(q * (left * q).sum(0) for q in white)
    # The regression is taken from the points, the covariance of the parts from what is known of it.
    half = [lanes.solve_lower(factor, [missed[i, j] for i in range(n_free)]) for j in range(n_free)]
    full = [lanes.solve_lower(factor, [half[j][i] for j in range(n_free)]) for i in range(n_free)]
    # Where points at a face make little of it, what was missed is mostly noise: never more than leaves it definite.
    size = jnp.sqrt(sum(e**2 for row in full for e in row))
    trust = jnp.minimum(1.0, 0.5 / jnp.maximum(size, tiny))
    full = [[trust * e + (i == j) for j, e in enumerate(row)] for i, row in enumerate(full)]
    change = lanes.cholesky(full)
    true = [sum(white[i] * change[i][j] for i in range(j, n_free)) for j in range(n_free)]
    return jnp.stack([*(weights * q for q in true), left])


def _sums(scores: Scores, own):
    """Sums over some units: means of first and second derivatives, and the products of the columns' scores."""
    single = lambda x: x.astype(jnp.float32)  # noqa: E731
    law = scores.law
    points, weights, columns = (single(own[name]) for name in ("points", "weights", "columns"))
    value = single(own["value"])[:, None]  # (unit, 1, channel)
    endmembers, noise = single(scores.endmembers), tuple(single(x) for x in scores.noise)
    n_parts = len(endmembers)
    mean = jnp.einsum("nks,kp->nsp", points, endmembers)
    if law.positive:
        mean = jnp.maximum(mean, law.least_mean(jnp.float32))
    slope = jnp.broadcast_to(law.slope(mean, value, noise), mean.shape)
    second = jnp.broadcast_to(law.second(mean, value, noise), mean.shape)
    by_noise = [law.by_noise(mean, value, noise, i) for i in range(len(noise))]
    weighted = weights[:, None] * points
    pairs = weighted[:, :, None] * points[:, None]
    over = lambda left, right: jnp.einsum("nas,nsp->ap", left, right)  # noqa: E731
    one = weights[:, None]
    found = {
        "slope": over(weighted, slope),
        "second": over(pairs.reshape(len(points), n_parts**2, -1), second).reshape(n_parts, n_parts, -1),
        "noise": [over(one, b)[0] for b in by_noise],
        "mixed": [over(weighted, law.by_mean_and_noise(mean, value, noise, i)) for i in range(len(noise))],
        "noise_second": [
            [over(one, law.by_noise_twice(mean, value, noise, i, j))[0] for j in range(i + 1)]
            for i in range(len(noise))
        ],
    }
    by_column = (columns[:, :, None] * points[:, None]).reshape(len(points), -1, points.shape[-1])
    blocks = [jnp.einsum("nas,nsp->nap", by_column, slope).reshape(len(points), columns.shape[1], -1)]
    for i, b in enumerate(by_noise):
        one_each = jnp.einsum("ncs,nsp->ncp", columns, b)
        blocks.append(one_each if jnp.ndim(scores.noise[i]) else one_each.sum(-1, keepdims=True))
    weight_of = lambda x: jnp.einsum("ns,n...s->...", weights, x)  # noqa: E731
    if scores.concentration is not None:
        logs = single(own["logs"])
        if scores.brightness_shape is not None:
            logs = logs - jnp.log(jnp.maximum(points.sum(1), jnp.finfo(jnp.float32).tiny))[:, None]
        found["logs"] = weight_of(logs)
        blocks.append(jnp.einsum("ncs,nks->nck", columns, logs))
    if scores.brightness_shape is not None:
        size = jnp.maximum(points.sum(1), jnp.finfo(jnp.float32).tiny)
        feature = jnp.log(size) - size
        found["size"] = weight_of(feature)
        blocks.append(jnp.einsum("ncs,ns->nc", columns, feature)[..., None])
    rows = jnp.concatenate(blocks, axis=-1).reshape(-1, sum(b.shape[-1] for b in blocks))
    found["products"] = rows.T @ rows
    return found


def _assembled(scores: Scores, sums, n_units: int):
    names, arrays = ["endmembers"], [scores.endmembers]
    for name, x in zip(scores.law.noise, scores.noise, strict=True):
        names.append(name)
        arrays.append(x)
    if scores.concentration is not None:
        names.append("concentration")
        arrays.append(scores.concentration)
    if scores.brightness_shape is not None:
        names.append("brightness_shape")
        arrays.append(scores.brightness_shape)
    sizes = [max(1, x.size) for x in arrays]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    at = {name: slice(start, start + size) for name, start, size in zip(names, starts, sizes, strict=True)}
    n_parts, n_channels = scores.endmembers.shape
    matrix = sums["products"]
    channel = jnp.arange(n_channels)
    row = lambda k: k * n_channels + channel  # noqa: E731
    for k in range(n_parts):
        for m in range(n_parts):
            matrix = matrix.at[row(k), row(m)].add(sums["second"][k, m])
    gradient = {"endmembers": sums["slope"]}
    noise_names = scores.law.noise
    place = lambda i: at[noise_names[i]].start + (channel if scores.noise[i].ndim else 0 * channel)  # noqa: E731
    for i, name in enumerate(noise_names):
        gradient[name] = sums["noise"][i] if scores.noise[i].ndim else sums["noise"][i].sum()
        for k in range(n_parts):
            matrix = matrix.at[row(k), place(i)].add(sums["mixed"][i][k])
            matrix = matrix.at[place(i), row(k)].add(sums["mixed"][i][k])
        for j in range(i + 1):
            matrix = matrix.at[place(i), place(j)].add(sums["noise_second"][i][j])
            if j < i:
                matrix = matrix.at[place(j), place(i)].add(sums["noise_second"][i][j])
    if scores.concentration is not None:
        alpha, here = scores.concentration, at["concentration"]
        gradient["concentration"] = sums["logs"] + n_units * (digamma(alpha.sum()) - digamma(alpha))
        prior = n_units * (polygamma(1, alpha.sum()) - jnp.diag(polygamma(1, alpha)))
        matrix = matrix.at[here, here].add(prior)
    if scores.brightness_shape is not None:
        shape, last = scores.brightness_shape, at["brightness_shape"].start
        gradient["brightness_shape"] = sums["size"] + n_units * (jnp.log(shape) + 1.0 - digamma(shape))
        matrix = matrix.at[last, last].add(n_units * (1.0 / shape - polygamma(1, shape)))
    shapes = dict(zip(names, (x.shape for x in arrays), strict=True))
    blocks = {p: {q: matrix[at[p], at[q]].reshape(*shapes[p], *shapes[q]) for q in names} for p in names}
    return gradient, blocks
