"""Samples of units that stand for all: corrected to them exactly, and good enough for a posterior."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.linalg import eigh

import bayesunmix as bu
from bayesunmix.align import assigned
from bayesunmix.inference import mode, sampled
from bayesunmix.inference import whole as wholes
from bayesunmix.inference.curvature import assembled, curvature, curvature_of_units, expansions
from bayesunmix.inference.guide_check import GuideCheck
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program, compile_model, unconstrain
from bayesunmix.inference.run import infer
from bayesunmix.inference.sampled import at_odds, mode_of_all
from bayesunmix.inference.target import (
    Data,
    as_device_data,
    log_density,
    slopes_at,
    value_and_grad,
    with_fresh_points,
    with_rules,
)
from bayesunmix.inference.units import dividing
from bayesunmix.inference.whole import AtPoint, Whole
from bayesunmix.models import GaussianMixture, LinearUnmixing

NO_FAULTS = GuideCheck(*np.zeros((2, 1)), *np.ones((1, 1)), *np.zeros((5, 1)), 0.0, 0.0, np.zeros((0, 1)))
SPECTRA = np.array([[1.0, 0.6, 0.3, 0.2], [0.2, 0.3, 0.8, 1.0], [0.1, 0.9, 0.2, 0.7]])


def pixels(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.dirichlet([1.3, 1.0, 0.7], count) @ SPECTRA + 0.05 * rng.normal(size=(count, 4))


class Setting(NamedTuple):
    program: Program
    whole: Whole
    data: Data  # all units in memory
    z: np.ndarray


@pytest.fixture(
    scope="module", params=[pytest.param(120, marks=pytest.mark.slow), 123], ids=["whole chunks", "a remainder"]
)
def setting(request: Any) -> Setting:
    """Shared, since a program of its own would be compiled for every test."""
    y = pixels(request.param)
    with jax.enable_x64(True):
        model = LinearUnmixing(3, noise="diagonal").bind(y)
        program, numbers = compile_model(model, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        z = np.asarray(unconstrain(program, numbers, model.initial(y), data.y, {}))
        return Setting(program, Whole(program, numbers, y, {}, 40), data, z)


def curvature_of_all(program: Program, whole: Whole, z: np.ndarray) -> tuple[np.ndarray, Any]:
    every, chunk = whole.expansions(z, jax.random.key(1), 1)
    return assembled(program, jnp.asarray(z), chunk, every)


def test_the_slope_of_chunks_is_that_of_all(setting: Setting) -> None:
    key = jax.random.key(1)
    ruled = with_rules(setting.program, jnp.asarray(setting.z), setting.data, key, jnp.arange(len(setting.data.y)))
    value, gradient = value_and_grad(setting.program, jnp.asarray(setting.z), ruled)
    found = setting.whole.slope(setting.z, key, 1)
    # Sums of float32 integrals in another order.
    np.testing.assert_allclose(found[0], value, rtol=1e-6)
    np.testing.assert_allclose(found[1], gradient, atol=1e-5 * np.abs(gradient).max())


def test_places_are_looked_at_in_one_reading(setting: Setting) -> None:
    class Read:
        times, shape = 0, setting.whole.values.shape

        def __len__(self) -> int:
            return len(setting.whole.values)

        def __getitem__(self, part: Any) -> np.ndarray:
            self.times += part.stop > 2  # not a look at two of them
            return setting.whole.values[part]

    values, keys = Read(), jax.random.split(jax.random.key(1))
    places = [(setting.z, keys[0]), (setting.z + 0.01, keys[1])]
    expected = [setting.whole.slope(z, key, 1) for z, key in places]
    found = replace(setting.whole, values=values).slopes(places, 1)
    assert values.times == -(-len(values) // setting.whole.size)
    for one, other in zip(found, expected, strict=True):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


def test_data_of_single_precision_are_held_in_it(setting: Setting) -> None:
    """And only once, while rules are made of them."""
    narrow = replace(setting.whole, values=setting.whole.values.astype(np.float32))
    wide = replace(setting.whole, values=narrow.values.astype(np.float64))
    key, parts = jax.random.key(1), []
    for whole in (narrow, wide):
        data, index = whole.sample(jax.random.key(0))
        ruled = with_rules(setting.program, jnp.asarray(setting.z), data, key, index)
        assert max(leaf.size for leaf in jax.tree.leaves(ruled.rules)) < 40 * setting.z.size
        assert data.y.dtype == whole.values.dtype
        parts.append(value_and_grad(setting.program, jnp.asarray(setting.z), ruled))
    for one, other in zip(*parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9 * np.abs(other).max())


def test_the_curvature_of_chunks_is_that_of_all(setting: Setting) -> None:
    key, n_units = jax.random.key(1), len(setting.data.y)
    seen = n_units - n_units % 40  # the others count as if they were alike
    part = setting.data._replace(y=setting.data.y[:seen], weight=jnp.asarray(n_units / seen))
    ruled = with_rules(setting.program, jnp.asarray(setting.z), part, key, jnp.arange(seen))
    expected = curvature(setting.program, jnp.asarray(setting.z), ruled)
    for found, one in zip(curvature_of_all(setting.program, setting.whole, setting.z), expected, strict=True):
        np.testing.assert_allclose(found, one, atol=1e-5 * np.abs(one).max())


def test_a_corrected_sample_has_value_slope_and_curvature_of_all(setting: Setting) -> None:
    key, at = jax.random.key(1), jnp.asarray(setting.z)
    value, slope = setting.whole.slope(setting.z, key, 1)
    every, chunk = setting.whole.expansions(setting.z, key, 1)
    _, bend = assembled(setting.program, at, chunk, every)
    sample, index = setting.whole.sample(jax.random.key(2))
    ruled = with_rules(setting.program, at, sample, key, index)
    own = expansions(setting.program, at, ruled)
    lacking = {name: every[name] - own[name] for name in own}
    corrected = AtPoint(setting.z, value, slope).corrected(setting.program, ruled, lacking)
    found = value_and_grad(setting.program, at, corrected)
    np.testing.assert_allclose(found[0], value, rtol=1e-9)
    np.testing.assert_allclose(found[1], slope, atol=1e-7 * np.abs(slope).max())
    np.testing.assert_allclose(curvature(setting.program, at, corrected)[1], bend, atol=1e-7 * np.abs(bend).max())
    # Corrections stand in the density that samplers compile, and beside the one that the guide calls.
    moved = at + 0.1 * jax.random.normal(jax.random.key(3), at.shape)
    expected = jax.jit(jax.value_and_grad(lambda z: log_density(setting.program, z, corrected)))(moved)
    for ours, theirs in zip(value_and_grad(setting.program, moved, corrected), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_corrections_hold_for_entries_below_the_noise() -> None:
    """A parabola in the globals is wrong there, by the sample's slope times how an exponential bends."""
    spectra = np.array([[1.0, 0.6, 1e-4, 0.2], [0.2, 1e-4, 0.8, 1.0]])
    rng = np.random.default_rng(5)
    y = rng.dirichlet([1.0, 1.0], 2000) @ spectra + 0.05 * rng.normal(size=(2000, 4))
    program, numbers = compile_model(LinearUnmixing(2).bind(y), jnp.asarray(y[:2]))
    whole, every = Whole(program, numbers, y, {}, 100), as_device_data(program, numbers, y, {})
    start = {"endmembers": spectra, "noise_scale": np.asarray(0.05)}
    z = np.asarray(unconstrain(program, numbers, start, every.y[:2], {}))
    key, at = jax.random.key(1), jnp.asarray(z)
    value, slope = whole.slope(z, key, 1)
    sample, index = whole.sample(jax.random.key(2))
    ruled = with_rules(program, at, sample, key, index)
    of_all, own = whole.expansions(z, key, 1)[0], expansions(program, at, ruled)
    corrected = AtPoint(z, value, slope).corrected(program, ruled, {name: of_all[name] - own[name] for name in own})
    ruled_all = with_rules(program, at, every, key, jnp.arange(2000))
    (slope_of_all, bend_of_all), (own_slope, own_bend) = (
        curvature(program, at, ruled_all),
        curvature(program, at, ruled),
    )
    height = lambda z, data: float(value_and_grad(program, z, data)[0])  # noqa: E731
    dark = np.flatnonzero(spectra.ravel() < 1e-3)
    errors, in_globals = [], []
    for up in (3.0, 4.0, 5.0):  # to .002, .005 and .015, where the standard deviation is .002
        step = np.zeros(len(z))
        step[dark] = up
        rise = height(at + step, ruled_all) - height(at, ruled_all)
        errors.append(height(at + step, corrected) - height(at, corrected) - rise)
        parabola = (slope_of_all - own_slope) @ step + 0.5 * step @ (bend_of_all - own_bend) @ step
        in_globals.append(height(at + step, ruled) - height(at, ruled) + parabola - rise)
    assert np.abs(errors).max() < 0.1 * np.abs(in_globals).max(), (errors, in_globals)


def test_the_slope_of_a_sample_over_the_guide_is_that_of_all_units(monkeypatch: Any) -> None:
    """At draws of the guide that the correction has not seen, beside the correction at the mode alone."""
    y = pixels(1200, seed=4)
    program, numbers = compile_model(LinearUnmixing(3).bind(y), jnp.asarray(y[:2]))
    whole = Whole(program, numbers, y, {}, 40)
    start = LinearUnmixing(3).bind(y).initial(y)
    z = np.asarray(unconstrain(program, numbers, start, jnp.asarray(y[:2]), {}))
    seen: list[Mode] = []
    measured = sampled._around
    monkeypatch.setattr(sampled, "_around", lambda *given: (seen.append(given[2]), measured(*given))[1])
    mode, _, judge = mode_of_all(program, whole, z, jax.random.key(0))
    half = np.random.default_rng(1).standard_normal((8, len(z)))
    points = mode.z + np.concatenate([half, -half]) @ mode.factor.T
    key_points = jax.random.split(jax.random.key(0), 3)[2]  # the same error of integration in both
    of_all = np.mean([whole.slope(point, key_points, 1)[1] for point in points], axis=0)

    def left(data: Data) -> float:
        return float(np.linalg.norm(mode.factor.T @ (of_all - slopes_at(program, points, data)[1].mean(0))))

    at_mode, around = left(seen[0].data), (left(mode.data), left(judge))
    assert max(around) < 0.7 * at_mode, (around, at_mode)


def test_a_sample_whose_corrections_run_out_is_corrected_where_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slope there is that of all units, to a quarter of a posterior sd."""
    y = pixels(1200, seed=4)
    program, numbers = compile_model(LinearUnmixing(3).bind(y), jnp.asarray(y[:2]))
    whole = Whole(program, numbers, y, {}, 40)
    start = LinearUnmixing(3).bind(y).initial(y)
    z = np.asarray(unconstrain(program, numbers, start, jnp.asarray(y[:2]), {}))
    monkeypatch.setattr(sampled, "_CORRECTIONS", 1)
    monkeypatch.setattr(sampled, "_around", lambda *_: None)
    mode = mode_of_all(program, whole, z, jax.random.key(0))[0]
    of_all = whole.slope(mode.z, jax.random.split(jax.random.key(0), 3)[2], 1)[1]
    own = slopes_at(program, [mode.z], mode.data)[1][0]
    assert np.linalg.norm(mode.factor.T @ (of_all - own)) < 0.25


def test_a_sample_has_every_unit_once_and_the_points_of_all(setting: Setting) -> None:
    sample, index = setting.whole.sample(jax.random.key(3))
    assert len(np.unique(index)) == len(index) == setting.whole.size
    np.testing.assert_array_equal(sample.y, setting.data.y[np.asarray(index)])
    np.testing.assert_allclose(sample.weight, len(setting.data.y) / len(index))
    key, at = jax.random.key(1), jnp.asarray(setting.z)
    some = with_rules(setting.program, at, sample, key, index).rules["y"].frame.shift
    every = with_rules(setting.program, at, setting.data, key, jnp.arange(len(setting.data.y))).rules["y"].frame.shift
    np.testing.assert_array_equal(some, every[:, np.asarray(index)])


def test_units_that_are_added_have_weights_of_their_own(setting: Setting) -> None:
    """A sample of all that is not near, beside what is near, is all units: value, slope, curvature, fresh points."""
    whole, at, key = setting.whole, jnp.asarray(setting.z), jax.random.key(1)
    near = np.random.default_rng(0).permutation(len(whole.values))[: 2 * whole.size]
    sample, index = whole.sample(jax.random.key(3), near)
    rest = len(whole.values) - len(near)
    np.testing.assert_allclose(sample.weight, rest / whole.size)
    assert not set(near) & set(np.asarray(index).tolist())
    sample = sample._replace(weight=jnp.asarray(1.0))
    chosen = np.concatenate([np.asarray(index), *(np.asarray(its) for _, its in sample.others)])
    together = setting.data._replace(y=setting.data.y[chosen])
    both = [
        with_rules(setting.program, at, sample, key, index),
        with_rules(setting.program, at, together, key, jnp.asarray(chosen)),
    ]
    again = jax.random.key(9)
    fresh = [
        with_fresh_points(setting.program, one, again, its)
        for one, its in zip(both, (index, jnp.asarray(chosen)), strict=True)
    ]
    for ours, theirs in (both, fresh):
        for found, expected in zip(
            (*value_and_grad(setting.program, at, ours), log_density(setting.program, at, ours)),
            (*value_and_grad(setting.program, at, theirs), log_density(setting.program, at, theirs)),
            strict=True,
        ):
            # Sums of float32 integrals in another order.
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5 * np.abs(expected).max())
        for found, expected in zip(
            curvature(setting.program, at, ours), curvature(setting.program, at, theirs), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_units_near_a_face_are_found() -> None:
    """By the distance of their abundances from zero in standard deviations, filled up to whole batches."""
    rng = np.random.default_rng(0)
    abundances = np.concatenate([rng.dirichlet(np.full(3, 50.0), 1000), [[0.002, 0.499, 0.499]] * 30])
    y = abundances @ SPECTRA + 0.01 * rng.normal(size=(1030, 4))
    program, numbers = compile_model(LinearUnmixing(3).bind(y), jnp.asarray(y[:2]))
    whole = Whole(program, numbers, y, {}, 50)
    start = {"endmembers": SPECTRA, "noise_scale": np.asarray(0.01)}
    z = np.asarray(unconstrain(program, numbers, start, jnp.asarray(y[:2]), {}))
    found = whole.near(z)
    assert len(found) == whole.size and set(range(1000, 1030)) <= set(found.tolist())


@pytest.mark.parametrize(("count", "batch", "size"), [(4096, 1000, 512), (1200, 1000, 600), (997, 100, 100)])
def test_chunks_divide_the_units_where_they_can(count: int, batch: int, size: int) -> None:
    assert dividing(count, batch) == size


def test_curvature_ends_where_halves_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before all chunks of a plain posterior were seen, with an error like the limit; units sorted, as in an image."""
    rng = np.random.default_rng(0)
    y = np.sort(rng.normal(size=(2**14, 2)) * [1.0, 3.0], axis=0)
    model = GaussianMixture(1, covariance="diagonal").bind(y)
    program, numbers = compile_model(model, jnp.asarray(y[:2]))
    z = np.asarray(unconstrain(program, numbers, model.initial(y), jnp.asarray(y[:2]), {}))
    seen = []
    counted = lambda *parts: seen.append(0) or curvature_of_units(*parts)  # noqa: E731
    monkeypatch.setattr(wholes, "units_curvature", counted)
    _, few = curvature_of_all(program, Whole(program, numbers, y, {}, 32), z)
    taken, chunks = len(seen), 2**14 // 128
    monkeypatch.setattr(wholes, "_ENOUGH", 0.0)
    _, every = curvature_of_all(program, Whole(program, numbers, y, {}, 32), z)
    assert 8 <= taken < chunks and len(seen) == taken + chunks
    error = np.abs(eigh(few - every, -every, eigvals_only=True)).max()
    assert 0 < error < 0.15


def test_small_units_without_points_come_in_larger_chunks() -> None:
    """Up to four batches; with points, or where one unit holds much, a batch."""
    sizes = {}
    for features in (2, 512):
        y = np.random.default_rng(0).normal(size=(64, features))
        model = GaussianMixture(2, covariance="spherical").bind(y)
        program, numbers = compile_model(model, jnp.asarray(y[:2]))
        sizes[features] = Whole(program, numbers, np.broadcast_to(y[:1], (2**16, features)), {}, 1024).size
    assert sizes == {2: 4096, 512: 1024}
    y = pixels(64)
    program, numbers = compile_model(LinearUnmixing(3).bind(y), jnp.asarray(y[:2]))
    assert Whole(program, numbers, np.broadcast_to(y[:1], (2**16, 4)), {}, 1024).size == 1024


def test_the_posterior_of_samples_is_that_of_all_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Means within .25 posterior sds, as the guide is held to; widths within its limits too. Of globals and latents.

    4096 pixels, 16 times the sample, or 128 times: so few know too little, and the fit takes larger ones by itself.
    """
    parts = list[int]()

    def counted(program: Program, whole: Whole, *rest: Any) -> Any:
        parts.append(whole.parts)
        return mode_of_all(program, whole, *rest)

    monkeypatch.setattr(sys.modules[infer.__module__], "mode_of_all", counted)
    image = pixels(4096).reshape(64, 64, 4)
    every, *others = [
        bu.fit(LinearUnmixing(3), image, bu.SVI(batch=batch, draws=2000), progress=False) for batch in (4096, 256, 32)
    ]
    assert all(fit.converged for fit in (every, *others))
    assert parts == [1, 1, 4]

    def summed(fit: bu.Fit) -> list[np.ndarray]:
        spectra = fit.posterior["endmembers"].values[0]
        # Means of abundances are nearly tied.
        own = assigned(((known[:, None] - spectra.mean(0)) ** 2).sum(-1), [range(3)])
        draws = np.append(spectra[:, own].reshape(2000, -1), fit.posterior["noise_scale"].values.reshape(2000, 1), 1)
        maps = fit.latent()["abundance"].isel(endmember=own)
        told = {"mean": draws.mean(0), "sd": draws.std(0)}
        return [np.append(of_draws, maps.sel(statistic=name)) for name, of_draws in told.items()]

    known = every.posterior["endmembers"].values[0].mean(0)
    mean, sd = summed(every)
    elbo = every.diagnostics["elbo"].values[-10:].mean()
    assert len(mean) == 3 * 4 + 1 + 3 * 4096
    for fit in others:
        mean_of_few, sd_of_few = summed(fit)
        assert np.abs((mean_of_few - mean) / sd).max() < 0.25
        ratio = sd_of_few / sd
        assert 0.8 < ratio.min() <= ratio.max() < 1.25
        assert abs(fit.diagnostics["elbo"].values[-10:].mean() - elbo) < 2.0


def test_a_larger_sample_is_judged_by_another_one() -> None:
    """Every part of it that stands for others is another; those near a face are the same."""
    y = pixels(1200, seed=4)
    model = LinearUnmixing(3).bind(y)
    program, numbers = compile_model(model, jnp.asarray(y))
    whole = Whole(program, numbers, y, {}, 40, parts=3)
    z = np.asarray(unconstrain(program, numbers, model.initial(y), jnp.asarray(y[:2]), {}))
    found = mode_of_all(program, whole, z, jax.random.key(0))
    both = [[data, *(other for other, _ in data.others)] for data in (found.mode.data, found.judge)]
    assert len(both[0]) == len(both[1]) > 3  # some are near
    for number, (own, other) in enumerate(zip(*both, strict=True)):
        assert float(own.weight) == float(other.weight) and (float(own.weight) > 1.0) == (number < 3)
        assert np.array_equal(own.y, other.y) == (number >= 3)


def test_a_sample_lets_go_of_its_points_before_others_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points take as much room as the units; the last ones are those of another sample, beside the one of the fit."""
    held: list[tuple[int, int]] = []

    def counted(program: Program, z: Any, data: Data, *rest: Any) -> Data:
        shape = (size, *data.y.shape[1:])
        held.append((sum(x.shape == shape for x in jax.live_arrays()), 1 + len(data.others)))
        return with_rules(program, z, data, *rest)

    size = 120  # of no other test's arrays
    for module in (mode, sampled):
        monkeypatch.setattr(module, "with_rules", counted)
    image = pixels(960).reshape(30, 32, -1)
    bu.fit(LinearUnmixing(3), image, bu.SVI(batch=size, draws=50), progress=False)
    assert len(held) > 3
    assert all(arrays == parts for arrays, parts in held[:-1])


def test_a_sample_at_odds_with_all_units_is_told() -> None:
    """Of classes that overlap, and not of classes apart; with nearly all units for themselves the sample is of all."""
    rng = np.random.default_rng(0)
    apart, noise = rng.integers(2, size=(4000, 1)) * np.array([1.0, 0.0]), rng.normal(size=(4000, 2))
    found = {}
    for distance in (6.0, 2.0):
        y = distance * apart + noise
        model = GaussianMixture(2, covariance="spherical").bind(y)
        with jax.enable_x64(True):
            program, numbers = compile_model(model, jnp.asarray(y[:2]))
            start = {"means": np.array([[0.0, 0.0], [distance, 0.0]]), "scales": np.ones(2)}
            z = np.asarray(unconstrain(program, numbers, start, jnp.asarray(y[:2]), {}))
            whole, key = Whole(program, numbers, y, {}, 50), jax.random.key(0)
            every = whole.expansions(z, key, 1)[0]
            of_all = whole.every()[0]
            found[distance] = [at_odds(program, z, data, every) for data in (whole.sample(key)[0], of_all)]
            value = float(value_and_grad(program, z, of_all)[0])
            assert value == pytest.approx(whole.slope(z, key, 1)[0], rel=1e-9)
    assert found == {6.0: [False, False], 2.0: [True, False]}


@pytest.mark.parametrize("count", [600, 607])
def test_every_unit_stands_for_itself_whatever_their_number(count: int) -> None:
    """607 is a prime: a last part is smaller. Log density and slope are those of one evaluation with all units."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=(count, 1)) * np.array([2.0, 0.0]) + rng.normal(size=(count, 2))
    model = GaussianMixture(2, covariance="spherical").bind(y)
    with jax.enable_x64(True):
        program, numbers = compile_model(model, jnp.asarray(y[:2]))
        start = {"means": np.array([[0.0, 0.0], [2.0, 0.0]]), "scales": np.ones(2)}
        z = np.asarray(unconstrain(program, numbers, start, jnp.asarray(y[:2]), {}))
        whole = Whole(program, numbers, y, {}, 50)
        data, index = whole.every()
        assert [len(its) for _, its in data.others] == ([200] * 2 if count == 600 else [200, 200, 7])
        units = np.concatenate([index, *(its for _, its in data.others)])
        found, exact = (value_and_grad(program, z, one) for one in (data, as_device_data(program, numbers, y, {})))
    assert sorted(units) == list(range(count))
    assert found[0] == pytest.approx(float(exact[0]), rel=1e-12)
    np.testing.assert_allclose(found[1], exact[1], rtol=0, atol=1e-10 * np.abs(exact[1]).max())


def test_a_larger_sample_is_of_several_chunks(setting: Setting) -> None:
    whole = setting.whole
    data, index = replace(whole, parts=2).sample(jax.random.key(3))
    (other, its_index), *more = data.others
    assert not more
    assert len({*np.asarray(index).tolist(), *np.asarray(its_index).tolist()}) == 2 * whole.size
    np.testing.assert_allclose([data.weight, other.weight], len(whole.values) / (2 * whole.size))
    np.testing.assert_array_equal(other.y, whole.values[np.asarray(its_index)])


def test_log_density_without_corrections_is_that_of_the_sample(setting: Setting) -> None:
    """A sample of all units, with weight one, is the data."""
    everything = setting.whole.values
    whole = Whole(setting.program, setting.whole.numbers, everything, {}, len(everything))
    sample, index = whole.sample(jax.random.key(0))
    at, key = jnp.asarray(setting.z), jax.random.key(1)
    ours = log_density(setting.program, at, with_rules(setting.program, at, sample, key, index))
    theirs = log_density(setting.program, at, with_rules(setting.program, at, setting.data, key, index))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_what_is_observed_beside_the_units_counts_once() -> None:
    """A sum that was measured by itself, against the closed form; a guide of a normal posterior is exact."""
    y = np.random.default_rng(0).normal(size=(600, 3))

    def model(y=None, *, n_units):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0).expand([3]).to_event(1))
        numpyro.sample("sum", dist.Normal(mean.sum(), 0.01), obs=jnp.asarray(1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    fit = bu.fit(model, y, bu.SVI(batch=64), progress=False)
    found = fit.posterior["mean"].values.sum(-1).ravel()
    of_units = (600 + 0.01) / 3  # precision of the sum
    precision = of_units + 1e4
    expected = (of_units * 600 / 600.01 * y.mean(0).sum() + 1e4) / precision
    error = 4.0 / np.sqrt(found.size)
    assert abs(found.mean() - expected) < error * precision**-0.5
    assert abs(np.log(found.std() * precision**0.5)) < error / np.sqrt(2)


def test_a_covariate_of_two_numbers_is_none_of_the_first_two_units() -> None:
    """Gains of two channels, against the closed form of their mean."""
    y, gains = np.random.default_rng(1).normal(size=(600, 2)), np.array([1.0, 3.0])

    def model(y=None, *, n_units, gains):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0).expand([2]).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(gains * mean, 1.0).to_event(1), obs=y)

    fit = bu.fit(model, y, bu.SVI(batch=64), progress=False, gains=gains)
    found = fit.posterior["mean"].values.reshape(-1, 2)
    precision = 600 * gains**2 + 0.01
    error = 4.0 / np.sqrt(len(found))
    assert (np.abs(found.mean(0) - 600 * gains * y.mean(0) / precision) * precision**0.5 < error).all()
