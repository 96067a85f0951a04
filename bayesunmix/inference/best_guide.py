"""The best Gaussian guide that can be had: leaps where they lead there, a better shape or descent where they do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from bayesunmix.inference.guide import Guide, fit_guide
from bayesunmix.inference.guide_check import GuideCheck, check_guide
from bayesunmix.inference.layered import LayeredRoot
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.shape import averaged_curvature, measured
from bayesunmix.inference.target import Data

_LEAPS = 3
_FAR = 1.0  # posterior sds of a parameter (root mean square): the guide at the mode says little of what is so far away
_LATEST = 10  # steps whose mean is taken for the ELBO
_AVERAGING = averaged_curvature, "averaging the curvature over it"
_SHAPES = (measured, "measuring its widths"), _AVERAGING, _AVERAGING


class Best(NamedTuple):
    """A guide, how it came about, and what was found against it."""

    guide: Guide
    elbo: np.ndarray  # of every step
    settled: bool
    checked: GuideCheck
    faults: list[str]

    def widened(self) -> Best:
        """One that passed, as wide as its check says; for a check on the data of the fit.

        What a check on another sample of units leaves is the difference of two samples, too.
        """
        if self.faults:
            return self
        stretch = self.guide.stretch * self.checked.widening(len(self.guide.location))
        return self._replace(guide=self.guide._replace(stretch=stretch))


def judged_guide(
    program: Program,
    mode: Mode,
    leapt: Leapt,
    settings: SVI,
    judge: Data,
    key: jax.Array,
    key_check: jax.Array,
    progress: Progress,
) -> Best:
    """The guide fitted on the mode's data, from where leaps led, and checked on those to ``judge`` by.

    One that has a fault on its own data is left as it is for a better shape, where there is one to be looked for.
    """
    guide, elbo, checked, there = leapt
    faults = checked.faults() + checked.bent()
    if faults and not there and _has_shapes(mode, checked):
        return Best(guide, elbo, True, checked, faults)  # it has not descended
    settled = there
    if not there:
        guide, elbo, settled = fit_guide(program, mode, settings, key, progress.step)
    if not (there and judge is mode.data):
        checked = check_guide(program, guide, judge, key_check)
    return Best(guide, elbo, settled, checked, checked.faults() + checked.bent())


def reshaped_guide(
    program: Program,
    mode: Mode,
    best: Best,
    settings: SVI,
    judge: Data,
    key: jax.Array,
    key_check: jax.Array,
    progress: Progress,
) -> Best:
    """The best of a guide and of those that better shapes of it lead to; itself where it has no fault."""
    for again, (reshape, words) in enumerate(_SHAPES, start=1):
        if not (best.faults and _has_shapes(mode, best.checked)):
            break
        progress.note(f"the guide has not the shape of the posterior: {words}")
        start = reshape(program, best.guide, mode, jax.random.fold_in(key_check, again))
        tried, more, _, settled = leaps(program, start, jax.random.fold_in(key, again), progress.step)
        if not settled:
            tried, more, settled = fit_guide(program, start, settings, key, progress.step)
        before, after = best.elbo[-_LATEST:], more[-_LATEST:]
        if not after.mean() > before.mean() - 2.0 * np.sqrt((before.var() + after.var()) / _LATEST):
            continue
        checked = check_guide(program, tried, judge, key_check)
        faults = checked.faults() + checked.bent() + checked.lopsided()
        best = Best(tried, np.concatenate([best.elbo, more]), settled, checked, faults)
    return best


def _has_shapes(mode: Mode, checked: GuideCheck) -> bool:
    """Whether there are better ones to be looked for."""
    return checked.finite and not isinstance(mode.factor, LayeredRoot)


class Leapt(NamedTuple):
    """Where leaps led, the ELBO on the way, the last check, and whether that is the posterior mean."""

    guide: Guide
    elbo: np.ndarray
    checked: GuideCheck
    there: bool


def leaps(
    program: Program, mode: Mode, key: jax.Array, tell: Callable[[int, int, str], None] = lambda *_: None
) -> Leapt:
    """The guide at the mode taken to the posterior mean.

    What a check finds of the shift (Stein's identity) is the whole step that is due where the posterior is nearly
    Gaussian: one or two leaps then do what descent does in dozens of steps. The last one, found with fresh points
    that also show that no shift is left, is taken half: the mean of two estimates of the same place. Widths are left
    as they are; where they are wrong, it is for the descent.
    """
    guide = Guide(np.asarray(mode.z), np.ones_like(mode.z), mode.factor)
    elbo: list[float] = []
    most, moved_error = _FAR, np.zeros(1)
    for taken in range(_LEAPS + 1):
        found = check_guide(program, guide, mode.data, jax.random.fold_in(key, taken))
        elbo.append(found.elbo)
        tell(taken, _LEAPS, f"ELBO {found.elbo:.6g}")
        if found.close(moved_error):
            there = not found.faults()
            return Leapt(guide.moved(0.5 * found.step) if there else guide, np.array(elbo), found, there)
        size = float(np.sqrt(np.mean(found.step**2)))
        if taken == _LEAPS or not (found.known() and size < most):
            break
        guide, most, moved_error = guide.moved(found.step), 0.5 * size, found.mean_shift_error
    return Leapt(guide, np.array(elbo), found, False)
