"""Tiny dense linear algebra, one problem per lane.

A matrix is a nested list ``A[i][j]`` of arrays that all have the shape of the lanes (one entry per unit).
The loops over ``i, j`` unroll at trace time, so a batch of K x K factorisations becomes a few dozen fused
vector operations; a batched ``jnp.linalg.cholesky`` of the same matrices is several times slower on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

Lanes = list[list[jax.Array]]


def cholesky(matrix: Sequence[Sequence[jax.Array]]) -> Lanes:
    """Lower factor of a symmetric positive definite matrix; only the lower triangle is read."""
    size = len(matrix)
    factor: Lanes = [[jnp.zeros(())] * size for _ in range(size)]
    for j in range(size):
        pivot = matrix[j][j] - sum(factor[j][m] ** 2 for m in range(j))
        # Rounding can push a pivot of a nearly singular matrix to zero; a relative floor keeps the step finite.
        floor = jnp.finfo(pivot.dtype).eps * jnp.abs(matrix[j][j]) + jnp.finfo(pivot.dtype).tiny
        factor[j][j] = jnp.sqrt(jnp.maximum(pivot, floor))
        for i in range(j + 1, size):
            rest = matrix[i][j] - sum(factor[i][m] * factor[j][m] for m in range(j))
            factor[i][j] = rest / factor[j][j]
    return factor


def solve_lower(factor: Lanes, right: Sequence[jax.Array]) -> list[jax.Array]:
    """Solve ``L x = right`` for lower triangular ``L``."""
    x: list[jax.Array] = []
    for i in range(len(right)):
        x.append((right[i] - sum(factor[i][m] * x[m] for m in range(i))) / factor[i][i])
    return x


def solve_upper(factor: Lanes, right: Sequence[jax.Array]) -> list[jax.Array]:
    """Solve ``L' x = right`` for lower triangular ``L``."""
    size = len(right)
    x: list[jax.Array] = [jnp.zeros(())] * size
    for i in reversed(range(size)):
        x[i] = (right[i] - sum(factor[m][i] * x[m] for m in range(i + 1, size))) / factor[i][i]
    return x


def solve(factor: Lanes, right: Sequence[jax.Array]) -> list[jax.Array]:
    """Solve ``L L' x = right``."""
    return solve_upper(factor, solve_lower(factor, right))
