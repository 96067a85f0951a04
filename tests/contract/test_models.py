"""One table over every model: each passes the same checks, on one small image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers
from platforms import assert_exported, assert_two_devices_agree

import bayesunmix as bu
from bayesunmix import models
from bayesunmix.inference.curvature import units_curvature
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules

SVI = bu.SVI(draws=200, steps=20)
UNITS, CHANNELS = 64, 16
SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, CHANNELS) * np.array([[1.0], [2.3]])))

# Name: (model, whether it is fitted too). Options that change the density but not the way to it are not fitted again.
MODELS: dict[str, tuple[Any, bool]] = {
    "LinearUnmixing": (models.LinearUnmixing(2), True),
    "LinearUnmixing, diagonal noise": (models.LinearUnmixing(2, noise="diagonal", concentration=0.5), False),
    "LinearUnmixing, real": (models.LinearUnmixing(3, endmember_support="real"), False),
    "LinearUnmixing, learned": (models.LinearUnmixing(3, concentration="learned"), False),
    "LinearUnmixing, bright": (models.LinearUnmixing(2, brightness=True), False),
    "LinearUnmixing, counts": (models.LinearUnmixing(2, likelihood="poisson", concentration="learned"), False),
    "LinearUnmixing, bright counts": (models.LinearUnmixing(2, likelihood="poisson", brightness=True), False),
    "LinearUnmixing, camera": (models.LinearUnmixing(2, likelihood="scaled-poisson"), False),
    "LinearUnmixing, one": (models.LinearUnmixing(1), False),
    "ProbabilisticPCA": (models.ProbabilisticPCA(2), True),
    "ProbabilisticPCA, diagonal": (models.ProbabilisticPCA(1, noise="diagonal"), False),
    "ProbabilisticPCA, two-way": (models.ProbabilisticPCA(1, noise="two-way"), False),
    "ProbabilisticPCA, counts": (models.ProbabilisticPCA(1, noise="poisson"), False),
    "GaussianMixture": (models.GaussianMixture(2, covariance="diagonal"), True),
    "GaussianMixture, full": (models.GaussianMixture(2), False),
    "GaussianMixture, tied": (models.GaussianMixture(2, covariance="tied"), False),
    "GaussianMixture, spherical": (models.GaussianMixture(3, covariance="spherical"), False),
    "GaussianMixture, k-means": (models.GaussianMixture(3, covariance="tied-spherical", weights="equal"), False),
    "GaussianMixture, positions": (models.GaussianMixture(2, covariance="positions"), False),
    "GaussianMixture, tied positions": (models.GaussianMixture(2, covariance="tied-positions"), False),
    "GaussianMixture, one": (models.GaussianMixture(1, covariance="tied-spherical"), False),
    "VonMisesMixture": (models.VonMisesMixture(2), True),
    "VonMisesMixture, k-means": (models.VonMisesMixture(2, weights="equal", dispersion="tied"), False),
    "LinearUnmixing, partly known": (
        models.LinearUnmixing(3, endmembers=[SPECTRA[0], (SPECTRA[1], 0.1), None], smoothness="learned"),
        False,
    ),
    "LinearUnmixing, sparse": (
        models.LinearUnmixing(3, sparsity="learned", endmembers=[SPECTRA[0], (SPECTRA[1], 0.1), None]),
        False,
    ),
    "LinearUnmixing, sparse bright counts": (
        models.LinearUnmixing(2, likelihood="poisson", brightness=True, sparsity=3.0),
        False,
    ),
    "LinearUnmixing, known": (models.LinearUnmixing(2, endmembers=SPECTRA), False),
}
# Steps for differences where points are in double precision, and many counts bend the density more.
IN_DOUBLE = {"ProbabilisticPCA, counts": 1e-3}
EVERY = pytest.mark.parametrize("name", list(MODELS))
# Lowering takes seconds: every option only with -m slow.
EXPORTED = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if fitted else pytest.mark.slow) for n, (_, fitted) in MODELS.items()]
)
FITTED = pytest.mark.parametrize("name", [name for name, (_, fitted) in MODELS.items() if fitted])


@pytest.fixture(scope="module")
def image() -> xr.DataArray:
    rng = np.random.default_rng(0)
    values = rng.dirichlet(np.ones(2), (8, 8)) @ SPECTRA + 0.05 * rng.normal(size=(8, 8, CHANNELS))
    energy = ("energy", np.linspace(100.0, 200.0, CHANNELS), {"units": "eV"})
    return xr.DataArray(values, {"energy": energy}, ("y", "x", "energy"))


@pytest.fixture(scope="module")
def fits(image: xr.DataArray) -> dict[str, bu.Fit]:
    return {name: bu.fit(model, image, SVI, progress=False) for name, (model, fitted) in MODELS.items() if fitted}


def bound(name: str, image: xr.DataArray) -> tuple[Any, np.ndarray]:
    model, y = MODELS[name][0], image.values.reshape(UNITS, CHANNELS)
    if getattr(model, "likelihood", "normal") == "poisson":
        y = np.round(20 * np.maximum(y, 0.0))
    return model.bind(y), y


def sites(model: Any, seed: int, y: Any = None) -> dict[str, Any]:
    return handlers.trace(handlers.seed(model, seed)).get_trace(y, n_units=UNITS)


def test_every_model_of_the_package_is_in_the_table() -> None:
    of_pixels = {name for name in models.__all__ if getattr(getattr(models, name), "unit", None) != "sequence"}
    assert {type(model).__name__ for model, _ in MODELS.values()} == of_pixels


@EVERY
def test_it_traces_with_and_without_data(name: str, image: xr.DataArray) -> None:
    model, y = bound(name, image)
    for observed in (None, y):
        site = {}
        jax.eval_shape(lambda y=observed, site=site: site.update(sites(model, 0, y)["y"]))
        assert site["value"].shape == (UNITS, CHANNELS)
        assert site["fn"].batch_shape == (UNITS,)
        assert [(frame.name, frame.size) for frame in site["cond_indep_stack"]] == [("unit", UNITS)]
        assert site["is_observed"] == (observed is not None)


@EVERY
def test_prior_draws_are_finite_and_named(name: str, image: xr.DataArray) -> None:
    model, _ = bound(name, image)
    drawn = jax.jit(lambda: {n: s["value"] for n, s in sites(model, 1).items() if s["type"] == "sample"})()
    assert all(np.isfinite(value).all() for value in drawn.values())
    for site_name in set(drawn) - {"y"}:
        assert len(model.dims[site_name]) == np.ndim(drawn[site_name])


@EVERY
def test_binding_is_final(name: str, image: xr.DataArray) -> None:
    model, y = bound(name, image)
    assert model.bound and not MODELS[name][0].bound
    again = jax.tree.leaves(MODELS[name][0].bind(y))
    for one, other in zip(jax.tree.leaves(model), again, strict=True):
        np.testing.assert_array_equal(one, other)


@EVERY
def test_density_is_finite_and_its_gradient_is_its_slope(name: str, image: xr.DataArray) -> None:
    """In compiled form, at the start of every fit and away from it, in unconstrained coordinates.

    Where the density is integrated numerically, slope and difference have errors of their own: means over eight sets
    of points agree to six standard errors.
    """
    model, y = bound(name, image)
    with jax.enable_x64(True):
        program, numbers = compile_model(model, jnp.asarray(y))
        plain = as_device_data(program, numbers, y, {})
        start = np.asarray(unconstrain(program, plain.numbers, model.initial(y), plain.y, {}))
        rng = np.random.default_rng(0)
        for z in (start, start + 0.3 * rng.normal(size=start.size)):
            direction = rng.normal(size=z.size)
            differences, size = [], 0.0
            for seed in range(8):
                data = with_rules(program, jnp.asarray(z), plain, jax.random.key(seed), jnp.arange(len(y)))
                value, gradient = value_and_grad(program, jnp.asarray(z), data)
                assert np.isfinite(value) and np.isfinite(gradient).all()
                at = lambda step, z=z, v=direction, data=data: float(  # noqa: E731
                    value_and_grad(program, jnp.asarray(z + step * v), data)[0]
                )
                # Two steps without their common error in step^2; wide where points are in single precision, and
                # their weights may jump.
                smallest = IN_DOUBLE.get(name, 1e-2) if data.rules else 1e-5
                near, far = ((at(step) - at(-step)) / (2 * step) for step in (smallest, 2 * smallest))
                differences.append((4 * near - far) / 3 - float(gradient @ direction))
                size = float(np.abs(gradient) @ np.abs(direction))
                if not data.rules:
                    break
            error = np.std(differences) / np.sqrt(max(len(differences) - 1, 1))
            assert abs(np.mean(differences)) <= 6 * error + (1e-4 if data.rules else 1e-5) * size
            assert error <= 0.05 * size


# What jaxlib hands to LAPACK, a batch at a time.
LAPACK = {"cholesky", "triangular_solve", "lu", "geqrf", "householder_product", "eigh", "svd", "schur", "eig"}


def equations(jaxpr: Any) -> Iterator[Any]:
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


# Tracing takes seconds: of the unmixing models, which differ least here, one.
TRACED = pytest.mark.parametrize("name", [n for n in MODELS if not n.startswith("LinearUnmixing, ")])


def abstract(model: Any, y: np.ndarray) -> tuple[Any, jax.ShapeDtypeStruct, Any]:
    """The program, and shapes of a place and of data with rules: enough to trace."""
    program, numbers = compile_model(model, jnp.asarray(y))
    plain = as_device_data(program, numbers, y, {})
    z = jax.ShapeDtypeStruct((program.size,), plain.y.dtype)
    return program, z, jax.eval_shape(partial(with_rules, program), z, plain, jax.random.key(0), jnp.arange(len(y)))


@TRACED
def test_no_batch_goes_to_lapack(name: str, image: xr.DataArray) -> None:
    """Two batches of LAPACK problems side by side on two cores wait for each other for ever (docs/numerics.md)."""
    program, z, data = abstract(*bound(name, image))
    draws = jax.ShapeDtypeStruct((2, *z.shape), z.dtype)
    of_draws = jax.vmap(partial(value_and_grad, program), in_axes=(0, None))
    for traced in (
        jax.make_jaxpr(of_draws)(draws, data),
        jax.make_jaxpr(partial(units_curvature, program))(z, data),
    ):
        batches = [e for e in equations(traced.jaxpr) if e.primitive.name in LAPACK and e.invars[0].aval.ndim > 2]
        assert not batches, [str(e.source_info.traceback).splitlines()[0] for e in batches]


@TRACED
def test_single_precision_first_does_not_spoil_double(name: str, image: xr.DataArray) -> None:
    """Of one bound model: JAX keeps what a NumPy array became, whatever the precision (docs/numerics.md)."""
    model, y = bound(name, image)
    kept = []
    for double in (False, True):
        with jax.enable_x64(double):
            program, z, data = abstract(model, y)
            traced = jax.jit(partial(units_curvature, program)).trace(z, data)
            traced.lower()
            kept.append(traced)  # what an array became lives as long as a program that holds it


@EXPORTED
def test_potential_and_gradient_export_for_every_platform(name: str, image: xr.DataArray) -> None:
    assert_exported(*bound(name, image))


@pytest.mark.parametrize("options", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_devices_give_the_density_of_one(options: bool, image: xr.DataArray, tmp_path: Path) -> None:
    names = [name for name, (*_, fitted) in MODELS.items() if fitted != options]
    assert_two_devices_agree({name: bound(name, image) for name in names}, tmp_path)


@FITTED
def test_it_is_fitted_and_usable(name: str, fits: dict[str, bu.Fit]) -> None:
    fit = fits[name]
    assert fit.converged, fit.diagnostics.attrs["verdict"]
    assert all(np.isfinite(v.values).all() for v in fit.posterior.data_vars.values())
    for site, array in fit.posterior.data_vars.items():
        dims = [fit.units.channel_dim if d == "channel" else d for d in fit.model.dims[str(site)]]
        assert array.dims == ("chain", "draw", *dims)
    assert fit.model.describe()


@FITTED
def test_latents_are_on_the_grid_with_their_error(name: str, fits: dict[str, bu.Fit]) -> None:
    fit = fits[name]
    latent = fit.latent()[fit.model.latent]
    assert latent.dims == ("y", "x", *fit.model.dims[fit.model.latent], "statistic")
    assert np.isfinite(latent.values).all()
    spread = [latent.sel(statistic=s).values ** 2 for s in ("sd", "sd_noise", "sd_model")]
    np.testing.assert_allclose(spread[0], spread[1] + spread[2], rtol=1e-6)


@FITTED
def test_the_seed_decides_everything(name: str, fits: dict[str, bu.Fit], image: xr.DataArray) -> None:
    model, _ = MODELS[name]
    again = bu.fit(model, image, SVI, progress=False)
    other = bu.fit(model, image, SVI, progress=False, seed=1)
    for site, array in fits[name].posterior.data_vars.items():
        np.testing.assert_array_equal(again.posterior[site], array)
        # A count of components may be the same in every draw.
        assert not np.array_equal(other.posterior[site], array) or np.ptp(array.values) == 0
    xr.testing.assert_identical(fits[name].latent(seed=3), again.latent(seed=3))
    key = bu.fit(model, image, SVI, progress=False, seed=jax.random.key(1))
    xr.testing.assert_identical(key.posterior, other.posterior)


@FITTED
def test_it_is_saved_and_read_back(name: str, fits: dict[str, bu.Fit], tmp_path: Path) -> None:
    fit = fits[name]
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(back.posterior, fit.posterior)
    xr.testing.assert_identical(back.latent(), fit.latent())
    assert type(back.model) is type(fit.model) and back.model.describe() == fit.model.describe()
    assert (back.method, back.finished, back.converged) == (fit.method, fit.finished, fit.converged)
    assert back.provenance == fit.provenance


@FITTED
def test_it_predicts_and_is_criticised(name: str, fits: dict[str, bu.Fit], image: xr.DataArray) -> None:
    fit = fits[name]
    parts = bu.uncertainty(fit)
    np.testing.assert_allclose(parts["total"] ** 2, parts["epistemic"] ** 2 + parts["aleatoric"] ** 2, rtol=1e-5)
    checked = bu.check(fit)
    # The model is true: a chi-square per pixel of 16 channels has mean about 16.
    assert checked["p_value"].dims == ("y", "x")
    assert 0.3 < float(checked["p_value"].mean()) < 0.7
    assert np.isfinite(bu.waic(fit).elpd)
    drawn, truth = bu.simulate(fit.model, like=image, seed=0)
    assert drawn.dims == image.dims and drawn.shape == image.shape
    assert set(map(str, fit.posterior.data_vars)) <= set(map(str, truth.data_vars))
