"""The marginal likelihood of a pixel against brute-force quadrature over its abundances."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln, logsumexp
from simplex_quadrature import quadrature_nodes

from bayesunmix.distributions.unmixing import NormalUnmixing

CHANNELS = 6
POINT_SETS = 20
STEP = 0.03
SCALES: dict[str, Any] = {
    "far below the signal": 0.02,
    "like the signal": 0.6,
    "diagonal": np.geomspace(0.03, 0.6, CHANNELS),
}


def quadrature(
    y: np.ndarray, endmembers: np.ndarray, concentration: np.ndarray, noise_scale: Any, step: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log marginal density (unit,), and mean and variance (unit, n_parts) of the abundances given the data."""
    log_a, log_volume = quadrature_nodes(len(endmembers), concentration.min(), step)
    a = np.exp(log_a)
    prior = gammaln(concentration.sum()) - gammaln(concentration).sum() + (concentration - 1) @ log_a
    white = endmembers / noise_scale
    half_gram = 0.5 * np.einsum("kn,kn->n", a, (white @ white.T) @ a)
    scales = np.broadcast_to(noise_scale, y.shape[1:])
    norm = np.log(scales).sum() + 0.5 * scales.size * np.log(2 * np.pi)
    found: list[tuple[float, np.ndarray, np.ndarray]] = []
    for unit in y / noise_scale:
        log_joint = log_volume + prior + (white @ unit) @ a - half_gram - 0.5 * unit @ unit - norm
        total = logsumexp(log_joint)
        weight = np.exp(log_joint - total)
        mean = a @ weight
        found.append((total, mean, (a - mean[:, None]) ** 2 @ weight))
    log_p, means, variances = zip(*found, strict=True)
    return np.array(log_p), np.array(means), np.array(variances)


def pixels(n_parts: int, noise_scale: Any, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Endmembers, and pixels at every corner, on every edge, near the faces and inside."""
    rng = np.random.default_rng(seed)
    endmembers = rng.gamma(2.0, 0.5, (n_parts, CHANNELS))
    corners = np.eye(n_parts)
    edges = [0.8 * corners[i] + 0.2 * corners[j] for i in range(n_parts) for j in range(n_parts) if i != j]
    near = rng.dirichlet(np.full(n_parts, 0.2), 12)
    inside = rng.dirichlet(np.ones(n_parts), 12)
    abundance = np.concatenate([corners, edges, near, inside])
    y = abundance @ endmembers + noise_scale * rng.normal(size=(len(abundance), CHANNELS))
    return endmembers, y


def given(alpha: np.ndarray) -> np.ndarray | None:
    """As a model hands it over: a uniform distribution is not given."""
    return None if (alpha == 1).all() else alpha


@jax.jit
def _on_point_sets(endmembers, concentration, noise_scale, y):
    """Log density (set, unit), mean and variance (set, unit, part), each on points of its own."""
    distribution = NormalUnmixing(endmembers, concentration, noise_scale)
    index = jnp.arange(y.shape[0])

    def one(key):
        rule = distribution.rule(y, key, index)
        conditional = distribution.conditional_on(rule)
        return distribution.log_prob_on(rule), conditional.mean, conditional.variance

    return jax.lax.map(one, jax.random.split(jax.random.key(0), POINT_SETS))


@pytest.mark.parametrize("n_parts", [2, 3])
def test_the_quadrature_itself_has_converged(n_parts: int) -> None:
    endmembers, y = pixels(n_parts, 0.02)
    coarse = quadrature(y, endmembers, np.full(n_parts, 0.3), 0.02, STEP)
    fine = quadrature(y, endmembers, np.full(n_parts, 0.3), 0.02, STEP / np.sqrt(2))
    for a, b in zip(coarse, fine, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("n_parts", [2, 3])
def test_the_quadrature_integrates_a_dirichlet_to_one(n_parts: int) -> None:
    concentration = np.arange(1, n_parts + 1) * 0.4
    log_a, log_volume = quadrature_nodes(n_parts, 0.4, STEP)
    constant = gammaln(concentration.sum()) - gammaln(concentration).sum()
    assert abs(logsumexp(log_volume + constant + (concentration - 1) @ log_a)) < 1e-8


@pytest.mark.parametrize("noise", list(SCALES))
@pytest.mark.parametrize("concentration", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("n_parts", [2, 3])
def test_log_density_and_moments_agree_with_quadrature(
    n_parts: int, concentration: float, noise: str, record_property: Any
) -> None:
    """Mean error at most .02 nats, and no more scatter than that bias allows.

    An importance-sampled integral is unbiased, so its logarithm is low by half its variance: .02 nats of bias
    come with .2 nats of scatter. Moments are taken as a fit takes them, on fresh points for every draw of the
    globals: noise of .2 sd in the mean then widens an interval by 2 %, and an interval 3 % too narrow covers .887
    instead of .90.
    """
    scale = SCALES[noise]
    endmembers, y = pixels(n_parts, scale)
    alpha = np.full(n_parts, concentration)
    log_p, mean, variance = quadrature(y, endmembers, alpha, scale, STEP)
    found = _on_point_sets(endmembers, given(alpha), np.asarray(scale), y)
    got, got_mean, got_variance = (np.asarray(f) for f in found)
    error = got - log_p
    rms = float(np.sqrt(np.mean(error**2)))
    record_property("mean_error_nats", float(error.mean()))
    record_property("rms_error_nats", rms)
    assert abs(error.mean()) <= 0.02
    assert rms <= 0.2
    sd = np.sqrt(variance)
    assert np.sqrt(np.mean(((got_mean - mean) / sd) ** 2)) < 0.2
    total = np.sqrt(got_variance.mean(0) + got_mean.var(0))
    assert abs(np.mean(total / sd) - 1) < 0.03


@pytest.mark.parametrize("noise", ["far below the signal", "diagonal"])
def test_unequal_concentrations(noise: str) -> None:
    scale = SCALES[noise]
    endmembers, y = pixels(3, scale)
    alpha = np.array([0.5, 1.0, 4.0])
    log_p, mean, _ = quadrature(y, endmembers, alpha, scale, STEP)
    got, got_mean, _ = _on_point_sets(endmembers, alpha, np.asarray(scale), y)
    assert abs(np.mean(np.asarray(got) - log_p)) <= 0.02
    np.testing.assert_allclose(np.asarray(got_mean).mean(0), mean, atol=0.02)


@pytest.mark.parametrize("scale", [0.1, np.geomspace(0.03, 0.6, CHANNELS)], ids=["isotropic", "diagonal"])
def test_one_endmember_is_a_normal(scale: Any) -> None:
    rng = np.random.default_rng(0)
    endmember, y = rng.gamma(2.0, 0.5, CHANNELS), rng.normal(size=(5, CHANNELS))
    distribution = NormalUnmixing(endmember[None], np.array([0.7]), scale)
    expected = stats.norm(endmember, scale).logpdf(y).sum(-1)
    np.testing.assert_allclose(np.asarray(distribution.log_prob(y)), expected, rtol=1e-12)
    conditional = distribution.conditional(jnp.asarray(y))
    np.testing.assert_array_equal(np.asarray(conditional.mean), np.ones((5, 1)))
    np.testing.assert_array_equal(np.asarray(conditional.variance), np.zeros((5, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("concentration", [0.3, 1.0, 5.0])
def test_bias_over_many_pixels(concentration: float) -> None:
    """2000 pixels drawn from the model itself, 3 parts: the bias of a pixel, to its Monte Carlo error."""
    rng = np.random.default_rng(5)
    endmembers = rng.gamma(2.0, 0.5, (3, CHANNELS))
    alpha = np.full(3, concentration)
    y = rng.dirichlet(alpha, 2000) @ endmembers + 0.1 * rng.normal(size=(2000, CHANNELS))
    log_p, _, _ = quadrature(y, endmembers, alpha, 0.1, 0.04)
    got = np.asarray(_on_point_sets(endmembers, given(alpha), np.asarray(0.1), y)[0])
    by_pixel = (got - log_p).mean(0)
    error = by_pixel.std() / np.sqrt(len(by_pixel))
    assert abs(by_pixel.mean()) + 2 * error <= 0.02


def free_log_density(y: np.ndarray, endmembers: np.ndarray, noise: float) -> float:
    """Of a pixel whose abundances sum to one and have any sign, uniform with the density of the simplex."""
    base, sides = endmembers[-1], endmembers[:-1] - endmembers[-1]
    gram = sides @ sides.T / noise**2
    best = np.linalg.solve(gram, sides @ (y - base) / noise**2)
    left = (y - base - best @ sides) / noise
    normal = -0.5 * left @ left - len(y) * np.log(noise) - 0.5 * len(y) * np.log(2 * np.pi)
    volume = 0.5 * len(best) * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(gram)[1]
    return float(normal + volume + gammaln(len(endmembers)))


def test_a_pixel_that_leaves_the_simplex_falls_with_its_face() -> None:
    """Parameters move so far from where the rule was made that a face which was out of reach cuts the pixel off.

    The density falls by the normal's share inside, ``Phi(room)``, and the closed form by its bound
    ``exp(-room^2 / 2)``, both known to rounding while no other face is near. Its slope is that of its value.
    """
    noise, abundance = 0.01, np.array([0.2, 0.3, 0.5])
    there, _ = pixels(3, noise)
    y = abundance @ there
    across = there[2] - 0.5 * (there[0] + there[1])  # all endmembers move along, and the third part goes by as much
    rule = NormalUnmixing(there, None, noise).rule(jnp.asarray(y)[None], jax.random.key(0), jnp.arange(1))
    assert rule.frame.near[0] == 0

    @jax.jit
    def at(endmembers: Any) -> Any:
        density = lambda w: NormalUnmixing(w, None, noise).log_prob_on(rule)[0]  # noqa: E731
        return jax.value_and_grad(density)(endmembers)

    rooms = []
    for share in np.linspace(0.44, 0.56, 13):
        here = there + share * across
        room = np.asarray(NormalUnmixing(here, None, noise).without_faces(jnp.asarray(y)[None]).room)[0]
        rooms.append(room[2])
        free = free_log_density(y, here, noise)
        value, slope = at(jnp.asarray(here))
        np.testing.assert_allclose(value, free - 0.5 * min(room[2], 0.0) ** 2, rtol=1e-5, atol=1e-4)
        truth = free + stats.norm.logcdf(room[2])
        assert -1e-4 < value - truth < np.log(np.sqrt(2 * np.pi) * (abs(room[2]) + 1.0))
        step = 1e-4 * np.random.default_rng(0).normal(size=here.shape)
        rise = 0.5 * (at(jnp.asarray(here + step))[0] - at(jnp.asarray(here - step))[0])
        np.testing.assert_allclose(rise, (slope * step).sum(), rtol=1e-2, atol=1e-3)
    assert min(rooms) < -8.0 < 8.0 < max(rooms)


def test_a_pixel_at_one_face_that_passes_another_stays_below_a_bound() -> None:
    """Abundances free of faces are normal, so the truth is their density times the probability that both parts are
    positive (a bivariate normal's); the closed form with one face alone would leave the second out."""
    noise, abundance = 0.01, np.array([0.0, 0.4, 0.6])
    there, _ = pixels(3, noise)
    y = abundance @ there
    across = there[2] - there[1]
    rule = NormalUnmixing(there, None, noise).rule(jnp.asarray(y)[None], jax.random.key(0), jnp.arange(1))
    assert rule.frame.near[0] == 1
    density = jax.jit(lambda w: NormalUnmixing(w, None, noise).log_prob_on(rule)[0])
    rooms = []
    for share in np.linspace(0.56, 0.64, 9):
        here = there + share * across
        normal = NormalUnmixing(here, None, noise).without_faces(jnp.asarray(y)[None])
        mean, covariance, room = (np.asarray(v) for v in (normal.mean[0], normal.covariance, normal.room[0]))
        rooms.append(room[2])
        free = free_log_density(y, here, noise)
        both = stats.multivariate_normal(-mean[[0, 2]], covariance[np.ix_([0, 2], [0, 2])]).cdf(np.zeros(2))
        above = float(density(jnp.asarray(here))) - free - np.log(both)
        assert -1e-4 < above < np.log(np.sqrt(2 * np.pi) * (abs(room[2]) + 1.0))
    assert min(rooms) < -5.0 < 5.0 < max(rooms)
    assert stats.norm.logcdf(room[0]) - np.log(both) > 15.0  # what one face alone would leave out
