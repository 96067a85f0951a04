"""Curvature of the normal unmixing likelihood for many channels, as a block per channel and a few columns.

With one noise level, what a unit's data say of its abundances is in their component along the endmembers, and the rest
``e`` of them is independent of it. The complete-data score of an endmember, ``a_k (y - sum_m a_m W_m) / sigma^2``, is
``(sum_m g_km W_m + a_k e) / sigma^2`` with ``g_km = a_k (b_m - a_m)`` and ``b`` the unit's least-squares abundances. So
Louis's identity (:mod:`bayesunmix.distributions.curvature`) needs the covariance of the K^2 features g, exactly, and
that of ``a_k e``, of which the expectation over ``e`` is taken: ``Cov(a) sigma^2`` times the projector away from the
endmembers. What the observed ``e`` would add has mean zero, and falls off with the number of units.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.distributions.moments import Moments
from bayesunmix.distributions.unmixing_rule import Rule


class Information(NamedTuple):
    """Sums over units."""

    latent: jax.Array  # (K,), of mean abundances
    mean: jax.Array  # (K, K), of products of mean abundances
    spread: jax.Array  # (K, K), of covariances of abundances
    features: jax.Array  # (K^2 + 1, K^2 + 1), of covariances of g and of the squared residual
    aligned: jax.Array  # (K, channel), of mean a_k times residual
    squared: jax.Array  # (), of mean squared residuals
    n_values: jax.Array  # (), units times channels


class Layered(NamedTuple):
    """Slope, and a Hessian that is a block of endmembers for every channel beside a few columns."""

    slope: dict[str, np.ndarray]  # of the endmembers (K, channel) and of the noise ()
    block: np.ndarray  # (K, K), of the endmembers, the same in every channel
    number: float  # of the noise
    columns: np.ndarray  # (K, channel, r - 1), of the endmembers; the last of r columns is the noise
    core: np.ndarray  # (r, r)


def information(endmembers, rule: Rule, moments: Moments) -> Information:
    """Sums over units, with moments of their abundances: nothing of the size of the data is made."""
    centre, reference = rule.frame.centre, rule.reference
    n_parts = len(endmembers)
    rows, columns = np.triu_indices(n_parts)
    pair = np.zeros((n_parts, n_parts), int)
    pair[rows, columns] = pair[columns, rows] = np.arange(len(rows))
    part, product = slice(0, n_parts), slice(n_parts, n_parts + len(rows))
    mean, covariance = moments.mean, moments.covariance
    gram = endmembers @ endmembers.T
    along, across = jnp.split(rule.pulled(jnp.concatenate([endmembers, reference])), 2)
    least_squares = jnp.linalg.solve(gram, along + (endmembers @ reference.T) @ centre)  # b, (K, units)
    # g and the squared residual are combinations of the features (a, a_k a_m), most of them of two.
    of_parts, crossed = covariance[part, part], covariance[part, product]
    between = jnp.einsum("kjn,mln->kmjl", of_parts, least_squares[:, None] * least_squares)
    mixed = jnp.einsum("kpn,mn->kmp", crossed, least_squares)[..., pair]
    of_products = covariance[product, product].sum(-1)
    features = between - mixed - mixed.transpose(2, 3, 0, 1) + of_products[pair][:, :, pair]
    own, weight = -2.0 * gram @ least_squares, gram[rows, columns] * np.where(rows == columns, 1.0, 2.0)
    with_parts = jnp.einsum("kjn,jn->kn", of_parts, own) + jnp.einsum("kpn,p->kn", crossed, weight)
    with_products = jnp.einsum("kpn,kn->p", crossed, own) + of_products @ weight
    energy = (with_parts @ least_squares.T - with_products[pair]).reshape(-1, 1)
    alone = (own * with_parts).sum() + weight @ with_products
    size = n_parts**2
    sums = mean[product].sum(1)[pair]
    seen = rule.seen(mean[part])
    aligned = seen - sums @ endmembers
    total = rule.squares.sum() + (centre * (2.0 * across + (reference @ reference.T) @ centre)).sum()
    return Information(
        mean[part].sum(1),
        mean[part] @ mean[part].T,
        of_parts.sum(-1),
        jnp.block([[features.reshape(size, size), energy], [energy.T, alone]]),
        aligned,
        total - (endmembers * (seen + aligned)).sum(),
        jnp.asarray(centre.shape[1] * endmembers.shape[1], endmembers.dtype),
    )


def layered(endmembers: np.ndarray, noise_scale: float, sums: Information) -> Layered:
    """Slope and Hessian from the sums over all units."""
    n_parts, n_channels = endmembers.shape
    size = n_parts**2
    noise = float(noise_scale)
    precision = noise**-2.0
    inverse = np.linalg.inv(endmembers @ endmembers.T)
    slope = precision * np.asarray(sums.aligned)
    # Columns: e_k times every endmember, the slope, and the noise.
    columns = np.zeros((n_parts, n_channels, size + 1))
    for k in range(n_parts):
        columns[k, :, k * n_parts : (k + 1) * n_parts] = endmembers.T
    columns[..., size] = slope
    core = np.zeros((size + 2, size + 2))
    features = precision**2 * np.asarray(sums.features)
    core[:size, :size] = features[:size, :size] - precision * np.kron(np.asarray(sums.spread), inverse)
    # From log noise to noise.
    core[:size, -1] = core[-1, :size] = features[:size, -1] / noise
    core[-1, -1] = features[-1, -1] / noise**2
    core[size, -1] = core[-1, size] = -2.0 / noise
    squared = precision * float(sums.squared)
    log_slope = squared - float(sums.n_values)
    slopes = {"endmembers": slope, "noise_scale": np.asarray(log_slope / noise)}
    return Layered(slopes, -precision * np.asarray(sums.mean), (-2.0 * squared - log_slope) / noise**2, columns, core)
