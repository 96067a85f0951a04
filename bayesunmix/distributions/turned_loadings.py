"""Loadings up to rotation: one representative of all that a rotation makes of them, for methods that need a mode."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import multigammaln
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from bayesunmix.distributions.loadings import Loadings


class TurnedLoadings(Loadings):
    """The law of :class:`~bayesunmix.distributions.loadings.Loadings` on one representative of every rotation class.

    Channels are mirrored so that ``axes`` fall on the first K of them. Of all ``Q W`` with Q orthogonal the one is
    taken whose first K mirrored channels are upper triangular with a positive diagonal ``d``. The density of W carries
    over with the volume of the rotations, ``prod_i d_i^(K - i)``, i from 1 to K. Whatever no rotation changes has the
    same law as before; near ``axes`` times strengths the posterior has one mode.

    Parameters
    ----------
    scale, dof, floor
        As of ``Loadings``.
    axes : (K, channel)
        Directions of independent rows, such as those of a first estimate.
    """

    pytree_data_fields = ("scale", "dof", "floor", "axes")

    def __init__(self, scale, dof, floor, axes, *, validate_args=None):
        self.axes = jnp.asarray(axes)
        super().__init__(len(self.axes), scale, dof, floor)

    @property
    def support(self):
        """Loadings in the form above."""
        return _Turned(self.axes)

    def log_prob(self, value):
        """Log density of a representative, batch dims first."""
        size = self.n_components
        first = jnp.diagonal(_mirrored(value, _mirrors(self.axes))[..., :size], axis1=-2, axis2=-1)
        rotations = size * math.log(2.0) + 0.5 * size**2 * math.log(math.pi) - multigammaln(0.5 * size, size)
        volume = (jnp.arange(size)[::-1] * jnp.log(jnp.abs(first))).sum(-1)
        return super().log_prob(value) + volume + rotations

    def sample(self, key, sample_shape=()):
        """A draw of the loadings, turned."""
        mirrors = _mirrors(self.axes)
        drawn = _mirrored(super().sample(key, sample_shape), mirrors)
        return _mirrored(_triangular(drawn), mirrors[::-1])


class _Turned(constraints.Constraint):
    """Loadings whose first mirrored channels are upper triangular with a positive diagonal."""

    event_dim = 2

    def __init__(self, axes):
        self.axes = axes

    def __call__(self, x):
        size = self.axes.shape[0]
        first = _mirrored(x, _mirrors(self.axes))[..., :size]
        below = jnp.tril(first, -1)
        tolerance = 1e-6 * jnp.abs(first).max((-2, -1))
        upright = (jnp.diagonal(first, axis1=-2, axis2=-1) > 0).all(-1)
        return upright & (jnp.abs(below).max((-2, -1)) <= tolerance)

    def feasible_like(self, prototype):
        return jnp.broadcast_to(_mirrored(jnp.eye(*self.axes.shape), _mirrors(self.axes)[::-1]), jnp.shape(prototype))

    def tree_flatten(self):
        return (self.axes,), (("axes",), {})


class _Turn(Transform):
    """From a vector: logarithms of the diagonal, then what is right of it, row by row."""

    domain = constraints.real_vector

    def __init__(self, axes):
        self.axes = axes

    @property
    def codomain(self):
        return _Turned(self.axes)

    @property
    def _above(self) -> tuple[np.ndarray, np.ndarray]:
        return np.triu_indices(self.axes.shape[0], 1, self.axes.shape[1])

    def __call__(self, x):
        size, n_channels = self.axes.shape
        turned = jnp.zeros((*x.shape[:-1], size, n_channels), x.dtype)
        turned = turned.at[..., np.arange(size), np.arange(size)].set(jnp.exp(x[..., :size]))
        turned = turned.at[..., self._above[0], self._above[1]].set(x[..., size:])
        return _mirrored(turned, _mirrors(self.axes)[::-1])

    def _inverse(self, y):
        turned = _triangular(_mirrored(y, _mirrors(self.axes)))
        strength = jnp.log(jnp.diagonal(turned, axis1=-2, axis2=-1))
        return jnp.concatenate([strength, turned[..., self._above[0], self._above[1]]], axis=-1)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return x[..., : self.axes.shape[0]].sum(-1)

    def forward_shape(self, shape):
        return (*shape[:-1], *self.axes.shape)

    def inverse_shape(self, shape):
        return (*shape[:-2], self.axes.shape[0] + len(self._above[0]))

    def tree_flatten(self):
        return (self.axes,), (("axes",), {})


@biject_to.register(_Turned)
def _turn(constraint):
    return _Turn(constraint.axes)


def _mirrors(axes) -> list[jax.Array]:
    """Unit normals (channel,) of mirrors, to be applied in turn, that put ``axes`` on the first channels."""
    found: list[jax.Array] = []
    for k, axis in enumerate(axes):
        rest = jnp.where(jnp.arange(axes.shape[1]) >= k, _mirrored(axis, found), 0.0)
        length = jnp.sqrt((rest**2).sum())
        normal = rest.at[k].add(jnp.where(rest[k] < 0, -length, length))
        found.append(normal / jnp.sqrt((normal**2).sum()))
    return found


def _mirrored(x, mirrors):
    """Vectors (..., channel) seen in one mirror after another."""
    for normal in mirrors:
        x = x - 2.0 * (x @ normal)[..., None] * normal
    return x


def _triangular(x):
    """The rotation of the rows of (..., K, channel) that makes the first K channels upper triangular."""
    size = x.shape[-2]
    q, r = jnp.linalg.qr(x[..., :size])
    sign = jnp.where(jnp.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return sign[..., None] * (jnp.swapaxes(q, -1, -2) @ x)
