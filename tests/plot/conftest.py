"""A fit made by hand: what the figures read of a fit, with numbers that are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

from bayesunmix.data.simulators import core_shell


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture
def make_fit() -> Callable[..., Any]:
    return _make_fit


@pytest.fixture
def handmade() -> Any:
    return _make_fit()


def _make_fit(*, select: dict[str, int] | None = None, frames: int = 0, inferred: bool = True) -> Any:
    """Endmembers are the truth in reverse order; the first pixel is masked.

    `select` makes a line scan of the image, `frames` a series of images.
    """
    image, truth = core_shell((8, 10), 16)
    image, truth = image.isel(select or {}), truth.isel(select or {})
    if frames:
        time = xr.DataArray(np.arange(float(frames)), dims="time", attrs={"units": "s"}, name="time")
        image = xr.concat([image] * frames, time)
        truth = truth.assign(abundance=xr.concat([truth["abundance"]] * frames, time))
    rng = np.random.default_rng(0)
    pixel_dims = image.dims[:-1]
    keep = np.ones(image.shape[:-1], bool)
    keep.flat[0] = False

    mean = truth["abundance"].values[..., ::-1]
    sd = rng.uniform(0.01, 0.05, mean.shape)
    statistics = np.stack([mean, sd, mean - 2 * sd, mean + 2 * sd, 0.8 * sd, 0.6 * sd], axis=-1)
    statistics[~keep] = np.nan
    pixel_coords = {d: image.coords[d] for d in pixel_dims}
    names = ["mean", "sd", "lower", "upper", "sd_noise", "sd_model"]
    latent = xr.Dataset(
        {
            "abundance": ((*pixel_dims, "endmember", "statistic"), statistics),
            "brightness": ((*pixel_dims, "statistic"), 0.5 + statistics[..., 0, :]),
        },
        pixel_coords | {"endmember": np.arange(3), "statistic": names},
    )
    draws = np.where(keep[..., None], mean > 0.5, np.nan) * np.ones((4,) + (1,) * mean.ndim)

    spectra = truth["endmembers"].values[::-1] + 0.01 * rng.normal(size=(2, 50, 3, 16))
    posterior = xr.Dataset(
        {
            "endmembers": (("chain", "draw", "endmember", "energy"), spectra),
            "noise_scale": (("chain", "draw"), rng.normal(1, 0.1, (2, 50))),
        },
        {"endmember": np.arange(3), "energy": image.coords["energy"]},
    )
    residual = xr.DataArray(rng.normal(size=image.shape), image.coords, image.dims).where(
        xr.DataArray(keep, dims=pixel_dims)
    )
    chi2 = (residual**2).sum("energy", min_count=1)
    checked = xr.Dataset({"residual": residual, "chi2": chi2, "p_value": chi2 * 0 + 0.5})
    scale = xr.ones_like(image)
    split = xr.Dataset({"mean": image, "epistemic": 3 * scale, "aleatoric": 4 * scale, "total": 5 * scale})
    return SimpleNamespace(
        data=image,
        truth=truth,
        model=SimpleNamespace(endmembers=None if inferred else truth["endmembers"].values[::-1]),
        posterior=posterior if inferred else posterior[["noise_scale"]],
        latent=lambda: latent,
        sample_latent=lambda: xr.Dataset({"abundance": (("draw", *latent["abundance"].dims[:-1]), draws)}),
        diagnostics=xr.Dataset({"elbo": ("step", [-9.0, -5.0, -4.0])}),
        checked=checked,
        split=split,
    )
