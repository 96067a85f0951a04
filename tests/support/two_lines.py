"""Two Gaussian lines in changing proportions, and packages that may be missing."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

LINES = np.stack([np.exp(-0.5 * ((np.arange(12) - centre) / 2.0) ** 2) for centre in (3, 8)])
SHARES = np.random.default_rng(0).uniform(size=(6, 8))


def mixture() -> np.ndarray:
    """``(6, 8, 12)``, with noise of .01."""
    mean = SHARES[..., None] * LINES[0] + (1 - SHARES[..., None]) * LINES[1]
    return mean + 0.01 * np.random.default_rng(1).normal(size=mean.shape)


def bare(array: xr.DataArray) -> xr.DataArray:
    """Without its own attributes; those of its coordinates stay."""
    array = array.copy(deep=False)
    array.attrs = {}
    return array


def imported(name: str) -> Any:
    """A package that warns of itself when it is imported, or a skip."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed: pip install 'bayesunmix[test]'")
