"""What holds while the engine computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from bayesunmix._threads import one_thread
from bayesunmix.inference.room import make_room


@contextlib.contextmanager
def computing(one: bool = True) -> Iterator[None]:
    """Float64 on a CPU, and float32 on accelerators, whose matrix products round to fewer digits unless they are told
    not to; unless there are no others, ``one`` thread for products of NumPy and SciPy, out of the way of XLA's. Only
    this context is affected."""
    make_room()
    on_cpu = jax.default_backend() == "cpu"
    precise = contextlib.nullcontext() if on_cpu else jax.default_matmul_precision("highest")
    with one_thread() if one else contextlib.nullcontext(), jax.enable_x64(on_cpu), precise:
        yield
