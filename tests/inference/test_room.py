"""Compiled programs are let go before a process has more mappings of memory than it may."""

from __future__ import annotations

import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bayesunmix.inference import room
from bayesunmix.inference.context import computing


@pytest.fixture
def mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that may hold a hundred mappings; the file of those that it holds."""
    held, most = tmp_path / "maps", tmp_path / "max_map_count"
    most.write_text("100\n")
    monkeypatch.setattr(room, "_MAPPINGS", held)
    monkeypatch.setattr(room, "_MOST_MAPPINGS", most)
    monkeypatch.setattr(room, "_PAUSE", 0.0)
    return held


@pytest.mark.parametrize(("held", "kept"), [(50, 1), (51, 0)])
def test_programs_are_let_go_when_half_of_the_mappings_are_taken(held: int, kept: int, mapped: Path) -> None:
    mapped.write_text("address\n" * held)
    program = jax.jit(lambda x: x + 1.0)
    program(jnp.ones(3))
    with computing():
        assert program._cache_size() == kept
    assert program(jnp.ones(3))[0] == 2.0


def test_nothing_is_looked_at_again_at_once(mapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading the mappings takes as long as a small fit."""
    monkeypatch.setattr(room, "_PAUSE", 3600.0)
    monkeypatch.setattr(room, "_looked", [room.time.monotonic()])
    mapped.write_text("address\n" * 99)
    program = jax.jit(lambda x: x + 1.0)
    program(jnp.ones(3))
    room.make_room()
    assert program._cache_size() == 1


def test_threads_keep_the_programs_of_their_caller(mapped: Path) -> None:
    mapped.write_text("address\n" * 99)
    program = jax.jit(lambda x: x + 1.0)
    program(jnp.ones(3))
    thread = threading.Thread(target=room.make_room)
    thread.start()
    thread.join()
    assert program._cache_size() == 1


def test_systems_without_mappings_are_left_alone(mapped: Path) -> None:
    """Where there is no such file."""
    program = jax.jit(lambda x: x + 1.0)
    program(jnp.ones(3))
    assert not mapped.exists()
    room.make_room()
    assert program._cache_size() == 1


def test_this_process_is_read() -> None:
    """On Linux the files are there, and say less than the limit."""
    if not room._MAPPINGS.exists():
        pytest.skip("not a Linux system")
    assert 0 < room._MAPPINGS.read_bytes().count(b"\n") < int(room._MOST_MAPPINGS.read_text())
