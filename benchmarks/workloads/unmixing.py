"""Endmembers unknown: the default fit and its maps, beside what gives a point."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import Cube, cube, errors, scored_fit


def ours(_):
    import bayesunmix as bu

    def run(problem: Cube, seed: int):
        fit = bu.fit(bu.models.LinearUnmixing(len(problem.endmembers)), problem.image, seed=seed, progress=False)
        return fit, fit.latent(prob=0.9)

    return run


def ours_without_maps(_):
    import bayesunmix as bu

    return lambda problem, seed: bu.fit(
        bu.models.LinearUnmixing(len(problem.endmembers)), problem.image, seed=seed, progress=False
    )


def nfindr_fcls(_):
    import scipy.linalg
    from pysptools.abundance_maps.amaps import FCLS
    from pysptools.eea import NFINDR

    if not hasattr(scipy.linalg, "_flinalg"):  # pysptools takes its determinants from there; SciPy no longer has it
        scipy.linalg._flinalg = SimpleNamespace(sdet_c=lambda matrix: (np.linalg.det(matrix), 0))

    def run(problem: Cube, seed: int):
        np.random.seed(seed)
        spectra = NFINDR().extract(problem.image.values, len(problem.endmembers))
        return spectra, FCLS(problem.pixels, spectra)

    return run


def hyperspy_nmf(_):
    import hyperspy.api as hs

    def run(problem: Cube, seed: int):
        signal = hs.signals.Signal1D(np.maximum(problem.image.values, 0.0))
        n = len(problem.endmembers)
        signal.decomposition(algorithm="NMF", output_dimension=n, random_state=seed, print_info=False)
        spectra = signal.get_decomposition_factors().data
        weights = signal.get_decomposition_loadings().data.reshape(n, -1).T
        # Parts that sum to one: the scale of each spectrum that makes the sums nearest to it.
        scale = np.linalg.lstsq(weights, np.ones(len(weights)), rcond=None)[0]
        return spectra / scale[:, None], weights * scale

    return run


def score(problem: Cube, answer) -> dict[str, float]:
    if isinstance(answer, tuple) and hasattr(answer[0], "posterior"):
        return scored_fit(problem, *answer)
    if hasattr(answer, "posterior"):
        return {"converged": float(answer.converged)}
    return errors(problem, *answer)


WORKLOAD = Workload(
    title="Unmixing, endmembers unknown",
    problem=cube,
    contenders=(
        Contender("bayesunmix", ours, note="`bu.fit` with its defaults, and `fit.latent`"),
        Contender("bayesunmix, fit alone", ours_without_maps, headline=False),
        Contender("pysptools N-FINDR + FCLS", nfindr_fcls, repeats=5, note="points, without uncertainty"),
        Contender("HyperSpy NMF", hyperspy_nmf, repeats=5, note="points, without uncertainty"),
    ),
    score=score,
    sizes={
        "full": {"side": 128, "channels": 256, "n_endmembers": 4},
        "short": {"side": 24, "channels": 64, "n_endmembers": 3},
    },
    repeats=10,
)
