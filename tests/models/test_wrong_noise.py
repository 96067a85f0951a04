"""A likelihood that is wrong for the data is accused by `bu.check` and loses in `bu.compare`; the right one is not."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

pytestmark = pytest.mark.slow

ENERGY = np.linspace(0.0, 1.0, 24)
# Lines that reach ten times over a background: the noise of counts differs tenfold between channels.
SPECTRA = 1.0 + 12.0 * np.exp(-0.5 * ((ENERGY - np.array([[0.3], [0.7]])) / 0.06) ** 2)


def mixed(brightness: np.ndarray | float) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(0)
    return rng.dirichlet(np.ones(2), (20, 20)) @ SPECTRA * brightness, rng


def verdicts(image: xr.DataArray, right: LinearUnmixing, wrong: LinearUnmixing) -> tuple[str, str, str | None]:
    fits = {name: bu.fit(model, image, progress=False) for name, model in (("right", right), ("wrong", wrong))}
    checked = {name: str(bu.check(fit).attrs["verdict"]) for name, fit in fits.items()}
    return checked["right"], checked["wrong"], bu.compare(fits).attrs["preferred"]


def test_counts_taken_for_normal() -> None:
    clean, rng = mixed(2.0)
    image = xr.DataArray(rng.poisson(clean), dims=("y", "x", "energy"))
    right, wrong, preferred = verdicts(image, LinearUnmixing(2, likelihood="poisson"), LinearUnmixing(2))
    assert right.startswith("The model accounts for the data:")
    assert "noise that depends on the channel" in wrong
    assert preferred == "right"


def test_brightness_left_out() -> None:
    rng = np.random.default_rng(1)
    clean, _ = mixed(rng.gamma(10.0, 0.1, (20, 20, 1)))
    image = xr.DataArray(clean + 0.2 * rng.normal(size=clean.shape), dims=("y", "x", "energy"))
    right, wrong, preferred = verdicts(image, LinearUnmixing(2, brightness=True), LinearUnmixing(2))
    assert right.startswith("The model accounts for the data:")
    assert wrong.startswith("The model misses part of the data")
    assert preferred == "right"
