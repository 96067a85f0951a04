"""Counts, endmembers unknown: the default fit under a Poisson likelihood, on images drawn from its prior."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from benchmarks import counts
from benchmarks.harness import Contender, Workload
from benchmarks.simulated import errors
from benchmarks.workloads.unmixing import hyperspy_nmf

PER_PIXEL = 200.0
HELD = {"endmembers": "endmembers in 90 %", "abundance": "abundances in 90 %"}


class Counted(NamedTuple):
    model: Any
    image: xr.DataArray
    truth: xr.Dataset

    @property
    def endmembers(self) -> np.ndarray:
        return self.truth["endmembers"].values

    @property
    def abundance(self) -> np.ndarray:
        return self.truth["abundance"].values


@functools.cache
def template(side: int, channels: int) -> xr.DataArray:
    return xr.DataArray(np.zeros((side, side, channels)), dims=("y", "x", "channel"))


def problem(seed: int, side: int, channels: int, n_endmembers: int) -> Counted:
    import bayesunmix as bu

    like = template(side, channels)
    model = counts.model_of_counts(n_endmembers, like, PER_PIXEL)
    return Counted(model, *bu.simulate(model, like=like, seed=1000 + seed))


def ours(_):
    import bayesunmix as bu

    return lambda problem, seed: bu.fit(problem.model, problem.image, seed=seed, progress=False)


def score(problem: Counted, answer) -> dict[str, float]:
    if not hasattr(answer, "posterior"):
        return errors(problem, *answer)
    mean = answer.posterior["endmembers"].mean(("chain", "draw")).values
    found = errors(problem, mean, answer.latent()["abundance"].sel(statistic="mean").values)
    return found | {HELD.get(name, name): value for name, value in counts.scored(answer, problem.truth, seed=0).items()}


WORKLOAD = Workload(
    title="Unmixing of counts, 200 a pixel",
    problem=problem,
    contenders=(
        Contender("bayesunmix", ours, note="`bu.fit` with its defaults"),
        Contender("HyperSpy NMF", hyperspy_nmf, note="points, without uncertainty, least squares"),
    ),
    score=score,
    sizes={
        "full": {"side": 64, "channels": 1024, "n_endmembers": 3},
        "short": {"side": 16, "channels": 48, "n_endmembers": 3},
    },
)
