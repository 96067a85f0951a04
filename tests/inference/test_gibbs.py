"""Rounds of a model's own sampler: what its check asks for."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from bayesunmix.inference.gibbs import infer_by_gibbs
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.settings import Gibbs

MANY = 4000


class Sampler:
    """Independent normal chains, ``apart`` from one another."""

    def __init__(self, apart: float):
        self.apart = apart

    def start(self, rng: np.random.Generator, chains: int) -> np.ndarray:
        return rng.standard_normal((chains, MANY))

    def sweep(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(state.shape) + self.apart * np.arange(len(state))[:, None]

    def values(self, state: np.ndarray) -> dict[str, np.ndarray]:
        return {"theta": state}


class Model:
    def __init__(self, apart: float):
        self.apart = apart

    def gibbs(self, y: np.ndarray, covariates: dict) -> Sampler:
        return Sampler(self.apart)


def sampled(apart: float, most_thin: int):
    method = Gibbs(draws=250, warmup=1, chains=4, most_thin=most_thin)
    with Progress(False) as bar:
        return infer_by_gibbs(Model(apart), np.zeros((1, 1)), {}, method, jax.random.key(0), bar)


def test_the_largest_of_many_rhats_is_judged_on_two_rounds() -> None:
    """Of 4000 parameters of independent draws one round misses the limit with a probability of 97 %, two of .2 %."""
    alone = sampled(0.0, 1)
    assert "chains disagree" in alone.diagnostics.verdict
    both = sampled(0.0, 2)
    assert both.diagnostics.converged
    assert both.values["theta"].shape == (4, 250, MANY)
    assert both.diagnostics.arrays["thinning"][1] == 1.0  # no sweep was left out


class Stopped(Sampler):
    """Stopped in the first sweeps of the second round, of chains that do not agree."""

    done = 0

    def sweep(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        self.done += 1
        if self.done > 1 + 250 + 2:
            raise KeyboardInterrupt
        return super().sweep(state, rng)


def test_ctrl_c_early_in_a_round_keeps_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "gibbs", lambda self, y, covariates: Stopped(self.apart))
    found = sampled(0.2, 4)
    assert not found.finished and not found.diagnostics.converged
    assert found.values["theta"].shape == (4, 250, MANY)
    assert np.isfinite(found.values["theta"]).all()


@pytest.mark.parametrize("most_thin", [1, 2, 4])
def test_chains_apart_stay_apart(most_thin: int) -> None:
    assert not sampled(0.2, most_thin).diagnostics.converged
