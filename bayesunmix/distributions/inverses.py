"""Inverse and log determinant of many small covariances, with derivatives of every order in closed form.

Differentiating through an unrolled factorisation gives the same numbers and programs of thousands of operations; here a
derivative is a product of matrices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bayesunmix.distributions import lanes


def inverse_and_log_det(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Inverse (..., d, d) and log determinant (...) of symmetric positive definite matrices (..., d, d)."""
    inverse = _inverse(matrix)
    return inverse, _log_det(matrix, inverse)


def general_inverse_and_log_det(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same of well-conditioned matrices that need not be symmetric; of the determinant's absolute value.

    By way of ``A'A``, without LAPACK: its calls from two threads can wait for each other (docs/numerics.md).
    """
    turned = jnp.swapaxes(matrix, -1, -2)
    inverse, log_det = inverse_and_log_det(turned @ matrix)
    return inverse @ turned, 0.5 * log_det


@jax.custom_jvp
def _inverse(matrix: jax.Array) -> jax.Array:
    size = matrix.shape[-1]
    factor = lanes.cholesky([[matrix[..., i, j] for j in range(i + 1)] for i in range(size)])
    zero = jnp.zeros(matrix.shape[:-2], matrix.dtype)
    # Columns of the inverse factor, each of which starts at its own row.
    lower = [[zero] * size for _ in range(size)]
    for j in range(size):
        lower[j][j] = 1.0 / factor[j][j]
        for i in range(j + 1, size):
            lower[i][j] = -sum(factor[i][m] * lower[m][j] for m in range(j, i)) / factor[i][i]
    root = jnp.stack([jnp.stack(row, axis=-1) for row in lower], axis=-2)
    return jnp.einsum("...ki,...kj->...ij", root, root)


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    (matrix,), (step,) = primals, tangents
    inverse = _inverse(matrix)
    return inverse, -inverse @ step @ inverse


@jax.custom_jvp
def _log_det(matrix: jax.Array, inverse: jax.Array) -> jax.Array:
    size = matrix.shape[-1]
    factor = lanes.cholesky([[matrix[..., i, j] for j in range(i + 1)] for i in range(size)])
    return 2.0 * jnp.log(jnp.stack([factor[i][i] for i in range(size)])).sum(0)


@_log_det.defjvp
def _log_det_jvp(primals, tangents):
    matrix, inverse = primals
    # The inverse rides along as the derivative; it is no variable of its own.
    return _log_det(matrix, inverse), (inverse * tangents[0]).sum((-2, -1))
