"""The Gaussian guide and the check that must find what is wrong with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from bayesunmix.inference import best_guide as best_guides
from bayesunmix.inference import guide_check
from bayesunmix.inference.best_guide import leaps
from bayesunmix.inference.guide import Guide, fit_guide
from bayesunmix.inference.guide_check import GuideCheck, check_guide
from bayesunmix.inference.mode import find_mode
from bayesunmix.inference.program import Program, compile_model
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.shape import averaged_curvature, measured
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


def test_leaps_lead_to_the_posterior_where_it_is_gaussian(exact: Any) -> None:
    program, data, _ = exact
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    bad = mode._replace(z=mode.z + mode.factor @ np.full(SIZE, 0.5))
    found = leaps(program, bad, jax.random.key(1))
    assert found.there
    np.testing.assert_allclose(found[0].location, mode.z, atol=1e-9)
    assert len(found[1]) == 2  # one leap, and a look at where it led
    assert found[1][1] - found[1][0] == pytest.approx(0.5 * SIZE * 0.5**2)


@pytest.mark.parametrize("wrong", [{"shift": 3.0}, {"width": 1.5}])
def test_leaps_are_not_taken_from_where_they_lead_astray(exact: Any, wrong: dict[str, float]) -> None:
    program, data, _ = exact
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    away = mode.factor @ np.full(SIZE, wrong.get("shift", 0.0))
    bad = mode._replace(z=mode.z + away, factor=wrong.get("width", 1.0) * mode.factor)
    assert not leaps(program, bad, jax.random.key(1)).there


def test_the_guide_draws_what_it_says(exact: Any) -> None:
    guide = exact[2]._replace(stretch=jnp.linspace(0.5, 2.0, SIZE))
    unit = np.asarray(guide.place(jnp.eye(SIZE)) - guide.location)
    np.testing.assert_allclose(unit.T, np.asarray(guide.stretch)[:, None] * np.asarray(guide.factor), rtol=1e-12)


def flat(y: Any = None, *, n_units: int) -> None:
    """A posterior exp(-theta^4 / s) in every direction: without curvature at its mode."""
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros(3), 10.0).to_event(1))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(theta**2, 1.0).to_event(1), obs=y)


def walled(y: Any = None, *, n_units: int) -> None:
    """A normal cut off at its centre by a wall that is a fiftieth of it thick: half of it is left."""
    theta = numpyro.sample("theta", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(50.0 * jax.nn.softplus(-50.0 * theta) / n_units**0.5, 10.0).to_event(1), obs=y)


def reshaped_guide(reshape: Any, model: Any, n_units: int, size: int) -> tuple[Guide, Any]:
    y = np.zeros((n_units, size))
    program, numbers = compile_model(model, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    start = find_mode(program, data, np.full(size, 0.1), jnp.arange(n_units), jax.random.key(0))
    guide, *_ = fit_guide(program, start, SVI_SETTINGS, jax.random.key(1))
    assert check_guide(program, guide, start.data, jax.random.key(2)).faults()
    for again in range(2):
        mode = reshape(program, guide, start, jax.random.key(3 + again))
        np.testing.assert_array_equal(mode.factor, np.triu(mode.factor))
        guide, *_ = fit_guide(program, mode, SVI_SETTINGS, jax.random.key(1))
    return guide, check_guide(program, guide, start.data, jax.random.key(2))


@pytest.mark.parametrize("reshape", [measured, averaged_curvature])
def test_a_direction_without_curvature_at_the_mode_finds_its_width(reshape: Any) -> None:
    """That of the Gaussian of the highest ELBO, in closed form, to the limits that a guide is held to."""
    guide, _ = reshaped_guide(reshape, flat, 5, 3)
    sds = np.sqrt(((guide.stretch[:, None] * guide.factor) ** 2).sum(1))
    best = (12 * 2.5) ** -0.25
    assert (np.abs(np.log(sds / best)) < np.log(1.25)).all()


@pytest.mark.parametrize("reshape", [measured, averaged_curvature])
def test_a_posterior_behind_a_wall_does_not_pass(reshape: Any) -> None:
    _, checked = reshaped_guide(reshape, walled, 4, 2)
    assert checked.faults()


@pytest.mark.parametrize("wrong", [1e-4, 0.1, 300.0])
def test_measured_widths_are_those_of_the_posterior(exact: Any, wrong: float) -> None:
    """Three directions of a precision that is wrong, one a little, and a location off by half a posterior sd each."""
    program, data, guide = exact
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(SIZE, SIZE)))[0]
    ratio = np.ones(SIZE)
    ratio[[0, 5, 7]] = wrong, wrong, 1.5
    bad = guide._replace(
        location=guide.location + guide.factor @ np.full(SIZE, 0.5), factor=guide.factor @ (turn * ratio**-0.5) @ turn.T
    )
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    found = measured(program, bad, mode, jax.random.key(1))
    np.testing.assert_array_equal(found.factor, np.triu(found.factor))
    white = np.linalg.solve(mode.factor, found.factor)
    ratios = np.linalg.eigvalsh(white.T @ white)
    assert 1.0 / 1.2 < ratios.min() <= ratios.max() < 1.2  # what is left alone
    assert np.sqrt(np.mean(np.linalg.solve(mode.factor, found.z - mode.z) ** 2)) < guide_check._NEGLIGIBLE


def test_a_guide_off_everywhere_scatters(exact: Any) -> None:
    """The log weight is half (1 - 1/r^2) w^2 then, whose variance is half (1 - 1/r^2)^2 a parameter."""
    guide = exact[2]
    for ratio, found in ((1.03, False), (1.15, True)):
        checked = check(exact, guide._replace(stretch=ratio * np.ones(SIZE)))
        expected = 0.5 * (1.0 - ratio**2) ** 2 * SIZE
        assert 0.3 * expected < checked.excess < 3.0 * expected
        assert bool(checked.scattered()) == found


def test_the_limit_of_scatter_is_eight_or_a_share_of_the_globals() -> None:
    """Nine nats squared are a bent posterior with 20 globals; eleven with 400 are a little skewness of each."""
    checked = log_gamma(10.0)[1]
    for size, excess, found in ((20, 7.0, False), (20, 9.0, True), (400, 11.0, False), (400, 13.0, True)):
        assert bool(checked._replace(step=np.zeros(size), excess=excess).bent()) == found


def test_a_shift_within_the_errors_of_two_estimates_is_none() -> None:
    """Of 3000 directions, moved by an estimate as uncertain as the new one, the farthest is 5 standard errors off."""
    checked = log_gamma(10.0)[1]
    error = np.full(3000, 0.08)
    both = 0.08 * np.random.default_rng(0).standard_normal((2, 3000)).sum(0)
    seen = checked._replace(mean_shift=both, mean_shift_error=error)
    assert np.abs(both).max() > 3.5 * 0.08
    assert seen.close(error) and not seen.close()
    assert not seen._replace(mean_shift=both + 0.4).close(error)


def scripted(monkeypatch: pytest.MonkeyPatch, checks: list[GuideCheck]) -> None:
    """What the checks of guides find, one after the other; the last one again and again."""
    waiting = iter(checks)
    monkeypatch.setattr(best_guides, "check_guide", lambda *_: next(waiting, checks[-1]))


def test_a_bent_posterior_does_not_pass(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program, data, guide = exact
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    found = check(exact, guide)
    keys = jax.random.key(1), jax.random.key(2)
    for excess, fails in ((7.0, False), (9.0, True)):
        scripted(monkeypatch, [found._replace(excess=excess)])
        leapt = leaps(program, mode, jax.random.key(0))
        with Progress(False) as bar:
            best = best_guides.judged_guide(program, mode, leapt, SVI_SETTINGS, data, *keys, bar)
            again = best_guides.reshaped_guide(program, mode, best, SVI_SETTINGS, data, *keys, bar)
        for faults in (best.faults, again.faults):
            assert any("bent" in fault for fault in faults) == fails


def test_the_error_of_a_leap_is_in_what_is_seen_after_it(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two estimates of .06 each: a shift of .24 is none after a leap, and one before it."""
    program, data, guide = exact
    mode = find_mode(program, data, np.zeros(SIZE), jnp.arange(20), jax.random.key(0))
    right = check(exact, guide)
    ones = np.ones(len(right.mean_shift))
    far = right._replace(mean_shift=0.6 * ones, mean_shift_error=0.06 * ones, step=0.6 * np.ones(SIZE))
    near = right._replace(mean_shift=0.24 * ones, mean_shift_error=0.06 * ones, step=0.2 * np.ones(SIZE))
    scripted(monkeypatch, [far, near, far])
    assert leaps(program, mode, jax.random.key(0)).there
    scripted(monkeypatch, [near, far])
    assert not leaps(program, mode, jax.random.key(0)).there


def test_a_lopsided_posterior_does_not_pass() -> None:
    """The logarithm of an exponential variable has a skewness of -1.14, that of a gamma of shape 10 of -.33."""
    for shape, found in ((1.0, True), (10.0, False)):
        _, checked = log_gamma(shape)
        assert bool(checked.lopsided()) == found, (shape, checked.skewness)


def test_skewness_is_measured() -> None:
    posterior, checked = log_gamma(100.0)
    # To first order: 1 / sqrt(shape), of which the next term is 1 / shape.
    np.testing.assert_allclose(np.abs(checked.skewness), -posterior.stats("s"), atol=0.02)


def log_gamma(shape: float) -> tuple[Any, Any]:
    """The posterior of the logarithm of a rate, and the check of a guide of its mean and variance."""
    posterior = stats.loggamma(shape)
    return posterior, check_of_log_rates(shape, posterior.mean(), posterior.std(), 1)


def check_of_log_rates(shape: float, location: float, sd: float, count: int) -> GuideCheck:
    """The check of a guide of so many independent logarithms of rates."""

    def program(y: Any = None, *, n_units: int) -> None:
        rate = numpyro.sample("rate", dist.Gamma(jnp.full(count, shape), 1.0).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(0.0 * rate.sum(), 1.0), obs=y)

    y = np.zeros(1)
    compiled, numbers = compile_model(program, jnp.asarray(y))
    data = as_device_data(compiled, numbers, y, {})
    guide = Guide(np.full(count, location), np.ones(count), sd * np.eye(count))
    return check_guide(compiled, guide, data, jax.random.key(0))


def test_a_guide_of_the_highest_elbo_is_widened_to_the_posterior() -> None:
    """Of the logarithm of a gamma variable that guide has variance 1 / shape, the posterior trigamma(shape)."""
    shape, count = 10.0, 40
    wider = check_of_log_rates(shape, np.log(shape) - 0.5 / shape, shape**-0.5, count).widening(count)
    expected = np.sqrt(shape * special.polygamma(1, shape))
    error = wider.std(ddof=1) / np.sqrt(count)
    assert abs(wider.mean() - expected) < 4.0 * error < expected - 1.0


def test_a_guide_is_left_alone_where_an_expansion_says_little() -> None:
    shape, count = 0.5, 12
    wider = check_of_log_rates(shape, np.log(shape) - 0.5 / shape, shape**-0.5, count).widening(count)
    np.testing.assert_array_equal(wider, 1.0)


@pytest.mark.parametrize("stretch", [1.0, 1.05, 1 / 1.05])
def test_widening_makes_up_for_widths(exact: Any, stretch: float) -> None:
    """To second order in what precisions are off by; an exact guide is left alone."""
    guide = exact[2]
    wider = check(exact, guide._replace(stretch=stretch * guide.stretch)).widening(SIZE)
    off = abs(stretch**2 - 1.0)
    # The second order is a mean of eight squares of normal numbers, and half of it goes into a standard deviation.
    most = stats.chi2.ppf(1.0 - 1e-5, 8) / 8
    np.testing.assert_allclose(wider, 1 / stretch, atol=0.5 * off**2 * most + off**3 + 1e-9)


def test_limits_are_those_of_the_contract() -> None:
    assert guide_check.SHIFT_LIMIT == 0.25
    assert guide_check.RATIO_LIMITS == (0.8, 1.25)


def test_a_guide_where_the_posterior_is_no_number_is_faulted() -> None:
    nothing = np.full(3, np.nan)
    assert "not a number" in GuideCheck(*[nothing] * 8, np.nan, np.nan, np.zeros((0, 3))).faults()[0]
