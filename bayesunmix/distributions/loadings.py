"""Prior of a factor model's loadings: the strength of each component is learned, no rotation is preferred."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import multigammaln
from numpyro.distributions import constraints

from bayesunmix.distributions import cholesky

_LOG_PI = 1.1447298858494002


class Loadings(dist.Distribution):
    """Loadings W (K, channel) whose columns share an unknown covariance.

        Omega ~ InverseWishart(dof, floor I)       K x K, integrated out
        W_p   ~ Normal(0, scale_p^2 Omega)         column p

    This is relevance determination without a preferred rotation: the eigenvalues of Omega are the strengths of the
    components, heavy-tailed upwards, and a component whose eigenvalue nears ``floor / dof`` is switched off. The
    density (a matrix t) depends on W only through ``W W'`` in units of ``scale``.

    Parameters
    ----------
    n_components : int
    scale : (channel,)
    dof : scalar, above n_components - 1
    floor : scalar
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "scale": constraints.independent(constraints.positive, 1),
        "dof": constraints.positive,
        "floor": constraints.positive,
    }
    support = constraints.independent(constraints.real, 2)
    pytree_data_fields: tuple[str, ...] = ("scale", "dof", "floor")
    pytree_aux_fields = ("n_components",)

    def __init__(self, n_components, scale, dof, floor, *, validate_args=None):
        self.n_components = n_components
        self.scale, self.dof, self.floor = jnp.asarray(scale), jnp.asarray(dof), jnp.asarray(floor)
        super().__init__((), (n_components, self.scale.shape[-1]), validate_args=False)

    def log_prob(self, value):
        """Log density of W, batch dims first."""
        rows, columns = self.event_shape
        if not rows:
            return jnp.zeros(value.shape[:-2])
        scaled = value / (self.scale * jnp.sqrt(self.floor))
        gram = jnp.eye(rows, dtype=scaled.dtype) + scaled @ jnp.swapaxes(scaled, -1, -2)
        top = 0.5 * (self.dof + columns)
        return (
            multigammaln(top, rows)
            - multigammaln(0.5 * self.dof, rows)
            - 0.5 * rows * columns * (_LOG_PI + jnp.log(self.floor))
            - rows * jnp.log(self.scale).sum()
            - top * cholesky.log_det(cholesky.factor(gram))
        )

    def sample(self, key, sample_shape=()):
        """Draw Omega by Bartlett's decomposition of its inverse, then W."""
        rows, columns = self.event_shape
        shape = tuple(sample_shape) + self.batch_shape
        key_square, key_below, key_white = jax.random.split(key, 3)
        dtype = self.scale.dtype
        chi2 = 2.0 * jax.random.gamma(key_square, 0.5 * (self.dof - jnp.arange(rows)), (*shape, rows), dtype)
        below = jnp.tril(jax.random.normal(key_below, (*shape, rows, rows), dtype), -1)
        bartlett = below + jnp.sqrt(chi2)[..., None] * jnp.eye(rows, dtype=dtype)
        white = jax.random.normal(key_white, (*shape, rows, columns), dtype)
        # inverse of Omega = B B' / floor, so a root of Omega is B^-T sqrt(floor)
        root = jnp.swapaxes(cholesky.inverse(bartlett), -1, -2) @ white
        return jnp.sqrt(self.floor) * root * self.scale
