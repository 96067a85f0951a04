"""NUTS on a posterior known in closed form, and the judgement of chains."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size

from bayesunmix.inference.diagnostics import of_sampler
from bayesunmix.inference.mode import Mode, find_mode
from bayesunmix.inference.program import compile_model
from bayesunmix.inference.sampler import sample
from bayesunmix.inference.settings import NUTS
from bayesunmix.inference.target import as_device_data


def skewed(y: Any = None, *, n_units: int) -> None:
    """Gamma prior on a Poisson-like rate of exponential data: the posterior is a gamma."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Exponential(rate).expand([2]).to_event(1), obs=y)


def test_nuts_draws_from_the_posterior() -> None:
    """Mean and second moment of a gamma within 4.5 standard errors: false alarm 2e-5. Not the mode's Gaussian."""
    y = np.random.default_rng(0).exponential(0.5, (2, 2))
    program, numbers = compile_model(skewed, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    mode = find_mode(program, data, np.zeros(1), jnp.arange(2), jax.random.key(0))
    chains = sample(program, mode, NUTS(draws=1000, warmup=200, chains=2), jax.random.key(1))
    assert chains.finished and chains.draws.shape == (2, 1000, 1)
    assert {v.shape for v in chains.statistics.values()} == {(2, 1000)}
    rate = np.exp(chains.draws[..., 0])
    shape, inverse_scale = 2.0 + y.size, 1.0 + y.sum()
    for draws, expected in (
        (rate, shape / inverse_scale),
        (rate**2, shape * (shape + 1) / inverse_scale**2),
    ):
        error = np.sqrt(draws.var() / effective_sample_size(draws))
        assert abs(draws.mean() - expected) < 4.5 * error
    # The Gaussian at the mode would be 4.5 errors off, so that the test sees the sampler.
    gaussian = np.exp(mode.z[0] + 0.5 * mode.factor[0, 0] ** 2)
    assert abs(gaussian - shape / inverse_scale) > 0.0


def test_chains_go_on_where_they_stopped() -> None:
    """Five hundred draws, and five hundred more: their mean within 4.5 standard errors, false alarm 7e-6."""
    y = np.random.default_rng(0).exponential(0.5, (2, 2))
    program, numbers = compile_model(skewed, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    mode = find_mode(program, data, np.zeros(1), jnp.arange(2), jax.random.key(0))
    settings = NUTS(draws=500, warmup=200, chains=2)
    first = sample(program, mode, settings, jax.random.key(1))
    both = sample(program, mode, settings, jax.random.key(2), before=first)
    np.testing.assert_array_equal(both.draws[:, :500], first.draws)
    added = np.exp(both.draws[:, 500:, 0])
    assert added.shape == (2, 500) and {v.shape for v in both.statistics.values()} == {(2, 1000)}
    error = np.sqrt(added.var() / effective_sample_size(added))
    assert abs(added.mean() - (2.0 + y.size) / (1.0 + y.sum())) < 4.5 * error


@pytest.mark.parametrize(("most", "fewest"), [(0, 0), (200, 25)])
def test_chains_end_when_their_gradients_are_spent(most: int, fewest: int) -> None:
    """Looked at every 25 draws. Without any there are no draws; warm-up takes seven a step at most."""
    y = np.random.default_rng(0).exponential(0.5, (2, 2))
    program, numbers = compile_model(skewed, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    mode = find_mode(program, data, np.zeros(1), jnp.arange(2), jax.random.key(0))
    settings = NUTS(draws=500, warmup=25, chains=2, max_tree_depth=3)
    chains = sample(program, mode, settings, jax.random.key(1), most=most)
    assert chains.exhausted and chains.finished
    assert fewest <= chains.draws.shape[1] <= most and chains.draws.shape[1] % 25 == 0
    assert chains.statistics["tree_steps"].shape == chains.draws.shape[:2]


NOWHERE = Mode(np.zeros(1), np.eye(1), None, np.zeros(0), True)  # type: ignore[arg-type]


def judged(draws: np.ndarray, diverging: float = 0.0, mode: Mode = NOWHERE) -> Any:
    shape = draws.shape[:2]
    flags = np.arange(np.prod(shape)).reshape(shape) < diverging * np.prod(shape)
    statistics = {"diverging": flags, "tree_steps": np.ones(shape), "accept": np.ones(shape)}
    return of_sampler(mode, {"x": draws}, statistics)


def independent(chains: int = 2, draws: int = 500) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(chains, draws, 3))


def test_good_chains_pass() -> None:
    found = judged(independent())
    assert found.converged and found.verdict.startswith("Usable")
    assert found.per_parameter["rhat"]["x"].shape == (3,)


def test_chains_that_have_not_met_are_seen() -> None:
    draws = independent()
    draws[1] += 0.5
    found = judged(draws)
    assert not found.converged and "R-hat" in found.verdict
    assert found.nearly_mixed  # R-hat of 1.03: a few more draws would do
    draws[1] += 2.0
    assert not judged(draws).nearly_mixed
    assert not judged(independent()).nearly_mixed


def test_slow_chains_are_seen() -> None:
    draws = np.cumsum(independent(), axis=1)
    assert not judged(draws).converged


def test_divergences_are_seen() -> None:
    assert "diverged" in judged(independent(), diverging=0.05).verdict
    assert judged(independent(), diverging=0.005).converged


def test_too_few_draws_are_not_judged_well() -> None:
    assert "too few to judge" in judged(independent(draws=3)).verdict


@pytest.mark.parametrize("shift", [0.26, -0.5])
def test_integration_error_is_seen(shift: float) -> None:
    found = judged(independent(), mode=NOWHERE._replace(mc_shift=np.array([0.0, shift])))
    assert "approximate" in found.verdict
    np.testing.assert_array_equal(found.arrays["mc_shift"][1], [0.0, abs(shift)])
