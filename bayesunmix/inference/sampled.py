"""The mode of all units of a large image, on samples of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from bayesunmix._keys import generator
from bayesunmix.inference.curvature import assembled, curvature, expansions, expansions_of_all
from bayesunmix.inference.expansion import Expansion
from bayesunmix.inference.layered import sds
from bayesunmix.inference.mode import (
    DECREMENT,
    MC_SHIFT_LIMIT,
    MOST_POINTS,
    Mode,
    ascend,
    averaged,
    inverse_root,
    step_root,
    stepped,
)
from bayesunmix.inference.program import Array, Program
from bayesunmix.inference.softness import measured_softness, without_softness
from bayesunmix.inference.target import Data, has_rules, slopes_at, with_rules
from bayesunmix.inference.whole import Around, AtPoint, Whole

_CORRECTIONS = 6  # of a sample to all units
_AGREED = 0.1  # decrement a parameter, in posterior sds, from where one Newton step leads to the mode of all units
_NOTHING, _DOUBT = 0.05, 0.1  # posterior sds: a shift that is none, and what two pairs of draws may leave open
_AT_ODDS = 2.0  # times as much curvature in a sample as in all units, or as little, in any direction


class Sampled(NamedTuple):
    """The mode with all units, from samples of them."""

    mode: Mode  # its data are a sample corrected there
    chosen: Array  # which units its first part holds
    judge: Data  # another sample corrected alike


def mode_of_all(
    program: Program,
    whole: Whole,
    start: np.ndarray,
    key: jax.Array,
    relabel: Callable[[np.ndarray, Iterable[Data]], np.ndarray] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Sampled:
    """The mode with all units, on samples of them; ``contradicted`` and of no use where these are at odds with all.

    From its own mode on, a sample is corrected to value, slope and curvature of all units, climbed, and corrected again
    until all units agree.
    """
    key_sample, key_other, key_points = jax.random.split(key, 3)
    data, index = whole.sample(key_sample)
    # So far, at least, is the mode of the sample from that of all units.
    enough = DECREMENT * len(start) * float(data.weight)
    z, more = ascend(program, np.asarray(start), data, index, key_points, 1, tell, enough), 1
    near = whole.near(z) if _has_faces(whole) else np.zeros(0, np.int64)
    if near.size:
        tell(f"units near a face: {len(near)} stand for themselves")
        data, index = whole.sample(key_sample, near)
    if relabel is not None:
        z = relabel(z, whole.chunks(z, key_points, 1))
    tell("all units, curvature")
    every = whole.expansions(z, key_points, more)[0]
    if not whole.in_file and at_odds(program, z, data, every):
        return Sampled(Mode(z, np.eye(len(z)), data, np.zeros(0), False, contradicted=True), index, data)
    mode, found = _corrected(program, whole, data, index, z, every, key_points, more, tell)
    if not (whole.in_file or mode.found or mode.data.rules):
        return Sampled(mode._replace(contradicted=True), index, data)
    settled = mode.found and np.abs(mode.mc_shift).max(initial=0.0) <= MC_SHIFT_LIMIT
    if mode.data.rules and not settled:
        z, more = mode.z, MOST_POINTS
        tell("all units, curvature")
        every = whole.expansions(z, key_points, more)[0]
        mode, found = _corrected(program, whole, data, index, z, every, key_points, more, tell)
    other, its_index = whole.sample(key_other, near, held=True)
    ruled = with_rules(program, found.z, other, key_points, its_index, more)
    # With the same units near a face, and the same rules there.
    ruled = ruled._replace(others=(*ruled.others, *mode.data.others[whole.parts - 1 :]))
    every = expansions_of_all(program, found.z, mode.data)
    judge = found.corrected(program, ruled, lacking_of(program, found.z, every, ruled))
    around = _around(program, whole, mode, key_other, key_points, more, tell) if mode.found else None
    if around is None:
        return Sampled(mode, index, judge)
    mode = mode._replace(data=around.corrected(program, mode.data))
    return Sampled(mode, index, around.corrected(program, judge))


def _around(program: Program, whole: Whole, mode: Mode, key, key_points, more: int, tell) -> Around | None:
    """The slope of all units at a few draws of the guide at the mode; None where it moves nothing, or these do not
    tell its mean.

    A sample that is right at the mode has other third derivatives than all units, which move the posterior mean. At the
    same draws their slopes differ by little else, so that two pairs of draws are enough.
    """
    half = generator(key).standard_normal((2, program.size))
    points = mode.z + np.concatenate([half, -half]) @ mode.factor.T

    def moves(slope: np.ndarray) -> float:
        return float(np.abs(mode.factor @ (mode.factor.T @ slope) / sds(mode.factor)).max())

    if moves(slopes_at(program, points, mode.data)[1].mean(0)) < _NOTHING:
        return None
    tell("all units, around the mode")
    found = whole.slopes([(z, key_points) for z in points], more)
    around = Around(points, np.array([slope for _, slope in found]))
    first, second = around.lacking(program, mode.data).reshape(2, 2, -1).mean(0)
    return around if moves(0.5 * (first - second)) < _DOUBT else None


def _agreed(z: np.ndarray) -> float:
    """Squared length of a Newton step, in posterior sds, from where it leads to the mode."""
    return max(DECREMENT, _AGREED**2 * len(z))


def _has_faces(whole: Whole) -> bool:
    """Whether the units' latents lie in a simplex: where its faces are depends on few of them, other ones in every
    sample."""
    return hasattr(whole.kind, "without_faces")


def at_odds(program: Program, z: np.ndarray, data: Data, every: dict[str, Expansion]) -> bool:
    """Whether the precision of a sample and that of all units differ by a factor in some direction.

    Where classes overlap such a direction is a small difference of large sums, and what a sample gets wrong of higher
    derivatives is as large. With integration points the soft directions of a sample are left to itself, and there is
    nothing to compare.
    """
    if has_rules(program, data):
        return False
    own = expansions(program, z, data)
    of_sample, of_all = (-assembled(program, z, data, one)[1] for one in (own, every))
    try:
        ratio = scipy.linalg.eigh(of_sample, of_all, eigvals_only=True)
    except np.linalg.LinAlgError:  # the mode of the sample is near none of all units
        return True
    return not 1.0 / _AT_ODDS < ratio.min() <= ratio.max() < _AT_ODDS


def lacking_of(program: Program, z: np.ndarray, every: dict[str, Expansion], ruled: Data) -> dict[str, Expansion]:
    """What a sample lacks of the likelihood of all units, to second order."""
    own = expansions(program, z, ruled)
    lacking = {name: every[name] - own[name] for name in own}
    if not (ruled.others and ruled.rules):
        return lacking
    return {name: without_softness(one, own[name]) for name, one in lacking.items()}


def _corrected(
    program, whole: Whole, data: Data, index, z: np.ndarray, every: dict[str, Expansion], key, more: int, tell
) -> tuple[Mode, AtPoint]:
    bare = data.unruled._replace(rest=None)
    ruled = lambda z: with_rules(program, z, bare, key, index, more)  # noqa: E731
    # What a sample lacks of the curvature hardly depends on the place: one pass of all units tells it.
    lacking = lacking_of(program, z, every, ruled(z))
    at = AtPoint(z, -np.inf, np.zeros(len(z)))
    before, agreed = np.inf, _agreed(z)
    for taken in range(_CORRECTIONS):
        tell(f"all units, pass {taken + 1}")
        found = AtPoint(z, *whole.slope(z, key, more))
        # Far from where it was made the correction is a parabola, which may open upwards.
        astray = not found.value > at.value - before
        at = at if astray else found
        z = at.z
        data = at.corrected(program, ruled(z), lacking)
        gradient, matrix = curvature(program, z, data)
        factor = step_root(program, z, data, gradient, matrix)
        decrement = float(((factor.T @ at.slope) ** 2).sum())
        tell(f"all units: {decrement:.2g} to go")
        if astray or decrement < agreed or decrement > 0.5 * before:
            break
        before, data = decrement, data.unruled
        z = ascend(program, z, data, index, key, more, tell, 0.03 * agreed)
    else:  # it has moved since
        at = AtPoint(z, *whole.slope(z, key, more))
        data = at.corrected(program, ruled(z), lacking)
        matrix = curvature(program, z, data)[1]
    factor, _ = inverse_root(-measured_softness(program, z, data, matrix))
    shift = np.zeros(0)
    if data.rules:

        def fresh(keys: list[jax.Array]) -> list[np.ndarray]:
            return [slope for _, slope in whole.slopes([(z, one) for one in keys], more)]

        slope, shift = averaged(fresh, key, factor, tell, least=1)
        at = at._replace(slope=slope)
        data = at.corrected(program, data._replace(rest=None), lacking)
    return stepped(z, factor, data, at.slope, shift, more), at
