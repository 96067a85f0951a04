"""A million vectors: the posterior of a Gaussian mixture, beside a point of equal likelihood."""

from __future__ import annotations

from benchmarks.harness import Contender, Workload
from benchmarks.workloads import classes

WORKLOAD = Workload(
    title="Gaussian mixture of 8 classes, a million vectors",
    problem=classes.problem,
    contenders=(
        Contender("bayesunmix", classes.ours, note="posterior of weights, means and covariances"),
        Contender("scikit-learn GaussianMixture", classes.scikit_learn, note="EM from k-means, a point"),
    ),
    score=classes.score,
    sizes={"full": {"vectors": 1_000_000}, "short": {"vectors": 20_000}},
)
