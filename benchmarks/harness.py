"""Contenders side by side: each in a process of its own, all alive at once, taking turns.

A contender is set up and called once before the turns, so that compiling and imports are not in its times. All do so
side by side, since little else happens at small sizes; what that took is kept as seconds of CPU, which the others do
not lengthen much. Every turn has data of its own, made outside the clock and the same for all.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPEATS = 5


@dataclass(frozen=True)
class Contender:
    """Who does the work.

    ``set_up(problem)`` gives ``run(problem, seed)``, whose answer is scored; it imports what it needs, and is skipped
    where that is not installed. ``repeats`` is the most turns it is given, ``note`` says why, and what it was asked;
    without ``headline`` it is left out of the short table.
    """

    name: str
    set_up: Callable[[Any], Callable[[Any, int], Any]]
    repeats: int = 10**6
    note: str = ""
    headline: bool = True


@dataclass(frozen=True)
class Share:
    """An answer for a share of the work; its times are divided by ``share``."""

    answer: Any
    share: float


@dataclass(frozen=True)
class Workload:
    """What is to be done, by whom, and how the answers are judged.

    ``problem(seed, **size)`` makes data and truth, ``score(problem, answer)`` numbers beside the time. Contenders are
    compared by wall time, or where ``rate`` names a score, by that score a second. The first contender is the one
    that the others are compared with. ``sizes`` are those of "full", and of "short" unless it says nothing at a small
    size.
    """

    title: str
    problem: Callable[..., Any]
    contenders: tuple[Contender, ...]
    score: Callable[[Any, Any], dict[str, float]]
    sizes: dict[str, dict[str, Any]]
    rate: str = ""
    repeats: int = REPEATS
    why: str = ""


def load(name: str) -> Workload:
    """The workload of ``benchmarks/workloads/name.py``, or of any module."""
    return importlib.import_module(name if "." in name else f"benchmarks.workloads.{name}").WORKLOAD


def run(
    name: str,
    size: dict[str, Any],
    repeats: int,
    rows: list[dict[str, Any]],
    keep: Callable[[], None],
    only: str = "",
) -> dict[str, str]:
    """Let the contenders of a workload take turns; returns those that were skipped, with the reason.

    ``rows`` grows by a row a turn, and ``keep`` is called after each; turns that have a row already are not repeated.
    ``only`` is a part of the names of those that are wanted.
    """
    workload = load(name)
    done = {(row["contender"], row["repeat"]) for row in rows}
    skipped: dict[str, str] = {}
    workers: dict[str, _Worker] = {}
    with contextlib.ExitStack() as stack:
        for index, contender in enumerate(workload.contenders):
            due = [r for r in range(min(repeats, contender.repeats)) if (contender.name, r) not in done]
            if due and only in contender.name:
                workers[contender.name] = stack.enter_context(_Worker(name, index, size))
        for who, worker in list(workers.items()):
            if missing := worker.missing():
                skipped[who] = missing
                del workers[who]
        for repeat in range(repeats):
            for contender in workload.contenders:
                due = repeat < contender.repeats and (contender.name, repeat) not in done
                if due and contender.name in workers:
                    rows.append({"contender": contender.name, "repeat": repeat, **workers[contender.name].turn(repeat)})
                    print(_told(rows[-1]), flush=True)
                    keep()
    return skipped


def _told(row: dict[str, Any]) -> str:
    scores = "  ".join(f"{name} {value:.4g}" for name, value in row["scores"].items())
    return f"  {row['contender']} [{row['repeat']}]  wall {row['wall']:.3g} s  cpu {row['cpu']:.3g} s  {scores}"


class _Worker:
    """A process with one contender in it."""

    def __init__(self, name: str, index: int, size: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, index, size), daemon=True)
        self._process.start()
        theirs.close()

    def missing(self) -> str:
        """What is not installed, if anything; waits until the contender is ready for its turns."""
        return self._received()

    def turn(self, repeat: int) -> dict[str, Any]:
        self._pipe.send(repeat)
        return self._received()

    def _received(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()


def _serve(pipe: Any, name: str, index: int, size: dict[str, Any]) -> None:
    """Answer turns until told to stop; the first message says what is missing, if anything."""
    try:
        workload = load(name)
        problem = workload.problem(0, **size)
        forget_peak()
        before, work = memory("VmRSS"), _worked()
        try:
            call = workload.contenders[index].set_up(problem)
            call(problem, 0)
        except ImportError as error:
            pipe.send(f"not installed: {error}")
            return
        cold, peak = _worked() - work, memory("VmHWM")
        pipe.send("")
        while (repeat := pipe.recv()) is not None:
            problem = workload.problem(repeat + 1, **size)
            forget_peak()
            load_before = os.getloadavg()[0]
            start, work = time.perf_counter(), time.process_time()
            answer = call(problem, repeat + 1)
            wall, cpu = time.perf_counter() - start, time.process_time() - work
            share = 1.0
            if isinstance(answer, Share):
                answer, share = answer.answer, answer.share
            peak = max(peak, memory("VmHWM"))
            held = {"peak": peak, "before": before}
            scores = {key: float(value) for key, value in workload.score(problem, answer).items()}
            times = {"wall": wall / share, "cpu": cpu / share, "share": share, "cold_cpu": cold}
            pipe.send({**times, **held, "load": load_before, "scores": scores})
            del problem, answer
    except BaseException as error:
        # What cannot be pickled would hide the message.
        pipe.send(RuntimeError(f"{name}, contender {index}: {type(error).__name__}: {error}"))
        raise


def _worked() -> float:
    """CPU seconds of this process and of those that it started, such as compilers."""
    return sum(os.times()[:4])


def memory(field: str) -> float:
    """MiB that this process holds (VmRSS) or has held at most (VmHWM); NaN where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**10


def forget_peak() -> None:
    """Start the peak anew, so that making the data is not in it (Linux, where it is allowed)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
