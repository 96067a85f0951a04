"""Marginal likelihood of a linear factor model with normal noise: scores integrated out.

    z_n ~ Normal(0, I)                            scores of unit n, K of them
    y_np ~ Normal(m_p + sum_k z_nk W_kp, g_n h_p) channel p; the second argument is a variance

so that ``y_n ~ Normal(m, W'W + g_n diag(h))``. Every density goes through K x K matrices only (Woodbury). The quadratic
form is taken as ``|r - z W|^2 / h + |z|^2`` at the most probable scores ``z``, which subtracts nothing large.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import cholesky, lanes

_LOG_2PI = 1.8378770664093453


class NormalFactors(dist.Distribution):
    """Normal data around a plane, the scores along its axes integrated out.

    Parameters
    ----------
    components : (K, channel)
        Loadings W, for scores of unit variance. K may be 0.
    mean : (channel,)
    noise_scale : scalar or (channel,)
        Standard deviation of the noise, in the units of the data.
    row_factor : (unit,), optional
        Multiplies the variance of the noise of a unit.
    missing : bool
        Entries of the data may be NaN: they are integrated out.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "components": constraints.independent(constraints.real, 2),
        "mean": constraints.independent(constraints.real, 1),
        "noise_scale": constraints.positive,
    }
    support = constraints.real_vector
    pytree_data_fields = ("components", "mean_", "noise_scale", "row_factor")
    pytree_aux_fields = ("missing",)

    def __init__(self, components, mean, noise_scale, *, row_factor=None, missing=False, validate_args=None):
        self.components = jnp.asarray(components)
        self.mean_ = jnp.asarray(mean)
        self.noise_scale = jnp.asarray(noise_scale)
        self.row_factor = None if row_factor is None else jnp.asarray(row_factor)
        self.missing = missing
        super().__init__((), self.components.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        new = NormalFactors(
            self.components, self.mean_, self.noise_scale, row_factor=self.row_factor, missing=self.missing
        )
        new._batch_shape = tuple(batch_shape)
        return new

    @property
    def _variance(self):
        """Noise variance of every channel."""
        return jnp.broadcast_to(self.noise_scale**2, self.event_shape)

    def log_prob(self, value, intermediates=None):
        """Log marginal density of every unit, ``value.shape[:-1]``; NaN entries are integrated out."""
        units = value.reshape((-1, value.shape[-1]))
        residual, weight = self._residual(units)
        scores, log_det = self._solve(residual, weight)
        left = residual - scores @ self.components
        present = weight > 0
        noise = -jnp.log(jnp.where(present, weight, 1.0)).sum(-1)
        quadratic = (left**2 * weight).sum(-1) + (scores**2).sum(-1)
        found = -0.5 * (present.sum(-1) * _LOG_2PI + noise + log_det + quadratic)
        return found.reshape(value.shape[:-1])

    def _residual(self, units):
        """Data minus mean (0 where missing), and the precision of every entry (0 where missing)."""
        factor = jnp.ones(1, units.dtype) if self.row_factor is None else self.row_factor
        weight = jnp.broadcast_to(1.0 / (factor[:, None] * self._variance), units.shape)
        residual = units - self.mean_
        if self.missing:
            present = ~jnp.isnan(units)
            residual, weight = jnp.where(present, residual, 0.0), jnp.where(present, weight, 0.0)
        return residual, weight

    @property
    def _alike(self) -> bool:
        """Whether all units share one posterior covariance of the scores."""
        return self.row_factor is None and not self.missing

    def _precision(self, weight):
        """Posterior precision of the scores as lanes over units, for units that differ."""
        size = self.components.shape[0]
        rows, columns = np.tril_indices(size)
        flat = weight @ (self.components[rows] * self.components[columns]).T
        matrix = [[jnp.zeros(())] * size for _ in range(size)]
        for at, (i, j) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True)):
            matrix[i][j] = flat[:, at] + (1.0 if i == j else 0.0)
        return matrix

    def _shared(self):
        """Lower factor of the posterior precision of the scores, for units that are alike."""
        scaled = self.components / jnp.sqrt(self._variance)
        return cholesky.factor(jnp.eye(len(scaled), dtype=scaled.dtype) + scaled @ scaled.T)

    def _solve(self, residual, weight):
        """Most probable scores (unit, K), and the log determinant of their posterior precision."""
        linear = (residual * weight) @ self.components.T
        if not self.components.shape[0]:
            return linear, jnp.zeros(len(residual), residual.dtype)
        if self._alike:
            factor = self._shared()
            back = cholesky.inverse(factor)
            return linear @ back.T @ back, cholesky.log_det(factor)
        lower = lanes.cholesky(self._precision(weight))
        scores = jnp.stack(lanes.solve(lower, list(linear.T)), axis=-1)
        return scores, 2.0 * sum(jnp.log(lower[i][i]) for i in range(len(lower)))

    # ------------------------------------------------------------------ the latent

    def conditional(self, value) -> NormalScores:
        """Distribution of the scores given the data (unit, channel), p(z | y, parameters)."""
        residual, weight = self._residual(value)
        scores, _ = self._solve(residual, weight)
        size = self.components.shape[0]
        if self._alike or not size:
            return NormalScores(scores, cholesky.inverse(self._shared()).T)
        lower = lanes.cholesky(self._precision(weight))
        none, one = jnp.zeros(len(value), scores.dtype), jnp.ones(len(value), scores.dtype)
        columns = [lanes.solve_upper(lower, [one if i == j else none for i in range(size)]) for j in range(size)]
        return NormalScores(scores, jnp.stack([jnp.stack(c, axis=-1) for c in columns], axis=-1))

    def emission(self, latent):
        """p(y | scores, parameters) for ``latent`` (..., K): a normal, channels as event."""
        scale = jnp.sqrt(self._variance)
        if self.row_factor is not None:
            scale = jnp.sqrt(self.row_factor)[:, None] * scale
        return dist.Normal(self.mean_ + latent @ self.components, scale).to_event(1)

    def latent_prior(self):
        """Prior of one unit's scores."""
        return dist.Normal(jnp.zeros(self.components.shape[0], self.mean_.dtype), 1.0).to_event(1)

    def sample(self, key, sample_shape=()):
        """Draw scores, then data."""
        return self.sample_with_latent(key, sample_shape)[0]

    def sample_with_latent(self, key, sample_shape=()):
        """Data and the scores that made them."""
        key_latent, key_data = jax.random.split(key)
        latent = self.latent_prior().sample(key_latent, tuple(sample_shape) + self.batch_shape)
        return self.emission(latent).sample(key_data), latent

    @property
    def mean(self):
        return jnp.broadcast_to(self.mean_, self.batch_shape + self.event_shape)

    @property
    def variance(self):
        noise = self._variance if self.row_factor is None else self.row_factor[:, None] * self._variance
        return jnp.broadcast_to((self.components**2).sum(0) + noise, self.batch_shape + self.event_shape)


class NormalScores(NamedTuple):
    """Normal scores: mean (unit, K), root of the covariance (K, K), or (unit, K, K) where units differ."""

    mean: jax.Array
    root: jax.Array

    @property
    def variance(self):
        """(unit, K)"""
        return jnp.broadcast_to((self.root**2).sum(-1), self.mean.shape)

    def sample(self, key, sample_shape=()):
        """Draws, ``sample_shape + (unit, K)``."""
        white = jax.random.normal(key, (*sample_shape, *self.mean.shape), self.mean.dtype)
        return self.mean + jnp.einsum("...ij,...j->...i", self.root, white)
