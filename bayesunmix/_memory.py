"""Memory that is free again, where the C library keeps it (glibc); elsewhere nothing happens."""

from __future__ import annotations

import ctypes
import os
from typing import Any

_M_ARENA_MAX = -8  # of malloc.h


def hand_back() -> None:
    """Give freed memory back to the system.

    Compilers and threads that read leave hundreds of MiB in its lists, in pieces that large arrays do not fit in.
    """
    trim = _of_library("malloc_trim")
    if trim is not None:
        trim(0)


def share_one_pool() -> None:
    """Let threads that start from now on take memory from the pool of the main one.

    By default each has its own, the end of which is not handed back when it is free: some hundred MiB.
    """
    option = _of_library("mallopt")
    if option is not None and _of_library("malloc_trim") is not None:  # elsewhere the number means other things
        option(_M_ARENA_MAX, 1)


def _of_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if os.name == "posix" else None
