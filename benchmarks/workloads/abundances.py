"""Known endmembers: abundances of every pixel, with their uncertainty or as a point."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Contender, Share, Workload
from benchmarks.simulated import Cube, cube

PART = 16  # one pixel in so many is given to who takes them one by one


def ours(_):
    import bayesunmix as bu

    def run(problem: Cube, seed: int):
        model = bu.models.LinearUnmixing(len(problem.endmembers), endmembers=problem.endmembers)
        fit = bu.fit(model, problem.image, seed=seed, progress=False)
        abundance = fit.latent(prob=0.9)["abundance"]
        return {s: abundance.sel(statistic=s).values for s in ("mean", "sd", "lower", "upper")}

    return run


def fcls(_):
    from pysptools.abundance_maps.amaps import FCLS

    return lambda problem, _: Share({"mean": FCLS(problem.pixels[::PART], problem.endmembers)}, 1 / PART)


def nnls(_):
    from scipy.optimize import nnls as solve

    def run(problem: Cube, _: int):
        spectra = problem.endmembers.T
        pixels = problem.pixels[::PART].astype(np.float64)
        return Share({"mean": np.array([solve(spectra, pixel)[0] for pixel in pixels])}, 1 / PART)

    return run


def score(problem: Cube, answer: dict[str, np.ndarray]) -> dict[str, float]:
    every = answer["mean"].size != problem.abundance.size
    true = problem.abundance.reshape(-1, len(problem.endmembers))[:: PART if every else 1]
    mean = answer["mean"].reshape(true.shape)
    found = {"abundance rmse": float(np.sqrt(np.mean((mean - true) ** 2)))}
    if "lower" in answer:
        low, high = (answer[s].reshape(true.shape) for s in ("lower", "upper"))
        found["abundances in 90 %"] = float(np.mean((low <= true) & (true <= high)))
        found["rms error / sd"] = float(np.sqrt(np.mean(((mean - true) / answer["sd"].reshape(true.shape)) ** 2)))
    return found


WORKLOAD = Workload(
    title="Abundances, endmembers known",
    problem=cube,
    contenders=(
        Contender("bayesunmix", ours, note="`bu.fit` and `fit.latent`: mean, sd and interval of every pixel"),
        Contender("pysptools FCLS", fcls, note="a point estimate"),
        Contender("scipy nnls", nnls, note="a point estimate without the sum to one"),
    ),
    score=score,
    sizes={
        "full": {"side": 256, "channels": 256, "n_endmembers": 4},
        "short": {"side": 48, "channels": 64, "n_endmembers": 4},
    },
)
