"""The mode of the globals, the curvature there, and the precision that the log density needs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesunmix.inference import mode as modes
from bayesunmix.inference import softness
from bayesunmix.inference.diagnostics import MC_SHIFT_LIMIT
from bayesunmix.inference.guide_check import RATIO_LIMITS
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, log_density, value_and_grad, values_at, with_rules
from bayesunmix.models import LinearUnmixing


def test_the_mode_is_found(problem: Any) -> None:
    mode = problem.mode
    assert mode.found
    assert mode.mc_shift.shape == mode.z.shape == (9,)
    assert np.abs(mode.mc_shift).max() <= MC_SHIFT_LIMIT


def test_the_slope_at_the_mode_is_small(problem: Any) -> None:
    """In whitened coordinates the Newton step that is left is a small part of a posterior sd in every direction."""
    mode = problem.mode
    _, gradient = value_and_grad(problem.program, jnp.asarray(mode.z), mode.data)
    assert np.abs(mode.factor.T @ np.asarray(gradient)).max() < 0.1


def test_no_point_nearby_is_higher(problem: Any) -> None:
    mode = problem.mode
    rng = np.random.default_rng(0)
    top, _ = value_and_grad(problem.program, jnp.asarray(mode.z), mode.data)
    for scale in (0.5, 1.0, 3.0):
        for white in rng.normal(size=(5, 9)):
            value, _ = value_and_grad(problem.program, jnp.asarray(mode.z + scale * mode.factor @ white), mode.data)
            assert value < top


@pytest.mark.parametrize("brightness", [False, True])
def test_a_search_does_not_stay_where_entries_are_nothing(brightness: bool) -> None:
    """Two entries left far below the noise, of which not even a number is left and so no coordinate."""
    rng = np.random.default_rng(3)
    y = rng.dirichlet(np.ones(2), 80) @ rng.uniform(1.0, 9.0, (2, 4)) + rng.normal(scale=0.1, size=(80, 4))
    model = LinearUnmixing(2, brightness=brightness).bind(y)
    program, numbers = compile_model(model, jnp.asarray(y[:2]))
    data = as_device_data(program, numbers, y, {})
    start = np.asarray(unconstrain(program, numbers, model.initial(y), data.y, {}))
    assert modes.lifted(program, start, data) is start
    lost = start.copy()
    lost[[3, 5]] -= 2000.0 + start[[3, 5]]
    values = values_at(program, lost, data)
    assert (np.asarray(values["endmembers"]) == 0).sum() == 2
    assert not np.isfinite(unconstrain(program, numbers, values, data.y, {})).all()
    back = modes.lifted(program, lost, data)
    found = values_at(program, back, data)
    for name, value in values.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-7 * float(model.endmember_resolution))
    assert not log_density(program, lost, data) >= log_density(program, back, data)  # which is no number at all with it


def test_covariance_is_the_inverse_of_the_brute_force_hessian(problem: Any) -> None:
    """Automatic differentiation twice through the whole program, against the chain rule through Louis's identity.

    The moments in the identity come from few points; what that leaves must stay within the limits that a guide is
    held to, which starts from this covariance.
    """
    mode = problem.mode
    density = jax.jit(jax.hessian(lambda z: log_density(problem.program, z, mode.data)))
    precision = -np.asarray(density(mode.data.anchor))
    ratios = np.linalg.eigvalsh(mode.factor.T @ precision @ mode.factor) ** -0.5
    assert RATIO_LIMITS[0] < ratios.min() <= ratios.max() < RATIO_LIMITS[1]


@pytest.mark.parametrize("error", [0.002, -0.02])
def test_a_wrong_curvature_of_soft_directions_is_measured_again(
    error: float, problem: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Curvatures 1e-4 to 1, of which the softest ten are wrong by many times their size: all are found to a tenth."""
    rng = np.random.default_rng(0)
    values = np.geomspace(1e-4, 1.0, 40)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    true = turn @ np.diag(values) @ turn.T
    wrong = true + error * turn[:, :10] @ np.diag(rng.random(10)) @ turn[:, :10].T
    monkeypatch.setattr(softness, "value_and_grad", lambda program, z, data: (0.0, -true @ z))
    found = -softness.measured_softness(problem.program, np.zeros(40), problem.mode.data, -wrong)
    white = turn / np.sqrt(values)
    before, after = (np.linalg.eigvalsh(white.T @ matrix @ white) for matrix in (wrong, found))
    assert np.abs(before - 1.0).max() > 2.0
    np.testing.assert_allclose(after, 1.0, rtol=0.1)


def test_an_indefinite_curvature_loses_its_signs() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    scale = np.diag(np.geomspace(1e-3, 1e3, 6))
    for signs in (np.ones(6), np.array([-1.0, 1, 1, 1, -1, 1])):
        values = np.array([0.01, 0.1, 1.0, 2.0, 0.5, 1.0])
        precision = scale @ turn @ np.diag(signs * values) @ turn.T @ scale
        factor, definite = modes.inverse_root(precision)
        assert definite == bool((signs > 0).all())
        np.testing.assert_array_equal(factor, np.triu(factor))
        assert (np.diag(factor) > 0).all()
        if definite:
            np.testing.assert_allclose(factor.T @ precision @ factor, np.eye(6), atol=1e-9)
        else:
            assert np.linalg.eigvalsh(factor.T @ precision @ factor).min() < 0


def test_a_bent_ridge_takes_few_curvatures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rosenbrock's valley from the usual start, where Newton's method with a line search stalls half-way."""

    def program(y=None, *, n_units: int) -> None:
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros(2), 100.0).to_event(1))
        valley = jnp.stack([1.0 - theta[0], 10.0 * (theta[1] - theta[0] ** 2)])
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(valley, 1.0).to_event(1), obs=y)

    y = np.zeros((50, 2))
    compiled, numbers = compile_model(program, jnp.asarray(y))
    data = as_device_data(compiled, numbers, y, {})
    taken, curvature = [], modes.curvature
    monkeypatch.setattr(modes, "curvature", lambda *args: taken.append(0) or curvature(*args))
    found = modes.ascend(compiled, np.array([-1.2, 1.0]), data, jnp.arange(50), jax.random.key(0))
    assert len(taken) <= 4
    # In posterior sds: that of theta_0 is 1 / sqrt(50), and so twice that of theta_1.
    np.testing.assert_allclose(found, 1.0, atol=0.1 * np.sqrt(1 / 50))


def test_the_curvature_at_the_mode_is_taken_once(problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of the search has it already; where labels are put in another order it is taken there."""
    data, key = problem.mode.data._replace(rules={}), jax.random.key(0)
    taken, curvature = [], modes.curvature
    monkeypatch.setattr(modes, "curvature", lambda *args: taken.append(0) or curvature(*args))
    search = (problem.program, data, problem.mode.z, jnp.arange(64), key)
    found = modes.find_mode(*search, relabel=lambda z, _: z.copy())
    assert len(taken) == 1
    np.testing.assert_allclose(found.z, problem.mode.z, atol=1e-3)
    moved = modes.find_mode(*search, relabel=lambda z, _: z + 1e-6)
    assert len(taken) == 3
    np.testing.assert_allclose(moved.factor, found.factor, rtol=1e-3, atol=1e-6)


def test_a_search_far_from_the_mode_has_more_patience() -> None:
    """Squared lengths of Newton steps of 256 x 256 x 1024 with six endmembers, which went on to 490."""
    far = [7.7e7, 2.6e4, 8.0e4, 2.5e6]
    assert not modes.stalled(far, 6145)
    assert modes.stalled([*far, 4e4, 9e4, 8e4, 1e5], 6145)  # for good
    assert modes.stalled([7.7e7, 60.0, 50.0, 55.0], 6145)  # near it: integration error


def test_where_there_are_no_numbers_the_search_turns_back() -> None:
    """A log density that is not a number on the far side of its mode, where Newton's step leads."""

    def program(y=None, *, n_units: int) -> None:
        theta = numpyro.sample("theta", dist.Normal(jnp.zeros(1), 100.0).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(jnp.log(2.0 - theta), 0.1).to_event(1), obs=y)

    y = np.full((20, 1), np.log(0.5))
    compiled, numbers = compile_model(program, jnp.asarray(y))
    data = as_device_data(compiled, numbers, y, {})
    found = modes.ascend(compiled, np.array([-20.0]), data, jnp.arange(20), jax.random.key(0))
    np.testing.assert_allclose(found, 1.5, atol=0.005)


def test_frozen_rules_serve_the_whole_posterior(problem: Any) -> None:
    """Over draws of the Laplace approximation, against rules remade at every draw: the error stays below .3 nats rms.

    Integration error at the mode says nothing of this one, which narrows the posterior: far from where a rule was
    made it misses mass and never finds too much. .3 nats of it change a posterior sd by a few per cent.
    """
    program, mode = problem.program, problem.mode
    white = np.random.default_rng(2).normal(size=(60, 9))
    draws = jnp.concatenate([jnp.asarray(mode.z)[None], jnp.asarray(mode.z + white @ mode.factor.T)])

    def remade(z: Any) -> Any:
        return log_density(program, z, with_rules(program, z, mode.data, jax.random.key(1), jnp.arange(64), 16))

    found, expected = (
        np.asarray(jax.jit(lambda z, f=f: jax.lax.map(f, z))(draws))
        for f in (lambda z: log_density(program, z, mode.data), remade)
    )
    error = (found - found[0]) - (expected - expected[0])
    assert np.std(expected) > 1.0
    assert np.sqrt(np.mean(error[1:] ** 2)) < 0.3


def test_float32_sees_the_differences_that_float64_sees(problem: Any) -> None:
    """Log density differences over a posterior sd in random directions, to a hundredth of a nat."""
    mode = problem.mode
    rng = np.random.default_rng(1)
    steps = [mode.factor @ white for white in rng.normal(size=(20, 9))]

    def differences(dtype: Any) -> np.ndarray:
        def cast(x: Any) -> Any:
            return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

        data = jax.tree.map(cast, jax.tree.map(np.asarray, mode.data))
        density = jax.jit(lambda z: log_density(problem.program, z, data))
        values = [density(jnp.asarray(mode.z + step, dtype)) for step in [np.zeros(9), *steps]]
        assert all(v.dtype == dtype for v in values)
        return np.asarray(values[1:], np.float64) - float(values[0])

    double = differences(jnp.float64)
    with jax.enable_x64(False):
        single = differences(jnp.float32)
    assert np.abs(double).max() > 1.0
    assert np.abs(single - double).max() < 0.01


def test_a_model_without_a_start_begins_at_the_medians_of_its_priors() -> None:
    """A scale within its prior, and what hangs on it; away from 0, which would be 18 prior sds off."""

    def program(y=None, *, n_units: int) -> None:
        scale = numpyro.sample("scale", dist.LogNormal(1.0, 0.1))
        numpyro.sample("place", dist.Normal(18.0 * scale, 1.0))
        numpyro.sample("share", dist.Dirichlet(jnp.ones(3)))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(jnp.zeros(4), 1.0).to_event(1), obs=y)

    y = jnp.zeros((2, 4))
    compiled, numbers = compile_model(program, y)
    start = compiled.split(unconstrain(compiled, numbers, {}, y, {}))
    # The median of 101 draws has a standard error of 1.25 / sqrt(101) sds: 4.5 of them.
    error = 4.5 * 1.25 / np.sqrt(101)
    assert abs(float(start["scale"]) - 1.0) < 0.1 * error
    assert abs(float(start["place"]) - 18.0 * float(jnp.exp(start["scale"]))) < error
    assert start["share"].shape == (2,)
    assert float(compiled.split(unconstrain(compiled, numbers, {"place": 3.0}, y, {}))["place"]) == 3.0
