"""Priors that chains of states need: rows with forbidden transitions, ordered or one-sided parameters, covariances."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import multigammaln
from numpyro.distributions import constraints
from numpyro.distributions.transforms import StickBreakingTransform, Transform, biject_to

from bayesunmix.distributions import cholesky

Allowed = tuple[tuple[bool, ...], ...]


class _Rows(constraints.Constraint):
    """Matrices whose rows are probabilities, zero where a transition is not allowed."""

    event_dim = 2

    def __init__(self, allowed: Allowed):
        self.allowed = allowed

    def __call__(self, x):
        inside = (x >= 0).all((-1, -2)) & (jnp.abs(x.sum(-1) - 1.0) < 1e-5).all(-1)
        return inside & (jnp.where(jnp.array(self.allowed), 0.0, x) == 0).all((-1, -2))

    def feasible_like(self, prototype):
        mask = jnp.array(self.allowed, prototype.dtype)
        return jnp.broadcast_to(mask / mask.sum(-1, keepdims=True), prototype.shape)

    def tree_flatten(self):
        return (), ((), {"allowed": self.allowed})


class _RowsTransform(Transform):
    """Stick-breaking of every row over its allowed entries; a row with one of them has no coordinate."""

    domain = constraints.real_vector

    def __init__(self, allowed: Allowed):
        self.allowed = allowed

    @property
    def codomain(self):
        return _Rows(self.allowed)

    @property
    def _counts(self) -> list[int]:
        return [sum(row) for row in self.allowed]

    def _parts(self, x):
        start = 0
        for row in self.allowed:
            size = sum(row) - 1
            yield [j for j, free in enumerate(row) if free], x[..., start : start + size]
            start += size

    def __call__(self, x):
        rows, stick = [], StickBreakingTransform()
        for columns, part in self._parts(x):
            values = stick(part) if len(columns) > 1 else jnp.ones((*x.shape[:-1], 1), x.dtype)
            empty = jnp.zeros((*x.shape[:-1], len(self.allowed)), x.dtype)
            rows.append(empty.at[..., jnp.array(columns)].set(values))
        return jnp.stack(rows, axis=-2)

    def _inverse(self, y):
        stick = StickBreakingTransform()
        parts = [
            stick._inverse(y[..., i, jnp.array([j for j, free in enumerate(row) if free])])
            for i, row in enumerate(self.allowed)
            if sum(row) > 1
        ]
        return jnp.concatenate(parts, axis=-1)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        found, stick = jnp.zeros(x.shape[:-1], x.dtype), StickBreakingTransform()
        for _, part in self._parts(x):
            if part.shape[-1]:
                found = found + stick.log_abs_det_jacobian(part, stick(part))
        return found

    def forward_shape(self, shape):
        return (*shape[:-1], len(self.allowed), len(self.allowed))

    def inverse_shape(self, shape):
        return (*shape[:-2], sum(self._counts) - len(self._counts))

    def tree_flatten(self):
        return (), ((), {"allowed": self.allowed})

    def __eq__(self, other):
        return isinstance(other, _RowsTransform) and self.allowed == other.allowed

    def __hash__(self):
        return hash(self.allowed)


@biject_to.register(_Rows)
def _rows(constraint):
    return _RowsTransform(constraint.allowed)


class TransitionRows(dist.Distribution):
    """Transition matrix whose rows are Dirichlet over the allowed entries.

    ``concentration`` (state, next_state); ``allowed`` the same shape of booleans, at least one in every row.
    """

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 2)}  # noqa: RUF012
    pytree_data_fields = ("concentration",)
    pytree_aux_fields = ("allowed",)

    def __init__(self, concentration, allowed: Allowed, *, validate_args=None):
        self.concentration, self.allowed = concentration, allowed
        super().__init__((), jnp.shape(concentration), validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self):
        return _Rows(self.allowed)

    def sample(self, key, sample_shape=()):
        gamma = jax.random.loggamma(key, self.concentration, (*sample_shape, *self.event_shape))
        return jax.nn.softmax(jnp.where(jnp.array(self.allowed), gamma, -jnp.inf), axis=-1)

    def log_prob(self, value, intermediates=None):
        mask = jnp.array(self.allowed)
        tiny = jnp.finfo(value.dtype).tiny
        weight = jnp.where(mask, self.concentration, 0.0)
        terms = jnp.where(mask, (self.concentration - 1.0) * jnp.log(jnp.maximum(value, tiny)), 0.0)
        constant = jax.lax.lgamma(weight.sum(-1)) - jnp.where(mask, jax.lax.lgamma(self.concentration), 0.0).sum(-1)
        return (terms.sum(-1) + constant).sum(-1)


class Restricted(dist.Distribution):
    """Independent values of ``base`` (state,), kept only where they are increasing, or positive, or both.

    The density is that of ``base`` inside the restriction: it lacks the constant that no inference needs.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    pytree_data_fields = ("base",)
    pytree_aux_fields = ("ordered", "positive")

    def __init__(self, base, *, ordered: bool, positive: bool, validate_args=None):
        self.base, self.ordered, self.positive = base, ordered, positive
        super().__init__((), base.batch_shape, validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        if self.ordered:
            return constraints.positive_ordered_vector if self.positive else constraints.ordered_vector
        return constraints.independent(constraints.positive, len(self.event_shape))

    def _inside(self, value):
        inside = (value[..., 1:] > value[..., :-1]).all(-1) if self.ordered else jnp.ones(value.shape[:-1], bool)
        return inside & (value > 0).all(-1) if self.positive else inside

    def log_prob(self, value, intermediates=None):
        return jnp.where(self._inside(value), self.base.log_prob(value).sum(-1), -jnp.inf)

    def sample(self, key, sample_shape=()):
        """By rejection."""
        count = functools.reduce(lambda a, b: a * b, sample_shape, 1)

        def one(key):
            def again(carry):
                key, _ = jax.random.split(carry[0])
                return key, self.base.sample(jax.random.fold_in(key, 1))

            start = (key, self.base.sample(jax.random.fold_in(key, 1)))
            return jax.lax.while_loop(lambda carry: ~self._inside(carry[1]), again, start)[1]

        found = jax.lax.map(one, jax.random.split(key, count))
        return found.reshape(*sample_shape, *self.event_shape)


class InverseWishart(dist.Distribution):
    """Inverse Wishart of ``degrees`` of freedom and ``scale`` (..., feature, feature)."""

    arg_constraints = {"degrees": constraints.positive, "scale": constraints.positive_definite}  # noqa: RUF012
    support = constraints.positive_definite
    pytree_data_fields = ("degrees", "scale")

    def __init__(self, degrees, scale, *, validate_args=None):
        self.degrees, self.scale = degrees, jnp.asarray(scale)
        super().__init__(self.scale.shape[:-2], self.scale.shape[-2:], validate_args=False)

    def log_prob(self, value, intermediates=None):
        size = self.scale.shape[-1]
        half = 0.5 * self.degrees
        lower, root = cholesky.factor(value), cholesky.factor(self.scale)
        trace = ((cholesky.inverse(lower) @ root) ** 2).sum((-2, -1))
        return (
            half * cholesky.log_det(root)
            - half * size * jnp.log(2.0)
            - multigammaln(half, size)
            - (half + 0.5 * (size + 1)) * cholesky.log_det(lower)
            - 0.5 * trace
        )

    def sample(self, key, sample_shape=()):
        """Bartlett's decomposition of the precision."""
        size, shape = self.scale.shape[-1], (*sample_shape, *self.batch_shape)
        key_normal, key_gamma = jax.random.split(key)
        dtype = self.scale.dtype
        lower = jnp.tril(jax.random.normal(key_normal, (*shape, size, size), dtype), -1)
        degrees = jnp.broadcast_to(jnp.asarray(self.degrees, dtype)[..., None], (*shape, size))
        chi2 = 2.0 * jax.random.gamma(key_gamma, 0.5 * (degrees - jnp.arange(size)), dtype=dtype)
        lower = lower + jnp.sqrt(chi2)[..., None] * jnp.eye(size, dtype=dtype)
        # precision = F A A' F' with F F' = scale^-1, so the covariance is (L A^-T)(L A^-T)' with L L' = scale.
        root = jnp.broadcast_to(cholesky.factor(self.scale), lower.shape)
        turned = cholesky.inverse(lower) @ jnp.swapaxes(root, -1, -2)
        return jnp.swapaxes(turned, -1, -2) @ turned
