"""What a program of one's own may know of its units, when they are worked on some at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayesunmix as bu
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.inference import unitwise

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


ALONE = {
    "an array": lambda n_units, known: TABLE,
    "the first entries of an array": lambda n_units, known: TABLE[:n_units],
    "those of JAX": lambda n_units, known: jnp.asarray(TABLE)[:n_units],
    "those of a longer one": lambda n_units, known: np.append(TABLE, 3.0)[:n_units],
    "a pattern that repeats in every row": lambda n_units, known: np.tile([1.0, 2.0, 3.0, 4.0], UNITS)[:n_units],
    "the same from the middle on": lambda n_units, known: np.append(TABLE, TABLE[::-1])[-n_units:],
    "a number": lambda n_units, known: 1.0 + jnp.arange(n_units) / UNITS,
}


@pytest.mark.parametrize("used", ALONE)
def test_units_are_not_known_by_their_position(used: str) -> None:
    with pytest.raises(ValueError, match=r"(?s)expected a program that .* over as a covariate"):
        bu.fit(about(ALONE[used]), Y, SVI, progress=False)


def test_a_covariate_that_is_as_long_as_there_are_units_by_chance() -> None:
    program = about(lambda n_units, known: known[-1])
    with pytest.raises(ValueError, match="must not have as many entries as there are units"):
        bu.fit(program, Y, SVI, progress=False, known=TABLE)
    assert bu.fit(program, Y, SVI, progress=False, known=TABLE[1:]).converged


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


def test_few_units_are_worked_on_together() -> None:
    few = unitwise._FEW
    assert bu.fit(about(lambda n_units, known: TABLE[:n_units]), Y[:few], SVI, progress=False).finished


def test_latents_of_every_unit_are_cut_with_them() -> None:
    def program(y=None, *, n_units: int) -> None:
        with numpyro.plate("unit", n_units):
            height = numpyro.sample("height", dist.Normal(0.0, 1.0))
            numpyro.sample("y", dist.Normal(height[:, None] * jnp.ones(CHANNELS), 0.1).to_event(1), obs=y)

    assert bu.fit(program, Y[:100], SVI, progress=False).finished


def test_values_that_are_missing_are_the_same_twice() -> None:
    def program(y=None, *, n_units: int) -> None:
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(height, 0.1).expand((CHANNELS,)).to_event(1), obs=y)

    unitwise.check_unitwise(*_compiled(program, Y), np.where(Y > 1.1, np.nan, Y), {})


def test_a_law_that_is_integrated_shows_it_by_its_moments() -> None:
    def mixed(noise: Callable[[int], Any]) -> Callable[..., None]:
        def program(y=None, *, n_units: int) -> None:
            spectra = numpyro.sample("spectra", dist.HalfNormal(1.0).expand((2, CHANNELS)).to_event(2))
            with numpyro.plate("unit", n_units):
                numpyro.sample("y", NormalUnmixing(spectra, None, noise(n_units)), obs=y)

        return program

    unitwise.check_unitwise(*_compiled(mixed(lambda n_units: 0.1), Y), Y, {})
    with pytest.raises(ValueError, match=f"of {UNITS} units it says something else of {UNITS // 2 - 1}"):
        unitwise.check_unitwise(*_compiled(mixed(lambda n_units: 0.1 / n_units), Y), Y, {})


def _compiled(program: Callable[..., None], y: np.ndarray) -> tuple[Any, Any]:
    from bayesunmix.inference.program import compile_model

    return compile_model(program, y)
