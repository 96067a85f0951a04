"""A guide's draws weighted to the posterior: where it differs, where it does not, and where weights cannot help."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayesunmix as bu
from bayesunmix.inference import importance
from bayesunmix.inference.guide import Guide
from bayesunmix.inference.guide_check import check_guide
from bayesunmix.inference.importance import directions, weighted
from bayesunmix.inference.program import Program, compile_model
from bayesunmix.inference.target import Data, as_device_data

SIZE = 8
DRAWS = 1000


def of_prior(law: Any) -> tuple[Program, Data]:
    """A problem of ``SIZE`` independent globals whose posterior is their prior."""

    def program(y: Any = None, *, n_units: int) -> None:
        theta = numpyro.sample("theta", law)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(0.0 * theta.sum(), 1.0), obs=y)

    compiled, numbers = compile_model(program, jnp.zeros(1))
    return compiled, as_device_data(compiled, numbers, np.zeros(1), {})


def guide_of(mean: float, sd: float) -> Guide:
    return Guide(np.full(SIZE, mean), np.ones(SIZE), sd * np.eye(SIZE))


@pytest.fixture
def heavy() -> tuple[Program, Data, Guide, Any]:
    """Student's t with 6 degrees of freedom, and the Gaussian of its curvature at the mode."""
    law = stats.t(6.0)
    program, data = of_prior(dist.StudentT(6.0, jnp.zeros(SIZE), 1.0).to_event(1))
    return program, data, guide_of(0.0, (6.0 / 7.0) ** 0.5), law


@pytest.fixture
def leaning() -> tuple[Program, Data, Guide, Any]:
    """Logarithms of gamma variables of shape 3, and the Gaussian of their mean and variance."""
    law = stats.loggamma(3.0)
    program, data = of_prior(dist.Gamma(3.0, jnp.ones(SIZE)).to_event(1))
    return program, data, guide_of(law.mean(), law.std()), law


@pytest.mark.parametrize("case", ["heavy", "leaning"])
def test_weighted_draws_have_the_posteriors_intervals(case: str, request: pytest.FixtureRequest) -> None:
    """Its 90 % interval holds 90 % of them within 4 Monte Carlo errors; of the guide's own it does not."""
    program, data, guide, law = request.getfixturevalue(case)
    axes = directions(check_guide(program, guide, data, jax.random.key(0)), guide, [])
    np.testing.assert_array_equal(axes, np.eye(SIZE))
    found = weighted(program, guide, axes, data, DRAWS, jax.random.key(1))
    assert found.reliable()
    own = guide.place(np.random.default_rng(0).standard_normal((100_000, SIZE)))
    for tail in (0.05, 0.95):
        # As many independent draws of every global as the weights are worth, resampled once more.
        error = np.sqrt(0.05 * 0.95 * (1.0 / found.effective + 1.0 / DRAWS) / SIZE)
        share = (law.cdf(found.draws) < tail).mean()
        assert abs(share - tail) < 4 * error, (tail, share, error)
    missed = abs((law.cdf(own) < 0.05).mean() - 0.05) + abs((law.cdf(own) < 0.95).mean() - 0.95)
    assert missed > 0.02


def test_an_exact_guide_is_left_alone() -> None:
    program, data = of_prior(dist.Normal(jnp.zeros(SIZE), 2.0).to_event(1))
    checked = check_guide(program, guide_of(0.0, 2.0), data, jax.random.key(0))
    assert checked.excess < 1e-12
    assert directions(checked, guide_of(0.0, 2.0), []) is None


def test_the_excess_is_twice_the_divergence() -> None:
    """Of a Gaussian from one whose standard deviations are all 5 % off, in closed form; the limit lies there."""
    program, data = of_prior(dist.Normal(jnp.zeros(SIZE), 1.0).to_event(1))
    guide = guide_of(0.0, 1.05)
    found = [check_guide(program, guide, data, jax.random.key(k)).excess for k in range(40)]
    expected = SIZE * 0.5 * (1.05**2 - 1.0) ** 2
    # The variance of a squared length from eight points and their opposites, which tell the same.
    assert abs(np.mean(found) / expected * 15 / 16 - 1.0) < 4 * np.sqrt((2.0 + 12.0 / SIZE) / 8 / len(found))
    assert expected / SIZE == pytest.approx(importance._NEGLIGIBLE, rel=0.1)


def test_a_guide_far_too_narrow_is_not_relied_on() -> None:
    program, data = of_prior(dist.Cauchy(jnp.zeros(SIZE), 1.0).to_event(1))
    assert not weighted(program, guide_of(0.0, 0.05), np.eye(SIZE), data, DRAWS, jax.random.key(0)).reliable()


def test_weights_of_no_numbers_are_not_relied_on() -> None:
    weight, shape, effective = importance.smoothed(np.full(10, np.nan))
    assert not importance.Weighted(weight, shape, effective).reliable()


def test_few_directions_among_many_are_mended() -> None:
    """Logarithms of three gamma variables of shape 1 among a hundred normal globals, in coordinates of a guide that mix
    them all: the directions are found, and along them 90 % intervals hold 90 %, which the guide's own do not."""
    n_lean, n_plain = 3, 100
    size, law = n_lean + n_plain, stats.loggamma(1.0)
    both = {
        "lean": dist.Gamma(1.0, jnp.ones(n_lean)).to_event(1),
        "plain": dist.Normal(jnp.zeros(n_plain), 1.0).to_event(1),
    }

    def program(y: Any = None, *, n_units: int) -> None:
        drawn = [numpyro.sample(name, one).sum() for name, one in both.items()]
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(0.0 * sum(drawn), 1.0), obs=y)

    compiled, numbers = compile_model(program, jnp.zeros(1))
    data = as_device_data(compiled, numbers, np.zeros(1), {})
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((size, size)))[0]
    location, sd = np.zeros(size), np.ones(size)
    location[:n_lean], sd[:n_lean] = law.mean(), law.std()
    guide = Guide(location, np.ones(size), sd[:, None] * turn)
    checked = check_guide(compiled, guide, data, jax.random.key(0))
    assert directions(checked, guide, []) is None
    axes = directions(checked, guide, ["some fault"])
    within = np.linalg.norm(axes @ turn[:n_lean].T, axis=0)  # of a whitened direction that leans
    np.testing.assert_allclose(within, 1.0, atol=1e-6)
    found = weighted(compiled, guide, axes, data, DRAWS, jax.random.key(1))
    assert found.reliable()
    lean = law.cdf(found.draws[:, :n_lean])
    plain = stats.norm.cdf(found.draws[:, n_lean:])
    own = law.cdf(guide.place(np.random.default_rng(0).standard_normal((100_000, size)))[:, :n_lean])
    for tail in (0.05, 0.95):
        error = np.sqrt(0.05 * 0.95 * (1.0 / found.effective + 1.0 / DRAWS))
        assert abs((lean < tail).mean() - tail) < 4 * error / np.sqrt(n_lean)
        assert abs((plain < tail).mean() - tail) < 4 * error / np.sqrt(n_plain)
    assert abs((own < 0.95).mean() - 0.95) + abs((own < 0.05).mean() - 0.05) > 0.03


def test_weights_stand_in_for_a_guide_with_faults() -> None:
    """A fit whose guide fails is usable by its weights, without NUTS, and says so."""

    def lopsided(y: Any = None, *, n_units: int) -> None:
        rate = numpyro.sample("rate", dist.Gamma(0.5, jnp.ones(3)).to_event(1))
        level = numpyro.sample("level", dist.Normal(jnp.zeros(70), 1.0).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(0.0 * (rate.sum() + level.sum()), 1.0).expand([2]).to_event(1), obs=y)

    fit = bu.fit(lopsided, np.array([[0.1, -0.2], [0.3, 0.4]]), bu.SVI(sample_if_needed=False), progress=False)
    assert fit.converged, fit.diagnostics.attrs["verdict"]
    assert "so the guide's draws were weighted to the posterior" in fit.diagnostics.attrs["verdict"]
    worth = float(fit.diagnostics["effective_draws"])
    cdf = stats.gamma(0.5).cdf(fit.posterior["rate"].values)
    for tail in (0.05, 0.95):
        error = np.sqrt(0.05 * 0.95 * (1.0 / worth + 1.0 / cdf.shape[1]) / 3)
        assert abs((cdf < tail).mean() - tail) < 4 * error


def few(y: Any = None, *, n_units: int) -> None:
    """A normal law of unknown level and noise, of which six values say little."""
    level = numpyro.sample("level", dist.Normal(0.0, 100.0))
    noise = numpyro.sample("noise", dist.LogNormal(0.0, 3.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level, noise).expand([2]).to_event(1), obs=y)


def test_a_fit_says_what_was_done() -> None:
    """And its level has the quantiles of the posterior, which is normal given the noise: quadrature over that."""
    y = np.array([[-1.0, 0.3], [0.2, 1.1], [0.6, -0.4]])
    fit = bu.fit(few, y, bu.SVI(), progress=False)
    assert fit.converged
    assert "weighted to the posterior" in fit.diagnostics.attrs["verdict"]
    assert float(fit.diagnostics["pareto_k"]) < importance.SHAPE_LIMIT
    worth = float(fit.diagnostics["effective_draws"])
    assert importance.FEWEST <= worth <= DRAWS
    log_noise = np.linspace(-4.0, 6.0, 4001)[:, None]
    grid, noise = np.linspace(-6.0, 6.0, 1201), np.exp(log_noise)
    log_p = stats.norm.logpdf(y.ravel()[:, None, None], grid, noise).sum(0)
    density = np.exp(log_p + stats.norm.logpdf(log_noise, 0.0, 3.0) + stats.norm.logpdf(grid, 0.0, 100.0)).sum(0)
    cdf = np.interp(fit.posterior["level"].values, grid, np.cumsum(density) / density.sum())
    for tail in (0.05, 0.95):
        error = np.sqrt(0.05 * 0.95 * (1.0 / worth + 1.0 / DRAWS))
        assert abs((cdf < tail).mean() - tail) < 4 * error
