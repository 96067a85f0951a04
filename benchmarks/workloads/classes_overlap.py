"""A million vectors of classes that overlap, where EM needs many steps."""

from __future__ import annotations

from functools import partial

from benchmarks.harness import Contender, Workload
from benchmarks.workloads import classes

WORKLOAD = Workload(
    title="Gaussian mixture of 8 overlapping classes, a million vectors",
    problem=classes.problem,
    contenders=(
        Contender("bayesunmix", classes.ours, note="posterior of weights, means and covariances"),
        Contender("scikit-learn GaussianMixture", classes.scikit_learn, note="EM from k-means, a point, tol=1e-5"),
        Contender(
            "scikit-learn GaussianMixture, default",
            partial(classes.scikit_learn, tol=1e-3, max_iter=100),
            note="tol=1e-3, which ends before the highest likelihood",
            headline=False,
        ),
    ),
    score=classes.score,
    sizes={"full": {"vectors": 1_000_000, "spread": 0.7}},  # with few vectors too it takes minutes
)
