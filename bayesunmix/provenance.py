"""Where a result comes from: data, seed, settings, versions, machine."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import metadata
from typing import Any

import jax
import numpy as np

from bayesunmix.data.units import Units, data_hash

_PACKAGES = ("bayesunmix", "jax", "jaxlib", "numpyro", "optax", "numpy", "scipy", "xarray", "arviz")


def hashed_aside(units: Units) -> Callable[[], str]:
    """A call for the hash of the data, which is worked out meanwhile where they are in memory.

    Of 256 MiB it takes a quarter of a second, a tenth of a whole fit of probabilistic PCA, and leaves a core free.
    """
    values: Any = units.values  # or rows of a file
    if not isinstance(values, np.ndarray):
        return lambda: data_hash(units)
    aside = ThreadPoolExecutor(1)
    found = aside.submit(data_hash, units)
    aside.shutdown(wait=False)
    return found.result


def describe_run(
    units: Units, method: dict[str, Any], seed: Any, wall: float, *, name: str, hashed: str
) -> dict[str, Any]:
    """Facts about a fit that can be written as JSON; ``hashed`` is the hash of the data."""
    device = jax.devices()[0]
    return {
        "model": name,
        "method": method,
        "seed": int(seed) if isinstance(seed, int | np.integer) else np.asarray(jax.random.key_data(seed)).tolist(),
        "data_name": units.name,
        "data_hash": hashed,
        "data_shape": [*units.pixel_shape, *units.values.shape[1:]],
        "n_units": units.n_units,
        "wall_s": round(wall, 3),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "precision": "float64" if jax.default_backend() == "cpu" else "float32",
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


@cache
def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
