"""Slope and curvature of the normal unmixing likelihood in its own parameters, from moments of the abundances.

Louis's identity (Louis, J. R. Stat. Soc. B 44, 226 (1982)): the observed Hessian is the mean of the complete-data
Hessian plus the covariance of the complete-data score over the latent. The complete-data score of a unit is linear in
the features ``(a, a_k a_m, log a)`` of its abundances, with coefficients that are linear in its data, so that the cost
is a handful of matrix products, whatever the number of parameters.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import digamma, polygamma

from bayesunmix.distributions.moments import Cut, Moments

_TOGETHER = 256  # units that are worked on at a time


def curvature(
    endmembers, concentration, noise_scale, value, moments: Moments, *, free: bool = True, n_pooled: int = 1
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gradient and Hessian of the summed log marginal density.

    Parameters
    ----------
    endmembers, concentration, noise_scale
        (K, P), (K,) or None, scalar or (P,).
    value : (units, P)
    moments : Moments
        Of the abundances given the data.
    free : bool
        Whether the derivatives by the endmembers are wanted, which are nearly all of the work.
    n_pooled : int
        Channels that the last one stands for.

    Returns
    -------
    gradient : dict of arrays shaped like the parameters
    hessian : dict of dicts of arrays, the axes of the row parameter first
    """
    n_parts, n_channels = endmembers.shape
    n_units = value.shape[0]
    noise = jnp.broadcast_to(noise_scale, (n_channels,))
    precision = noise**-2.0
    rows, columns = np.triu_indices(n_parts)
    # among[k, m, j] marks the product feature j = {k, m}.
    among = np.zeros((n_parts, n_parts, len(rows)))
    among[rows, columns, np.arange(len(rows))] = among[columns, rows, np.arange(len(rows))] = 1.0

    mean = moments.mean
    covariance = jnp.moveaxis(moments.covariance, -1, 0)
    linear, product, logs = (
        slice(0, n_parts),
        slice(n_parts, n_parts + len(rows)),
        slice(n_parts + len(rows), None),
    )

    # Score blocks: K for the endmembers, one for log noise. Their coefficients are y_p * by_value + constant.
    noise_by_value = -2.0 * (precision * endmembers).T[None]
    by_value = jnp.concatenate([precision[None, :, None] * jnp.eye(n_parts)[:, None], noise_by_value])
    of_endmembers = -jnp.einsum("kmj,mp->kpj", among, precision * endmembers)
    of_noise = jnp.einsum("kmj,kp,mp->pj", among, precision * endmembers, endmembers)
    constant = jnp.concatenate([of_endmembers, of_noise[None]])
    if not free:
        by_value, constant = by_value[n_parts:], constant[n_parts:]

    total = covariance.sum(0)
    by_channel = jnp.einsum("np,nij->pij", value, covariance[:, linear])
    mixed = jnp.einsum("api,pij,bqj->apbq", by_value, by_channel[:, :, product], constant, optimize="optimal")
    hessian = mixed + mixed.transpose(2, 3, 0, 1)
    hessian += jnp.einsum("api,ij,bqj->apbq", constant, total[product, product], constant, optimize="optimal")
    second = _second(value, covariance[:, linear, linear], moments.cut)
    hessian += jnp.einsum("ampq,bqm->apbq", jnp.einsum("apk,kmpq->ampq", by_value, second), by_value)

    # Means over the latent: sums over units of a_k a_m, a_k e_p and e_p^2, with e the residual.
    overlap = jnp.einsum("kmj,j->km", among, mean[product].sum(1))
    seen = mean[linear] @ value
    aligned = seen - overlap @ endmembers
    squared = (value**2).sum(0) - (endmembers * (seen + aligned)).sum(0)
    own = jnp.zeros((n_parts + 1, n_parts + 1, n_channels), value.dtype)
    own = own.at[:n_parts, :n_parts].set(-overlap[:, :, None] * precision)
    crossed = -2.0 * aligned * precision
    own = own.at[:n_parts, n_parts].set(crossed).at[n_parts, :n_parts].set(crossed)
    own = own.at[n_parts, n_parts].set(-2.0 * squared * precision)
    own = own if free else own[n_parts:, n_parts:]

    # From log noise to noise_scale.
    log_slope = squared * precision - n_units * jnp.ones(n_channels).at[-1].set(n_pooled)
    to_scale = jnp.ones((len(own), n_channels), value.dtype).at[-1].set(1.0 / noise)
    hessian = (hessian + jnp.einsum("abp,pq->apbq", own, jnp.eye(n_channels))) * to_scale[:, :, None, None] * to_scale
    bent = hessian[-1, :, -1] - jnp.diag(log_slope / noise**2)

    slope, noise_endmembers = log_slope / noise, hessian[-1, :, :-1]
    if jnp.ndim(noise_scale) == 0:
        slope, noise_endmembers, bent = slope.sum(), noise_endmembers.sum(0), bent.sum()
    first = jnp.ndim(noise_scale)  # number of axes of the noise
    gradient = {"endmembers": precision * aligned, "noise_scale": slope}
    blocks = {
        "endmembers": {
            "endmembers": hessian[:-1, :, :-1],
            "noise_scale": jnp.moveaxis(noise_endmembers, 0, -1) if first else noise_endmembers,
        },
        "noise_scale": {"endmembers": noise_endmembers, "noise_scale": bent},
    }
    if concentration is None:
        return (gradient, blocks) if free else _without("endmembers", gradient, blocks)
    # The score of the concentration is log a_k, up to a constant.
    with_logs = jnp.einsum("api,pij->apj", by_value, by_channel[:, :, logs]) + jnp.einsum(
        "api,ij->apj", constant, total[product, logs]
    )
    with_logs = with_logs * to_scale[:, :, None]
    noise_logs = with_logs[-1] if first else with_logs[-1].sum(0)
    prior = n_units * (polygamma(1, concentration.sum()) - jnp.diag(polygamma(1, concentration)))
    gradient["concentration"] = mean[logs].sum(1) + n_units * (digamma(concentration.sum()) - digamma(concentration))
    blocks["concentration"] = {
        "endmembers": jnp.moveaxis(with_logs[:-1], -1, 0),
        "concentration": total[logs, logs] + prior,
        "noise_scale": noise_logs.T,
    }
    blocks["endmembers"]["concentration"] = with_logs[:-1]
    blocks["noise_scale"]["concentration"] = noise_logs
    return (gradient, blocks) if free else _without("endmembers", gradient, blocks)


def _second(value, covariance, cut: Cut | None) -> jax.Array:
    """Sums over units of ``Cov(a_k, a_m) y y'``, (K, K, P, P); ``covariance`` (units, K, K).

    Where one face is in reach at most, covariances are one matrix less a number times another one: two sums of ``y y'``
    then stand for all pairs.
    """
    n_parts = covariance.shape[1]
    if n_parts == 1:
        return jnp.zeros((1, 1, value.shape[1], value.shape[1]), value.dtype)
    rows, columns = np.triu_indices(n_parts, 1)
    apart = covariance[:, rows, columns].T  # parts sum to one: those with themselves follow
    if cut is None:
        found = jax.lax.map(lambda weight: (value * weight[:, None]).T @ value, apart)
    else:
        at_face = (cut.lost > 0) & ~cut.hard
        lost = jax.lax.map(lambda k: _sums(value, cut.lost[None], at_face & (cut.first == k))[0], jnp.arange(n_parts))
        along = jnp.stack([cut.along(k) for k in range(n_parts)])
        easy = (value * ~cut.hard[:, None]).T @ value
        found = cut.covariance[rows, columns][:, None, None] * easy - jnp.einsum(
            "fj,fpq->jpq", along[:, rows] * along[:, columns], lost
        )
        found = found + _sums(value, apart, cut.hard)
    pair = np.zeros((n_parts, n_parts), int)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    between = found[pair] * (1.0 - np.eye(n_parts))[:, :, None, None]
    return between - np.eye(n_parts)[:, :, None, None] * between.sum(1)


def _sums(value, weights, chosen) -> jax.Array:
    """Sums of ``weight y y'`` over the units that are ``chosen``, one for every row of ``weights`` (rows, units)."""
    n_units, n_channels = value.shape
    size = min(_TOGETHER, n_units)
    order, count = jnp.argsort(~chosen), chosen.sum()

    def block(i, total):
        place = i * size + jnp.arange(size)
        unit = order[jnp.minimum(place, n_units - 1)]
        y, weight = value[unit], weights[:, unit] * (place < count)
        return total + jnp.einsum("jnp,nq->jpq", weight[:, :, None] * y, y)

    zero = jnp.zeros((len(weights), n_channels, n_channels), value.dtype)
    return jax.lax.fori_loop(0, -(-count // size), block, zero)


def _without(name: str, gradient: dict[str, Any], blocks: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    drop = lambda table: {key: x for key, x in table.items() if key != name}  # noqa: E731
    return drop(gradient), {key: drop(row) for key, row in drop(blocks).items()}
