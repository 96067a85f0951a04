"""Gaussian mixture with full covariances: the posterior, beside a point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import held, matched


class Vectors(NamedTuple):
    vectors: np.ndarray  # (vector, 8)
    fresh: np.ndarray  # (5000, 8), from the same classes
    means: np.ndarray  # (8, 8), of the classes


def problem(seed: int, vectors: int, spread: float = 3.0) -> Vectors:
    """Classes of unit width; places of their centres scatter by ``spread`` along every axis."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(8, 8))
    values = means[rng.integers(8, size=vectors + 5000)] + rng.normal(size=(vectors + 5000, 8))
    return Vectors(values[:vectors], values[vectors:], means)


def ours(_):
    import bayesunmix as bu

    return lambda problem, seed: bu.fit(bu.models.GaussianMixture(8), problem.vectors, seed=seed, progress=False)


def scikit_learn(_, **options):
    from sklearn.mixture import GaussianMixture

    given = {"tol": 1e-5, "max_iter": 300} | options
    return lambda problem, seed: GaussianMixture(8, random_state=seed, **given).fit(problem.vectors)


def score(problem, answer) -> dict[str, float]:
    """Mean log density of fresh vectors; of a posterior also how many values of the means its intervals hold."""
    import bayesunmix as bu

    if hasattr(answer, "posterior"):
        density = bu.log_likelihood(answer, problem.fresh).stack(sample=("chain", "draw")).values
        found = float(np.mean(np.logaddexp.reduce(density, axis=-1) - np.log(density.shape[-1])))
        means = answer.posterior["means"].stack(sample=("chain", "draw")).transpose("sample", ...).values
        share = held(means, problem.means[matched(means.mean(0), problem.means)])
        return {"fresh log density": found, "means in 90 %": share, "converged": float(answer.converged)}
    return {"fresh log density": float(answer.score(problem.fresh))}


WORKLOAD = Workload(
    title="Gaussian mixture of 8 classes",
    problem=problem,
    contenders=(
        Contender("bayesunmix", ours, note="posterior of weights, means and covariances"),
        Contender("scikit-learn GaussianMixture", scikit_learn, note="EM from k-means, a point"),
    ),
    score=score,
    sizes={"full": {"vectors": 100_000}, "short": {"vectors": 2_000}},
)
