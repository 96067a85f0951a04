"""Which floating-point precision a run computes in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from bayesunmix.inference.room import make_room


@contextlib.contextmanager
def native_precision() -> Iterator[None]:
    """Float64 on a CPU; float32 on accelerators, whose matrix products round to fewer digits unless they are told not
    to. Only this context is affected."""
    make_room()
    on_cpu = jax.default_backend() == "cpu"
    with jax.enable_x64(on_cpu), contextlib.nullcontext() if on_cpu else jax.default_matmul_precision("highest"):
        yield
