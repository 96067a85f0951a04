"""Draws weighted from a Gaussian guide to the posterior.

A guide can be right in place and width along every direction and still lack the tails and the lean of a posterior of
few data: its 90 % intervals then hold some points less. Where there are few globals importance weights mend that. Of
many globals they mend what is wrong along few directions, as along the walls of a simplex; in all others points are the
guide's. Along these points are of Student's t law about the guide and are weighted by the posterior; their weighted
moments make a second such law, whose points, weighted in turn, are the draws, or make a third where few of them count.
The tail of the weights says whether they can be relied on.

References
----------
Oh & Berger, "Adaptive importance sampling in Monte Carlo integration", J. Stat. Comput. Simul. 41, 143 (1992);
Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", J. Mach. Learn. Res. 25(72), 1 (2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from bayesunmix._arviz import SHAPE_LIMIT, psis
from bayesunmix._keys import generator
from bayesunmix.inference.guide import Guide
from bayesunmix.inference.guide_check import GuideCheck
from bayesunmix.inference.layered import LayeredRoot
from bayesunmix.inference.program import Program
from bayesunmix.inference.target import Data, slopes_at

FEWEST = 100  # independent points that the weighted ones are worth
_MOST_GLOBALS = 64  # beyond, the moments of a few hundred points say little of all
_NEGLIGIBLE = 0.005  # variance of the log weight per global: as much as standard deviations that are 5 % off
_DOF = 7.0
_PILOT = 1000
_POINTS = 1000  # at least
_MOST = 4  # times as many, where few of them count
_ENOUGH = 500  # independent points: of 300 the ends of intervals are so uncertain that they hold .01 less
_HOPELESS = 8  # too few to adapt to
_TOLD = 100  # points between reports


class Weighted(NamedTuple):
    """Draws (draw, size) in the order of the points they come from, equal ones together."""

    draws: np.ndarray
    shape: float  # of the tail of the weights
    effective: float  # independent points that all points are worth

    def reliable(self) -> bool:
        """Whether the weights are bounded enough to go by."""
        return self.shape < SHAPE_LIMIT and self.effective >= FEWEST


def directions(checked: GuideCheck, guide: Guide, faults: list[str]) -> np.ndarray | None:
    """Those (count, size), orthonormal and whitened, along which weights are to mend a guide; None for none.

    All of few globals, where the difference is more than what the noise of draws hides; of more, where there are
    faults, those in which slopes are most at odds.
    """
    size = len(guide.location)
    if isinstance(guide.factor, LayeredRoot) or not checked.finite:
        return None
    if size <= _MOST_GLOBALS:
        return np.eye(size) if faults or checked.excess > _NEGLIGIBLE * size else None
    return checked.at_odds if faults else None


def weighted(
    program: Program,
    guide: Guide,
    axes: np.ndarray,
    data: Data,
    draws: int,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> Weighted:
    """So many draws of the posterior: points about the guide, weighted as often as it takes for many to count."""
    rng, few, least = generator(key), len(axes), max(_POINTS, draws)
    mean, root = np.zeros(few), np.eye(few)
    count = _PILOT
    for stage in range(3):
        along, height = _student(rng, count, few)
        along = mean + along @ root.T
        beside = rng.standard_normal((count, len(guide.location)))
        beside = beside - (beside @ axes.T) @ axes
        white = beside + along @ axes
        posterior = np.zeros(count)
        for first in range(0, count, _TOLD):
            tell(first, count, f"weighting the guide's draws, round {stage + 1}")
            posterior[first : first + _TOLD] = slopes_at(program, guide.place(white[first : first + _TOLD]), data)[0]
        weight, shape, effective = smoothed(posterior - height + 0.5 * (beside**2).sum(1))
        if stage == 2 or not effective >= _HOPELESS or (stage and effective >= _ENOUGH):
            break
        mean = weight @ along
        away = along - mean
        # The guide's own covariance, the identity here, counts as one more point for every direction.
        covariance = (effective * (away * weight[:, None]).T @ away + few * np.eye(few)) / (effective + few)
        root = np.linalg.cholesky(covariance)
        count = int(np.clip(least * _ENOUGH / effective, least, max(_MOST * _POINTS, least))) if stage else least
    return Weighted(guide.place(resampled(rng, white, weight, draws)), shape, effective)


def resampled(rng: np.random.Generator, points: np.ndarray, weight: np.ndarray, count: int) -> np.ndarray:
    """So many of the points, evenly among their weights, which sum to one."""
    place = (rng.uniform() + np.arange(count)) / count
    return points[np.minimum(np.searchsorted(np.cumsum(weight), place), len(weight) - 1)]


def smoothed(log_weight: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Weights that sum to one, the shape of their tail, and how many equal ones they are worth."""
    # Where the density is not a number there is no posterior.
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    if not np.isfinite(log_weight).any():
        return np.full(len(log_weight), 1.0 / len(log_weight)), np.inf, 0.0
    log_weight = np.maximum(log_weight, log_weight.max() - 700.0)
    found, shape = psis(log_weight[None])
    weight = np.exp(found[0])
    return weight, float(shape[0]), float(1.0 / (weight**2).sum())


def _student(rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, size) of a multivariate t law, and its log density there up to a constant."""
    stretch = np.sqrt(_DOF / rng.chisquare(_DOF, count))
    white = rng.standard_normal((count, size)) * stretch[:, None]
    return white, -0.5 * (_DOF + size) * np.log1p((white**2).sum(1) / _DOF)
