"""A signal and a fit that are quick to make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from two_lines import mixture

import bayesunmix as bu


@pytest.fixture(scope="session")
def image() -> xr.DataArray:
    """The mixture with calibrated axes, as a loaded file would have them."""
    coords = {
        "y": ("y", 5.0 + 0.5 * np.arange(6), {"units": "nm", "long_name": "y"}),
        "x": ("x", 2.0 * np.arange(8), {"units": "nm", "long_name": "x"}),
        "energy": ("energy", 100.0 + 0.25 * np.arange(12), {"units": "eV", "long_name": "Energy loss"}),
    }
    attrs = {"units": "counts", "long_name": "intensity", "signal_type": "EELS"}
    return xr.DataArray(mixture(), coords, ("y", "x", "energy"), "lines", attrs)


@pytest.fixture(scope="module")
def fitted(image: xr.DataArray) -> Any:
    """One principal component, without the pixels (0, 0) and (2, 5)."""
    keep = np.ones((6, 8), bool)
    keep[0, 0] = keep[2, 5] = False
    return bu.fit(bu.models.ProbabilisticPCA(1), image, mask=keep, progress=False)
