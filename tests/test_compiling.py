"""What was compiled for one image serves the next one of its shape, whatever the model and the method."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.inference import latents
from bayesunmix.inference.program import compile_model
from bayesunmix.models import GaussianMixture, LinearUnmixing, ProbabilisticPCA

_COMPILED: list[str] = []
_LISTENING = threading.Event()
SVI = bu.SVI(draws=100)
SPECTRA = np.random.default_rng(9).uniform(0.2, 2.0, (3, 12))


def _listen(event: str, duration: float, **_: Any) -> None:
    if _LISTENING.is_set() and event == "/jax/core/compile/backend_compile_duration":
        _COMPILED.append(event)


jax.monitoring.register_event_duration_secs_listener(_listen)


@contextmanager
def compilations() -> Iterator[list[str]]:
    _COMPILED.clear()
    _LISTENING.set()
    try:
        yield _COMPILED
    finally:
        _LISTENING.clear()


def image(
    seed: int,
    side: int,
    n_parts: int = 2,
    *,
    counts: float = 0.0,
    brightness: bool = False,
    concentration: float = 1.0,
) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    parts = rng.dirichlet(np.full(n_parts, concentration), (side, side))
    if brightness:
        parts = parts * rng.gamma(4.0, 0.25, (side, side, 1))
    mean = parts @ SPECTRA[:n_parts]
    if counts:
        values = rng.poisson(counts * mean / mean.sum(-1).mean()).astype(float)
    else:
        values = mean + 0.05 * rng.normal(size=mean.shape)
    return xr.DataArray(values, dims=("y", "x", "energy"))


def vectors(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(300, 3)) + 3.0 * rng.integers(0, 2, (300, 1))


def level(y=None, *, n_units: int) -> None:
    """A program of one's own, with a global in its prior and a number in its likelihood that it closes over."""
    height = numpyro.sample("height", PRIOR.expand((12,)).to_event(1))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", numpyro.distributions.Normal(SLOPE["of all"] * height, 1.0).to_event(1), obs=y)


PRIOR = numpyro.distributions.Normal(0.0, 100.0)
SLOPE = {"of all": 1.0}

KINDS: dict[str, tuple[Any, Any, Callable[[int], Any]]] = {
    "three endmembers": (LinearUnmixing(3), SVI, lambda seed: image(seed, 16, 3)),
    "other numbers of pixels near faces": (
        LinearUnmixing(3),
        SVI,
        lambda seed: image(seed, 32, 3, concentration=2.0 / seed),
    ),
    "samples of pixels": (LinearUnmixing(2), bu.SVI(draws=100, batch=100), lambda seed: image(seed, 24)),
    "counts": (LinearUnmixing(2, likelihood="poisson"), SVI, lambda seed: image(seed, 10, counts=300.0)),
    "brightness": (LinearUnmixing(2, brightness=True), SVI, lambda seed: image(seed, 10, brightness=True)),
    "known endmembers": (LinearUnmixing(2, endmembers=SPECTRA[:2]), SVI, lambda seed: image(seed, 20)),
    "chains": (LinearUnmixing(2), bu.NUTS(draws=30, warmup=30, chains=1), lambda seed: image(seed, 10)),
    "components": (ProbabilisticPCA(2), bu.Gibbs(draws=50, warmup=20, chains=2), lambda seed: image(seed, 10)),
    "classes": (GaussianMixture(2), SVI, vectors),
    "a program of one's own": (level, SVI, lambda seed: image(seed, 10)),
}


# Programs of a fit and its maps; each takes a megabyte and some hundredths of a second, however little it does, and
# arrays that are computed with outside of compiled functions compile one for every operation and shape.
MOST = 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_fit_of_the_same_shape_compiles_nothing(kind: str) -> None:
    """Nor do its maps, or its check where there are none; and the first one few programs."""
    model, method, make = KINDS[kind]
    for seed in (1, 2):
        with compilations() as compiled:
            fit = bu.fit(model, make(seed), method, seed=seed, progress=False)
            bu.check(fit) if model is level else fit.latent()
            if seed == 1:
                assert len(compiled) <= MOST
            else:
                assert len(compiled) == 0
                jax.jit(lambda x: x + 1.2345)(1.0)
                assert len(compiled) == 1  # the count does count


def test_how_many_draws_latents_near_one_face_are_of_is_no_part_of_their_program() -> None:
    fit = bu.fit(LinearUnmixing(2), image(1, 10), SVI, progress=False)
    with jax.enable_x64(True):
        draws, values, _ = fit._for_latents(60)
        by_all = latents._plain(draws, values, {}, draws.size)
        assert by_all is not None
        with compilations() as compiled:
            by_few = latents._plain(draws, values, {}, 8)
        assert not compiled
        alone = latents._plain(draws.thinned(8), values, {}, 8)
    for name in ("mean", "variance_noise", "variance_model", "share"):
        found, expected, other = (getattr(plain, name) for plain in (by_few, alone, by_all))
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert not np.allclose(found, other, rtol=1e-6)


def test_a_program_of_ones_own_is_compiled_anew_where_it_does_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it reads beside its arguments has no name to the engine."""
    data = image(0, 10)
    means, fits = [], []
    for slope in (1.0, 2.0):
        monkeypatch.setitem(SLOPE, "of all", slope)
        fits.append(bu.fit(level, data, SVI, progress=False))
        means.append(float(fits[-1].posterior["height"].mean()))
        bu.check(fits[-1])
    # 1200 values of a noise of one say 400 times as much as the prior; the same random numbers.
    assert means[1] == pytest.approx(0.5 * means[0], rel=0.01)
    with pytest.raises(ValueError, match="level to do what it did when it was fitted"):
        bu.check(fits[0])


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Table:
    """A model of one's own whose numbers are an array of JAX."""

    entries: Any

    def __call__(self, y=None, *, n_units: int) -> None:
        first = numpyro.sample("first", numpyro.distributions.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            mean = self.entries.at[0].set(first)
            numpyro.sample("y", numpyro.distributions.Normal(mean, 1.0).to_event(1), obs=y)


def test_arrays_of_a_model_of_ones_own_are_those_of_jax() -> None:
    fit = bu.fit(Table(jax.numpy.zeros(12)), image(0, 10), SVI, progress=False)
    assert fit.converged
    bu.check(fit)


def test_arrays_that_a_program_closes_over_count_too() -> None:
    def closing(over: np.ndarray) -> Callable[..., None]:
        def program(y=None, *, n_units: int) -> None:
            height = numpyro.sample("height", numpyro.distributions.Normal(0.0, 1.0))
            with numpyro.plate("unit", n_units):
                mean = height * jax.numpy.asarray(over)
                numpyro.sample("y", numpyro.distributions.Normal(mean, 1.0).to_event(1), obs=y)

        return program

    over, y = np.ones(3), jax.numpy.zeros((5, 3))
    program = closing(over)
    first, again = (compile_model(program, y)[0] for _ in range(2))
    assert first == again and hash(first) == hash(again)
    over[1] = 2.0
    assert compile_model(program, y)[0] != first


def of_every_unit(over: np.ndarray) -> Callable[..., None]:
    def program(y=None, *, n_units: int) -> None:
        height = numpyro.sample("height", numpyro.distributions.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            mean = height * jax.numpy.asarray(over[:n_units]) * jax.numpy.ones(3)
            numpyro.sample("y", numpyro.distributions.Normal(mean, 1.0).to_event(1), obs=y)

    return program


def test_so_do_arrays_with_an_entry_for_every_unit() -> None:
    over, y = np.ones((5, 1)), jax.numpy.zeros((5, 3))
    program = of_every_unit(over)
    first = compile_model(program, y)[0]
    over[3] = 2.0
    assert compile_model(program, y)[0] != first
