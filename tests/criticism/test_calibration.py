"""The package's own posteriors under simulation-based calibration; minutes, so only with ``-m slow``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix import models

LEVEL = 1e-4  # of one test among the parameters of all models

CASES: dict[str, tuple[Any, tuple[int, ...], Any]] = {
    "LinearUnmixing": (models.LinearUnmixing(2), (12, 12, 24), bu.SVI()),
    "ProbabilisticPCA": (models.ProbabilisticPCA(1), (12, 12, 12), bu.Gibbs()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ranks_of_the_truth_are_uniform(name: str) -> None:
    model, shape, method = CASES[name]
    found = bu.calibrate(model, np.zeros(shape), 40, method=method, progress=False)
    p = {key: value for key, value in found.attrs["uniform_p"].items() if np.isfinite(value)}
    assert p
    assert min(p.values()) > LEVEL, p
