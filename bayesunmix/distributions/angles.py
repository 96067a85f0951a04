"""Marginal likelihood of mixtures of von Mises laws on several angles.

    c_n ~ Categorical(weights)                            class of unit n
    y_nf ~ VonMises(means[c_n, f], concentrations[c_n, f])  angle f in radians, independent given the class

The class is summed out. The density has period 2 pi in every angle and in every mean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import i0e, i1e
from numpyro.distributions import constraints

from bayesunmix.distributions.mixtures import Memberships

_LOG_2PI = 1.8378770664093453


def _log_density(y, mean, concentration):
    """Sum over the angles of the last axis; ``i0e`` is the Bessel function less its exponential growth."""
    turned = concentration * (jnp.cos(y - mean) - 1.0)
    return (turned - jnp.log(i0e(concentration)) - _LOG_2PI).sum(-1)


class WrappedNormal(dist.Distribution):
    """A normal wrapped around the circle, and so of period 2 pi, at every point of the line; draws lie on any turn.

    Mardia and Jupp, *Directional Statistics* (2000), eq. 3.5.66, for scales of two radians at most.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real
    _TURNS = 2.0 * np.pi * np.arange(-2, 3)

    def __init__(self, loc, scale):
        self.loc, self.scale = jnp.broadcast_arrays(jnp.asarray(loc), jnp.asarray(scale))
        super().__init__(self.loc.shape, (), validate_args=False)

    def log_prob(self, value, intermediates=None):
        away = nearest_turn(value - self.loc, 0.0)
        turns = away[..., None] + self._TURNS.astype(away.dtype)
        terms = -0.5 * (turns / self.scale[..., None]) ** 2
        return jax.nn.logsumexp(terms, axis=-1) - jnp.log(self.scale) - 0.5 * _LOG_2PI

    def sample(self, key, sample_shape=()):
        return dist.Normal(self.loc, self.scale).sample(key, sample_shape)


def nearest_turn(angle, reference):
    """The angle (radians) on the turn that is nearest to a reference."""
    return angle + 2.0 * np.pi * ((reference - angle) / (2.0 * np.pi)).round()


class _ClassAngles(dist.Distribution):
    """Independent von Mises angles (..., feature), whose discrepancy is ``2 kappa (1 - cos)`` summed."""

    arg_constraints = {"loc": constraints.real, "concentration": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, loc, concentration):
        self.loc, self.concentration = jnp.asarray(loc), jnp.asarray(concentration)
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=False)

    def log_prob(self, value, intermediates=None):
        return _log_density(value, self.loc, self.concentration)

    def sample(self, key, sample_shape=()):
        return dist.VonMises(self.loc, self.concentration).sample(key, sample_shape)

    def discrepancy(self, y):
        return (2.0 * self.concentration * (1.0 - jnp.cos(y - self.loc))).sum(-1)

    @property
    def mean(self):
        return self.loc

    @property
    def variance(self):
        return 1.0 - i1e(self.concentration) / i0e(self.concentration)


class AngleMixture(dist.Distribution):
    """Mixture of von Mises laws with the class summed out.

    Parameters
    ----------
    weights : (component,)
    means : (component, feature)
        Radians; a multiple of 2 pi does not matter.
    concentrations : (component, feature)
        About one over the variance where large.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "weights": constraints.simplex,
        "means": constraints.independent(constraints.real, 2),
        "concentrations": constraints.independent(constraints.positive, 2),
    }
    support = constraints.real_vector
    pytree_data_fields = ("weights", "means", "concentrations")

    def __init__(self, weights, means, concentrations):
        self.weights, self.means = jnp.asarray(weights), jnp.asarray(means)
        self.concentrations = jnp.asarray(concentrations)
        super().__init__((), self.means.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        new = AngleMixture(self.weights, self.means, self.concentrations)
        new._batch_shape = tuple(batch_shape)
        return new

    def log_joint(self, y):
        """log of weight times density of every class, (units, component)."""
        return jnp.log(self.weights) + _log_density(y[..., None, :], self.means, self.concentrations)

    def log_prob(self, value, intermediates=None):
        """Log density, (units,)."""
        return jax.nn.logsumexp(self.log_joint(value), axis=-1)

    def conditional(self, y) -> Memberships:
        """Class of every unit given ``y`` (units, feature)."""
        return Memberships(jax.nn.softmax(self.log_joint(y), axis=-1))

    def emission(self, latent) -> _ClassAngles:
        """Angles of units whose class is ``latent`` (..., units, component), one-hot."""
        return _ClassAngles(latent @ self.means, latent @ self.concentrations)

    def sample_with_latent(self, key, sample_shape=()):
        """Angles and the classes they were drawn from."""
        key_class, key_data = jax.random.split(key)
        drawn = jax.random.categorical(key_class, jnp.log(self.weights), shape=(*sample_shape, *self.batch_shape))
        latent = jax.nn.one_hot(drawn, self.weights.shape[-1], dtype=self.means.dtype)
        return self.emission(latent).sample(key_data), latent

    def sample(self, key, sample_shape=()):
        """Angles, (*sample_shape, units, feature), between -pi and pi."""
        return self.sample_with_latent(key, sample_shape)[0]

    @property
    def _moment(self):
        """Mean of exp(i y) over all classes, (feature,) as cosine and sine."""
        length = i1e(self.concentrations) / i0e(self.concentrations)
        return self.weights @ (length * jnp.cos(self.means)), self.weights @ (length * jnp.sin(self.means))

    @property
    def mean(self):
        """Circular mean of every angle, all classes together."""
        c, s = self._moment
        return jnp.broadcast_to(jnp.arctan2(s, c), self.batch_shape + self.event_shape)

    @property
    def variance(self):
        """Circular variance of every angle, between 0 and 1."""
        c, s = self._moment
        return jnp.broadcast_to(1.0 - jnp.hypot(c, s), self.batch_shape + self.event_shape)
