"""Marginal likelihoods of counts, camera signals and brightness against quadrature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp
from simplex_quadrature import quadrature_nodes

from bayesunmix.distributions.channel_laws import LAWS
from bayesunmix.distributions.detected import DetectedUnmixing

CHANNELS = 12
UNITS = 12
SETS = 12
NOISE: dict[str, dict[str, float]] = {
    "poisson": {},
    "normal": {"noise_scale": 0.3},
    "scaled-poisson": {"gain": 2.0, "read_noise": 3.0},
}


def log_emission(law: str, mean: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The law of a channel, by SciPy."""
    noise = NOISE[law]
    if law == "poisson":
        return stats.poisson(mean).logpmf(y).sum(-1)
    if law == "normal":
        return stats.norm(mean, noise["noise_scale"]).logpdf(y).sum(-1)
    return stats.norm(mean, np.sqrt(noise["gain"] * mean + noise["read_noise"] ** 2)).logpdf(y).sum(-1)


def quadrature(law: str, y: np.ndarray, endmembers: np.ndarray, alpha: np.ndarray, shape: float | None) -> np.ndarray:
    """Log marginal density of every unit: trapezoid sums over log-ratios, and over log brightness."""
    log_a, log_volume = quadrature_nodes(len(endmembers), min(alpha.min(), 1.0), 0.03)
    prior = gammaln(alpha.sum()) - gammaln(alpha).sum() + (alpha - 1) @ log_a
    mean = np.exp(log_a).T @ endmembers
    brightness, log_weight = np.ones(1), np.zeros(1)
    if shape is not None:
        t = np.linspace(-5, 3, 1201)
        brightness = np.exp(t)
        log_weight = stats.gamma(shape, scale=1 / shape).logpdf(brightness) + t + np.log(t[1] - t[0])
    found = []
    for unit in y:
        terms = [
            logsumexp(log_volume + prior + log_emission(law, s * mean, unit)) + w
            for s, w in zip(brightness, log_weight, strict=True)
        ]
        found.append(logsumexp(terms))
    return np.array(found)


def example(law: str, n_parts: int, level: float, shape: float | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    endmembers = rng.gamma(2.0, 0.5, (n_parts, CHANNELS)) * level
    size = np.ones((UNITS, 1)) if shape is None else rng.gamma(shape, 1 / shape, (UNITS, 1))
    mean = size * (rng.dirichlet(np.full(n_parts, 0.5), UNITS) @ endmembers)
    if law == "poisson":
        return endmembers, rng.poisson(mean).astype(float)
    noise = NOISE[law]
    scale = noise["noise_scale"] if law == "normal" else np.sqrt(noise["gain"] * mean + noise["read_noise"] ** 2)
    return endmembers, mean + scale * rng.normal(size=mean.shape)


CASES = [
    *[("poisson", n, level, None, a) for n in (2, 3) for level in (0.5, 5.0, 100.0) for a in (1.0, 0.3)],
    *[("poisson", 2, level, 4.0, a) for level in (0.5, 100.0) for a in (1.0, 0.3)],
    *[("scaled-poisson", 3, level, None, 1.0) for level in (0.5, 100.0)],
    ("scaled-poisson", 2, 5.0, 4.0, 0.3),
    ("normal", 2, 3.0, 4.0, 1.0),
    ("normal", 2, 3.0, 4.0, 0.3),
    ("normal", 3, 3.0, None, 0.3),
]


@pytest.mark.parametrize(("law", "n_parts", "level", "shape", "alpha"), CASES)
def test_log_density_agrees_with_quadrature(law: str, n_parts: int, level: float, shape: Any, alpha: float) -> None:
    """Mean error at most .02 nats beyond three of its own standard errors, and no more scatter than .2 nats."""
    endmembers, y = example(law, n_parts, level, shape)
    concentration = np.full(n_parts, alpha)
    expected = quadrature(law, y, endmembers, concentration, shape)
    given = None if alpha == 1 else concentration

    @jax.jit
    def on_points(key):
        distribution = DetectedUnmixing(endmembers, given, law=law, brightness_shape=shape, **NOISE[law])
        return distribution.log_prob_on(distribution.rule(jnp.asarray(y), key, jnp.arange(UNITS)))

    with jax.enable_x64(True):
        got = np.stack([np.asarray(on_points(key)) for key in jax.random.split(jax.random.key(0), SETS)])
    error = got - expected
    assert np.sqrt(np.mean(error**2)) < 0.2
    by_set = error.mean(1)
    assert abs(by_set.mean()) < 0.02 + 3 * by_set.std(ddof=1) / np.sqrt(SETS)


@pytest.mark.parametrize("law", list(NOISE))
def test_laws_agree_with_their_own_density(law: str) -> None:
    """Slope, curvature and remainder of a law against differences of its log density."""
    one = LAWS[law]
    noise = tuple(jnp.asarray(NOISE[law][name]) for name in one.noise)
    mean, value, away = jnp.asarray([0.7, 3.0, 40.0]), jnp.asarray([0.0, 5.0, 37.0]), jnp.asarray([0.5, -1.0, 8.0])
    with jax.enable_x64(True):
        mean, value, away = (jnp.asarray(x, jnp.float64) for x in (mean, value, away))
        at = lambda m: one.log_density(m, value, noise)  # noqa: E731
        slope = one.slope(mean, value, noise)
        np.testing.assert_allclose(slope, (at(mean + 1e-6) - at(mean - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)
        quadratic = slope * away - 0.5 * one.bend(mean, value, noise) * away**2
        found = one.beyond(away, mean, value, noise)
        np.testing.assert_allclose(found, at(mean + away) - at(mean) - quadratic, rtol=1e-6, atol=1e-8)
        np.testing.assert_array_less(-1e-12, np.asarray(one.bend(mean, value, noise)))


@pytest.mark.parametrize(
    ("law", "shape"), [("poisson", None), ("poisson", 4.0), ("scaled-poisson", None), ("normal", 4.0)]
)
def test_curvature_agrees_with_automatic_differentiation(law: str, shape: float | None) -> None:
    """Gradient and Hessian in every parameter against the density's own, each averaged over point sets."""
    endmembers, y = example(law, 3, 20.0, shape)
    y = np.tile(y, (4, 1))
    parameters = {"endmembers": jnp.asarray(endmembers), "concentration": jnp.asarray([0.6, 1.0, 2.0])}
    parameters |= {name: jnp.asarray(x) for name, x in NOISE[law].items()}
    if shape is not None:
        parameters["brightness_shape"] = jnp.asarray(shape)

    def make(given):
        return DetectedUnmixing(law=law, n_points=256, **given)

    @jax.jit
    def both(key):
        rule = make(parameters).rule(jnp.asarray(y), key, jnp.arange(len(y)))
        total = lambda given: make(given).log_prob_on(rule).sum()  # noqa: E731
        slope, bent = make(parameters).curvature_on(rule)
        names = [n for n in parameters if n != "endmembers"]
        small = {n: parameters[n] for n in names}
        whole = jax.hessian(lambda given: total({**parameters, **given}))(small)
        few = {n: {m: bent[n][m] for m in names} for n in names}
        row = jax.jvp(jax.grad(total), (parameters,), (jax.tree_util.tree_map(jnp.ones_like, parameters),))[1]
        axes = {n: sum(bent[n][m].reshape(parameters[n].size, -1).sum(1) for m in parameters) for n in parameters}
        return (slope, few, axes), (jax.grad(total)(parameters), whole, jax.tree_util.tree_map(jnp.ravel, row))

    with jax.enable_x64(True):
        runs = [both(key) for key in jax.random.split(jax.random.key(1), 6)]
    got, expected = (jax.tree_util.tree_map(lambda *x: np.stack(x), *side) for side in zip(*runs, strict=True))

    def agree(a, b):
        error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
        scale = np.sqrt(np.mean(b**2))
        # Four standard errors of the difference of means over point sets, some 200 numbers in all.
        assert np.all(np.abs(a.mean(0) - b.mean(0)) < 4.5 * error + 2e-3 * scale)

    jax.tree_util.tree_map(agree, got, expected)
