"""The prior of spectra: densities and draws against NumPyro and SciPy, its coordinates, fixed rows, smoothness."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from scipy import stats

from bayesunmix.distributions.spectra import Spectra

WIDTHS = [1e-3, 0.1, 10.0]
KINDS = ["softplus", "counted", "signed", "sparse", "counted and sparse", "dense"]
SPARSITIES = {"sparse": 6.0, "counted and sparse": 6.0, "dense": 0.4}


def blank(scale: Any = 1.0, shape: tuple[int, int] = (2, 3), **options: Any) -> Spectra:
    return Spectra(np.zeros(shape), np.broadcast_to(scale, shape), **options)


def coordinate(width: float, kind: str) -> Any:
    sparsity = np.array([SPARSITIES[kind]]) if kind in SPARSITIES else None
    prior = blank(shape=(1, 1), width=width, signed=kind == "signed", counted="counted" in kind, sparsity=sparsity)
    return biject_to(prior.support)


def one(x: Any) -> jax.Array:
    return jnp.reshape(x, (-1, 1, 1))


def test_density_is_that_of_numpyro() -> None:
    x = jnp.array([[1e-6, 0.3, 2.0], [9.0, 1.0, 0.1]])
    np.testing.assert_allclose(blank(2.0).log_prob(x), dist.HalfNormal(2.0).log_prob(x).sum(), rtol=1e-9)
    around = Spectra(x, jnp.full((2, 3), 0.5))
    cut = dist.TruncatedNormal(x, 0.5, low=0.0)
    np.testing.assert_allclose(around.log_prob(x + 0.2), cut.log_prob(x + 0.2).sum(), rtol=1e-9)
    np.testing.assert_allclose(
        Spectra(x, jnp.full((2, 3), 0.5), signed=True).log_prob(-x), dist.Normal(x, 0.5).log_prob(-x).sum(), rtol=1e-9
    )


@pytest.mark.parametrize("sparsity", [0.5, 1.0, 3.0])
def test_density_of_sparse_entries_is_that_of_scipy(sparsity: float) -> None:
    """An entry with an expected spectrum keeps its normal density."""
    x = np.array([[1e-12, 0.3, 2.0], [0.2, 1.0, 0.1]])
    location = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    with jax.enable_x64(True):
        found = Spectra(location, np.full((2, 3), 0.7), sparsity=np.array([sparsity, 1.0])).log_prob(jnp.asarray(x))
    expected = stats.chi.logpdf(x[0], 1.0 / sparsity, scale=0.7).sum()
    expected += stats.truncnorm(-1.0 / 0.7, np.inf, 1.0, 0.7).logpdf(x[1]).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_sparse_draws_follow_their_distribution() -> None:
    """Kolmogorov-Smirnov in three entries: p of one above 1e-4."""
    draws = np.asarray(blank(0.7, (1, 3), sparsity=np.array([3.0])).sample(jax.random.key(0), (2000,)))[:, 0]
    for p in range(3):
        assert stats.kstest(draws[:, p], stats.chi(1.0 / 3.0, scale=0.7).cdf).pvalue > 1e-4


@pytest.mark.parametrize("length", [None, 4.0])
def test_draws_follow_the_distribution_of_their_channel(length: float | None) -> None:
    """Kolmogorov-Smirnov in six entries, smooth or not: p of one above 1e-4."""
    location = np.array([[0.0, 0.1, 3.0], [0.0, 0.0, 0.5]])
    spread = np.array([[1.0, 0.5, 0.3], [2.0, 0.1, 0.5]])
    draws = np.asarray(Spectra(location, spread, length=length).sample(jax.random.key(0), (2000,)))
    assert (draws > 0).all()
    for k, p in np.ndindex(2, 3):
        law = stats.truncnorm(-location[k, p] / spread[k, p], np.inf, location[k, p], spread[k, p])
        assert stats.kstest(draws[:, k, p], law.cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_coordinate_goes_there_and_back(width: float, kind: str) -> None:
    transform = coordinate(width, kind)
    u = one(jnp.linspace(-6.0, 20.0, 27))
    x = transform(u)
    assert kind == "signed" or bool((x > 0).all())
    np.testing.assert_allclose(transform.inv(x), u, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["softplus", "sparse", "counted and sparse"])
def test_a_negative_value_has_no_coordinate(kind: str) -> None:
    """Moves of whole spectra that would make one are told by that."""
    assert bool(jnp.isnan(coordinate(0.1, kind).inv(one(jnp.array([-0.5])))).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_jacobian_is_the_slope_of_the_coordinate(width: float, kind: str) -> None:
    transform = coordinate(width, kind)
    u = jnp.linspace(-6.0, 20.0, 27)
    slope = jax.vmap(jax.grad(lambda v: transform(v[None, None])[0, 0]))(u)
    found = transform.log_abs_det_jacobian(one(u), transform(one(u)))
    np.testing.assert_allclose(found, jnp.log(slope), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sparsity", [None, 3.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_prior_integrates_to_one_in_its_coordinate(width: float, sparsity: float | None) -> None:
    prior = blank(shape=(1, 1), width=width, sparsity=None if sparsity is None else np.array([sparsity]))
    transform = biject_to(prior.support)
    # exp(-40) of the mass lies below, and 8 sds of the half-normal above.
    u = jnp.linspace(-40.0, 8.0 / width + 1.0, 200001)
    x = transform(one(u))
    density = jnp.exp(jax.vmap(prior.log_prob)(x) + transform.log_abs_det_jacobian(one(u), x))
    np.testing.assert_allclose(jnp.trapezoid(density, u), 1.0, rtol=1e-5)


def test_coordinate_is_linear_above_its_width() -> None:
    """A shift of the coordinate by one moves the value by the width, wherever it is large."""
    transform = coordinate(0.1, "softplus")
    np.testing.assert_allclose(transform(one(31.0)) - transform(one(30.0)), 0.1, rtol=1e-9)


@pytest.mark.parametrize("sparsity", [2.0, 4.0, 9.0])
def test_a_dark_entry_of_sparse_spectra_is_less_skew_than_a_half_normal_one(sparsity: float) -> None:
    """What the data say of it is a normal variable about zero; a softplus alone would do worse."""
    u = jnp.linspace(-60.0, 20.0, 40001)

    def skewness(sparsity: float) -> float:
        prior = blank(1e4, (1, 1), sparsity=np.array([sparsity]))
        transform = biject_to(prior.support)
        x = transform(one(u))
        log_density = jax.vmap(prior.log_prob)(x) + transform.log_abs_det_jacobian(one(u), x) - 0.5 * x[:, 0, 0] ** 2
        density = np.asarray(jnp.exp(log_density - log_density.max()), dtype=np.float64)
        density = density / density.sum()
        away = np.asarray(u) - density @ np.asarray(u)
        return float(density @ away**3 / (density @ away**2) ** 1.5)

    with jax.enable_x64(True):
        assert abs(skewness(sparsity)) < abs(skewness(1.0))


@pytest.mark.parametrize("counts", [20.0, 60.0])
def test_a_dark_entry_among_bright_ones_is_less_skew_than_in_a_cube_root(counts: float) -> None:
    """A normal variable cut at zero, whose error is that of the other spectra's counts."""
    error = np.sqrt(4.0 * counts)
    skewness = {}
    for name, typical in (("own", counts), ("cube", 1e6)):  # the cube root reaches far where much is counted
        prior = blank(typical / 0.8, (3, 1), counted=True)
        u = jnp.linspace(-20.0, 60.0, 40001)
        transform = biject_to(prior.support)
        x = transform(u[:, None, None] * jnp.ones((3, 1)))
        slope = transform.log_abs_det_jacobian(u[:, None, None] * jnp.ones((3, 1)), x) / 3.0
        density = np.asarray(jnp.exp(slope - 0.5 * ((x[:, 0, 0] - error) / error) ** 2))
        density = density / density.sum()
        mean = density @ u
        skewness[name] = density @ (u - mean) ** 3 / (density @ (u - mean) ** 2) ** 1.5
    assert abs(skewness["own"]) < 0.5 * abs(skewness["cube"])


def test_fixed_rows_have_no_coordinate_and_no_density() -> None:
    known = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    prior = Spectra(known, np.ones((2, 3)), 0.1, fixed=(True, False))
    transform = biject_to(prior.support)
    assert transform.inverse_shape((2, 3)) == (1, 3) and transform.forward_shape((1, 3)) == (2, 3)
    u = jnp.array([[0.5, -1.0, 2.0]])
    x = transform(u)
    np.testing.assert_array_equal(x[0], known[0])
    np.testing.assert_allclose(transform.inv(x), u)
    assert bool(prior.support(x)) and not bool(prior.support(x + 1.0))
    np.testing.assert_allclose(prior.log_prob(x), blank(shape=(1, 3)).log_prob(x[1:]))
    np.testing.assert_array_equal(prior.sample(jax.random.key(0), (4,))[:, 0], np.tile(known[0], (4, 1)))


@pytest.mark.parametrize("counted", [False, True])
def test_rows_of_own_scale(counted: bool) -> None:
    """Moving a whole row multiplies it; the change of variables is that of automatic differentiation."""
    with jax.enable_x64(True):
        prior = blank(shape=(2, 4), scale=3.0, width=0.1, own_scale=True, counted=counted)
        transform = biject_to(prior.support)
        u = jnp.asarray(np.random.default_rng(0).normal(20.0, 8.0, (2, 4)))
        x = transform(u)
        np.testing.assert_allclose(transform.inv(x), u, rtol=1e-9)
        moved = transform(u + jnp.array([[3.0], [0.0]]))
        np.testing.assert_allclose(moved[1], x[1], rtol=1e-12)
        np.testing.assert_allclose(moved[0] / x[0], moved[0, 0] / x[0, 0], rtol=1e-12)
        assert moved[0, 0] > 1.05 * x[0, 0]
        jacobian = jax.jacfwd(lambda v: transform(v.reshape(2, 4)).ravel())(u.ravel())
        expected = np.linalg.slogdet(np.asarray(jacobian))[1]
        np.testing.assert_allclose(transform.log_abs_det_jacobian(u, x), expected, rtol=1e-9)
        # A dark row and one with dark channels.
        dark = jnp.array([[1e-9, 2e-8, 1e-9, 1e-9], [1e-12, 5.0, 0.3, 1e-4]])
        np.testing.assert_allclose(transform(transform.inv(dark)), dark, rtol=1e-6)


@pytest.mark.parametrize("width", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("counted", [False, True])
def test_a_typical_row_of_own_scale_keeps_its_coordinates(counted: bool, width: float) -> None:
    """Whatever the resolution: else dark entries lie where the coordinate is not that of a dark entry."""
    with jax.enable_x64(True):
        own, shared = (blank(shape=(2, 4), scale=3.0, width=width, counted=counted, own_scale=o) for o in (True, False))
        row = jnp.full((2, 4), 0.8 * 3.0)
        level = float(own.support.level[0, 0])
        expected = biject_to(shared.support).inv(row)
        found = biject_to(own.support).inv(row)
    if level > 1.0:  # as low as levels go
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    else:
        assert float(expected.max()) < 1.0 and bool(jnp.isfinite(found).all())


def test_it_travels_through_jit() -> None:
    prior = blank(width=jnp.full((2, 3), 0.1))
    assert prior.batch_shape == () and prior.event_shape == (2, 3)
    inside = jax.jit(lambda p: biject_to(p.support)(jnp.zeros((2, 3))))(prior)
    np.testing.assert_allclose(inside, 0.1 * np.log(2.0), rtol=1e-6)


# ---------------------------------------------------------------------- smoothness


def covariance(size: int, length: float) -> np.ndarray:
    """Of the stationary process, from its documented correlation."""
    ratio = np.exp(-np.sqrt(3.0) / length)
    lag = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    return (1 + lag * (1 - ratio**2) / (1 + ratio**2)) * ratio**lag


@pytest.mark.parametrize("length", [0.5, 3.0, 20.0])
@pytest.mark.parametrize("size", [2, 3, 12])
def test_smooth_signed_spectra_are_a_multivariate_normal(size: int, length: float) -> None:
    rng = np.random.default_rng(0)
    location, spread, x = rng.normal(size=(2, size)), rng.uniform(0.5, 2, (2, size)), rng.normal(size=(2, size))
    found = Spectra(location, spread, length=length, signed=True).log_prob(x)
    expected = sum(
        stats.multivariate_normal(location[k], covariance(size, length) * np.outer(spread[k], spread[k])).logpdf(x[k])
        for k in range(2)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("location", [0.0, 1.5])
def test_smooth_nonnegative_spectra_are_a_gaussian_copula(location: float) -> None:
    length, spread = 3.0, 0.7
    x = np.array([[1e-9, 0.01, 0.4, 1.0, 4.0]])
    law = stats.truncnorm(-location / spread, np.inf, location, spread)
    with jax.enable_x64(True):
        found = Spectra(np.full((1, 5), location), np.full((1, 5), spread), length=length).log_prob(jnp.asarray(x))
    law = stats.truncnorm(-location / spread, np.inf, location, spread)
    score = np.where(law.cdf(x) < 0.5, stats.norm.ppf(law.cdf(x)), -stats.norm.ppf(law.sf(x)))[0]
    expected = law.logpdf(x).sum() - stats.norm.logpdf(score).sum()
    expected += stats.multivariate_normal(np.zeros(5), covariance(5, length)).logpdf(score)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_smooth_draws_hang_together_as_documented() -> None:
    """Correlations of 4000 draws within 4.5 standard errors (.016 each at most): 15 pairs, false alarm 1e-4."""
    draws = np.asarray(blank(shape=(1, 6), length=4.0, signed=True).sample(jax.random.key(1), (4000,)))[:, 0]
    assert np.abs(np.corrcoef(draws.T) - covariance(6, 4.0)).max() < 4.5 / np.sqrt(4000)


@pytest.mark.parametrize("options", [{"length": 5.0}, {"sparsity": np.array([8.0])}])
def test_slopes_of_spectra_are_finite_near_zero(options: dict[str, Any]) -> None:
    prior = blank(shape=(1, 4), width=1e-3, **options)
    transform = biject_to(prior.support)
    value = lambda u: prior.log_prob(transform(u)) + transform.log_abs_det_jacobian(u, transform(u))  # noqa: E731
    u = jnp.array([[-20.0, -5.0, 3.0, 1000.0]])
    assert bool(jnp.isfinite(jax.grad(value)(u)).all())
    assert bool(jnp.isfinite(jax.hessian(value)(u)).all())
