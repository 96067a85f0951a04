"""The noise of many units of a mixture of known endmembers, taken together."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import truncated


class PooledNoise(dist.Distribution):
    """Sum of squared distances of units from the plane of their mixtures, normal noise of one level in all directions.

    About the plane a unit scatters in as many directions as the plane leaves, whatever its mixture. In the plane the
    normal distribution about it reaches beyond one face at most, and the share on this side of it counts.

    Parameters
    ----------
    noise_scale : scalar
        Standard deviation of the noise.
    freedom : scalar
        Directions about the plane, summed over the units.
    distances : (unit,)
        From the face that is in reach, positive within, in standard deviations across it at a noise level of one.
    constant : scalar
        The rest of the log density.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "noise_scale": constraints.positive,
        "freedom": constraints.positive,
        "distances": constraints.real_vector,
        "constant": constraints.real,
    }
    support = constraints.nonnegative
    pytree_data_fields = ("noise_scale", "freedom", "distances", "constant")

    def __init__(self, noise_scale, freedom, distances, constant, *, validate_args=None):
        self.noise_scale, self.freedom = jnp.asarray(noise_scale), jnp.asarray(freedom)
        self.distances, self.constant = jnp.asarray(distances), jnp.asarray(constant)
        super().__init__((), (), validate_args=False)

    def log_prob(self, value):
        """Log density of the units whose squares sum to ``value``."""
        # About its highest value: freedom times the logarithm of the noise level is large.
        ratio = value / (self.freedom * self.noise_scale**2)
        below = 0.5 * self.freedom * (jnp.log(ratio) - (ratio - 1.0))
        highest = -0.5 * self.freedom * (1.0 + jnp.log(value / self.freedom))
        return below + highest + truncated.log_above(-self.distances / self.noise_scale).sum() + self.constant
