"""Fits for criticism: one made by inference, the others by hand from exact posterior draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.data.units import as_units, data_hash
from bayesunmix.models import LinearUnmixing
from bayesunmix.provenance import describe_run

ENERGY = ("energy", 100.0 + 2.0 * np.arange(16), {"units": "eV"})
SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))


def image_of(values: np.ndarray) -> xr.DataArray:
    """An image on named axes."""
    coords = {"y": ("y", 0.5 * np.arange(len(values)), {"units": "nm"}), "energy": ENERGY}
    return xr.DataArray(values, coords, ("y", "x", "energy"), "toy", {"units": "counts"})


def mixed_image(shape: tuple[int, int] = (8, 8), noise: float = 0.05, seed: int = 0) -> xr.DataArray:
    """Mixtures of two spectra with normal noise."""
    rng = np.random.default_rng(seed)
    clean = rng.dirichlet(np.ones(2), shape) @ SPECTRA
    return image_of(clean + rng.normal(0.0, noise, clean.shape))


@pytest.fixture(scope="session")
def image() -> xr.DataArray:
    return mixed_image()


@pytest.fixture(scope="session")
def svi_fit(image: xr.DataArray) -> bu.Fit:
    return bu.fit(LinearUnmixing(2), image, bu.SVI(draws=200, steps=20), progress=False)


@pytest.fixture(scope="session")
def make_fit() -> Callable[..., bu.Fit]:
    """A fit from a model, data and posterior draws ``name=(dims, values)`` with axes (chain, draw, ...)."""

    def make(model: Any, data: Any, *, mask: Any = None, covariates: Any = None, **draws: Any) -> bu.Fit:
        units = as_units(data, mask=mask)
        bound = model.bind(units.values) if hasattr(model, "bind") and not model.bound else model
        posterior = xr.Dataset({name: (("chain", "draw", *dims), values) for name, (dims, values) in draws.items()})
        posterior = posterior.assign_coords({d: np.arange(posterior.sizes[d]) for d in ("chain", "draw")})
        return bu.Fit(
            model=bound,
            method=bu.SVI(),
            units=units,
            posterior=posterior,
            diagnostics=xr.Dataset(attrs={"converged": 1, "verdict": "made by hand"}),
            finished=True,
            provenance=describe_run(units, {"name": "SVI"}, 0, 0.0, name=type(model).__name__, hashed=data_hash(units)),
            covariates=covariates or {},
        )

    return make
