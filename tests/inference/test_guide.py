"""The Gaussian guide and the check that must find what is wrong with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

from bayesunmix.inference import guide as guides
from bayesunmix.inference.guide import Guide, check_guide, fit_guide
from bayesunmix.inference.mode import find_mode
from bayesunmix.inference.program import Program, compile_model
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.target import Data, as_device_data

SIZE = 12
SVI_SETTINGS = SVI(steps=200)


def correlated(y: Any = None, *, n_units: int) -> None:
    """Normal prior, normal data, correlated through shared sums: the posterior is exactly normal."""
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros(SIZE), 1.0).to_event(1))
    mixing = jnp.eye(SIZE) + 0.3
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(mixing @ theta, 2.0).to_event(1), obs=y)


@pytest.fixture(scope="module")
def exact() -> tuple[Program, Data, Guide]:
    """The problem and its posterior, from the closed form."""
    with jax.enable_x64(True):
        y = np.random.default_rng(0).normal(1.0, 2.0, (20, SIZE))
        program, numbers = compile_model(correlated, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        mixing = np.eye(SIZE) + 0.3
        precision = np.eye(SIZE) + 20 * mixing.T @ mixing / 4.0
        mean = np.linalg.solve(precision, mixing.T @ y.sum(0) / 4.0)
        # Covariance = factor factor' with the factor upper triangular, as the engine keeps it.
        factor = np.linalg.inv(np.linalg.cholesky(precision)).T
        return program, data, Guide(jnp.asarray(mean), jnp.ones(SIZE), jnp.asarray(factor))


def check(exact: tuple[Program, Data, Guide], guide: Guide) -> Any:
    program, data, _ = exact
    return check_guide(program, guide, data, jax.random.key(0))


def test_an_exact_guide_has_no_fault(exact: Any) -> None:
    checked = check(exact, exact[2])
    np.testing.assert_allclose(checked.mean_shift, 0.0, atol=1e-9)
    np.testing.assert_allclose(checked.sd_ratio, 1.0, rtol=1e-9)
    assert checked.faults() == []


def test_a_wrong_width_of_one_parameter_is_found(exact: Any) -> None:
    guide = exact[2]
    (fault,) = check(exact, guide._replace(stretch=guide.stretch.at[3].set(1.5))).faults()
    assert "times as wide as the Gaussian guide" in fault


@pytest.mark.parametrize("stretch", [1.5, 1 / 1.5])
def test_a_wrong_width_of_all_is_measured(exact: Any, stretch: float) -> None:
    guide = exact[2]
    checked = check(exact, guide._replace(stretch=stretch * guide.stretch))
    np.testing.assert_allclose(checked.sd_ratio, 1 / stretch, rtol=1e-9)
    assert len(checked.faults()) == 1


def test_a_shift_is_found_and_measured(exact: Any) -> None:
    guide = exact[2]
    white = np.zeros(SIZE)
    white[-1] = 0.5  # along the softest white axis
    checked = check(exact, guide._replace(location=guide.location + guide.factor @ white))
    # Along parameter k the guide is off by its share of that axis, in its own sds.
    factor = np.asarray(guide.factor)
    expected = -(factor @ white) / np.sqrt((factor**2).sum(1))
    np.testing.assert_allclose(checked.mean_shift[:SIZE], expected, atol=1e-9)
    (fault,) = checked.faults()
    assert "off by" in fault


def test_small_errors_are_let_through(exact: Any) -> None:
    guide = exact[2]
    white = np.full(SIZE, 0.05)
    near = Guide(guide.location + guide.factor @ white, 1.05 * guide.stretch, guide.factor)
    assert check(exact, near).faults() == []


def test_a_wrong_start_is_improved_until_it_passes(exact: Any) -> None:
    """From a mode shifted by half an sd and widths half too large, the ELBO leads to a guide without fault."""
    program, data, guide = exact
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    np.testing.assert_allclose(mode.z, guide.location, atol=1e-2)
    np.testing.assert_allclose(mode.factor @ mode.factor.T, guide.factor @ guide.factor.T, rtol=1e-8, atol=1e-12)
    white = np.full(SIZE, 0.5)
    bad = mode._replace(z=mode.z + mode.factor @ white, factor=1.5 * mode.factor)
    assert check(exact, Guide(jnp.asarray(bad.z), jnp.ones(SIZE), jnp.asarray(bad.factor))).faults()
    fitted, elbo, _ = fit_guide(program, bad, SVI_SETTINGS, jax.random.key(1))
    assert check(exact, fitted).faults() == []
    # The ELBO of the exact guide is the evidence, without noise; the first guide is off by
    # the divergence of normals a factor 1.5 too wide and half a (wide) sd away.
    mixing, y = np.eye(SIZE) + 0.3, np.asarray(mode.data.y)
    covariance = np.kron(np.ones((20, 20)), mixing @ mixing.T) + 4.0 * np.eye(20 * SIZE)
    evidence = float(stats.multivariate_normal(np.zeros(20 * SIZE), covariance).logpdf(y.ravel()))
    np.testing.assert_allclose(elbo[-20:].mean(), evidence, atol=0.1)
    gap = SIZE * (0.5 * (1.5**2 + 0.5**2 - 1.0) - np.log(1.5))
    assert 0.3 * gap < evidence - elbo[0] < 3.0 * gap


def test_the_guide_draws_what_it_says(exact: Any) -> None:
    guide = exact[2]._replace(stretch=jnp.linspace(0.5, 2.0, SIZE))
    unit = np.asarray(guide.place(jnp.eye(SIZE)) - guide.location)
    np.testing.assert_allclose(unit.T, np.asarray(guide.stretch)[:, None] * np.asarray(guide.factor), rtol=1e-12)


def test_limits_are_those_of_the_contract() -> None:
    assert guides.SHIFT_LIMIT == 0.25
    assert guides.RATIO_LIMITS == (0.8, 1.25)
