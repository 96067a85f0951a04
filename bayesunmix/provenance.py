"""Where a result comes from: data, seed, settings, versions, machine."""

from __future__ import annotations

import datetime
import platform
from importlib import metadata
from typing import Any

import jax
import numpy as np

from bayesunmix.data.units import Units, data_hash

_PACKAGES = ("bayesunmix", "jax", "jaxlib", "numpyro", "optax", "numpy", "scipy", "xarray", "arviz")


def describe_run(units: Units, method: dict[str, Any], seed: Any, wall: float, *, name: str) -> dict[str, Any]:
    """Facts about a fit that can be written as JSON."""
    device = jax.devices()[0]
    return {
        "model": name,
        "method": method,
        "seed": int(seed) if isinstance(seed, int | np.integer) else np.asarray(jax.random.key_data(seed)).tolist(),
        "data_name": units.name,
        "data_hash": data_hash(units),
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


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
