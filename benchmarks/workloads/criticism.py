"""What follows a fit: maps, checks, uncertainty, criteria and a report, beside the fit itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import Cube, cube, scored_fit


def after(
    name: str, work: Callable[[Any, Any, int], Any], score: Callable[..., dict[str, float]] | None = None
) -> Contender:
    """A contender that does ``work(bu, fit, seed)`` on a fit made when it is set up; ``score`` knows its truth."""

    def set_up(problem: Cube):
        import bayesunmix as bu

        fit = bu.fit(bu.models.LinearUnmixing(len(problem.endmembers)), problem.image, seed=0, progress=False)

        def run(_: Cube, seed: int):
            found = work(bu, fit, seed)
            return lambda: score(problem, fit, found) if score else {}

        return run

    return Contender(name, set_up, headline=False)


def refit(bu: Any, fit: Any, seed: int) -> None:
    """The fit again."""
    bu.fit(bu.models.LinearUnmixing(fit.model.n_endmembers), fit.data, seed=seed, progress=False)


def report(bu: Any, fit: Any, _: int) -> None:
    """All of it in one page."""
    with tempfile.TemporaryDirectory() as folder:
        bu.report(fit, Path(folder) / "report.html")


def of_maps(problem: Cube, fit: Any, maps: xr.Dataset) -> dict[str, float]:
    """Errors of abundances, and the share of them that intervals hold."""
    found = scored_fit(problem, fit, maps)
    return {name: found[name] for name in ("abundance rmse", "abundances in 90 %")}


def of_split(problem: Cube, _: Any, split: xr.Dataset) -> dict[str, float]:
    """Errors of the predicted signal over its epistemic sd, and aleatoric sd over that of the noise."""
    away = split["mean"].values - problem.abundance @ problem.endmembers
    return {
        "rms error / sd": float(np.sqrt(np.mean((away / split["epistemic"].values) ** 2))),
        "sd / true noise": float(split["aleatoric"].values.mean() / problem.noise),
    }


WORKLOAD = Workload(
    title="What follows a fit",
    problem=cube,
    contenders=(
        after("bayesunmix, bu.fit", refit),
        after("bayesunmix, fit.latent", lambda bu, fit, seed: fit.latent(seed=seed), of_maps),
        after(
            "bayesunmix, bu.check",
            lambda bu, fit, seed: bu.check(fit, seed=seed).attrs,
            lambda problem, fit, found: {"passed": found["passed"]},
        ),
        after("bayesunmix, bu.uncertainty", lambda bu, fit, seed: bu.uncertainty(fit, seed=seed), of_split),
        after("bayesunmix, bu.waic", lambda bu, fit, seed: bu.waic(fit, seed=seed)),
        after("bayesunmix, bu.report", report),
    ),
    score=lambda _, scored: scored(),
    sizes={"full": {"side": 128, "channels": 256, "n_endmembers": 4}},  # of small images all six are compiling
)
