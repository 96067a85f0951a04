"""What the likelihoods of linear mixtures have in common, whatever their integrals over the abundances."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import simplex


class Curved(NamedTuple):
    """Gradient and Hessian of the summed log density by the names of the parameters, those of the row first."""

    gradient: dict[str, Any]
    hessian: dict[str, dict[str, Any]]
    latent: jax.Array  # (latent,) mean given the data, summed over the units


class MixedSpectra(dist.Distribution):
    """A unit's channels, with its abundances integrated out on a rule: points of its own.

    A subclass has ``endmembers`` (K, channel) and ``concentration`` (K,) or None, and says ``rule``, ``log_prob_on``,
    ``conditional_on`` and ``sample_with_latent``.
    """

    support = constraints.real_vector

    def _exponents(self):
        return jnp.ones_like(self.endmembers[:, 0]) if self.concentration is None else self.concentration

    def log_prob(self, value, intermediates=None):
        """Log marginal density of every unit, shape ``value.shape[:-1]``; differentiable in all parameters."""
        units = value.reshape((-1, value.shape[-1]))
        rule = self.rule(units, jax.random.key(0), jnp.arange(units.shape[0]))
        return self.log_prob_on(rule).reshape(value.shape[:-1])

    @staticmethod
    def redraw(rule, key, index):
        """The same rule with fresh points, as many as before."""
        return rule._replace(frame=simplex.redraw(rule.frame, key, index))

    def conditional(self, value, key=None, index=None, *, n_points=None):
        """Distribution of the latent given the data, p(latent | y, parameters), on points of its own."""
        key = jax.random.key(1) if key is None else key
        index = jnp.arange(value.shape[0]) if index is None else index
        return self.conditional_on(self.rule(value, key, index, n_points=n_points))

    def sample(self, key, sample_shape=()):
        """Draw the latent, then data."""
        return self.sample_with_latent(key, sample_shape)[0]

    @property
    def mean(self):
        share = self._exponents() / self._exponents().sum()
        return jnp.broadcast_to(share @ self.endmembers, self.batch_shape + self.event_shape)
