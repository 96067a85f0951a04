"""Whether rules of integration, made at one place, hold where draws went."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.program import Program
from bayesunmix.inference.target import Data, has_rules, slopes_at, with_rules

# Nats, or so many times the root of the number of globals where that is more: shifts of a tenth of a posterior standard
# deviation in every direction add up to that. Usable fits of 200 globals have .3 at most, faults of a rule tens.
_LEAST, _EACH = 1.0, 0.1
_DRAWS = 12


def off_by(program: Program, data: Data, draws: np.ndarray, index: jax.Array, key: jax.Array) -> float:
    """How far the log density of ``data`` is off at some of the ``draws`` (n, size), in nats.

    The standard deviation, over these, of its difference from the log density by rules made at each of them: what is
    the same everywhere makes no difference to a posterior.
    """
    if len(draws) < 2 or not has_rules(program, data):
        return 0.0
    found = []
    for z in draws[np.linspace(0, len(draws) - 1, _DRAWS).astype(int)]:
        fresh = with_rules(program, jnp.asarray(z), data, key, index)
        found.append(slopes_at(program, [z], fresh)[0] - slopes_at(program, [z], data)[0])
    return float(np.std(found, ddof=1))


def doubts(off: float, size: int) -> list[str]:
    """The fault, where so many nats are one with ``size`` globals."""
    limit = max(_LEAST, _EACH * size**0.5)
    if not off > limit:
        return []
    return [
        f"integration points made at the mode are off by {off:.1f} nats where draws went (limit {limit:.1f}), as "
        "single outlying values make them: mask these (bu.check says where they are)"
    ]
