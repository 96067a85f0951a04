"""The half-normal prior in its softplus coordinate."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to

from bayesunmix.distributions.priors import HalfNormal

WIDTHS = [1e-3, 0.1, 10.0]


def test_density_and_draws_are_those_of_numpyro() -> None:
    x = jnp.array([1e-6, 0.3, 2.0, 9.0])
    own, theirs = HalfNormal(2.0, 0.01), dist.HalfNormal(2.0)
    np.testing.assert_array_equal(own.log_prob(x), theirs.log_prob(x))
    key = jax.random.key(0)
    np.testing.assert_array_equal(own.sample(key, (5,)), theirs.sample(key, (5,)))


@pytest.mark.parametrize("width", WIDTHS)
def test_coordinate_goes_there_and_back(width: float) -> None:
    transform = biject_to(HalfNormal(1.0, width).support)
    u = jnp.linspace(-20.0, 20.0, 41)
    x = transform(u)
    assert bool((x > 0).all())
    np.testing.assert_allclose(transform.inv(x), u, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("width", WIDTHS)
def test_jacobian_is_the_slope_of_the_coordinate(width: float) -> None:
    transform = biject_to(HalfNormal(1.0, width).support)
    u = jnp.linspace(-20.0, 20.0, 41)
    slope = jax.vmap(jax.grad(transform))(u)
    np.testing.assert_allclose(transform.log_abs_det_jacobian(u, transform(u)), jnp.log(slope), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", WIDTHS)
def test_prior_integrates_to_one_in_its_coordinate(width: float) -> None:
    prior = HalfNormal(1.0, width)
    transform = biject_to(prior.support)
    # exp(-40) of the mass lies below, and 8 sds of the half-normal above.
    u = jnp.linspace(-40.0, 8.0 / width + 1.0, 200001)
    x = transform(u)
    density = jnp.exp(prior.log_prob(x) + transform.log_abs_det_jacobian(u, x))
    np.testing.assert_allclose(jnp.trapezoid(density, u), 1.0, rtol=1e-5)


def test_coordinate_is_linear_above_its_width() -> None:
    """A shift of the coordinate by one moves the value by the width, wherever it is large."""
    transform = biject_to(HalfNormal(1.0, 0.1).support)
    np.testing.assert_allclose(transform(jnp.array(31.0)) - transform(jnp.array(30.0)), 0.1, rtol=1e-9)


def test_width_may_differ_between_elements_and_travels_through_jit() -> None:
    prior = HalfNormal(jnp.ones((2, 3)), jnp.full((2, 3), 0.1)).to_event(2)
    assert prior.batch_shape == () and prior.event_shape == (2, 3)
    inside = jax.jit(lambda p: biject_to(p.support)(jnp.zeros((2, 3))))(prior)
    np.testing.assert_allclose(inside, 0.1 * np.log(2.0), rtol=1e-9)
