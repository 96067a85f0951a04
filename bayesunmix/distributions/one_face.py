"""Abundances of units that come near one face of the simplex at most, in closed form.

Uniform before the data, they follow a normal distribution that the faces cut off. Where one face alone is in reach, the
part there follows a truncated normal, and the others follow that part, with a normal remainder.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesunmix.distributions import truncated
from bayesunmix.distributions.simplex import AWAY


class FreeNormal(NamedTuple):
    """The abundances given the data as if they could be negative."""

    mean: jax.Array  # (units, K)
    covariance: jax.Array  # (K, K)
    applies: bool  # whether faces are all that is left out; not so with exponents, or of a single part


class CutOff(NamedTuple):
    """The same, cut off at the nearest face."""

    mean: jax.Array  # (units, K)
    variance: jax.Array  # (units, K)
    exact: jax.Array  # (units,) whether no other face is in reach
    free: jax.Array  # (units,) whether none is


def cut_off(normal: FreeNormal) -> CutOff:
    """Mean and variance of the abundances of every unit, and where these are exact."""
    sd = jnp.sqrt(jnp.diag(normal.covariance))
    room = normal.mean / sd
    first = jnp.argmin(room, axis=1)
    low = -jnp.take_along_axis(room, first[:, None], 1)  # of the face, (units, 1)
    excess, variance = truncated.above(low)
    slope = normal.covariance[first] / (sd * sd[first, None])  # correlations with the part at the face
    mean = normal.mean + sd * slope * (low + excess)
    left = 1.0 - slope**2 * (1.0 - variance)
    others = jnp.arange(len(sd)) != first[:, None]
    far = (mean > AWAY * sd) | ~others
    never = jnp.zeros(len(mean), bool)
    exact = far.all(1) if normal.applies else never
    return CutOff(mean, sd**2 * left, exact, exact & (low[:, 0] < -AWAY))


def drawn(normal: FreeNormal, share, score) -> jax.Array:
    """Draws (n, units, K) of the abundances cut off at the nearest face, each part by itself.

    ``share`` and ``score`` (n, units), uniform on the unit interval and standard normal, pick the part at the face and
    how far the others are from what it makes of them; these are right one by one, not together.
    """
    sd = jnp.sqrt(jnp.diag(normal.covariance))
    first = jnp.argmin(normal.mean / sd, axis=1)
    low = -jnp.take_along_axis(normal.mean / sd, first[:, None], 1)[:, 0]
    slope = normal.covariance[first] / (sd * sd[first, None])
    follows = jnp.sqrt(jnp.maximum(1.0 - slope**2, 0.0))
    at_face = low + truncated.quantile(share, low, jnp.asarray(1.0, low.dtype) / sd[first])
    return normal.mean + sd * (slope * at_face[..., None] + follows * score[..., None])
