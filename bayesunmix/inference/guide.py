"""The Gaussian guide of SVI: started at the mode and its curvature, then improved on the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.linalg

from bayesunmix.inference.curvature import curvature
from bayesunmix.inference.layered import log_det, push, sds
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.target import Data, value_and_grad

_CHUNK = 10  # steps between looks at the ELBO
_PATIENCE = 3  # chunks without a rise
_NEGLIGIBLE = 0.01  # nats of the ELBO
CURVATURE_PAIRS = (8, 8)  # of antithetic draws, behind the average curvature of each round
_CHECK_PAIRS = (8, 16, 32)  # of antithetic draws; more only where fewer leave doubt
_RANDOM_DIRECTIONS = 32
SHIFT_LIMIT = 0.25  # posterior sds
RATIO_LIMITS = (0.8, 1.25)
_SURE = 3.5  # standard errors: a false alarm in a few hundred directions about once in ten fits
_WIDEST = 10  # beyond that the ratio of precisions is noise, or negative
_DOUBT = 0.15  # of a ratio of precisions
# Skewness at which the ends of a 90 % interval lie SHIFT_LIMIT from a Gaussian's (Cornish & Fisher).
SKEWNESS_LIMIT = 6 * SHIFT_LIMIT / (1.645**2 - 1)


class Guide(NamedTuple):
    """Normal distribution of the unconstrained globals: ``z = location + stretch * (factor @ white)``."""

    location: Any
    stretch: Any
    factor: Any

    def place(self, white):
        """Points of the guide, (..., size), from standard normal ones."""
        return self.location + self.stretch * (white @ self.factor.T)


class _State(NamedTuple):
    parameters: dict[str, jax.Array]  # shift of the location in whitened coordinates, and log_stretch
    optimiser: optax.OptState


def _optimiser(settings: SVI) -> optax.GradientTransformation:
    """Clipped descent for the location, whose ELBO has unit curvature in whitened coordinates; Adam for the
    stretches.

    The gradient of a stretch carries noise in proportion to the other stretches' errors, so only bounded
    steps are safe.
    """
    return optax.multi_transform(
        {
            "shift": optax.chain(optax.clip(1.0), optax.sgd(settings.learning_rate)),
            "log_stretch": optax.adam(0.05 * settings.learning_rate, b1=0.9, b2=0.99),
        },
        {"shift": "shift", "log_stretch": "log_stretch"},
    )


@partial(jax.jit, static_argnames="settings")
def _draw(state: _State, location, factor, key, settings: SVI):
    """Antithetic points of the guide, (samples, size), and the white ones they come from."""
    half = jax.random.normal(key, (settings.samples // 2, location.size), location.dtype)
    white = jnp.concatenate([half, -half])
    return white, _guide(state.parameters, location, factor).place(white)


@partial(jax.jit, static_argnames="settings")
def _step(state: _State, factor, white, values, slopes, settings: SVI):
    """The step that the log density and its slopes at the points ask for, and the ELBO.

    The path derivative only (Roeder et al. 2017): its noise vanishes as the guide becomes exact.
    """
    stretch = jnp.exp(state.parameters["log_stretch"])
    entropy = state.parameters["log_stretch"].sum() + log_det(factor) + 0.5 * white.shape[1] * np.log(2 * np.pi)
    elbo = (values + 0.5 * (white**2).sum(1)).mean() + entropy
    due = slopes + push(factor, white) / stretch
    gradient = {"shift": -(due @ factor).mean(0), "log_stretch": -(due * stretch * (white @ factor.T)).mean(0)}
    update, inner = _optimiser(settings).update(gradient, state.optimiser)
    return _State(optax.apply_updates(state.parameters, update), inner), elbo


def _guide(parameters: dict[str, jax.Array], location, factor) -> Guide:
    return Guide(location + factor @ parameters["shift"], jnp.exp(parameters["log_stretch"]), factor)


def _slopes(program: Program, points, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Log density and slope at every point, by the one compiled function that the mode was found with."""
    found = jax.device_get([value_and_grad(program, z, data) for z in np.asarray(points)])
    return np.stack([value for value, _ in found]), np.stack([slope for _, slope in found])


def fit_guide(
    program: Program,
    mode: Mode,
    settings: SVI,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Guide, np.ndarray, bool]:
    """Guide, ELBO of every step, and whether the ELBO had stopped rising (False when the steps ran out)."""
    location, factor = jax.tree_util.tree_map(jnp.asarray, (mode.z, mode.factor))
    zero = {"shift": jnp.zeros_like(location), "log_stretch": jnp.zeros_like(location)}
    state = _State(zero, _optimiser(settings).init(zero))
    trace: list[float] = []
    recent: list[dict[str, jax.Array]] = []
    highest, waited, settled = -np.inf, 0, False
    for done in range(0, settings.steps, _CHUNK):
        path = []
        for step in range(done, done + _CHUNK):
            white, points = _draw(state, location, factor, jax.random.fold_in(key, step), settings)
            values, slopes = _slopes(program, points, mode.data)
            state, elbo = _step(state, factor, white, values, slopes, settings)
            trace.append(float(elbo))
            path.append(state.parameters)
        recent.append(jax.tree_util.tree_map(lambda *parts: sum(parts) / len(parts), *path))
        latest = np.array(trace[-_CHUNK:])
        average, error = float(latest.mean()), float(latest.std(ddof=1)) / np.sqrt(_CHUNK)
        tell(done + _CHUNK, settings.steps, f"ELBO {average:.6g}")
        waited = 0 if average - highest > max(error, _NEGLIGIBLE) else waited + 1
        highest = max(highest, average)
        if waited == (1 if error < _NEGLIGIBLE else _PATIENCE):
            settled = True
            break
    # The mean over chunks in which the ELBO no longer rose is less noisy than the last point.
    last = recent[-max(waited, 1) :]
    best = jax.tree_util.tree_map(lambda *parts: sum(parts) / len(parts), *last)
    return jax.tree_util.tree_map(np.asarray, _guide(best, location, factor)), np.array(trace), settled


def reshaped(program: Program, guide: Guide, mode: Mode, key: jax.Array, pairs: int) -> Mode:
    """Where to start a better guide: the same place, with the curvature averaged over draws of this one.

    The Gaussian of the highest ELBO has minus the mean Hessian as its precision (Opper & Archambeau, Neural Comput.
    21, 786 (2009)). Where a direction is flat at the mode and steep beyond, the curvature at the mode says nothing;
    there the whole step swings to and fro, and half of it (in the logarithm) may have the higher ELBO.
    """
    half = np.asarray(jax.random.normal(key, (pairs, guide.location.size), guide.location.dtype))
    white = np.concatenate([half, -half])
    points = guide.place(white)
    mean = np.mean([curvature(program, z, mode.data)[1] for z in points], axis=0)
    old = guide.stretch[:, None] * np.asarray(guide.factor, dtype=np.float64)
    steepness, axes = np.linalg.eigh(-old.T @ mean @ old)
    steepness = np.maximum(np.abs(steepness), _WIDEST**-2.0)
    found = []
    for step in (1.0, 0.5):
        factor, _ = scipy.linalg.rq(old @ (axes * steepness ** (-0.5 * step)))
        factor *= np.sign(np.diag(factor))
        values, _ = _slopes(program, guide.location + white @ factor.T, mode.data)
        found.append((values.mean() + np.log(np.diag(factor)).sum(), factor))
    return mode._replace(z=guide.location, factor=max(found, key=lambda one: one[0])[1])


class GuideCheck(NamedTuple):
    """Guide against posterior, a value per direction: all parameters first, then random directions."""

    mean_shift: np.ndarray  # of the posterior mean from the guide's, in guide sds
    mean_shift_error: np.ndarray  # Monte Carlo standard error
    precision_ratio: np.ndarray  # posterior over guide
    precision_ratio_error: np.ndarray
    skewness: np.ndarray  # of the posterior, to first order in its difference from the guide
    skewness_error: np.ndarray

    @property
    def sd_ratio(self) -> np.ndarray:
        """Posterior over guide."""
        return np.maximum(self.precision_ratio, 1e-12) ** -0.5

    @property
    def finite(self) -> bool:
        """Whether the log posterior has numbers where the guide is."""
        return bool(np.isfinite([self.mean_shift, self.precision_ratio]).all())

    def clear(self) -> bool:
        """Whether everything is within the limits by more than Monte Carlo error."""
        low, high = (limit**-2.0 for limit in reversed(RATIO_LIMITS))
        away, margin = np.abs(self.mean_shift) + _SURE * self.mean_shift_error, _SURE * self.precision_ratio_error
        ratio = self.precision_ratio
        return bool(((away < SHIFT_LIMIT) & (ratio - margin > low) & (ratio + margin < high)).all())

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
        low, high = (limit**-2.0 for limit in reversed(RATIO_LIMITS))
        margin = np.minimum(_SURE * self.precision_ratio_error, _DOUBT)
        bad = (self.precision_ratio - margin > high) | (self.precision_ratio + margin < low)
        if bad.any():
            ratio = self.sd_ratio[bad]
            worst = ratio[np.argmax(np.abs(np.log(ratio)))]
            width = f"{worst:.2f} times as wide" if worst < _WIDEST else f"more than {_WIDEST} times as wide"
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
    random = np.asarray(jax.random.normal(key_direction, (_RANDOM_DIRECTIONS, size)), dtype=np.float64)
    random = random / np.linalg.norm(random, axis=1, keepdims=True)
    widths = sds(guide.factor)
    along_all = lambda x: np.concatenate([(x @ guide.factor.T) / widths, x @ random.T], axis=-1)  # noqa: E731
    half = np.asarray(jax.random.normal(key_draw, (_CHECK_PAIRS[-1], size), guide.location.dtype))
    shifts, steepness, skews = np.zeros((3, 0, size + _RANDOM_DIRECTIONS))
    for first, last in zip((0, *_CHECK_PAIRS), _CHECK_PAIRS, strict=False):
        points = np.concatenate([half[first:last], -half[first:last]])
        slopes = _slopes(program, guide.place(points), data)[1]
        scores = (slopes * guide.stretch) @ guide.factor
        along, excess = along_all(points), along_all(scores + points)
        # An antithetic pair is one observation.
        shifts = np.concatenate([shifts, _of_pairs(excess)])
        steepness = np.concatenate([steepness, _of_pairs(-along * excess)])
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
        )
        if found.clear():
            break
    return found


def _of_pairs(x: np.ndarray) -> np.ndarray:
    """Means over the first and the second half, which hold opposite points."""
    return 0.5 * (x[: len(x) // 2] + x[len(x) // 2 :])
