"""The posterior mode of the globals, and the curvature there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize

from bayesunmix.inference.program import Program
from bayesunmix.inference.target import Data, hessian, value_and_grad, with_fresh_points, with_rules

_ROUNDS = 12
_ITERATIONS_A_ROUND = 15
_DECREMENT = 1e-2  # squared length of the Newton step, in posterior sds, at which the mode is found
_STALLED = 3  # rounds without halving the decrement: what is left is integration error, which the tilt takes up
MC_SHIFT_LIMIT = 0.25
_MOST_REDRAWS = 32
_MOST_POINTS = 4  # times the default number
_CURVED_REDRAWS = 4  # of them, how many also measure the curvature


class Mode(NamedTuple):
    """Mode, square root of the covariance there, and the numerical state it was found with."""

    z: np.ndarray  # (size,)
    factor: np.ndarray  # (size, size), covariance = factor factor'
    data: Data  # rules frozen at the mode, tilt measured
    mc_shift: np.ndarray  # (size,) numerical shift of the posterior, in posterior sds; empty without sampling
    found: bool  # Newton's decrement fell below its tolerance, up to integration error
    evaluations: int
    more: int = 1  # times the default number of integration points


def find_mode(
    program: Program,
    data: Data,
    start: np.ndarray,
    index: jax.Array,
    key: jax.Array,
    relabel: Callable[[np.ndarray, Data], np.ndarray] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Mode:
    """Climb from ``start`` to the mode, and measure what the integration error does there.

    Every round freezes the integration rules at its start, so that the value, gradient and curvature it sees
    belong to
    one smooth function, and runs L-BFGS in coordinates whitened by the curvature. At the end the slope at the mode is
    and its curvature are measured again with fresh points, batch after batch, until two halves of the
    batches agree; what
    the frozen rules missed is kept as a linear and a quadratic correction. ``relabel`` puts exchangeable
    labels in order before that.
    """
    z, count, more = np.asarray(start), 0, 1
    while True:
        z, evaluations = _ascend(program, z, data, index, key, more, tell)
        count += evaluations
        if relabel is not None:
            z = relabel(z, with_rules(program, jnp.asarray(z), data, key, index, more))
        mode = recentred(program, z, data, index, key, more, tell)
        settled = mode.found and np.abs(mode.mc_shift).max(initial=0.0) <= MC_SHIFT_LIMIT
        if settled or not mode.data.rules or more == _MOST_POINTS:
            return mode._replace(evaluations=count)
        more = _MOST_POINTS


def recentred(program, z: np.ndarray, data: Data, index, key, more: int, tell=lambda _: None) -> Mode:
    """Freeze rules at ``z``, measure slope and curvature there, and take the Newton step that is left."""
    frozen = with_rules(program, jnp.asarray(z), data, key, index, more)
    gradient, matrix = _curvature(program, z, frozen)
    if not frozen.rules:
        factor, definite = _inverse_root(-matrix)
        return Mode(z, factor, frozen, np.zeros(0), definite, 0)
    frozen, factor, shift, definite = _correct(program, frozen, index, key, gradient, matrix, tell)
    step = factor.T @ _slope(program, z, frozen)
    close = float(np.mean(step**2)) < 0.05
    return Mode(z + factor @ step if close else z, factor, frozen, shift, definite and close, 0, more)


def _ascend(program, z: np.ndarray, data: Data, index, key, more: int, tell) -> tuple[np.ndarray, int]:
    """Rounds of frozen rules and whitened L-BFGS, until the Newton step is short or only integration error is left."""
    count, decrements, factor, definite = 0, [], np.zeros((0, 0)), False
    for round_ in range(_ROUNDS):
        frozen = with_rules(program, jnp.asarray(z), data, key, index, more)
        if round_ % 2 == 0:  # a curvature serves two rounds: it costs as much as dozens of gradients
            gradient, matrix = _curvature(program, z, frozen)
            factor, definite = _inverse_root(-matrix)
        else:
            gradient = _slope(program, z, frozen)
        decrement = float(((factor.T @ gradient) ** 2).sum())
        decrements.append(decrement if definite else np.inf)
        tell(f"mode: round {round_ + 1}, {count} evaluations, {decrement:.2g} to go")
        stalled = len(decrements) > _STALLED and decrement > 0.5 * min(decrements[:-_STALLED])
        if definite and (decrement < _DECREMENT or stalled):
            break
        z, evaluations = _climb(program, z, factor, frozen)
        count += evaluations
    return z, count


def _slope(program: Program, z: np.ndarray, data: Data) -> np.ndarray:
    return np.asarray(value_and_grad(program, jnp.asarray(z), data)[1], dtype=np.float64)


def _curvature(program: Program, z: np.ndarray, data: Data) -> tuple[np.ndarray, np.ndarray]:
    gradient, matrix = hessian(program, jnp.asarray(z), data)
    return np.asarray(gradient, dtype=np.float64), np.asarray(matrix, dtype=np.float64)


def _climb(program: Program, z: np.ndarray, factor: np.ndarray, data: Data) -> tuple[np.ndarray, int]:
    """A round of L-BFGS in ``x``, where ``z + factor x`` is the point."""

    def objective(x):
        value, gradient = value_and_grad(program, jnp.asarray(z + factor @ x), data)
        if not np.isfinite(value):
            return 1e300, np.zeros_like(x)
        return -float(value), -(factor.T @ np.asarray(gradient, dtype=np.float64))

    options = {"maxiter": _ITERATIONS_A_ROUND, "maxcor": 20, "ftol": 1e-13}
    result = scipy.optimize.minimize(objective, np.zeros_like(z), jac=True, method="L-BFGS-B", options=options)
    return z + factor @ result.x, result.nfev


def _correct(program, data: Data, index, key, gradient, matrix, tell) -> tuple[Data, np.ndarray, np.ndarray, bool]:
    """Measure with fresh points what the slope ``gradient`` and the curvature ``matrix`` at the anchor miss.

    Returns the corrected data, the factor of the corrected curvature, how far the slope's remaining error moves the
    posterior (in posterior sds), and whether the curvature is definite.
    """
    slopes, curvature = [np.zeros_like(gradient), np.zeros_like(gradient)], matrix.copy()
    factor = np.zeros((0, 0))
    definite = True
    for batch in range(_MOST_REDRAWS):
        fresh = with_fresh_points(program, data, jax.random.fold_in(key, batch + 1), index)
        if batch < _CURVED_REDRAWS:
            slope, curve = hessian(program, data.anchor, fresh)
            curvature += np.asarray(curve, dtype=np.float64)
        else:
            _, slope = value_and_grad(program, data.anchor, fresh)
        slopes[batch % 2] += np.asarray(slope, dtype=np.float64)
        if batch + 1 == _CURVED_REDRAWS:
            curvature /= _CURVED_REDRAWS + 1
            factor, definite = _inverse_root(-curvature)
        if batch + 1 < _CURVED_REDRAWS or batch % 2 == 0:
            continue
        pairs = (batch + 1) // 2
        shift = factor @ (factor.T @ (slopes[0] - slopes[1]) / pairs) / np.sqrt((factor**2).sum(1))
        if np.abs(shift).max() < 0.8 * MC_SHIFT_LIMIT:
            break
    tell(f"integration error: {np.abs(shift).max():.2g} posterior sd with {batch + 1} sets of points")
    tilt = (slopes[0] + slopes[1]) / (2 * pairs) - gradient
    corrected = data._replace(tilt=jnp.asarray(tilt), bend=jnp.asarray(curvature - matrix))
    return corrected, factor, shift, definite


def _inverse_root(precision: np.ndarray) -> tuple[np.ndarray, bool]:
    """A factor of the inverse, and whether ``precision`` was positive definite as it came."""
    ridge, scale = 0.0, np.diag(precision).clip(1e-12)
    for _ in range(40):
        try:
            upper = scipy.linalg.cholesky(precision + np.diag(ridge * scale), lower=False)
        except (np.linalg.LinAlgError, ValueError):
            ridge = max(10 * ridge, 1e-6)
            continue
        # precision = U'U, so its inverse is (U^-1)(U^-1)'.
        return scipy.linalg.solve_triangular(upper, np.eye(len(upper))), ridge == 0.0
    raise FloatingPointError("the curvature of the log posterior is not finite: check the data for extreme values")
