"""Units of a linear mixture under normal noise, ready for evaluation at many parameters.

In double precision their data stay as they are, and may be held in single precision: sums over channels widen some
units at a time, which stay in a cache, where all of them would be an array of the data's size in every product. In
single precision sums are taken on residuals, so that nothing large cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayesunmix.distributions import simplex

_CELLS = 2**19  # numbers widened at a time


class Rule(NamedTuple):
    """The frame of the integrals of units, and what their data are compared with.

    Below, the residual is that of the units at the centre of their frames, ``y - centre' reference``.
    """

    frame: simplex.Frame
    squares: jax.Array  # (units,): sum of squared residuals
    reference: jax.Array  # (K, channel): endmembers the residual was taken with
    residual: Any = None  # (units, channel), in single precision
    data: Any = None  # (units, channel), in double; None, too, while they are held elsewhere

    @classmethod
    def of(cls, frame: simplex.Frame, value: jax.Array, reference: jax.Array) -> Rule:
        """Units (unit, channel) that the frame was made for, with endmembers near by."""

        if reference.dtype == jnp.float64:
            left = _residual(value, frame.centre, reference)
            return cls(frame, (left**2).sum(1), reference, data=value)
        left = value - frame.centre.T @ reference
        return cls(frame, (left**2).sum(1), reference, residual=left)

    @property
    def value(self) -> jax.Array:
        """The data (units, channel), in the precision that is worked in."""
        if self.residual is None:
            return self.data.astype(self.reference.dtype)
        return self.residual + self.frame.centre.T @ self.reference

    def pulled(self, left: jax.Array) -> jax.Array:
        """``left residual'`` (r, units) for left (r, channel)."""
        if self.residual is None:
            return with_channels(left, self.data) - (left @ self.reference.T) @ self.frame.centre
        return left @ self.residual.T

    def seen(self, left: jax.Array) -> jax.Array:
        """``left y`` (r, channel) for left (r, units)."""
        if self.residual is None:
            return by_blocks(lambda block, own: (own @ block)[None], self.data, left.dtype, left).sum(0)
        return left @ self.residual + (left @ self.frame.centre.T) @ self.reference

    def weighted_squares(self, precision: jax.Array) -> jax.Array:
        """Sums over channels of ``precision residual^2`` (units,), for precisions (channel,)."""
        left = self.residual
        if left is None:
            left = _residual(self.data, self.frame.centre, self.reference)
        # Not as a product with squares, which would be written out: an array of the data's size every time.
        return (left * (left * precision)).sum(1)


def _residual(data, centre, reference):
    """For sums over channels: no product of matrices, so that nothing is written out."""
    return data - sum(share[:, None] * spectrum for share, spectrum in zip(centre, reference, strict=True))


def with_data(rule: Any, value: jax.Array) -> Any:
    """A rule with the data that it was made for, if it is one that leaves them to others."""
    return rule._replace(data=value) if isinstance(rule, Rule) and rule.residual is None else rule


def without_data(rule: Any) -> Any:
    """Any rule, for who holds the data already."""
    return rule._replace(data=None) if isinstance(rule, Rule) else rule


def with_channels(left: jax.Array, data: jax.Array, origin: Any = 0.0) -> jax.Array:
    """``left (data - origin)'`` (r, units), for left (r, channel) and an origin (channel,) of the data."""
    return by_blocks(lambda block: (block - origin) @ left.T, data, left.dtype).T


def by_blocks(fn: Callable, data: jax.Array, dtype: Any, *own: jax.Array) -> jax.Array:
    """``fn`` of units, units first, with their ``own`` numbers, units last: as they are where they are of this
    precision, else some at a time, which backwards are widened anew."""
    if data.dtype == dtype:
        return fn(data, *own)
    size = max(1, min(len(data), _CELLS // data.shape[1]))
    full = len(data) // size * size

    def one(start, size=size):
        here = (jax.lax.dynamic_slice_in_dim(x, start, size, axis=x.ndim - 1) for x in own)
        return fn(jax.lax.dynamic_slice_in_dim(data, start, size).astype(dtype), *here)

    found = jax.lax.map(jax.checkpoint(one), jnp.arange(0, full, size))
    found = found.reshape(-1, *found.shape[2:])
    return found if full == len(data) else jnp.concatenate([found, one(full, len(data) - full)])
