"""Probabilistic PCA of an image, with the posterior, beside decompositions that give a point."""

from __future__ import annotations

import numpy as np
import xarray as xr

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import held, loaded


def problem(seed: int, side: int, channels: int, n_components: int) -> tuple[xr.DataArray, np.ndarray]:
    return loaded(side, channels, n_components, seed)


def ours(_):
    import bayesunmix as bu

    def run(problem, seed: int):
        image, loadings = problem
        fit = bu.fit(bu.models.ProbabilisticPCA(len(loadings)), image, seed=seed, progress=False)
        return fit.posterior["components"].mean(("chain", "draw")).values, fit

    return run


def scikit_learn(_):
    from sklearn.decomposition import PCA

    def run(problem, _: int):
        image, loadings = problem
        found = PCA(len(loadings), svd_solver="covariance_eigh").fit(image.values.reshape(-1, image.shape[-1]))
        return found.components_, None

    return run


def hyperspy(_):
    import hyperspy.api as hs

    def run(problem, _: int):
        image, loadings = problem
        signal = hs.signals.Signal1D(image.values.copy())
        signal.decomposition(output_dimension=len(loadings), centre="navigation", print_info=False)
        return signal.get_decomposition_factors().data, None

    return run


def score(problem, answer) -> dict[str, float]:
    """Largest angle between the true subspace and the one found; and what the fit says of itself."""
    components, fit = answer
    true = np.linalg.qr(problem[1].T)[0]
    found = np.linalg.qr(np.asarray(components, np.float64).T)[0]
    cosine = np.linalg.svd(true.T @ found, compute_uv=False).min()
    scores = {"subspace angle, °": float(np.degrees(np.arccos(min(cosine, 1.0))))}
    if fit is not None:
        of = {name: x.values.reshape(-1, *x.shape[2:]) for name, x in fit.posterior.data_vars.items()}
        scores |= {
            "variances in 90 %": held(of["explained_variance"], np.linalg.svd(problem[1], compute_uv=False) ** 2),
            "mean in 90 %": held(of["mean"], np.zeros(problem[1].shape[1])),
            "noise in 90 %": held(of["noise_scale"], 1.0),
            "worst R-hat": float(fit.diagnostics["rhat"].max()),
        }
    return scores


WORKLOAD = Workload(
    title="Probabilistic PCA",
    problem=problem,
    contenders=(
        Contender("bayesunmix", ours, note="posterior of components, mean and noise"),
        Contender("scikit-learn PCA", scikit_learn, note='`svd_solver="covariance_eigh"`, a point'),
        Contender("HyperSpy SVD", hyperspy, note="a point"),
    ),
    score=score,
    sizes={
        "full": {"side": 256, "channels": 1024, "n_components": 8},
        "short": {"side": 64, "channels": 256, "n_components": 8},
    },
)
