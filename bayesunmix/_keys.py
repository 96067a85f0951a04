"""Seeds: an integer or a JAX key, the same way in every function that draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def as_key(seed: int | jax.Array) -> jax.Array:
    """A JAX key from an integer seed or from a key.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        For an integer of more than 64 bits, the sign included.
    """
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        return seed
    if isinstance(seed, int | np.integer) and not isinstance(seed, bool):
        try:
            return jax.random.key(int(seed))
        except OverflowError:
            raise ValueError(f"seed: expected an integer from -2**63 to 2**63 - 1, got {seed}") from None
    if isinstance(seed, jax.Array) and seed.dtype == jnp.uint32 and seed.shape == (2,):
        return jax.random.wrap_key_data(seed)
    raise TypeError(f"seed: expected an integer or a JAX key, got {seed!r}")


def generator(key: jax.Array) -> np.random.Generator:
    """A NumPy generator from a JAX key: nothing is compiled for its numbers."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
