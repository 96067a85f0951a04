"""Whether a Gaussian guide is the posterior, and what it lacks."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from bayesunmix._keys import generator
from bayesunmix.inference.guide import WIDEST, Guide
from bayesunmix.inference.layered import log_det, sds
from bayesunmix.inference.program import Program
from bayesunmix.inference.target import Data, slopes_at

_CHECK_PAIRS = (8, 16, 32)  # of antithetic draws; more only where fewer leave doubt
_RANDOM_DIRECTIONS = 32
_AT_ODDS = 12  # directions in which four corners of a simplex move within their own hull; few beyond are soft
SHIFT_LIMIT = 0.25  # posterior sds
_NEGLIGIBLE = 0.1
RATIO_LIMITS = (0.8, 1.25)
_PRECISIONS = tuple(limit**-2.0 for limit in reversed(RATIO_LIMITS))
_SURE = 3.5  # standard errors: a false alarm in a few hundred directions about once in ten fits
_DOUBT = 0.15  # of a ratio of precisions
_SMALL = 0.2  # second order of a variance; beyond it the next ones, its square and more, are not small beside it
_SCATTER = 0.01  # variance of the log weight per global: twice the square of .07
# The same for any model, a share of each global or a number for all, whichever is more: 3000 globals of few counts,
# each a little skewed, have .01 each; few globals at most 6 in all where intervals hold, bent ridges 19 and more.
_BENT_EACH, _BENT = 0.03, 8.0
# Skewness at which the ends of a 90 % interval lie SHIFT_LIMIT from a Gaussian's (Cornish & Fisher).
SKEWNESS_LIMIT = 6 * SHIFT_LIMIT / (1.645**2 - 1)


class GuideCheck(NamedTuple):
    """Guide against posterior, a value per direction: all parameters first, then random directions."""

    mean_shift: np.ndarray  # of the posterior mean from the guide's, in guide sds
    mean_shift_error: np.ndarray  # Monte Carlo standard error
    precision_ratio: np.ndarray  # posterior over guide
    precision_ratio_error: np.ndarray
    skewness: np.ndarray  # of the posterior, to first order in its difference from the guide
    skewness_error: np.ndarray
    left: np.ndarray  # variance of the slope that is left
    step: np.ndarray  # (size,) the same shift in whitened coordinates
    elbo: float
    excess: float  # variance of the log weight, posterior over guide: twice their divergence where it is small
    residues: np.ndarray  # (points, size) what is left of every whitened slope

    @property
    def at_odds(self) -> np.ndarray:
        """Whitened directions (count, size), orthonormal, in which most is left of the slopes, the first most."""
        return np.linalg.svd(self.residues, full_matrices=False)[2][:_AT_ODDS]

    @property
    def sd_ratio(self) -> np.ndarray:
        """Posterior over guide."""
        return np.maximum(self.precision_ratio, 1e-12) ** -0.5

    def widening(self, size: int) -> np.ndarray:
        """What the standard deviations of the ``size`` parameters are to be multiplied by.

        The Gaussian of the highest ELBO is narrower than the posterior: with ``r`` the slope that is left in
        whitened coordinates, the covariance is ``1 + E[r r']`` to second order. Ratios of precisions that are not one
        yet come in to first order, drawn to their mean by the share of their scatter that is Monte Carlo error. One
        where the second order is not small.

        References
        ----------
        Opper, Paquet & Winther, "Perturbative corrections for approximate inference in Gaussian latent variable
        models", J. Mach. Learn. Res. 14, 2857 (2013); Efron & Morris, J. Am. Stat. Assoc. 70, 311 (1975).
        """
        ratio, noise, left = self.precision_ratio[:size], self.precision_ratio_error[:size] ** 2, self.left[:size]
        true = max(float(ratio.var() - noise.mean()), 0.0)
        likely = ratio.mean() + (ratio - ratio.mean()) * true / np.maximum(true + noise, np.finfo(float).tiny)
        return np.where(left < _SMALL, np.sqrt(np.maximum(2.0 - likely + left, _PRECISIONS[0])), 1.0)

    @property
    def finite(self) -> bool:
        """Whether the log posterior has numbers where the guide is."""
        return bool(np.isfinite([self.mean_shift, self.precision_ratio]).all())

    def clear(self) -> bool:
        """Whether everything is within the limits by more than Monte Carlo error."""
        low, high = _PRECISIONS
        away, margin = np.abs(self.mean_shift) + _SURE * self.mean_shift_error, _SURE * self.precision_ratio_error
        ratio = self.precision_ratio
        return bool(((away < SHIFT_LIMIT) & (ratio - margin > low) & (ratio + margin < high)).all())

    def close(self, moved_error: np.ndarray | float = 0.0) -> bool:
        """Whether every shift is negligible or within its error.

        ``moved_error`` (direction,) is that of the estimate by which the guide was moved here: it is in the shift, too.
        """
        shift, error = np.abs(self.mean_shift), np.hypot(self.mean_shift_error, moved_error)
        return self.known() and bool((shift < np.maximum(_NEGLIGIBLE, _SURE * error)).all())

    def known(self) -> bool:
        """Whether the shifts are known well enough to go by."""
        return bool(self.mean_shift_error.max() < 0.5 * SHIFT_LIMIT)

    def scattered(self) -> list[str]:
        """Whether the posterior differs from the guide as if every standard deviation were 7 % off, in words.

        Of a posterior whose soft directions are bent, which widths and shifts along straight lines do not tell.
        """
        return self._beyond(_SCATTER * len(self.step))

    def bent(self) -> list[str]:
        """Whether the log weight scatters by more than many slightly skewed globals make it, in words."""
        return self._beyond(max(_BENT, _BENT_EACH * len(self.step)))

    def _beyond(self, limit: float) -> list[str]:
        """The fault, where the variance of the log weight is above a limit."""
        if not self.excess > limit:
            return []
        return [
            f"the posterior is bent as no Gaussian is (its logarithm scatters by {self.excess:.1f} nats squared about "
            "the guide's), as where classes, endmembers or components overlap: take fewer of them, or more data"
        ]

    def lopsided(self) -> list[str]:
        """Whether the posterior is skewed beyond its limit and Monte Carlo error, in words.

        Of a guide whose covariance is that of the highest ELBO: shift and width are then right on average wherever
        the posterior lies, and say nothing of its shape.
        """
        margin = np.minimum(_SURE * self.skewness_error, SKEWNESS_LIMIT)
        bad = np.abs(self.skewness) - margin > SKEWNESS_LIMIT
        if not bad.any():
            return []
        return [f"the posterior is lopsided (skewness {np.abs(self.skewness[bad]).max():.1f} in its worst direction)"]

    def faults(self) -> list[str]:
        """What is beyond the limits by more than Monte Carlo error, in words."""
        if not self.finite:
            return ["the log posterior is not a number where the Gaussian guide is"]
        found = []
        bad = np.abs(self.mean_shift) - np.minimum(_SURE * self.mean_shift_error, SHIFT_LIMIT) > SHIFT_LIMIT
        if bad.any():
            worst = np.abs(self.mean_shift[bad]).max()
            found.append(f"the Gaussian guide is off by {worst:.2f} posterior sd in its worst direction")
        # Where Monte Carlo error is too large to tell, the benefit of the doubt ends at twice the limit.
        low, high = _PRECISIONS
        margin = np.minimum(_SURE * self.precision_ratio_error, _DOUBT)
        bad = (self.precision_ratio - margin > high) | (self.precision_ratio + margin < low)
        if bad.any():
            ratio = self.sd_ratio[bad]
            worst = ratio[np.argmax(np.abs(np.log(ratio)))]
            width = f"{worst:.2f} times as wide" if worst < WIDEST else f"more than {WIDEST} times as wide"
            found.append(f"the posterior is {width} as the Gaussian guide in its worst direction")
        return found


def check_guide(program: Program, guide: Guide, data: Data, key: jax.Array) -> GuideCheck:
    """Compare guide and posterior along every parameter and along random directions.

    For an exact guide the slope of the log posterior in whitened coordinates ``w`` is ``-w``. Its mean over
    guide draws
    is the shift of the mean that is still due, and its regression on ``w`` the ratio of precisions (Stein's
    identity); twice that on ``w^2 - 1`` is the skewness.
    """
    key_draw, key_direction = jax.random.split(key)
    size = guide.location.size
    random = generator(key_direction).standard_normal((_RANDOM_DIRECTIONS, size))
    random = random / np.linalg.norm(random, axis=1, keepdims=True)
    widths = sds(guide.factor)
    along_all = lambda x: np.concatenate([(x @ guide.factor.T) / widths, x @ random.T], axis=-1)  # noqa: E731
    half = generator(key_draw).standard_normal((_CHECK_PAIRS[-1], size))
    shifts, steepness, skews, squares = np.zeros((4, 0, size + _RANDOM_DIRECTIONS))
    residues, steps, heights, weights = np.zeros((0, size)), np.zeros((0, size)), np.zeros(0), np.zeros(0)
    entropy = np.log(guide.stretch).sum() + float(log_det(guide.factor)) + 0.5 * size * np.log(2 * np.pi)
    for first, last in zip((0, *_CHECK_PAIRS), _CHECK_PAIRS, strict=False):
        points = np.concatenate([half[first:last], -half[first:last]])
        values, slopes = slopes_at(program, guide.place(points), data)
        scores = (slopes * guide.stretch) @ guide.factor
        residue = scores + points
        along, excess = along_all(points), along_all(residue)
        residues = np.concatenate([residues, residue])
        # An antithetic pair is one observation.
        steps = np.concatenate([steps, _of_pairs(residue)])
        weights = np.concatenate([weights, values + 0.5 * (points**2).sum(1)])
        heights = np.concatenate([heights, _of_pairs(weights[2 * first :])])
        shifts = np.concatenate([shifts, _of_pairs(excess)])
        steepness = np.concatenate([steepness, _of_pairs(-along * excess)])
        squares = np.concatenate([squares, _of_pairs(excess**2)])
        skews = np.concatenate([skews, _of_pairs((along**2 - 1.0) * excess)])
        square, root = along_all(half[:last]) ** 2, np.sqrt(last)
        steep, skew = steepness / square.mean(0), 2.0 * skews / ((square - 1.0) ** 2).mean(0)
        found = GuideCheck(
            shifts.mean(0),
            shifts.std(0, ddof=1) / root,
            1.0 + steep.mean(0),
            steep.std(0, ddof=1) / root,
            skew.mean(0),
            skew.std(0, ddof=1) / root,
            squares.mean(0) - shifts.mean(0) ** 2,
            steps.mean(0),
            float(heights.mean()) + entropy,
            float(weights.var(ddof=1)),
            residues,
        )
        if found.clear():
            break
    return found


def _of_pairs(x: np.ndarray) -> np.ndarray:
    """Means over the first and the second half, which hold opposite points."""
    return 0.5 * (x[: len(x) // 2] + x[len(x) // 2 :])
