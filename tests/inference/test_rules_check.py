"""Rules made at the mode, looked at where draws went."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayesunmix as bu
from bayesunmix.inference import rules_check
from bayesunmix.inference.context import computing
from bayesunmix.inference.mode import Mode, find_mode
from bayesunmix.inference.program import Program, compile_model
from bayesunmix.inference.rules_check import doubts, off_by
from bayesunmix.inference.target import as_device_data, place_of

SIDE, CHANNELS = 12, 16


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    spectra = rng.uniform(0.5, 2.0, (3, CHANNELS))
    return rng.dirichlet(np.ones(3), SIDE**2) @ spectra + 0.02 * rng.normal(size=(SIDE**2, CHANNELS))


@pytest.fixture(scope="module")
def found(image: np.ndarray) -> tuple[Program, Mode]:
    with computing():
        program, numbers = compile_model(bu.models.LinearUnmixing(3).bind(image), jnp.asarray(image))
        data = as_device_data(program, numbers, image, {})
        start = place_of(program, bu.models.LinearUnmixing(3).bind(image).initial(image), data)
        return program, find_mode(program, data, start, jnp.arange(len(image)), jax.random.key(0))


def test_rules_hold_near_the_mode_and_not_far_from_it(found: tuple[Program, Mode], image: np.ndarray) -> None:
    """Draws of the guide; draws so far that pixels leave the simplex through faces that were out of reach; and draws
    all in one such place, alike among themselves."""
    program, mode = found
    white = np.random.default_rng(1).standard_normal((40, program.size))

    def off(points: np.ndarray) -> float:
        places = mode.z + points @ mode.factor.T
        return off_by(program, mode, places, jnp.arange(len(image)), jax.random.key(1))

    with computing():
        near, far = off(white), off(60.0 * white)
        together = max(off(60.0 * center + 0.01 * white) for center in white[:4])
    assert doubts(near, program.size) == []
    for wrong in (far, together):
        assert "nats where draws went" in doubts(wrong, program.size)[0]


def test_the_limit_grows_with_the_globals() -> None:
    assert doubts(0.99, 10) == doubts(2.9, 900) == []
    assert doubts(1.01, 10) and doubts(3.1, 900) and doubts(np.nan, 900)


def test_nothing_is_off_without_rules() -> None:
    def level(y=None, *, n_units: int) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(mean, 1.0).expand([2]).to_event(1), obs=y)

    y = np.random.default_rng(0).normal(size=(4, 2))
    program, numbers = compile_model(level, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    mode = find_mode(program, data, np.zeros(1), jnp.arange(4), jax.random.key(0))
    assert off_by(program, mode, np.linspace(-1, 1, 20)[:, None], jnp.arange(4), jax.random.key(0)) == 0.0


@pytest.mark.parametrize("method", [bu.NUTS(draws=30, warmup=30, chains=1), bu.SVI(draws=50)])
def test_a_fit_by_chains_says_so(image: np.ndarray, method: bu.NUTS | bu.SVI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains are doubted; a guide that passes stays near its mode, and is not."""
    monkeypatch.setattr(rules_check, "off_by", lambda *_: 25.0)
    fit = bu.fit(bu.models.LinearUnmixing(3), image, method, progress=False)
    said = "off by 25.0 nats where draws went" in fit.diagnostics.attrs["verdict"]
    assert said == isinstance(method, bu.NUTS)
