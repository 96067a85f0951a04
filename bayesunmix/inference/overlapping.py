"""Guides of posteriors whose shape no sample of the units has, as of classes that overlap.

There a soft direction is a small difference of large sums. Second derivatives of a sample and of all units have little
in common in it, so that the mode of a sample leads to a wrong one of all; and a ridge is bent, so that its top says
little of where most of the posterior is. Therefore all units are climbed from the start to near a mode. From there
the guide goes to where its ELBO is stationary: the mean slope over its draws is zero, and minus the mean Hessian its
precision (Opper & Archambeau, Neural Comput. 21, 786 (2009)). Its steps are taken on a sample that has value, slope and
curvature of all units where the guide is, which leaves to the sample third derivatives only. All units judge what comes
of it, and another start must end at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from bayesunmix._keys import generator
from bayesunmix.inference.best_guide import Best
from bayesunmix.inference.curvature import curvature
from bayesunmix.inference.guide import Guide
from bayesunmix.inference.guide_check import GuideCheck, check_guide
from bayesunmix.inference.mode import Mode, ascend, inverse_root
from bayesunmix.inference.program import Program
from bayesunmix.inference.sampled import lacking_of
from bayesunmix.inference.shape import even_draws
from bayesunmix.inference.target import Data
from bayesunmix.inference.whole import AtPoint, Whole

_NEAR = 0.25  # squared length of Newton's step a parameter, in posterior sds, from where guides are followed
_FEWEST = 16  # chunks of units, below which all are taken instead of a sample
_PAIRS = 8  # of antithetic draws, behind every step of a guide
_STEPS, _FINE = 16, 6  # at most, and once the precision is right to a factor of ``_ALIKE`` in every direction
_SOFTEST = 0.1  # as fast as a guide may widen
_ALIKE = 3.0  # about what so few draws leave open in the softest one
_REACH = 0.5  # posterior sds of a parameter (root mean square) in one step
_SAME = 0.5  # posterior sds of a parameter between guides that are the same
_STILL = 0.15  # posterior sds of a parameter: no farther from where a sample was corrected it is as good


class Followed(NamedTuple):
    """A guide, what stands for all units around it, what was found there before its last step, and whether steps had
    ended by themselves."""

    guide: Guide
    data: Data
    latest: GuideCheck
    settled: bool

    @property
    def height(self) -> float:
        """Log evidence, to second order in the scatter of the log weight; below all others where it is no number."""
        return float(np.nan_to_num(self.latest.elbo + 0.5 * self.latest.excess, nan=-np.inf))


def guide_of_all(
    program: Program,
    whole: Whole,
    starts: Iterable[np.ndarray],
    key: jax.Array,
    relabel: Callable[[np.ndarray, Iterable[Data]], np.ndarray] | None = None,
    matched: Callable[[np.ndarray, np.ndarray, Data], np.ndarray] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Mode, Best]:
    """The highest guide from several starts, ``alone`` where all of them end at the same place.

    ``matched`` puts exchangeable labels of a place in the order that they have at another one.
    """
    *keys, key_check = jax.random.split(key, 4)
    every, index = whole.every()
    chunks = whole.n_units // whole.size
    few = replace(whole, parts=chunks // _FEWEST).sample(keys[0])[0] if chunks > _FEWEST else None

    def around(z: np.ndarray) -> Data:
        return every if few is None else _corrected(program, whole, few, z, keys[1])

    found = []
    for start in starts:
        tell("a sample contradicts all units: these, climb")
        z = ascend(program, start, every, index, keys[1], tell=tell, enough=_NEAR * len(start))
        z = z if relabel is None else relabel(z, whole.chunks(z, keys[1], 1))
        found.append(_followed(program, around, z, keys[2], tell))
    guide, data, latest, settled = max(found, key=lambda one: one.height)

    def away(other: Guide) -> float:
        """How far the location of another guide is, in sds of a parameter."""
        place = other.location if matched is None else matched(other.location, guide.location, data)
        return float(np.sqrt(np.mean(scipy.linalg.solve_triangular(guide.factor, place - guide.location) ** 2)))

    alone = max(away(one.guide) for one in found) < _SAME
    tell("the guide that all units make")
    checked = check_guide(program, guide, every, key_check)
    # Half way between two estimates of the same place.
    guide = guide.moved(0.5 * _small(checked.step))
    mode = Mode(guide.location, guide.factor, data, np.zeros(0), True, alone=alone, contradicted=True)
    faults = checked.faults() + checked.lopsided() + checked.scattered()
    return mode, Best(guide, np.array([latest.elbo, checked.elbo]), settled, checked, faults).widened()


def _small(step: np.ndarray) -> np.ndarray:
    """A step of a guide in whitened coordinates, or none where it is too long for one."""
    return step if np.sqrt(np.mean(step**2)) < _REACH else np.zeros_like(step)


def _corrected(program: Program, whole: Whole, few: Data, z: np.ndarray, key: jax.Array) -> Data:
    """A sample with value, slope and curvature of all units at a place."""
    lacking = lacking_of(program, z, whole.expansions(z, key, 1)[0], few)
    return AtPoint(z, *whole.slope(z, key, 1)).corrected(program, few, lacking)


def _followed(
    program: Program, around: Callable[[np.ndarray], Data], z: np.ndarray, key: jax.Array, tell: Callable[[str], None]
) -> Followed:
    """The Gaussian at which the ELBO is stationary, from a place near a mode.

    The precision goes half the way, in the logarithm, to what draws say of it, for the mean goes by the guide's own
    width; once that is no farther than so few draws can tell, their means are averaged.
    """
    rng, fine = generator(key), 0
    data = around(z)
    factor = inverse_root(-curvature(program, z, data)[1])[0]
    for taken in range(_STEPS):
        half = even_draws(rng, _PAIRS, factor)
        seen = [curvature(program, point, data) for point in z + np.concatenate([half, -half]) @ factor.T]
        slope, bend = (sum(each) / len(seen) for each in zip(*seen, strict=True))
        if not np.isfinite(bend).all():
            break
        steepness, axes = np.linalg.eigh(-factor.T @ bend @ factor)
        # Of a soft direction so few draws know little, and the guide's own width is the safer one.
        step = axes @ ((slope @ factor @ axes) / np.maximum(steepness, 1.0))
        length = float(np.sqrt(np.mean(step**2)))
        tell(f"guide: step {taken + 1}, {length:.2g} sds, precisions {steepness.min():.2g} to {steepness.max():.2g}")
        z = z + factor @ (step * min(1.0, _REACH / length))
        alike = 1.0 / _ALIKE < steepness.min() <= steepness.max() < _ALIKE and length < _REACH
        fine = fine + 1 if fine or alike else 0
        if fine:
            precision = np.linalg.inv(factor @ factor.T)
            factor = inverse_root(precision - (bend + precision) / (1 + fine))[0]
        else:
            factor = scipy.linalg.rq(factor @ (axes * np.maximum(np.abs(steepness), _SOFTEST) ** -0.25))[0]
            factor = factor * np.sign(np.diag(factor))
        if length > _STILL or fine == _FINE:
            data = around(z)
        if fine == _FINE:
            break
    guide = Guide(z, np.ones_like(z), factor)
    found = check_guide(program, guide, data, key)
    return Followed(guide.moved(_small(found.step)), data, found, fine == _FINE)
