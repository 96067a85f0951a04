"""Float64 for every test of the engine's parts, and one small problem with its mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesunmix.inference.mode import Mode, find_mode
from bayesunmix.inference.program import Program, compile_model, unconstrain
from bayesunmix.inference.target import as_device_data
from bayesunmix.models import LinearUnmixing


class Problem(NamedTuple):
    model: Any
    program: Program
    mode: Mode


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def problem() -> Problem:
    """64 pixels of 4 channels mixed of two spectra: 9 globals."""
    rng = np.random.default_rng(0)
    spectra = np.array([[1.0, 0.6, 0.3, 0.2], [0.2, 0.3, 0.8, 1.0]])
    y = rng.dirichlet(np.ones(2), 64) @ spectra + 0.05 * rng.normal(size=(64, 4))
    model = LinearUnmixing(2).bind(y)
    with jax.enable_x64(True):
        program, numbers = compile_model(model, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        start = np.asarray(unconstrain(program, data.numbers, model.initial(y), data.y, {}))
        mode = find_mode(program, data, start, jnp.arange(64), jax.random.key(0))
    return Problem(model, program, mode)
