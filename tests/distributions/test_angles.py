"""The angular mixture's density against scipy, periodicity, and its limit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import vonmises
from sklearn.cluster import KMeans

from bayesunmix.distributions.angles import AngleMixture

WEIGHTS = np.array([0.6, 0.4])
MEANS = np.array([[0.1, 3.0], [2.0, -1.0]])
SHARP = np.array([[3.0, 50.0], [0.5, 800.0]])


def test_density_is_that_of_scipy_and_has_a_period() -> None:
    y = np.random.default_rng(0).uniform(-np.pi, np.pi, (40, 2))
    joint = np.log(WEIGHTS) + vonmises.logpdf(y[:, None], SHARP, MEANS).sum(-1)
    with jax.enable_x64(True):
        mine = AngleMixture(WEIGHTS, MEANS, SHARP)
        np.testing.assert_allclose(mine.log_prob(y), np.logaddexp.reduce(joint, axis=1), rtol=1e-9)
        turned = AngleMixture(WEIGHTS, MEANS + 2 * np.pi * np.array([[1, 0], [-1, 2]]), SHARP)
        np.testing.assert_allclose(turned.log_prob(y - 2 * np.pi), mine.log_prob(y), rtol=1e-9)
        share = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
        np.testing.assert_allclose(mine.conditional(y).mean, share, atol=1e-10)


def test_draws_have_the_circular_moments() -> None:
    draws = 5000
    with jax.enable_x64(True):
        mine = AngleMixture(WEIGHTS, MEANS, SHARP).expand((draws,))
        y, latent = (np.asarray(v) for v in mine.sample_with_latent(jax.random.key(0)))
        mean, variance = np.asarray(mine.mean)[0], np.asarray(mine.variance)[0]
    assert abs(latent[:, 0].mean() - 0.6) < 4 * np.sqrt(0.24 / draws)
    moment = np.exp(1j * y).mean(0)
    # Each component of the mean of unit vectors has a standard error below one over the root of the number of draws.
    np.testing.assert_allclose(moment, (1 - variance) * np.exp(1j * mean), atol=4 / np.sqrt(draws))


def test_emission_and_its_discrepancy() -> None:
    y = np.array([[0.5, 2.9], [1.0, -1.1]])
    with jax.enable_x64(True):
        emission = AngleMixture(WEIGHTS, MEANS, SHARP).emission(jnp.eye(2))
        np.testing.assert_allclose(emission.log_prob(y), vonmises.logpdf(y, SHARP, MEANS).sum(-1), rtol=1e-9)
        small = (2 * SHARP * (1 - np.cos(y - MEANS))).sum(-1)
        np.testing.assert_allclose(emission.discrepancy(y), small, rtol=1e-12)


def test_growing_concentration_is_k_means_on_the_circle() -> None:
    rng = np.random.default_rng(1)
    y = rng.choice([-2.0, 0.3, 1.8], 90)[:, None] + 0.4 * rng.normal(size=(90, 1))
    peer = KMeans(3, n_init=10, random_state=0).fit(np.concatenate([np.cos(y), np.sin(y)], axis=1))
    means = np.arctan2(peer.cluster_centers_[:, 1], peer.cluster_centers_[:, 0])[:, None]
    with jax.enable_x64(True):

        def mixture(m):
            return AngleMixture(np.full(3, 1 / 3), m, jnp.full((3, 1), 1e5))

        share = np.asarray(mixture(means).conditional(y).mean)
        slope = jax.grad(lambda m: mixture(m).log_prob(y).sum())(jnp.asarray(means))
    # K-means draws the border by chords to centres inside the circle; assignments agree off the border.
    assert np.mean(share.argmax(1) == peer.labels_) > 0.97
    own = np.array([np.angle(np.exp(1j * y[share.argmax(1) == k]).mean()) for k in range(3)])
    np.testing.assert_allclose(np.asarray(slope).ravel() / 1e5, 0.0, atol=90 * np.abs(own - means.ravel()).max() + 1e-6)


@pytest.mark.parametrize("sharp", [1e-3, 1.0, 1e4])
def test_density_is_normalised(sharp: float) -> None:
    y = np.linspace(-np.pi, np.pi, 20001)[:-1, None]
    with jax.enable_x64(True):
        p = np.exp(np.asarray(AngleMixture(np.ones(1), np.zeros((1, 1)), np.full((1, 1), sharp)).log_prob(y)))
    assert p.mean() * 2 * np.pi == pytest.approx(1.0, rel=1e-8)
