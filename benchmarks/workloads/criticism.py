"""What follows a fit: maps, checks, uncertainty, criteria and a report, beside the fit itself."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import Cube, cube


def after(name: str, work: Callable[[Any, Any, int], Any], note: str = "") -> Contender:
    """A contender that does ``work(bu, fit, seed)`` on a fit made when it is set up."""

    def set_up(problem: Cube):
        import bayesunmix as bu

        fit = bu.fit(bu.models.LinearUnmixing(len(problem.endmembers)), problem.image, seed=0, progress=False)
        return lambda _, seed: work(bu, fit, seed)

    return Contender(name, set_up, note=note, headline=False)


def refit(bu: Any, fit: Any, seed: int) -> None:
    """The fit again."""
    bu.fit(bu.models.LinearUnmixing(fit.model.n_endmembers), fit.data, seed=seed, progress=False)


def report(bu: Any, fit: Any, _: int) -> None:
    """All of it in one page."""
    with tempfile.TemporaryDirectory() as folder:
        bu.report(fit, Path(folder) / "report.html")


WORKLOAD = Workload(
    title="What follows a fit",
    problem=cube,
    contenders=(
        after("bayesunmix, bu.fit", refit),
        after(
            "bayesunmix, fit.latent",
            lambda bu, fit, seed: fit.latent(seed=seed),
            "mean, sd and interval of every abundance",
        ),
        after("bayesunmix, bu.check", lambda bu, fit, seed: bu.check(fit, seed=seed).attrs),
        after("bayesunmix, bu.uncertainty", lambda bu, fit, seed: bu.uncertainty(fit, seed=seed)),
        after("bayesunmix, bu.waic", lambda bu, fit, seed: bu.waic(fit, seed=seed)),
        after("bayesunmix, bu.report", report),
    ),
    score=lambda _, answer: {"passed": answer["passed"]} if isinstance(answer, dict) else {},
    sizes={"full": {"side": 128, "channels": 256, "n_endmembers": 4}},  # of small images all six are compiling
)
