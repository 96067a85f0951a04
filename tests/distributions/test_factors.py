"""Marginal likelihood of factor models against dense normal densities; the prior of loadings against its definition."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import invwishart, multivariate_normal

from bayesunmix.distributions.factors import NormalFactors
from bayesunmix.distributions.loadings import Loadings

RNG = np.random.default_rng(0)
W, MEAN, NOISE = RNG.normal(size=(3, 7)), RNG.normal(size=7), RNG.uniform(0.3, 1.0, 7)
Y, FACTOR = RNG.normal(size=(5, 7)), RNG.uniform(0.5, 2.0, 5)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("noise", [0.7, NOISE], ids=["isotropic", "diagonal"])
@pytest.mark.parametrize("size", [0, 1, 3])
def test_density_is_that_of_the_dense_normal(size: int, noise) -> None:
    dense = multivariate_normal(MEAN, W[:size].T @ W[:size] + np.eye(7) * np.square(noise))
    found = NormalFactors(W[:size], MEAN, noise).log_prob(Y)
    np.testing.assert_allclose(found, dense.logpdf(Y), rtol=1e-12)


def test_a_row_factor_scales_the_noise_of_its_unit() -> None:
    found = NormalFactors(W, MEAN, NOISE, row_factor=FACTOR).log_prob(Y)
    dense = [
        multivariate_normal(MEAN, W.T @ W + g * np.diag(NOISE**2)).logpdf(y) for g, y in zip(FACTOR, Y, strict=True)
    ]
    np.testing.assert_allclose(found, dense, rtol=1e-12)


def test_missing_entries_are_integrated_out() -> None:
    holes = Y.copy()
    holes[0, 1:4] = holes[3, 6] = np.nan
    holes[4, :6] = np.nan
    found = NormalFactors(W, MEAN, NOISE, missing=True).log_prob(holes)
    covariance = W.T @ W + np.diag(NOISE**2)
    for one, value in zip(holes, found, strict=True):
        seen = np.flatnonzero(np.isfinite(one))
        dense = multivariate_normal(MEAN[seen], covariance[np.ix_(seen, seen)])
        assert float(value) == pytest.approx(dense.logpdf(one[seen]), rel=1e-12)
    gradient = jax.grad(lambda w: NormalFactors(w, MEAN, NOISE, missing=True).log_prob(holes).sum())(jnp.asarray(W))
    assert np.isfinite(gradient).all()


def test_a_signal_far_above_the_noise_loses_no_digits() -> None:
    """The quadratic form subtracts nothing large: in float32 it stays right where signal is 1e4 times the noise."""
    strong, score = 1e4 * W, RNG.normal(size=(5, 3))
    y = MEAN + score @ strong + NOISE * RNG.normal(size=(5, 7))
    exact = NormalFactors(strong, MEAN, NOISE).log_prob(y)
    with jax.enable_x64(False):
        single = NormalFactors(*(np.float32(a) for a in (strong, MEAN, NOISE))).log_prob(jnp.asarray(y, jnp.float32))
    # The data themselves are rounded to 1e4 * 6e-8 = 6e-4 of an entry, some 2e-3 noise standard deviations.
    np.testing.assert_allclose(single, exact, atol=0.1)


@pytest.mark.parametrize("units", ["alike", "row factor", "missing"])
def test_scores_given_data_are_normal_with_the_textbook_moments(units: str) -> None:
    factor = FACTOR if units == "row factor" else np.ones(5)
    holes = Y.copy()
    if units == "missing":
        holes[2, :4] = np.nan
    options = {"row_factor": FACTOR} if units == "row factor" else {"missing": units == "missing"}
    found = NormalFactors(W, MEAN, NOISE, **options).conditional(jnp.asarray(holes))
    for n, (y, g) in enumerate(zip(holes, factor, strict=True)):
        seen = np.isfinite(y)
        heavy = W[:, seen] / (g * NOISE[seen] ** 2)
        covariance = np.linalg.inv(np.eye(3) + heavy @ W[:, seen].T)
        np.testing.assert_allclose(found.mean[n], covariance @ heavy @ (y - MEAN)[seen], rtol=1e-10)
        np.testing.assert_allclose(found.variance[n], np.diag(covariance), rtol=1e-10)
        root = found.root if found.root.ndim == 2 else found.root[n]
        np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-9, atol=1e-12)


def test_moments_of_data_are_those_of_the_story() -> None:
    fn = NormalFactors(W, MEAN, NOISE).expand((20000,))
    y, score = fn.sample_with_latent(jax.random.key(0))
    assert y.shape == (20000, 7) and score.shape == (20000, 3)
    error = np.sqrt(fn.variance[0] / 20000)
    assert (np.abs(y.mean(0) - fn.mean[0]) < 4 * error).all()
    # The variance of a sample variance of normal data is 2 variance^2 / n.
    assert (np.abs(y.var(0) / fn.variance[0] - 1) < 4 * np.sqrt(2 / 20000)).all()


def test_prior_of_loadings_is_a_normal_with_inverse_wishart_strengths() -> None:
    scale, dof, floor = np.array([0.5, 1.0, 2.0]), 4.0, 0.3
    prior = Loadings(2, scale, dof, floor)
    value = np.array([[0.2, -0.5, 0.4], [0.1, 0.3, 1.0]])
    omegas = invwishart(dof, floor * np.eye(2)).rvs(40000, random_state=0)
    columns = (value / scale).T
    quadratic = np.einsum("pi,nij,pj->n", columns, np.linalg.inv(omegas), columns)
    density = np.exp(-0.5 * quadratic) * (2 * np.pi) ** -3.0 * np.linalg.det(omegas) ** -1.5 / np.prod(scale) ** 2
    expected, error = density.mean(), density.std() / np.sqrt(density.size)
    assert abs(np.exp(float(prior.log_prob(value))) - expected) < 4 * error


def test_draws_of_loadings_follow_their_density() -> None:
    """One loading of one channel is Student's t, of which the quartiles are known."""
    draws = np.asarray(Loadings(1, np.array([2.0]), 1.0, 0.25).sample(jax.random.key(1), (20000,)))
    inside = np.mean(np.abs(draws) < 2.0 * 0.5)  # Cauchy of scale 2 sqrt(.25): half of it lies within its scale
    assert abs(inside - 0.5) < 4 * 0.5 / np.sqrt(20000)
    both = Loadings(2, np.ones(3), 2.0, 0.1).sample(jax.random.key(2), (3, 4))
    assert both.shape == (3, 4, 2, 3) and np.isfinite(both).all()
