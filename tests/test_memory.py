"""Memory that is free goes back to the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bayesunmix._memory import hand_back

pytestmark = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries keep nothing that could be asked for"
)

POOLS = """
import ctypes, sys, threading
from bayesunmix._memory import share_one_pool
if sys.argv[1] == "one":
    share_one_pool()
threads = [threading.Thread(target=lambda: [bytearray(2000) for _ in range(1000)]) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library = ctypes.CDLL(None)
library.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(library.fopen(sys.argv[2].encode(), b"w"))
library.malloc_info(0, file)
library.fclose(file)
"""


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_freed_memory_goes_back() -> None:
    """Of 64 MiB in small pieces of which every 64th stays, half at least: the others are free pages in between."""
    pieces = [np.ones(1024) for _ in range(8192)]
    held = pieces[::64]
    del pieces
    before = resident()
    hand_back()
    assert before - resident() > 2**25
    assert len(held) == 128


@pytest.mark.parametrize(("pools", "most"), [("one", 1), ("their own", 100)])
def test_threads_share_one_pool(pools: str, most: int, tmp_path: Path) -> None:
    """In a process of its own: threads that live at once, and what the library says of their pools."""
    told = tmp_path / "pools.xml"
    subprocess.run([sys.executable, "-c", POOLS, pools, str(told)], check=True)
    count = told.read_text().count("<heap nr=")
    assert count <= most
    assert (count > 1) == (pools != "one")
