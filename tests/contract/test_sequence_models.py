"""The same contract for models of sequences: one table, the same checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers
from platforms import assert_exported, assert_two_devices_agree

import bayesunmix as bu
from bayesunmix import models
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, value_and_grad

GIBBS = bu.Gibbs(draws=150, warmup=50, chains=2, most_thin=4)
SEQUENCES, STEPS = 6, 40

# Name: (model, kind of data, whether it is fitted too).
MODELS: dict[str, tuple[Any, str, bool]] = {
    "HiddenMarkovModel": (models.HiddenMarkovModel(2), "levels", False),
    "HiddenMarkovModel, features": (models.HiddenMarkovModel(2), "vectors", False),
    "HiddenMarkovModel, list": (models.HiddenMarkovModel(2, ["poisson", "categorical"]), "both", True),
    "HiddenMarkovModel, ordered": (models.HiddenMarkovModel(2, "exponential", ordered=True), "waits", False),
    "HiddenMarkovModel, lost": (models.HiddenMarkovModel(3, "poisson", absorbing=[2], stickiness=2.0), "counts", False),
    "MarkovChain": (models.MarkovChain(2), "states", True),
    "MarkovChain, reversible": (models.MarkovChain(2, reversible=True), "states", False),
}
EVERY = pytest.mark.parametrize("name", list(MODELS))
# Lowering takes seconds: every option only with -m slow.
EXPORTED = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if fitted else pytest.mark.slow) for n, (_, _, fitted) in MODELS.items()]
)
FITTED = pytest.mark.parametrize("name", [name for name, (_, _, fitted) in MODELS.items() if fitted])


@pytest.fixture(scope="module")
def data() -> dict[str, xr.DataArray]:
    rng = np.random.default_rng(0)
    stay = rng.random((SEQUENCES, STEPS)) < 0.85
    state = np.cumsum(~stay, axis=1) % 2
    level = np.array([0.0, 2.0])[state] + 0.4 * rng.normal(size=state.shape)
    counts = rng.poisson(np.array([1.0, 6.0])[state]).astype(float)
    symbol = np.where(rng.random(state.shape) < 0.85, state, 1 - state).astype(float)
    vectors = np.stack([level, 0.5 * level + rng.normal(size=level.shape)], axis=-1)
    waits = rng.exponential(np.array([1.0, 5.0])[state])
    values = {
        "levels": level,
        "vectors": vectors,
        "counts": counts,
        "both": np.stack([counts, symbol], axis=-1),
        "waits": waits,
        "states": state.astype(float),
    }
    time = ("time", 0.5 * np.arange(STEPS), {"units": "s"})
    found = {}
    for name, array in values.items():
        if name != "states":
            array[1, 5:8] = np.nan
        array[2, 30:] = np.nan
        lengths = ("sequence", [40, 40, 30, 40, 40, 40])
        dims = ("sequence", "time", "feature")[: array.ndim]
        found[name] = xr.DataArray(array, {"time": time, "length": lengths}, dims)
    return found


@pytest.fixture(scope="module")
def fits(data: dict[str, xr.DataArray]) -> dict[str, bu.Fit]:
    return {n: bu.fit(m, data[kind], GIBBS, progress=False) for n, (m, kind, fitted) in MODELS.items() if fitted}


def bound(name: str, data: dict[str, xr.DataArray]) -> tuple[Any, np.ndarray]:
    model, kind, _ = MODELS[name]
    return model.bind(data[kind].values), data[kind].values


def test_every_model_of_sequences_is_in_the_table() -> None:
    of_sequences = {name for name in models.__all__ if getattr(getattr(models, name), "unit", "pixel") == "sequence"}
    assert {type(model).__name__ for model, _, _ in MODELS.values()} == of_sequences


@EVERY
def test_it_traces_and_its_sites_are_named(name: str, data: dict[str, xr.DataArray]) -> None:
    model, y = bound(name, data)
    for observed in (None, y):
        sites: dict[str, Any] = {}

        def values(observed: Any = observed, sites: dict[str, Any] = sites) -> dict[str, jax.Array]:
            sites.update(handlers.trace(handlers.seed(model, 0)).get_trace(observed, n_units=SEQUENCES))
            return {name: site["value"] for name, site in sites.items() if site["type"] == "sample"}

        drawn = jax.jit(values)()
        site = sites["y"]
        assert site["value"].shape == y.shape
        assert site["fn"].batch_shape == (SEQUENCES,)
        assert [(frame.name, frame.size) for frame in site["cond_indep_stack"]] == [("unit", SEQUENCES)]
        for other in set(drawn) - {"y"}:
            assert len(model.dims[other]) == np.ndim(drawn[other])
            assert np.isfinite(drawn[other]).all()
    again = jax.tree.leaves(MODELS[name][0].bind(y))
    for one, other in zip(jax.tree.leaves(model), again, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY
def test_density_is_finite_and_its_gradient_is_its_slope(name: str, data: dict[str, xr.DataArray]) -> None:
    model, y = bound(name, data)
    with jax.enable_x64(True):
        program, numbers = compile_model(model, jnp.asarray(y))
        inputs = as_device_data(program, numbers, y, {})
        start = np.asarray(unconstrain(program, inputs.numbers, model.initial(y), inputs.y, {}))
        rng = np.random.default_rng(0)
        for z in (start, start + 0.3 * rng.normal(size=start.size)):
            value, gradient = value_and_grad(program, jnp.asarray(z), inputs)
            assert np.isfinite(value) and np.isfinite(gradient).all()
            direction = rng.normal(size=z.size)
            ahead, behind = (
                value_and_grad(program, jnp.asarray(z + step * direction), inputs)[0] for step in (1e-5, -1e-5)
            )
            slope, size = float(gradient @ direction), float(np.abs(gradient) @ np.abs(direction))
            rounding = 8 * np.finfo(float).eps * abs(float(value)) / 1e-5
            assert float(ahead - behind) / 2e-5 == pytest.approx(slope, abs=1e-5 * size + rounding)


@EXPORTED
def test_potential_and_gradient_export_for_every_platform(name: str, data: dict[str, xr.DataArray]) -> None:
    assert_exported(*bound(name, data))


@pytest.mark.parametrize("options", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_devices_give_the_density_of_one(options: bool, data: dict[str, xr.DataArray], tmp_path: Path) -> None:
    names = [name for name, (*_, fitted) in MODELS.items() if fitted != options]
    assert_two_devices_agree({name: bound(name, data) for name in names}, tmp_path)


@FITTED
def test_it_is_fitted_saved_and_read_back(name: str, fits: dict[str, bu.Fit], tmp_path: Path) -> None:
    fit = fits[name]
    assert fit.converged, fit.diagnostics.attrs["verdict"]
    for site, array in fit.posterior.data_vars.items():
        assert array.dims == ("chain", "draw", *fit.model.dims[str(site)])
        assert np.isfinite(array.values).all()
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(back.posterior, fit.posterior)
    xr.testing.assert_identical(back.data, fit.data)
    assert type(back.model) is type(fit.model) and back.model.describe() == fit.model.describe()
    assert (back.method, back.finished, back.provenance) == (fit.method, fit.finished, fit.provenance)
    if hasattr(fit.model, "latent"):
        xr.testing.assert_identical(back.latent(draws=20), fit.latent(draws=20))


@FITTED
def test_the_seed_decides_everything(name: str, fits: dict[str, bu.Fit], data: dict[str, xr.DataArray]) -> None:
    model, kind, _ = MODELS[name]
    again = bu.fit(model, data[kind], GIBBS, progress=False)
    other = bu.fit(model, data[kind], GIBBS, progress=False, seed=1)
    for site, array in fits[name].posterior.data_vars.items():
        np.testing.assert_array_equal(again.posterior[site], array)
        assert not np.array_equal(other.posterior[site], array)


@FITTED
def test_latents_are_probabilities_on_the_data_s_own_axes(name: str, fits: dict[str, bu.Fit]) -> None:
    fit = fits[name]
    if not hasattr(fit.model, "latent"):
        with pytest.raises(TypeError, match="no latent"):
            fit.latent()
        return
    found = fit.latent(draws=20)
    state = found["state"]
    assert state.dims == ("sequence", "time", "state", "statistic")
    np.testing.assert_array_equal(state["time"], fit.data["time"])
    ended = np.isnan(state.sel(statistic="mean").values).all(-1)
    np.testing.assert_array_equal(ended, np.arange(STEPS) >= fit.units.lengths[:, None])
    mean = state.sel(statistic="mean").values[~ended]
    np.testing.assert_allclose(mean.sum(-1), 1.0, rtol=1e-9)
    sd, noise, spread = (state.sel(statistic=s).values[~ended] for s in ("sd", "sd_noise", "sd_model"))
    np.testing.assert_allclose(sd**2, noise**2 + spread**2, rtol=1e-6, atol=1e-12)
    # In nats, of every frame: H[E p] = E[H p] + mutual information.
    whole, within, shared = (found[n] for n in ("entropy", "entropy_noise", "mutual_information"))
    assert whole.dims == ("sequence", "time")
    np.testing.assert_allclose(whole.values[~ended], -np.sum(mean * np.log(np.maximum(mean, 1e-300)), -1), atol=1e-6)
    np.testing.assert_allclose(shared, np.maximum(whole - within, 0.0), atol=1e-12)
    assert 0 <= float(shared.max()) <= float(whole.max()) <= np.log(state.sizes["state"])
    assert np.isnan(whole.values[ended]).all()
    split = bu.uncertainty(fit, draws=20)
    np.testing.assert_array_equal(split["mutual_information"], shared)
    assert "entropy" not in bu.uncertainty(fit, "new", draws=20)


@pytest.mark.parametrize("name", [pytest.param("HiddenMarkovModel, list", marks=pytest.mark.slow), "MarkovChain"])
def test_it_predicts_and_is_criticised(name: str, fits: dict[str, bu.Fit], data: dict[str, xr.DataArray]) -> None:
    fit, like = fits[name], data[MODELS[name][1]]
    checked = bu.check(fit, draws=20)
    assert checked["p_value"].dims == ("sequence",) and checked["residual"].dims == like.dims
    assert np.isnan(checked["residual"].values[2, 30:]).all()
    found = bu.waic(fit)
    assert np.isfinite(found.elpd) and found.unit == "sequence"
    again = bu.posterior_predictive(fit, draws=3, unit="new")
    assert again.dims == ("draw", *like.dims)
    drawn, truth = bu.simulate(fit.model, like=like, seed=0)
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(like))
    assert set(map(str, fit.posterior.data_vars)) <= set(map(str, truth.data_vars))
