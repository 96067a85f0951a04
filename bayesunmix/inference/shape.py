"""A better shape for a Gaussian guide: its widths measured on slopes, or the curvature averaged over it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.linalg

from bayesunmix._keys import generator
from bayesunmix.inference.curvature import curvature
from bayesunmix.inference.guide import WIDEST, Guide
from bayesunmix.inference.layered import inverse_of_upper
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.target import slopes_at

_PAIRS = 16  # of antithetic draws, to find directions and again to measure along them
_DIRECTIONS = 8
_ROUNDS_MEASURED = 8
_RIGHT = 1.2  # ratio of precisions, or its inverse, up to which a direction is left alone
_SHARE = 0.75  # of a step in the logarithm: all of it swings to and fro where precisions go by the guide's own width
_FAR = 1.0  # squared posterior sds of a parameter: a shift as large says little of where the posterior is
_CURVATURES = 8  # pairs of antithetic draws behind an average curvature
_ROUNDS, _ALIKE = 4, 2.0  # of averaging; factor between the precision of a guide and the average, at which they end


def measured(program: Program, guide: Guide, mode: Mode, key: jax.Array) -> Mode:
    """Where to start a better guide: with the precision that slopes say along the directions most at odds with it.

    In whitened coordinates ``w`` the slope of an exact guide is ``-w``. What is left of it at opposite draws spans the
    directions in which the precision is wrong, the stiffest first, and at fresh draws its regression on ``w`` there is
    the average curvature (Stein's identity). A Hessian of a few integration points, or in expectation, has errors along
    few directions as large as the softest of its curvatures; slopes have none.
    """
    rng = generator(key)
    location, factor = guide.location, guide.stretch[:, None] * np.asarray(guide.factor, dtype=np.float64)
    best, highest, doubt = mode._replace(z=location, factor=factor), -np.inf, 0.0
    for _ in range(_ROUNDS_MEASURED):
        white = rng.standard_normal((_PAIRS, len(location)))
        left, _, _ = _left(program, location, factor, white, mode)
        if not np.isfinite(left).all():
            break
        axes = np.linalg.svd(left, full_matrices=False)[2][:_DIRECTIONS]
        few = rng.standard_normal((_PAIRS, len(axes)))
        white = _even_along(rng.standard_normal(white.shape), few, axes)
        left, shift, heights = _left(program, location, factor, white, mode)
        height, error = heights.mean(), heights.var() / _PAIRS
        if not (np.isfinite(left).all() and height > highest - 2.0 * np.sqrt(error + doubt)):
            break
        best, highest, doubt = mode._replace(z=location, factor=factor), height, error
        slope = (white @ axes.T).T @ (left @ axes.T) / _PAIRS
        ratio, turn = np.linalg.eigh(np.eye(len(axes)) - 0.5 * (slope + slope.T))
        ratio, axes = np.maximum(ratio, WIDEST**-1.0), turn.T @ axes
        wrong = np.abs(np.log(ratio)) > np.log(_RIGHT)
        if not wrong.any():
            break
        ratio, axes = ratio[wrong] ** _SHARE, axes[wrong]
        due = shift + ((ratio**-0.5 - 1.0) * (axes @ shift)) @ axes  # in the new coordinates
        factor = factor + ((factor @ axes.T) * (ratio**-0.5 - 1.0)) @ axes
        if np.mean(due**2) < _FAR:
            location = location + factor @ due
        factor = _triangular(factor)
    return best


def _left(
    program: Program, location: np.ndarray, factor: np.ndarray, white: np.ndarray, mode: Mode
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the slopes at pairs of draws leave beside those of the guide: half their differences, and their mean; and
    what every pair says of the ELBO."""
    points = location + np.concatenate([white, -white]) @ factor.T
    values, slopes = slopes_at(program, points, mode.data)
    scores = slopes @ factor
    ahead, behind = scores[: len(white)], scores[len(white) :]
    heights = values.reshape(2, -1).mean(0) + 0.5 * (white**2).sum(1) + np.linalg.slogdet(factor)[1]
    return 0.5 * (ahead - behind) + white, scores.mean(0), heights


def averaged_curvature(program: Program, guide: Guide, mode: Mode, key: jax.Array) -> Mode:
    """Where to start a better guide: the same place, with the curvature averaged over draws of this one.

    The Gaussian of the highest ELBO has minus the mean Hessian as its precision (Opper & Archambeau, Neural Comput.
    21, 786 (2009)). Where a direction is flat at the mode and steep beyond, the curvature at the mode says nothing, and
    the mean goes by the guide's own width: the whole step swings to and fro, and half of it, in the logarithm, leads
    to the width at which both agree.
    """
    rng = generator(key)
    factor = guide.stretch[:, None] * np.asarray(guide.factor, dtype=np.float64)
    for _ in range(_ROUNDS):
        half = even_draws(rng, _CURVATURES, factor)
        points = guide.location + np.concatenate([half, -half]) @ factor.T
        mean = np.mean([curvature(program, z, mode.data)[1] for z in points], axis=0)
        steepness, axes = np.linalg.eigh(-factor.T @ mean @ factor)
        steepness = np.maximum(np.abs(steepness), WIDEST**-2.0)
        factor = _triangular(factor @ (axes * steepness**-0.25))
        if 1.0 / _ALIKE < steepness.min() <= steepness.max() < _ALIKE:
            break
    return mode._replace(z=guide.location, factor=factor)


def even_draws(rng: np.random.Generator, pairs: int, factor: np.ndarray) -> np.ndarray:
    """Standard normal draws (pairs, size) whose squares, along as many of the softest directions, have a mean of one.

    Softest beside what each parameter is free to do alone. The Hessian changes most along these, and its mean over a
    few draws would hang on their few squares.
    """
    white = rng.standard_normal((pairs, len(factor)))
    alone = (inverse_of_upper(factor) ** 2).sum(0)
    soft = np.linalg.eigh(factor.T @ (alone[:, None] * factor))[1][:, -pairs:]
    return _even_along(white, rng.standard_normal((pairs, soft.shape[1])), soft.T)


def _even_along(white: np.ndarray, few: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Standard normal draws (pairs, size) with coordinates along orthonormal ``axes`` (count, size) that are orthogonal
    among the draws and have squares of mean one, made of ``few`` other ones (pairs, count)."""
    even = np.sqrt(len(white)) * np.linalg.qr(few)[0]
    return white + (even - white @ axes.T) @ axes


def _triangular(factor: np.ndarray) -> Any:
    """The upper triangular root of the same covariance."""
    upper, _ = scipy.linalg.rq(factor)
    return upper * np.sign(np.diag(upper))
