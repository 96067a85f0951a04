"""Whether rules of integration, made at one place, hold where draws went."""

from __future__ import annotations

import jax
import numpy as np

from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Array, Program
from bayesunmix.inference.target import has_rules, slopes_at, with_rules

# Nats, or so many times the root of the number of globals where that is more: shifts of a tenth of a posterior standard
# deviation in every direction add up to that. Usable fits of 200 globals have .4 at most, faults of a rule tens.
_LEAST, _EACH = 1.0, 0.1
_DRAWS = 12


def off_by(program: Program, mode: Mode, draws: np.ndarray, index: Array, key: jax.Array) -> float:
    """How far the log density that ``mode`` gave is off at some of the ``draws`` (n, size), in nats.

    The root mean square of its difference from the log density by rules made at each of them, less that difference
    where its own rules were made: draws that all are in one wrong place differ alike.
    """
    if not len(draws) or not has_rules(program, mode.data):
        return 0.0

    def missing(z) -> float:
        fresh = with_rules(program, z, mode.data, key, index, mode.more)
        return float(slopes_at(program, [z], fresh)[0][0] - slopes_at(program, [z], mode.data)[0][0])

    chosen = draws[np.linspace(0, len(draws) - 1, _DRAWS).astype(int)]
    found = np.array([missing(z) for z in chosen]) - missing(mode.data.anchor)
    return float(np.sqrt(np.mean(found**2)))


def doubts(off: float, size: int) -> list[str]:
    """The fault, where so many nats are one with ``size`` globals."""
    limit = max(_LEAST, _EACH * size**0.5)
    if off <= limit:
        return []
    return [
        f"integration points made at the mode are off by {off:.1f} nats where draws went (limit {limit:.1f}), "
        "often by single outlying values: mask these (bu.check says where they are)"
    ]
