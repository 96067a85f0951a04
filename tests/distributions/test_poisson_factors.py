"""The log-bilinear model of counts against quadrature, enumeration, finite differences and correspondence analysis."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, logsumexp
from scipy.stats import nbinom

from bayesunmix.distributions.poisson_factors import PoissonFactors

RNG = np.random.default_rng(0)
W, MEAN, SHAPE = 0.6 * RNG.normal(size=(2, 5)), RNG.normal(size=5), 3.0
Y = RNG.poisson(np.exp(MEAN) * RNG.uniform(0.5, 6.0, (6, 1)))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def _quadrature(components: np.ndarray, y: np.ndarray, count: int = 141) -> tuple[float, np.ndarray, np.ndarray]:
    """Log density, and mean and variance of the scores, on a grid: negative binomial total, multinomial given it."""
    grid = np.linspace(-7, 7, count)
    size = len(components)
    z = np.array(list(itertools.product(grid, repeat=size))).reshape(len(grid) ** size, size)
    logits = MEAN + z @ components
    log_share = logits - logsumexp(logits, axis=1, keepdims=True)
    log_p = gammaln(y.sum() + 1.0) - gammaln(y + 1.0).sum() + log_share @ y - 0.5 * (z**2).sum(1)
    norm = logsumexp(log_p) + size * (np.log(grid[1] - grid[0]) - 0.5 * np.log(2 * np.pi))
    level = np.exp(MEAN).sum()
    weight = np.exp(log_p - logsumexp(log_p))
    mean = weight @ z
    total = nbinom.logpmf(y.sum(), SHAPE, SHAPE / (SHAPE + level))
    return norm + total, mean, weight @ (z - mean) ** 2


@pytest.mark.parametrize("size", [0, 1, 2])
def test_density_and_scores_are_those_of_quadrature(size: int) -> None:
    fn = PoissonFactors(W[:size], MEAN, SHAPE, n_points=2048)
    found, conditional = jax.jit(lambda y: (fn.log_prob(y), fn.conditional(y)))(jnp.asarray(Y, float))
    for n, y in enumerate(Y):
        expected, mean, variance = _quadrature(W[:size], y)
        assert float(found[n]) == pytest.approx(expected, abs=2e-3)
        np.testing.assert_allclose(conditional.mean[n, :-1], mean, atol=5e-3)
        np.testing.assert_allclose(conditional.variance[n, :-1], variance, rtol=0.02)
    level = np.exp(MEAN).sum()
    np.testing.assert_allclose(conditional.mean[:, -1], (Y.sum(1) + SHAPE) / (level + SHAPE), rtol=1e-12)


def test_default_points_are_few_and_right_on_average() -> None:
    fn = PoissonFactors(W, MEAN, SHAPE)
    y = jnp.repeat(jnp.asarray(Y, float), 100, axis=0)
    found = np.asarray(jax.jit(fn.log_prob)(y)).reshape(len(Y), 100)
    expected = np.array([_quadrature(W, one)[0] for one in Y])
    error = found - expected[:, None]
    assert np.sqrt((error**2).mean()) < 0.05
    # The mean over 100 sets of points, to four standard errors and the bias of a logarithm.
    bound = 4 * error.std(1) / 10 + error.var(1) + 1e-4
    assert (np.abs(error.mean(1)) < bound).all(), error.mean(1) / bound


def test_strong_loadings_cost_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 23: integrands have kinks where one channel takes over from another, of which their curvature says nothing."""
    loadings = 60.0 * W[:1]
    fn = PoissonFactors(loadings, MEAN, SHAPE)
    y = jax.jit(fn.expand((60,)).sample)(jax.random.key(0))
    expected = np.array([_quadrature(loadings, one, 4001)[0] for one in np.asarray(y)])

    def error() -> float:
        return float(np.sqrt(((np.asarray(jax.jit(lambda y: fn.log_prob(y))(y)) - expected) ** 2).mean()))

    found = error()
    monkeypatch.setattr("bayesunmix.distributions.normal_points._SIDES", (1.0, 1.0))
    assert found < 0.02 < 0.1 < error()


def test_probabilities_of_all_images_of_a_pixel_sum_to_one() -> None:
    mean, shape = np.log([0.4, 0.3, 0.2]), 4.0
    fn = PoissonFactors(W[:1, :3], mean, shape, n_points=256)
    every = np.array(list(itertools.product(range(14), repeat=3)), dtype=float)
    density = np.exp(np.asarray(jax.jit(fn.log_prob)(every)))
    assert density.sum() == pytest.approx(1.0, abs=2e-3)
    # Mean and variance of a new pixel, by the same enumeration.
    np.testing.assert_allclose(fn.mean, density @ every, rtol=0.01)
    np.testing.assert_allclose(fn.variance, density @ (every - fn.mean) ** 2, rtol=0.02)


def test_a_rule_goes_with_the_parameters() -> None:
    """The density away from where a rule was made is that of a rule made there, and its slope that of differences.

    With points that stay behind it is 6 % of the likelihood too low at these loadings, and posteriors too narrow.
    """
    y, made = jnp.asarray(Y, float), PoissonFactors(3.0 * W, MEAN, SHAPE)
    rule = made.rule(y, jax.random.key(0), jnp.arange(len(Y)))
    total = jax.jit(jax.value_and_grad(lambda scale: PoissonFactors(scale * W, MEAN, SHAPE).log_prob_on(rule).sum()))
    for scale in (1.5, 3.0, 4.5):
        value, slope = total(scale)
        there = PoissonFactors(scale * W, MEAN, SHAPE)
        fresh = there.log_prob_on(there.rule(y, jax.random.key(0), jnp.arange(len(Y)))).sum()
        assert float(value) == pytest.approx(float(fresh), rel=1e-9)
        difference = (total(scale + 1e-4)[0] - total(scale - 1e-4)[0]) / 2e-4
        assert float(slope) == pytest.approx(float(difference), rel=1e-5)


def test_curvature_is_that_of_the_density(monkeypatch: pytest.MonkeyPatch) -> None:
    fn = PoissonFactors(W, MEAN, SHAPE, n_points=1024)
    rule = jax.jit(lambda y: fn.rule(y, jax.random.key(3), jnp.arange(len(Y))))(jnp.asarray(Y, float))

    def total(parameters):
        made = PoissonFactors(parameters["components"], parameters["mean_"], parameters["brightness_shape"])
        return made.log_prob_on(rule).sum()

    at = {"components": jnp.asarray(W), "mean_": jnp.asarray(MEAN), "brightness_shape": jnp.asarray(SHAPE)}
    along = {name: jnp.asarray(RNG.normal(size=np.shape(value))) for name, value in at.items()}
    slope, bend = jax.jit(lambda at, along: jax.jvp(jax.grad(total), (at,), (along,)))(at, along)
    whole = fn.log_prob_on(rule)
    for cells in (2**21, 2**14):
        monkeypatch.setattr("bayesunmix.distributions.poisson_factors._CELLS", cells)
        found, (gradient, matrix) = jax.jit(lambda rule: (fn.log_prob_on(rule), fn.curvature_on(rule)))(rule)
        np.testing.assert_allclose(found, whole, rtol=1e-12)
        for p in at:
            np.testing.assert_allclose(gradient[p], slope[p], rtol=2e-3, atol=2e-2)
            sizes = {q: np.size(at[q]) for q in at}
            rows = [np.reshape(matrix[p][q], (sizes[p], sizes[q])) @ np.ravel(along[q]) for q in at]
            expected = np.ravel(bend[p])
            np.testing.assert_allclose(sum(rows), expected, atol=0.02 * np.abs(expected).max(), err_msg=p)


def test_the_first_order_in_the_loadings_is_correspondence_analysis() -> None:
    """About independence the log density bends along a loading by exactly what its principal inertia is above chance.

    The second derivative at W = 0 is ``sum_n r_n r_n' - N_n (diag c - c c')`` with r the residuals from the product of
    row total and column mass. In the metric of the column masses its axes are those of correspondence analysis.
    """
    rng = np.random.default_rng(2)
    y = rng.multinomial(40, [0.4, 0.3, 0.2, 0.1], size=200) + rng.multinomial(5, [0.1, 0.1, 0.1, 0.7], size=200)
    mass = y.sum(0) / y.sum()
    fn = PoissonFactors(np.zeros((1, 4)), np.log(mass * 45), SHAPE, n_points=4096)

    @jax.jit
    def bend(y):
        return fn.curvature_on(fn.rule(y, jax.random.key(0), jnp.arange(200)), ("components",))[1]

    matrix = np.asarray(bend(jnp.asarray(y, float))["components"]["components"])
    # Textbook: singular values of (P - r c') / sqrt(r c'), P = y / sum(y).
    rows = y.sum(1) / y.sum()
    standard = (y / y.sum() - np.outer(rows, mass)) / np.sqrt(np.outer(rows, mass))
    _, singular, axes = np.linalg.svd(standard, full_matrices=False)
    # All rows have one total N here: what is above chance is N (N inertia - 1 / n) a unit, off the constant axis.
    root = np.diag(mass**-0.5)
    values, vectors = np.linalg.eigh(root @ matrix @ root)
    order = np.argsort(-values)
    expected = 200 * 45 * (45 * singular[:3] ** 2 - 1)
    constant = np.argmin(np.abs(values))
    kept = [k for k in order if k != constant]
    assert abs(values[constant]) < 1e-6 * np.abs(values).max()
    np.testing.assert_allclose(values[kept], expected, rtol=0.02, atol=0.02 * np.abs(expected).max())
    assert abs(vectors[:, kept[0]] @ axes[0]) == pytest.approx(1.0, abs=1e-3)
