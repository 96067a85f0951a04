"""Room for compiled programs in a long session."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import jax

_MAPPINGS = Path("/proc/self/maps")
_MOST_MAPPINGS = Path("/proc/sys/vm/max_map_count")
_FULL = 0.5  # what one fit of a new kind and a look at everything in it need is a fifth
_PAUSE = 2.0  # seconds in which no more than a few hundred are taken, and after which a look of 4 ms does not matter
_looked = [-_PAUSE]


def make_room() -> None:
    """Let go of compiled programs when a Linux process holds half as many mappings of memory as it may.

    Every compiled loop takes some, a fit of a new kind 5000 of usually 65530; beyond those the process is ended, with
    all that it holds ("LLVM ERROR: Unable to allocate section memory"). What is used again is compiled again. Other
    systems have no such limit. Not in threads, which share their caller's programs.
    """
    now = time.monotonic()
    if threading.current_thread() is not threading.main_thread() or now < _looked[0] + _PAUSE:
        return
    _looked[0] = now
    try:
        most = int(_MOST_MAPPINGS.read_text())
        held = _MAPPINGS.read_bytes().count(b"\n")
    except OSError:
        return
    if held > _FULL * most:
        jax.clear_caches()
