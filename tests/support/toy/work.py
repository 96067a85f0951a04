"""A workload that takes no time, for the test of the harness."""

from __future__ import annotations

from benchmarks.harness import Contender, Share, Workload


def whole(_):
    return lambda problem, seed: sum(problem)


def half(_):
    return lambda problem, seed: Share(2 * sum(problem[: len(problem) // 2]), 0.5)


def absent(_):
    import a_package_that_is_not_there  # noqa: F401

    raise AssertionError


WORKLOAD = Workload(
    title="Sums",
    problem=lambda seed, size: [seed] * size,
    contenders=(Contender("whole", whole), Contender("half", half, repeats=2, note="twice"), Contender("gone", absent)),
    score=lambda problem, answer: {"error": answer - sum(problem)},
    sizes={"full": {"size": 100}},
)
