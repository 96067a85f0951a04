"""Normal vectors by the root of their covariance, whose density goes without LAPACK."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayesunmix.distributions import cholesky


class NormalVectors(dist.MultivariateNormal):
    """Vectors (..., d) around ``loc``, with ``scale_tril``, the lower root of the covariance (..., d, d).

    Nothing is validated, which would compile a dozen programs.
    """

    def __init__(self, loc, scale_tril):
        super().__init__(loc, scale_tril=scale_tril, validate_args=False)

    def log_prob(self, value: jax.Array, intermediates=None) -> jax.Array:
        """Log density (...)."""
        size = self.event_shape[-1]
        return -0.5 * (self.discrepancy(value) + cholesky.log_det(self.scale_tril) + size * jnp.log(2 * jnp.pi))

    def discrepancy(self, y: jax.Array) -> jax.Array:
        """Squared Mahalanobis distance (...)."""
        white = jnp.einsum("...ij,...j->...i", cholesky.inverse(self.scale_tril), y - self.loc)
        return (white**2).sum(-1)
