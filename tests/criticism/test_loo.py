"""Leave-one-out against leaving one out, in a model where that is done on paper."""

from __future__ import annotations

import arviz as az
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.stats import norm

import bayesunmix as bu

SD, N_CHANNELS = 0.3, 4
old_arviz = pytest.mark.skipif(int(az.__version__.split(".")[0]) >= 1, reason="compared with ArviZ 0.23")


def offsets(y=None, *, n_units):
    level = numpyro.sample("level", dist.Normal(0.0, 10.0).expand([N_CHANNELS]).to_event(1))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level, SD).to_event(1), obs=y)


def posterior_of(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean (channel,) and sd of ``level`` given pixels (pixel, channel)."""
    precision = 1 / 100 + len(values) / SD**2
    return values.sum(0) / SD**2 / precision, precision**-0.5


@pytest.fixture(scope="module")
def exact_fit(make_fit):
    """60 pixels and 2 x 1000 draws from their posterior."""
    rng = np.random.default_rng(1)
    values = rng.normal(0.5, SD, (6, 10, N_CHANNELS))
    mean, sd = posterior_of(values.reshape(60, N_CHANNELS))
    return make_fit(offsets, values, level=(("level_dim_0",), rng.normal(mean, sd, (2, 1000, N_CHANNELS))))


@pytest.fixture(scope="module")
def exact_loo(exact_fit):
    return bu.loo(exact_fit)


def test_loo_is_the_density_of_a_pixel_given_the_others(exact_fit, exact_loo) -> None:
    pixels = exact_fit.units.values
    expected = []
    for left in range(60):
        mean, sd = posterior_of(np.delete(pixels, left, axis=0))
        expected.append(norm.logpdf(pixels[left], mean, np.hypot(sd, SD)).sum())
    # Importance sampling of a term has a variance of Var(log p) / draws; every draw is used for all terms.
    log_p = bu.log_likelihood(exact_fit).values.reshape(2000, 60)
    error = log_p.std(0) / np.sqrt(2000)
    assert (np.abs(exact_loo.pointwise.values.ravel() - expected) / error).max() < 6
    assert exact_loo.elpd == pytest.approx(np.sum(expected), abs=6 * np.sqrt(log_p.sum(1).var() / 2000))
    assert exact_loo.n_warn == 0
    assert exact_loo.unit == "pixel"
    assert exact_loo.mcse == 0
    assert exact_loo.p == pytest.approx(N_CHANNELS, rel=0.25)


def test_every_unit_has_its_tail(exact_loo) -> None:
    shape = exact_loo.pointwise.coords["pareto_k"]
    assert shape.dims == exact_loo.pointwise.dims
    assert shape.shape == (6, 10)
    assert float(shape.max()) < 0.7


@old_arviz
def test_loo_is_that_of_arviz(exact_fit, exact_loo) -> None:
    theirs = az.loo(exact_fit.to_arviz(log_likelihood=True), pointwise=True, scale="log")
    assert exact_loo.elpd == pytest.approx(theirs.elpd_loo, abs=1e-8)
    assert exact_loo.p == pytest.approx(theirs.p_loo, abs=1e-8)
    assert exact_loo.se == pytest.approx(theirs.se, abs=1e-8)
    np.testing.assert_allclose(exact_loo.pointwise.coords["pareto_k"], theirs.pareto_k, atol=1e-8)


def test_a_unit_that_moves_the_posterior_is_named(make_fit) -> None:
    """One of four pixels far away: without it the posterior is elsewhere."""
    rng = np.random.default_rng(2)
    values = rng.normal(0.0, SD, (4, N_CHANNELS))
    values[2] += 4.0
    mean, sd = posterior_of(values)
    fit = make_fit(offsets, values, level=(("level_dim_0",), rng.normal(mean, sd, (1, 2000, N_CHANNELS))))
    found = bu.loo(fit)
    assert int(found.pointwise.coords["pareto_k"].values.argmax()) == 2
    assert float(found.pointwise.coords["pareto_k"][2]) > 0.7
    assert found.n_warn >= 1


def test_masked_pixels_do_not_count(make_fit, exact_fit, exact_loo) -> None:
    mask = np.ones((6, 10), bool)
    mask[:, 3] = False
    level = exact_fit.posterior["level"].values
    part = bu.loo(make_fit(offsets, exact_fit.data.values, mask=mask, level=(("level_dim_0",), level)))
    np.testing.assert_allclose(part.pointwise.values[mask], exact_loo.pointwise.values[mask], atol=1e-10)
    assert np.isnan(part.pointwise.values[~mask]).all()
    assert np.isnan(part.pointwise.coords["pareto_k"].values[~mask]).all()
    assert part.elpd == pytest.approx(exact_loo.pointwise.values[mask].sum())


def test_without_variation_over_draws_there_is_nothing_to_weigh(make_fit, exact_fit) -> None:
    fit = make_fit(offsets, exact_fit.data.values, level=(("level_dim_0",), np.full((1, 40, N_CHANNELS), 0.5)))
    found = bu.loo(fit)
    assert found.n_warn == 0
    assert found.elpd == pytest.approx(bu.waic(fit).elpd, abs=1e-9)
