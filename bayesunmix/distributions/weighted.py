"""A distribution of every unit's latent, carried by weighted points."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class WeightedPoints(NamedTuple):
    """The latent of every unit on weighted points: (latent, points, units) and (points, units)."""

    points: jax.Array
    weights: jax.Array

    @property
    def mean(self):
        """(units, latent)"""
        return (self.points * self.weights).sum(1).T

    @property
    def variance(self):
        """(units, latent)"""
        away = self.points - self.mean.T[:, None]
        return (away**2 * self.weights).sum(1).T

    def sample(self, key, sample_shape=()):
        """Draws by resampling, ``sample_shape + (units, latent)``."""
        uniform = jax.random.uniform(key, (*sample_shape, self.weights.shape[1]), self.weights.dtype)
        return jnp.moveaxis(self.picked(uniform), 0, -1)

    def picked(self, uniform):
        """The points (latent, ..., units) where so much of the weight (..., units) lies before."""
        cumulative = jnp.cumsum(self.weights, axis=0)
        rank = (uniform[..., None, :] * cumulative[-1] >= cumulative).sum(-2)
        rank = jnp.minimum(rank, self.weights.shape[0] - 1)
        return self.points[:, rank, jnp.arange(self.weights.shape[1])]
