"""What a program of one's own may know of its units, when they are worked on some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.inference import unitwise
from bayesunmix.inference.program import compile_model

UNITS, CHANNELS = 500, 3
TABLE = np.linspace(1.0, 2.0, UNITS)
Y = np.ones((UNITS, CHANNELS)) + 0.1 * np.random.default_rng(0).normal(size=(UNITS, CHANNELS))
SVI = bu.SVI(draws=100)


def about(expected: Callable[..., Any]) -> Callable[..., None]:
    """A program of one height, times what is ``expected`` of (n_units, covariate)."""

    def program(y=None, *, n_units: int, known: Any = 1.0) -> None:
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            mean = height * jnp.reshape(expected(n_units, known), (-1, 1)) * jnp.ones(CHANNELS)
            numpyro.sample("y", dist.Normal(mean, 0.1).to_event(1), obs=y)

    return program


def seen_as(look: Callable[..., Any], prior: Callable[..., Any] = lambda y, n_units: dist.Normal(0.0, 1.0)):
    """A program of one height that looks at the data before it takes them for observed."""

    def program(y=None, *, n_units: int) -> None:
        height = numpyro.sample("height", prior(y, n_units))
        with numpyro.plate("unit", n_units):
            seen = None if y is None else look(y)
            numpyro.sample("y", dist.Normal(height, 0.1).expand(seen.shape[1:]).to_event(1), obs=seen)

    return program


def check(program: Callable[..., None], y: np.ndarray = Y, *, sampled: bool = False, **covariates: Any) -> None:
    unitwise.check_unitwise(*compile_model(program, y, covariates), y, covariates, sampled=sampled)


ALONE = {
    "an array": lambda n_units, known: TABLE,
    "the first entries of an array": lambda n_units, known: TABLE[:n_units],
    "those of JAX": lambda n_units, known: jnp.asarray(TABLE)[:n_units],
    "those of a longer one": lambda n_units, known: np.append(TABLE, 3.0)[:n_units],
    "a pattern that repeats in every row": lambda n_units, known: np.tile([1.0, 2.0, 3.0, 4.0], UNITS)[:n_units],
    "the same from the middle on": lambda n_units, known: np.append(TABLE, TABLE[::-1])[-n_units:],
    "places": lambda n_units, known: 1.0 + jnp.arange(n_units) / UNITS,
    "a number": lambda n_units, known: 10.0 / n_units,
    "what is largest": lambda n_units, known: known / known.max(),
    "what is least": lambda n_units, known: known / known.min(),
    "a mean": lambda n_units, known: known - known.mean(),
}


@pytest.mark.parametrize("used", ALONE)
def test_units_are_not_known_by_their_position(used: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)expected a .* jnp.arange\(n_units\): hand it over"):
        bu.fit(about(ALONE[used]), Y, SVI, progress=False, known=TABLE)


MADE = {
    "what all have in common": lambda y: y - y.min(),
    "logarithms": jnp.log,
    "some channels": lambda y: y[:, 1:],
    "sums": lambda y: y.sum(-1, keepdims=True),
}


@pytest.mark.parametrize("n_units", [20, UNITS])
@pytest.mark.parametrize("used", MADE)
def test_data_are_observed_as_they_are(used: str, n_units: int) -> None:
    """Checks and scores know nothing else."""
    with pytest.raises(ValueError, match=r"the data themselves at the site .y., .* got something made of them"):
        check(seen_as(MADE[used]), Y[:n_units])


@pytest.mark.parametrize("look", [jnp.asarray, lambda y: y.astype(jnp.float32), jnp.nan_to_num])
def test_so_they_are_in_another_precision_and_where_gaps_are_filled(look: Callable[[jax.Array], jax.Array]) -> None:
    with jax.enable_x64(True):
        check(seen_as(look), np.where(Y > 1.1, np.nan, Y))


PRIORS = {
    "data": lambda y, n_units: dist.Normal(y.mean(), 1.0),
    "units": lambda y, n_units: dist.Normal(0, 1 / n_units),
}


@pytest.mark.parametrize("used", PRIORS)
def test_priors_do_not_depend_on_which_units_are_there(used: str) -> None:
    with pytest.raises(ValueError, match=r"outside of the plate .* density of 'height' does"):
        check(seen_as(lambda y: y, PRIORS[used]))


def test_a_hot_pixel_hides_nothing() -> None:
    hot = Y.copy()
    hot[7] = 1e5
    with pytest.raises(ValueError, match="it changes for 125 of them"):
        check(about(ALONE["those of JAX"]), hot)


def test_a_program_whose_fields_are_arrays_is_one_s_own() -> None:
    def program(table, y=None, *, n_units: int) -> None:
        about(lambda n_units, known: table[:n_units])(y, n_units=n_units)

    with pytest.raises(ValueError, match="hand it over"):
        bu.fit(jax.tree_util.Partial(program, jnp.asarray(TABLE)), Y, SVI, progress=False)


def test_an_error_for_some_units_is_said_with_what_it_comes_from() -> None:
    def program(y=None, *, n_units: int) -> None:
        assert n_units == UNITS, "all of them"
        about(lambda n_units, known: known)(y, n_units=n_units)

    with pytest.raises(ValueError, match="some of its 500 units alone, got AssertionError: all of them"):
        check(program)


def test_a_covariate_that_is_as_long_as_there_are_units_by_chance() -> None:
    program = about(lambda n_units, known: jnp.ravel(known)[-1])
    with pytest.raises(ValueError, match=r"as many entries as there are units: hand it over as array\[None\]"):
        check(program, known=TABLE)
    check(program, known=TABLE[None])


TAKEN = {
    "entries that are alike": lambda n_units, known: jnp.zeros(n_units) + 1.0,
    "a table as long": lambda n_units, known: TABLE[[0, 7, 9]].sum(),
    "a covariate": lambda n_units, known: known,
}


@pytest.mark.parametrize("used", TAKEN)
def test_what_does_not_tell_units_apart_by_position_is_taken(used: str) -> None:
    fit = bu.fit(about(TAKEN[used]), Y * TABLE[:, None], bu.SVI(draws=100, batch=32), progress=False, known=TABLE)
    assert fit.converged
    if used == "a covariate":
        assert float(fit.posterior["height"].mean()) == pytest.approx(1.0, abs=4.5 * 0.1 / np.sqrt(Y.size))


@pytest.mark.parametrize("law", [dist.Uniform(0.9, 2.0), dist.Gamma(2.0, 2.0), dist.StudentT(3.0, 1.0, 0.1)])
def test_laws_that_exclude_values_are_taken(law: dist.Distribution) -> None:
    def program(y=None, *, n_units: int) -> None:
        numpyro.sample("height", dist.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", law.expand((CHANNELS,)).to_event(1), obs=y)

    assert (Y < 0.9).any()
    check(program)
    check(program, 1e6 * Y)


@pytest.mark.parametrize(("double", "noise"), [(True, 1e-6), (False, 1e-2)])
def test_rounding_of_laws_that_cancel_is_no_difference(double: bool, noise: float) -> None:
    """A low rank and little noise: log densities are differences of numbers that are ``noise**-2`` as large."""
    rng = np.random.default_rng(1)
    shapes = rng.normal(size=(64, 3))
    y = rng.normal(size=(1000, 3)) @ shapes.T + noise * rng.normal(size=(1000, 64))

    def program(y=None, *, n_units: int) -> None:
        level = numpyro.sample("level", dist.LogNormal(np.log(noise), 0.1))
        law = dist.LowRankMultivariateNormal(jnp.zeros(64), jnp.asarray(shapes), level**2 * jnp.ones(64))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", law, obs=y)

    with jax.enable_x64(double):
        check(program, y)


def test_few_units_are_worked_on_together() -> None:
    few = unitwise._FEW
    check(about(ALONE["the first entries of an array"]), Y[:few])
    check(about(lambda n_units, known: TABLE[:few]), Y[:few])


def by_unit(y=None, *, n_units: int) -> None:
    with numpyro.plate("unit", n_units):
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        numpyro.deterministic("twice", 2.0 * height)
        numpyro.sample("y", dist.Normal(height[:, None] * jnp.ones(CHANNELS), 0.1).to_event(1), obs=y)


def test_latents_of_every_unit_are_cut_with_them() -> None:
    fit = bu.fit(by_unit, Y[:100], bu.SVI(draws=100, batch=32), progress=False)
    assert fit.posterior["twice"].shape == (1, 100, 100)


def test_deterministic_sites_are_not_those_of_a_sample() -> None:
    def program(y=None, *, n_units: int, known: Any) -> None:
        numpyro.deterministic("mean", known.mean())
        about(lambda n_units, known: known)(y, n_units=n_units, known=known)

    check(program, known=TABLE)
    with pytest.raises(ValueError, match=r"deterministic sites .* 'mean' does"):
        check(program, known=TABLE, sampled=True)


def test_values_that_are_missing_are_the_same_twice() -> None:
    def program(y=None, *, n_units: int) -> None:
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(height, 0.1).expand((CHANNELS,)).to_event(1), obs=y)

    check(program, np.where(Y > 1.1, np.nan, Y))


def test_a_law_that_is_integrated_shows_it_by_its_moments() -> None:
    def mixed(noise: Callable[[int], Any]) -> Callable[..., None]:
        def program(y=None, *, n_units: int) -> None:
            spectra = numpyro.sample("spectra", dist.HalfNormal(1.0).expand((2, CHANNELS)).to_event(2))
            with numpyro.plate("unit", n_units):
                numpyro.sample("y", NormalUnmixing(spectra, None, noise(n_units)), obs=y)

        return program

    check(mixed(lambda n_units: 0.1))
    with pytest.raises(ValueError, match="changes for 125 of them"):
        check(mixed(lambda n_units: 0.1 / n_units))


def test_maps_of_covariates_are_those_of_the_pixels_that_are_kept() -> None:
    """By name, whatever their order, and the mask that the image has."""
    dims = ("y", "x", "energy")
    image = xr.DataArray((Y * TABLE[:, None]).reshape(20, 25, CHANNELS), dims=dims)
    known = xr.DataArray(TABLE.reshape(20, 25), dims=dims[:2])
    keep = np.ones((20, 25), bool)
    keep[3:7, 2:] = False
    program = about(TAKEN["a covariate"])
    fit = bu.fit(program, image, SVI, mask=keep, progress=False, known=known.T)
    np.testing.assert_array_equal(fit.covariates["known"], TABLE[keep.ravel()])
    data, _ = bu.simulate(program, image, known=known)
    assert data.shape == image.shape
    with pytest.raises(ValueError, match=r"known: expected a map of \{'y': 20, 'x': 25\}, got \{'y': 19, 'x': 25\}"):
        bu.fit(program, image, SVI, progress=False, known=known[1:])
