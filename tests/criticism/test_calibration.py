"""The package's own posteriors under simulation-based calibration; minutes, so only with ``-m slow``.

The table of the same, with more images, is made by ``benchmarks/calibration.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix import models

LEVEL = 1e-4  # of one test among the parameters of all models

CASES: dict[str, tuple[Any, tuple[int, ...], Any, int]] = {
    "LinearUnmixing": (models.LinearUnmixing(2), (12, 12, 24), bu.SVI(), 40),
    "LinearUnmixing, 3, SVI": (models.LinearUnmixing(3), (24, 24, 64), bu.SVI(), 20),
    "LinearUnmixing, 3, NUTS": (models.LinearUnmixing(3), (24, 24, 64), bu.NUTS(), 8),
    "ProbabilisticPCA": (models.ProbabilisticPCA(1), (12, 12, 12), bu.Gibbs(), 40),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform_and_intervals_cover_it(name: str) -> None:
    model, shape, method, n = CASES[name]
    found = bu.calibrate(model, np.zeros(shape), n, method=method, progress=False)
    p = {key: value for key, value in found.attrs["uniform_p"].items() if np.isfinite(value)}
    assert p
    assert min(p.values()) > LEVEL, p
    assert found["converged"].all()
    assert not (found["mc_shift"] > 0.25).any()
    covered = found.sel(level=0.9)
    for parameter in found["name"].values:
        one = covered.sel(name=parameter)
        # Where every image may cover by chance, the spread across images says nothing: at least the binomial error.
        elements = int((found["parameter"] == parameter).sum())
        error = max(float(one["coverage_se"]), np.sqrt(0.9 * 0.1 / (n * elements)))
        assert abs(float(one["coverage"]) - 0.9) <= 3 * error, (parameter, float(one["coverage"]), error)
