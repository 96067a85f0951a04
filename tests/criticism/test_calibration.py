"""The package's own posteriors under simulation-based calibration; minutes, so only with ``-m slow``.

The table of the same, with more images, is made by ``benchmarks/calibration.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpyro.distributions as dist
import pytest

import bayesunmix as bu
from bayesunmix import models

CHAIN_PRIORS = {"means": dist.Normal(0.0, 2.0), "scales": dist.LogNormal(-0.7, 0.5)}
CHAINS = bu.Gibbs()
LEVEL = 1e-4  # of one test among the parameters of all models

CASES: dict[str, tuple[Any, tuple[int, ...], Any, int]] = {
    "LinearUnmixing": (models.LinearUnmixing(2), (12, 12, 24), bu.SVI(), 40),
    "LinearUnmixing, 3, SVI": (models.LinearUnmixing(3), (24, 24, 64), bu.SVI(), 20),
    "LinearUnmixing, 3, NUTS": (models.LinearUnmixing(3), (24, 24, 64), bu.NUTS(), 8),
    "LinearUnmixing, counts": (models.LinearUnmixing(2, likelihood="poisson"), (12, 12, 24), bu.SVI(), 40),
    "LinearUnmixing, brightness": (models.LinearUnmixing(2, brightness=True), (12, 12, 24), bu.SVI(), 40),
    "ProbabilisticPCA": (models.ProbabilisticPCA(1), (12, 12, 12), bu.Gibbs(), 40),
    "GaussianMixture": (models.GaussianMixture(2), (200, 2), bu.SVI(), 40),
    "VonMisesMixture": (models.VonMisesMixture(2), (200, 2), bu.SVI(), 40),
    "HiddenMarkovModel": (
        models.HiddenMarkovModel(2, "normal", priors=CHAIN_PRIORS, ordered=True), (5, 30), CHAINS, 40
    ),
    "HiddenMarkovModel, counts": (
        models.HiddenMarkovModel(2, "poisson", priors={"rates": dist.LogNormal(1.0, 1.0)}, ordered=True),
        (5, 30),
        CHAINS,
        40,
    ),
    "MarkovChain": (models.MarkovChain(3), (5, 30), bu.SVI(), 40),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform_and_intervals_cover_it(name: str) -> None:
    model, shape, method, n = CASES[name]
    found = bu.calibrate(model, np.zeros(shape), n, method=method, progress=False)
    p = {key: value for key, value in found.attrs["uniform_p"].items() if np.isfinite(value)}
    assert p
    assert min(p.values()) > LEVEL, p
    # A fit that says it cannot be used is ranked with the others, but there are few.
    assert found["converged"].mean() >= 0.9
    assert not (found["mc_shift"] > 0.25).any()
    covered = found.sel(level=0.9)
    for parameter in found["name"].values:
        one = covered.sel(name=parameter)
        # Where every image may cover by chance, the spread across images says nothing: at least the binomial error.
        elements = int((found["parameter"] == parameter).sum())
        error = max(float(one["coverage_se"]), np.sqrt(0.9 * 0.1 / (n * elements)))
        assert abs(float(one["coverage"]) - 0.9) <= 3 * error, (parameter, float(one["coverage"]), error)
