"""How many threads products of NumPy and SciPy take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

_before, _inside = ExitStack(), [0]


@contextmanager
def one_thread() -> Iterator[None]:
    """A context in which BLAS and LAPACK take the thread that calls them alone, in the whole process.

    They share out even small products, and their threads then wait for more in a loop, in the way of XLA's: on two
    cores fits took one and a half times as long. The first one in keeps what held before, and the last one out puts it
    back, whatever their order. OpenBLAS is told from the main thread only, so that elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if not _inside[0]:
        _before.enter_context(_libraries().limit(limits=1, user_api="blas"))
    _inside[0] += 1
    try:
        yield
    finally:
        _inside[0] -= 1
        if not _inside[0]:
            _before.close()


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
