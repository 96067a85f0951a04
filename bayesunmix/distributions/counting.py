"""Poisson counts that are drawn fast for whole spectrum images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

_BLOCK = 32  # neighbouring channels drawn together: where all are dark the search ends soon
_BRIGHT = 60.0  # beyond it JAX's own rejection sampler is the faster one


class Counts(dist.Poisson):
    """Poisson distribution; its draws invert the distribution function where counts are few.

    The rejection sampler draws every value as slowly as the slowest of the array: many seconds for one image
    of mostly empty channels.
    """

    def sample(self, key, sample_shape=()):
        """Draws of shape ``sample_shape + batch_shape``, in the rate's type."""
        shape = tuple(sample_shape) + self.batch_shape
        if not shape or 0 in shape:
            return super().sample(key, sample_shape)
        rate = jnp.broadcast_to(self.rate, shape)
        n_channels = shape[-1]
        count = -(-n_channels // _BLOCK)
        rows = jnp.pad(rate.reshape(-1, n_channels), ((0, 0), (0, count * _BLOCK - n_channels)))
        blocks = jnp.moveaxis(rows.reshape(-1, count, _BLOCK), 1, 0)
        drawn = jax.lax.map(lambda x: _draw(*x), (jax.random.split(key, count), blocks))
        return jnp.moveaxis(drawn, 0, 1).reshape(rows.shape)[:, :n_channels].reshape(shape).astype(rate.dtype)


def _draw(key, rate):
    return jax.lax.cond(
        rate.max() < _BRIGHT,
        lambda: _invert(jax.random.uniform(key, rate.shape, jnp.float32), rate.astype(jnp.float32)),
        lambda: jax.random.poisson(key, rate).astype(jnp.float32),
    )


def _invert(uniform, rate):
    """The smallest count whose distribution function reaches ``uniform``."""

    def step(state):
        count, found, share, below = state
        share = share * rate / (count + 1.0)
        return count + 1.0, jnp.where(uniform > below, count + 1.0, found), share, below + share

    # Rounding may keep the sum of the shares from reaching the largest uniform number.
    unfinished = lambda state: jnp.any(uniform > state[3]) & (state[0] < 4.0 * _BRIGHT)  # noqa: E731
    empty = jnp.exp(-rate)
    return jax.lax.while_loop(unfinished, step, (jnp.zeros((), rate.dtype), jnp.zeros_like(rate), empty, empty))[1]
