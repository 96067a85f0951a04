"""Units spread over the devices of a host."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def spread(value: Any, n_units: int) -> jax.Array:
    """An array on all local devices: split by units when it has one entry for each, else the same on every device.

    Devices hold equal shares, so only as many are used as divide the number of units.
    """
    if np.ndim(value) and not isinstance(value, jax.Array):
        value = np.asarray(value)  # a list would be put there entry by entry
    devices = jax.local_devices()
    share = max(count for count in range(1, len(devices) + 1) if n_units % count == 0)
    if share == 1:
        return jax.device_put(value)
    mesh = Mesh(np.array(devices[:share]), ("unit",))
    by_unit = np.ndim(value) > 0 and len(value) == n_units
    return jax.device_put(value, NamedSharding(mesh, PartitionSpec("unit") if by_unit else PartitionSpec()))
