"""Cholesky factors of batches of matrices, and what follows from them, without LAPACK.

jaxlib spreads a large batch of LAPACK problems over XLA's threads and holds the thread that it runs on until all are
solved. Two such batches side by side on two cores then wait for each other for ever (docs/numerics.md). Here a row of
all problems at a time is a product, for which XLA holds no thread, and so is every derivative. One matrix alone, and a
batch that nothing else runs beside, are safe with LAPACK.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


@jax.custom_jvp
def factor(matrix: jax.Array) -> jax.Array:
    """Lower factor L of symmetric positive definite matrices L L' (..., d, d); only the lower triangle is read."""
    size = matrix.shape[-1]
    if not size:  # a model without components; a loop is traced even where it has no turns
        return matrix
    rows = jnp.arange(size)

    def column(j, lower):
        rest = matrix[..., :, j] - _times(lower, lower[..., j, :])
        own = jnp.where(rows >= j, rest / jnp.sqrt(rest[..., j, None]), 0.0)
        return lower.at[..., :, j].set(own)

    return jax.lax.fori_loop(0, size, column, jnp.zeros_like(matrix))


@factor.defjvp
def _factor_jvp(primals, tangents):
    (matrix,), (step,) = primals, tangents
    lower = factor(matrix)
    back = inverse(lower)
    below = jnp.tril(step)
    whole = below + jnp.swapaxes(jnp.tril(step, -1), -1, -2)
    turned = jnp.tril(back @ whole @ jnp.swapaxes(back, -1, -2))
    half = turned - 0.5 * jnp.eye(step.shape[-1], dtype=step.dtype) * turned
    return lower, lower @ half


@jax.custom_jvp
def inverse(lower: jax.Array) -> jax.Array:
    """Inverse of lower triangular matrices (..., d, d), by forward substitution."""
    size = lower.shape[-1]
    if not size:
        return lower
    unit = jnp.eye(size, dtype=lower.dtype)

    def row(i, found):
        # Rows from i on are still zero, so the whole product is that of the rows above.
        own = unit[i] - _times(jnp.swapaxes(found, -1, -2), lower[..., i, :])
        return found.at[..., i, :].set(own / lower[..., i, i, None])

    return jax.lax.fori_loop(0, size, row, jnp.zeros_like(lower))


@inverse.defjvp
def _inverse_jvp(primals, tangents):
    (lower,), (step,) = primals, tangents
    back = inverse(lower)
    return back, -back @ jnp.tril(step) @ back


def solve(lower: jax.Array, right: jax.Array) -> jax.Array:
    """The x (..., d) for which L L' x is ``right`` (..., d)."""
    back = inverse(lower)
    return _times(jnp.swapaxes(back, -1, -2), _times(back, right))


def log_det(lower: jax.Array) -> jax.Array:
    """Log determinant (...) of L L'."""
    return 2.0 * jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)).sum(-1)


def _times(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.einsum("...ij,...j->...i", matrix, vector)
