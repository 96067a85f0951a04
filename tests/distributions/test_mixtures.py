"""The mixture's density against scikit-learn and enumeration, with and without measurement errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture as Peer

from bayesunmix.distributions import mixture_curvature
from bayesunmix.distributions.mixtures import NormalMixture

K, D, N = 3, 4, 50


@pytest.fixture
def parts() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(K, D, D))
    covs = factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(D)
    errors = rng.normal(size=(N, D, D)) * rng.uniform(0.1, 1.0, (N, 1, 1))
    return {
        "weights": np.array([0.5, 0.3, 0.2]),
        "means": 2.0 * rng.normal(size=(K, D)),
        "covs": covs,
        "roots": np.linalg.cholesky(covs),
        "errors": errors @ errors.transpose(0, 2, 1),
        "y": 3.0 * rng.normal(size=(N, D)),
    }


def made(parts, errors: bool) -> NormalMixture:
    return NormalMixture(parts["weights"], parts["means"], parts["roots"], parts["errors"] if errors else None)


def enumerated(parts, errors: bool) -> np.ndarray:
    """log of weight times density (unit, component), one scipy call each."""
    extra = parts["errors"] if errors else np.zeros((N, D, D))
    return np.array(
        [
            [
                np.log(w) + multivariate_normal(m, c + extra[n]).logpdf(parts["y"][n])
                for w, m, c in zip(parts["weights"], parts["means"], parts["covs"], strict=True)
            ]
            for n in range(N)
        ]
    )


def test_density_is_that_of_scikit_learn(parts) -> None:
    peer = Peer(K)
    peer.weights_, peer.means_, peer.covariances_ = parts["weights"], parts["means"], parts["covs"]
    peer.precisions_cholesky_ = np.linalg.inv(parts["roots"]).transpose(0, 2, 1)
    with jax.enable_x64(True):
        mine = made(parts, False)
        np.testing.assert_allclose(mine.log_prob(parts["y"]), peer.score_samples(parts["y"]), rtol=1e-10)
        np.testing.assert_allclose(mine.conditional(parts["y"]).mean, peer.predict_proba(parts["y"]), atol=1e-12)


def test_density_with_errors_is_the_enumerated_one(parts) -> None:
    joint = enumerated(parts, True)
    with jax.enable_x64(True):
        mine = made(parts, True)
        np.testing.assert_allclose(mine.log_prob(parts["y"]), np.logaddexp.reduce(joint, axis=1), rtol=1e-10)
        share = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))
        found = mine.conditional(parts["y"])
        np.testing.assert_allclose(found.mean, share, atol=1e-12)
        np.testing.assert_allclose(found.variance, share * (1 - share), atol=1e-12)
        np.testing.assert_allclose(found.entropy, -(share * np.log(share)).sum(1), atol=1e-12)


def test_no_error_is_an_error_of_zero(parts) -> None:
    with jax.enable_x64(True):
        zero = NormalMixture(parts["weights"], parts["means"], parts["roots"], np.zeros((N, D, D)))
        np.testing.assert_allclose(zero.log_prob(parts["y"]), made(parts, False).log_prob(parts["y"]), rtol=1e-10)


@pytest.mark.parametrize("errors", [False, True])
def test_gradient_and_curvature_are_differences(parts, errors: bool) -> None:
    with jax.enable_x64(True):

        def total(roots):
            own = parts | {"roots": jnp.asarray(roots)}
            return made(own, errors).log_prob(parts["y"]).sum()

        direction = np.tril(np.random.default_rng(1).normal(size=(K, D, D)))
        total, slope = jax.jit(total), jax.jit(jax.grad(total))
        step = 1e-5
        ends = [total(parts["roots"] + s * step * direction) for s in (1, -1)]
        along = float((slope(parts["roots"]) * direction).sum())
        assert (float(ends[0]) - float(ends[1])) / (2 * step) == pytest.approx(along, rel=1e-6)
        _, bend = jax.jvp(slope, (jnp.asarray(parts["roots"]),), (jnp.asarray(direction),))
        slopes = [slope(parts["roots"] + s * step * direction) for s in (1, -1)]
        np.testing.assert_allclose(bend, (slopes[0] - slopes[1]) / (2 * step), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("errors", [False, True])
def test_draws_have_the_moments_and_classes(parts, errors: bool) -> None:
    draws = 4000
    with jax.enable_x64(True):
        mine = made(parts, errors)
        y, latent = mine.sample_with_latent(jax.random.key(0), (draws,) if errors else (draws, 1))
        y, latent = np.asarray(y), np.asarray(latent)
        mean, variance = np.asarray(mine.mean), np.asarray(mine.variance)
    np.testing.assert_allclose(latent.sum(-1), 1.0)
    share = latent.reshape(-1, K)
    error = np.sqrt(parts["weights"] * (1 - parts["weights"]) / len(share))
    assert np.abs((share.mean(0) - parts["weights"]) / error).max() < 4
    assert np.abs((y.mean(0) - mean) / np.sqrt(variance / draws)).max() < 4.5
    kurtosis = ((y - y.mean(0)) ** 4).mean(0)
    assert np.abs((y.var(0) - variance) / np.sqrt((kurtosis - variance**2) / draws)).max() < 4.5


def test_emission_given_the_class(parts) -> None:
    latent = np.eye(K)[np.arange(N) % K]
    with jax.enable_x64(True):
        emission = made(parts, True).emission(jnp.asarray(latent))
        for n in (0, 1, 2):
            cov = parts["covs"][n % K] + parts["errors"][n]
            expected = multivariate_normal(parts["means"][n % K], cov).logpdf(parts["y"][n])
            assert float(emission.log_prob(parts["y"])[n]) == pytest.approx(expected, rel=1e-10)
            away = parts["y"][n] - parts["means"][n % K]
            assert float(emission.discrepancy(parts["y"])[n]) == pytest.approx(away @ np.linalg.solve(cov, away))


def test_vanishing_scatter_is_k_means(parts) -> None:
    """Equal weights and one spherical scatter that goes to zero: memberships are Voronoi cells, and the centres of
    k-means are where the slope in the means vanishes."""
    peer = KMeans(K, n_init=10, random_state=0).fit(parts["y"])
    scatter = 1e-2
    with jax.enable_x64(True):

        def mixture(means):
            roots = jnp.broadcast_to(scatter * jnp.eye(D), (K, D, D))
            return NormalMixture(np.full(K, 1 / K), means, roots)

        share = np.asarray(mixture(peer.cluster_centers_).conditional(parts["y"]).mean)
        np.testing.assert_array_equal(share.argmax(1), peer.labels_)
        assert share.max(1).min() > 0.999
        slope = jax.grad(lambda m: mixture(m).log_prob(parts["y"]).sum())(jnp.asarray(peer.cluster_centers_))
        # In units of the slope that one unit at a distance of one scatter would make.
        assert np.abs(np.asarray(slope) * scatter).max() < 1e-3


def test_units_whose_class_is_beyond_doubt_are_left_out_of_products(monkeypatch) -> None:
    """Each adds its doubt times products of features at most, so that is how far the Hessian may be from the whole."""
    rng = np.random.default_rng(0)
    means = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 9.0]])
    y = means[rng.integers(3, size=600)] + rng.normal(size=(600, 2))
    few, doubt = mixture_curvature._FEWEST_ROWS, mixture_curvature._NO_DOUBT
    monkeypatch.setattr(mixture_curvature, "_NUMBERS", few)
    with jax.enable_x64(True):
        roots, centre = np.broadcast_to(np.eye(2), (3, 2, 2)), jnp.zeros(2)
        natural = mixture_curvature._natural(jnp.full(3, 1 / 3), jnp.asarray(means), jnp.asarray(roots), centre)
        _, some = mixture_curvature._shared_covariance(natural, jnp.ones(600), jnp.asarray(y))
        monkeypatch.setattr(mixture_curvature, "_NO_DOUBT", 0.0)
        _, every = mixture_curvature._shared_covariance(natural, jnp.ones(600), jnp.asarray(y))
    i, j = np.triu_indices(2)
    features = np.abs(np.concatenate([np.ones((600, 1)), y, y[:, i] * y[:, j]], axis=1))
    away = np.abs(np.asarray(some) - np.asarray(every)).max((0, 2))
    assert away.max() > 0  # some were left out
    assert (away <= doubt * features.T @ features).all()


@pytest.mark.parametrize("errors", [False, True])
@pytest.mark.parametrize("rows", [7, 2**19])
def test_curvature_is_that_of_automatic_differentiation(parts, errors: bool, rows: int, monkeypatch) -> None:
    """In the parameters themselves, roots as lower triangles; rows that do not divide the units are padded."""
    monkeypatch.setattr(mixture_curvature, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(mixture_curvature, "_NUMBERS", rows * 70)
    names = ("weights", "means", "roots")
    with jax.enable_x64(True):

        def total(free):
            return made(parts | free, errors).log_prob(parts["y"]).sum()

        free = {name: jnp.asarray(parts[name]) for name in names}
        slope, bend = jax.jit(lambda y: made(parts, errors).curvature(y))(jnp.asarray(parts["y"]))
        true_slope, true_bend = jax.jit(lambda free: (jax.grad(total)(free), jax.hessian(total)(free)))(free)
        lower = np.tril(np.ones((D, D)))
        shown = {"weights": np.ones(K), "means": np.ones((K, D)), "roots": np.broadcast_to(lower, (K, D, D))}
        for p in names:
            np.testing.assert_allclose(slope[p] * shown[p], true_slope[p] * shown[p], rtol=1e-8, atol=1e-8)
            for q in names:
                both = np.multiply.outer(shown[p], shown[q])
                np.testing.assert_allclose(bend[p][q] * both, true_bend[p][q] * both, rtol=1e-7, atol=1e-7)
        only = jax.eval_shape(lambda y: made(parts, errors).curvature(y, ("means",)), parts["y"])
        assert set(only[0]) == set(only[1]) == set(only[1]["means"]) == {"means"}
