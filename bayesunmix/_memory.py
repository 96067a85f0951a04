"""Memory that is free again."""

from __future__ import annotations

import ctypes
import os


def hand_back() -> None:
    """Give freed memory back to the system, where the C library is one that keeps it (glibc).

    Compilers and threads that read leave hundreds of MiB in its lists, in pieces that large arrays do not fit in.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
