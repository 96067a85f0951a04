"""Enough of the units of a large image for what needs no more: scales of priors, and where a search starts."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesunmix.data.rows import Rows


def thinned(data: Any, most: int = 2**23) -> np.ndarray:
    """Units (unit, channel) in double precision: all, or as many evenly spaced ones as hold so many values at most.

    ``data`` is (..., channel).
    """
    values = data if isinstance(data, Rows) else np.reshape(data, (-1, np.shape(data)[-1]))
    every = max(1, -(-values.shape[0] * values.shape[1] // most))
    return np.asarray(values[::every], dtype=np.float64)
