"""Which floating-point precision a run computes in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def native_precision() -> Iterator[None]:
    """Float64 on a CPU; float32 on accelerators. Only this context is affected."""
    with jax.enable_x64(jax.default_backend() == "cpu"):
        yield
