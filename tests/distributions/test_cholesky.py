"""Factors without LAPACK against LAPACK's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesunmix.distributions import cholesky


def matrices(size: int, *batch: int) -> np.ndarray:
    root = np.random.default_rng(size).normal(size=(*batch, size, size + 2))
    return root @ np.swapaxes(root, -1, -2)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_they_are_those_of_lapack(size: int) -> None:
    with jax.enable_x64(True):
        matrix = jnp.asarray(matrices(size, 3, 2))
        lower = cholesky.factor(matrix)
        np.testing.assert_allclose(lower, np.linalg.cholesky(matrix), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(cholesky.inverse(lower), np.linalg.inv(lower), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(cholesky.log_det(lower), np.linalg.slogdet(matrix)[1], rtol=1e-11)
        right = np.ones((3, 2, size))
        expected = np.linalg.solve(matrix, right[..., None])[..., 0]
        np.testing.assert_allclose(cholesky.solve(lower, right), expected, rtol=1e-8)


@pytest.mark.parametrize("mine, lapack", [(cholesky.factor, jnp.linalg.cholesky), (cholesky.inverse, jnp.linalg.inv)])
def test_derivatives_of_two_orders_are_those_of_lapack(mine, lapack) -> None:
    with jax.enable_x64(True):
        matrix = jnp.asarray(matrices(4))
        start = matrix if mine is cholesky.factor else jnp.linalg.cholesky(matrix)
        weight = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)))

        def of(function):
            # Symmetric changes for a factor, triangular ones for an inverse: elsewhere the two may differ.
            def total(v):
                moved = (v + v.T) / 2 if mine is cholesky.factor else jnp.tril(v)
                return (weight * function(start + moved)).sum()

            return total

        at = jnp.zeros((4, 4))
        for derivative in (jax.grad, jax.hessian):
            np.testing.assert_allclose(derivative(of(mine))(at), derivative(of(lapack))(at), rtol=1e-8, atol=1e-9)


def test_rounding_is_within_its_bound() -> None:
    matrix = matrices(12, 50).astype(np.float32)
    lower = np.asarray(cholesky.factor(jnp.asarray(matrix)), np.float64)
    # Higham, Accuracy and Stability of Numerical Algorithms, theorem 10.3, to first order.
    bound = 13 * np.finfo(np.float32).eps * np.abs(lower) @ np.swapaxes(np.abs(lower), -1, -2)
    assert (np.abs(lower @ np.swapaxes(lower, -1, -2) - matrix) < bound).all()
