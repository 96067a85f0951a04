"""Marginal likelihood of normal mixtures whose vectors may carry a known measurement covariance each.

    c_n ~ Categorical(weights)                       class of unit n
    y_n ~ Normal(means[c_n], covariances[c_n] + R_n)  R_n known, or absent

The class is summed out. With R_n this is what "extreme deconvolution" maximises: the classes' covariances are those of
the undisturbed vectors, and a unit that was measured badly says less about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import cholesky
from bayesunmix.distributions.inverses import inverse_and_log_det
from bayesunmix.distributions.mixture_curvature import curvature
from bayesunmix.distributions.normal_vectors import NormalVectors

_LOG_2PI = 1.8378770664093453
_MOST_FEATURES = 16  # beyond that the products of four of them are too many


class Memberships(NamedTuple):
    """Class of every unit given its data: a one-hot vector with these probabilities (units, component)."""

    probability: jax.Array

    @property
    def mean(self) -> jax.Array:
        """Probability of every class."""
        return self.probability

    @property
    def variance(self) -> jax.Array:
        """Of the indicator of every class."""
        return self.probability * (1.0 - self.probability)

    @property
    def entropy(self) -> jax.Array:
        """Entropy of the class, (units,), in nats."""
        return jax.scipy.special.entr(self.probability).sum(-1)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Classes as one-hot vectors, (*sample_shape, units, component)."""
        shape = (*sample_shape, *self.probability.shape[:-1])
        drawn = jax.random.categorical(key, jnp.log(self.probability), shape=shape)
        return jax.nn.one_hot(drawn, self.probability.shape[-1], dtype=self.probability.dtype)


@jax.custom_jvp
def _own_density(means: jax.Array, own: jax.Array, y: jax.Array, errors: jax.Array) -> jax.Array:
    """Log density but for a constant (..., component), with a covariance for every unit and class.

    All are factorised side by side. The derivative is written out, or it would go through as many inverses again.
    """
    precision, log_det = inverse_and_log_det(own + errors[..., None, :, :])
    away = y[..., None, :] - means
    pull = jnp.einsum("...kij,...kj->...ki", precision, away)
    return -0.5 * (away * pull).sum(-1) - 0.5 * log_det


@_own_density.defjvp
def _own_density_jvp(primals, tangents):
    means, own, y, errors = primals
    means_step, own_step, y_step, errors_step = tangents
    precision, log_det = inverse_and_log_det(own + errors[..., None, :, :])
    away = y[..., None, :] - means
    pull = jnp.einsum("...kij,...kj->...ki", precision, away)
    bend = 0.5 * (pull[..., :, None] * pull[..., None, :] - precision)
    step = jnp.einsum("...ki,ki->...k", pull, means_step) - jnp.einsum("...ki,...i->...k", pull, y_step)
    step = step + jnp.einsum("...kij,kij->...k", bend, own_step) + jnp.einsum("...kij,...ij->...k", bend, errors_step)
    return -0.5 * (away * pull).sum(-1) - 0.5 * log_det, step


class NormalMixture(dist.Distribution):
    """Mixture of multivariate normals with the class summed out.

    Parameters
    ----------
    weights : (component,)
        Sum to one.
    means : (component, feature)
    roots : (component, feature, feature)
        Lower Cholesky factors of the classes' covariances.
    measurement_cov : (unit, feature, feature), optional
        Known covariance of every unit's error, added to the class's own.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "weights": constraints.simplex,
        "means": constraints.independent(constraints.real, 2),
        "roots": constraints.independent(constraints.lower_cholesky, 1),
    }
    support = constraints.real_vector
    pytree_data_fields = ("weights", "means", "roots", "measurement_cov")

    def __init__(self, weights, means, roots, measurement_cov=None):
        self.weights, self.means, self.roots = jnp.asarray(weights), jnp.asarray(means), jnp.asarray(roots)
        self.measurement_cov = None if measurement_cov is None else jnp.asarray(measurement_cov)
        batch = () if measurement_cov is None else self.measurement_cov.shape[:-2]
        super().__init__(batch, self.means.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        new = NormalMixture(self.weights, self.means, self.roots, self.measurement_cov)
        new._batch_shape = tuple(batch_shape)
        return new

    # ------------------------------------------------------------------ density

    def log_joint(self, y: jax.Array) -> jax.Array:
        """log of weight times density of every class, (units, component)."""
        return jnp.moveaxis(self._by_class(y), 0, -1)

    def log_prob(self, value, intermediates=None):
        """Log density, (units,)."""
        return jax.nn.logsumexp(self._by_class(value), axis=0)

    def _by_class(self, y):
        """The log joint with the classes first, (component, units)."""
        if self.measurement_cov is None:
            density = self._shared(y)
        else:
            own = jnp.einsum("kij,klj->kil", self.roots, self.roots)
            density = jnp.moveaxis(_own_density(self.means, own, y, self.measurement_cov), -1, 0)
        rest = jnp.log(self.weights) - 0.5 * self.means.shape[-1] * _LOG_2PI
        return density + rest.reshape(-1, *[1] * (density.ndim - 1))

    def _shared(self, y):
        """Log density but for a constant (component, units): one matrix product for all classes, units last."""
        n_classes, n_features = self.means.shape
        inverse = cholesky.inverse(self.roots)
        # Centred on the middle of the classes, so that nothing large cancels; where that is makes no difference.
        centre = jax.lax.stop_gradient(self.means.mean(0))
        offset = -jnp.einsum("kij,kj->ki", inverse, self.means - centre)
        flat = (y - centre).reshape(-1, n_features).T
        whitening = jnp.concatenate([inverse, offset[..., None]], axis=-1).reshape(-1, n_features + 1)
        away = (whitening @ jnp.concatenate([flat, jnp.ones_like(flat[:1])])).reshape(n_classes, n_features, -1)
        density = -0.5 * (away**2).sum(1) - 0.5 * cholesky.log_det(self.roots)[:, None]
        return density.reshape(n_classes, *y.shape[:-1])

    @property
    def knows_curvature(self) -> bool:
        """Whether :meth:`curvature` is the way to it."""
        return self.means.shape[-1] <= _MOST_FEATURES

    def curvature(self, y: jax.Array, wanted: Sequence[str] = ("weights", "means", "roots")):
        """Gradient and Hessian of the summed log density in the ``wanted`` parameters.

        Returns
        -------
        gradient : dict of name to array
        hessian : dict of name to dict of name to array
            Shaped (*one, *other).
        """
        names = ("weights", "means", "roots")
        slopes, bends = curvature((self.weights, self.means, self.roots), y, self.measurement_cov)
        table = {p: dict(zip(names, row, strict=True)) for p, row in zip(names, bends, strict=True)}
        return (
            {p: slope for p, slope in zip(names, slopes, strict=True) if p in wanted},
            {p: {q: table[p][q] for q in names if q in wanted} for p in names if p in wanted},
        )

    # ------------------------------------------------------------------ the class

    def conditional(self, y) -> Memberships:
        """Class of every unit given ``y`` (units, feature)."""
        return Memberships(jax.nn.softmax(self.log_joint(y), axis=-1))

    def emission(self, latent) -> NormalVectors:
        """Data of units whose class is ``latent`` (..., units, component), one-hot."""
        mean = latent @ self.means
        if self.measurement_cov is None:
            return NormalVectors(mean, jnp.einsum("...k,kij->...ij", latent, self.roots))
        own = jnp.einsum("kij,klj->kil", self.roots, self.roots)
        total = jnp.einsum("...k,kij->...ij", latent, own) + self.measurement_cov
        return NormalVectors(mean, cholesky.factor(total))

    # ------------------------------------------------------------------ draws and moments

    def sample_with_latent(self, key, sample_shape=()):
        """Data and the classes they were drawn from."""
        key_class, key_data = jax.random.split(key)
        shape = (*sample_shape, *self.batch_shape)
        drawn = jax.random.categorical(key_class, jnp.log(self.weights), shape=shape)
        latent = jax.nn.one_hot(drawn, self.weights.shape[-1], dtype=self.means.dtype)
        return self.emission(latent).sample(key_data), latent

    def sample(self, key, sample_shape=()):
        """Data, (*sample_shape, units, feature)."""
        return self.sample_with_latent(key, sample_shape)[0]

    @property
    def mean(self):
        """Of the data, all classes together."""
        return jnp.broadcast_to(self.weights @ self.means, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        """Of every feature of the data, all classes together."""
        own = (self.roots**2).sum(-1)
        total = self.weights @ (own + self.means**2) - (self.weights @ self.means) ** 2
        if self.measurement_cov is None:
            return jnp.broadcast_to(total, self.batch_shape + self.event_shape)
        return total + jnp.diagonal(self.measurement_cov, axis1=-2, axis2=-1)
