"""Abundances of units that come near one face of the simplex at most, in closed form.

Uniform before the data, they follow a normal distribution that the faces cut off. Where one face alone is in reach, the
part there follows a truncated normal, and the others follow that part, with a normal remainder.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesunmix.distributions import truncated
from bayesunmix.distributions.inverses import general_inverse_and_log_det
from bayesunmix.distributions.simplex import AWAY

NEAR = 4.0  # standard deviations from a face, where it cuts off 3e-5


class FreeNormal(NamedTuple):
    """The abundances given the data as if they could be negative."""

    mean: jax.Array  # (units, K)
    covariance: jax.Array  # (K, K)
    applies: bool  # whether faces are all that is left out; not so with exponents, or of a single part

    @property
    def sd(self) -> jax.Array:
        """(K,)"""
        return jnp.sqrt(jnp.diag(self.covariance))

    @property
    def room(self) -> jax.Array:
        """Standard deviations from every face, (units, K)."""
        return self.mean / self.sd

    def mixed(self, mix: jax.Array) -> FreeNormal:
        """The same for endmembers that are mixed of these, by the rows of ``mix`` (K, K), which sum to one."""
        back, _ = general_inverse_and_log_det(mix)
        return self._replace(mean=self.mean @ back, covariance=back.T @ self.covariance @ back)

    def at_nearest(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The part nearest to its face (units,), where its face is in sds (units, 1), and how all go with it."""
        first = jnp.argmin(self.room, axis=1)
        low = -jnp.take_along_axis(self.room, first[:, None], 1)
        return first, low, self.covariance[first] / (self.sd * self.sd[first, None])


class CutOff(NamedTuple):
    """The same, cut off at the nearest face."""

    mean: jax.Array  # (units, K)
    variance: jax.Array  # (units, K)
    exact: jax.Array  # (units,) whether no other face is in reach
    free: jax.Array  # (units,) whether none is that would show in an interval


def cut_off(normal: FreeNormal) -> CutOff:
    """Mean and variance of the abundances of every unit, and where these are exact."""
    sd, (first, low, slope) = normal.sd, normal.at_nearest()
    excess, variance = truncated.above(low)
    mean = normal.mean + sd * slope * (low + excess)
    left = 1.0 - slope**2 * (1.0 - variance)
    others = jnp.arange(len(sd)) != first[:, None]
    far = (mean > AWAY * sd) | ~others
    exact = far.all(1) & normal.applies
    return CutOff(mean, sd**2 * left, exact, exact & (low[:, 0] < -NEAR))


def drawn(normal: FreeNormal, share, score) -> jax.Array:
    """Draws (n, units, K) of the abundances cut off at the nearest face, each part by itself.

    ``share`` and ``score`` (n, units or 1), uniform on the unit interval and standard normal, pick the part at the
    face and how far the others are from what it makes of them; these are right one by one, not together.
    """
    sd, (first, low, slope) = normal.sd, normal.at_nearest()
    follows = jnp.sqrt(jnp.maximum(1.0 - slope**2, 0.0))
    at_face = low[:, 0] + truncated.quantile(share, low[:, 0], 1.0 / sd[first])
    return normal.mean + sd * (slope * at_face[..., None] + follows * score[..., None])
