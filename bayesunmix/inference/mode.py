"""The posterior mode of the globals, and the curvature there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg
from scipy.optimize import minimize

from bayesunmix.inference.curvature import bendings, curvature
from bayesunmix.inference.layered import Layers, inverse_of_upper, sds
from bayesunmix.inference.program import Array, Program, on_device
from bayesunmix.inference.softness import measured_softness
from bayesunmix.inference.target import Data, place_of, value_and_grad, values_at, with_fresh_points, with_rules

_STEPS = 60
DECREMENT = 1e-2  # squared length of the Newton step, in posterior sds, at which the mode is found
# Steps without halving the decrement: near the mode what is left is integration error, which the tilt takes up; far
# from it some directions show only when others have arrived.
_PATIENCE_NEAR, _PATIENCE_FAR = 2, 6
_MEMORY, _EVALUATIONS = 20, 60  # of the quasi-Newton method, for every curvature
_CLOSE = 0.25  # decrement a parameter, in posterior sds, at which a stalled search has still found the mode
_TRUSTED = 2.0  # lengths of Newton's step from where a sample was corrected: far away its parabola may open upwards
MC_SHIFT_LIMIT = 0.25
_SHARES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # of the diagonal, added until all eigenvalues are positive
_MOST_REDRAWS = 16
_SOFTEST = 1e-6  # eigenvalue of a scaled curvature that is not positive, at which a direction is taken for flat
MOST_POINTS = 4  # times the default number


class Mode(NamedTuple):
    """Mode, square root of the covariance there, and the numerical state it was found with."""

    z: np.ndarray  # (size,)
    factor: Any  # (size, size), covariance = factor factor': triangular, or layered
    data: Data  # rules frozen at the mode, tilt measured
    mc_shift: np.ndarray  # (size,) numerical shift of the posterior, in posterior sds; empty without sampling
    found: bool  # the search came near it, up to integration error; whatever the curvature there
    more: int = 1  # times the default number of integration points
    alone: bool = True  # as far as is known: False where another start led elsewhere
    contradicted: bool = False  # a sample was at odds with all units


def find_mode(
    program: Program,
    data: Data,
    start: np.ndarray,
    index: Array,
    key: jax.Array,
    relabel: Callable[[np.ndarray, Iterable[Data]], np.ndarray] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Mode:
    """Climb from ``start`` to the mode, and measure what the integration error does there.

    Every step freezes the integration points at its start, so that the values and gradients it sees belong to one
    smooth function. At the end the slope at the mode is measured again with
    fresh points, batch after batch, until two halves of the batches agree; what the frozen points missed is kept
    as a linear correction. ``relabel`` puts exchangeable labels in order before that.
    """
    z, more = np.asarray(start), 1
    while True:
        z, known = _ascended(program, z, data, index, key, more, tell, DECREMENT)
        if relabel is not None:
            # An order is plain on the default points too, for which everything is compiled.
            ordered = relabel(z, [with_rules(program, z, data, key, index)])
            z, known = ordered, known if np.array_equal(ordered, z) else None
        mode = recentred(program, z, data, index, key, more, tell, known)
        settled = mode.found and np.abs(mode.mc_shift).max(initial=0.0) <= MC_SHIFT_LIMIT
        if settled or not mode.data.rules or more == MOST_POINTS:
            return mode
        more = MOST_POINTS


def recentred(
    program,
    z: np.ndarray,
    data: Data,
    index,
    key,
    more: int,
    tell=lambda _: None,
    known: tuple[Data, Any] | None = None,
) -> Mode:
    """Freeze points at ``z``, measure slope and curvature there, and take the Newton step that is left.

    Where the frozen points and the curvature are ``known`` already, these are taken.
    """
    if known is None:
        frozen = with_rules(program, z, data, key, index, more)
        known = frozen, curvature(program, z, frozen)[1]
    frozen, matrix = known
    matrix = measured_softness(program, z, frozen, matrix)
    factor, definite = inverse_root(-matrix)
    if not frozen.rules:
        return Mode(z, factor, frozen, np.zeros(0), definite)

    def fresh(keys: list[jax.Array]) -> list[np.ndarray]:
        return [_slope(program, z, with_fresh_points(program, frozen, one, index)) for one in keys]

    slope, shift = averaged(fresh, key, factor, tell)
    frozen = frozen._replace(tilt=on_device(slope - _slope(program, z, frozen)))
    return stepped(z, factor, frozen, slope, shift, more)


def stepped(z: np.ndarray, factor, data: Data, slope: np.ndarray, shift, more: int) -> Mode:
    """The mode, a Newton step away from ``z`` where ``slope`` says that it is near."""
    step = factor.T @ slope
    close = float(np.mean(step**2)) < _CLOSE**2
    return Mode(z + factor @ step if close else z, factor, data, shift, close, more)


def ascend(
    program, z: np.ndarray, data: Data, index, key, more: int = 1, tell=lambda _: None, enough: float = DECREMENT
) -> np.ndarray:
    """Climb on points frozen at every step's start, until Newton steps are short ``enough`` (their squared length, in
    posterior sds) or only integration error is left."""
    return _ascended(program, z, data, index, key, more, tell, enough)[0]


def _ascended(
    program, z: np.ndarray, data: Data, index, key, more: int, tell, enough: float
) -> tuple[np.ndarray, tuple[Data, Any] | None]:
    """The same, and the frozen points and the curvature there; None where the steps ran out."""
    decrements: list[float] = []
    for taken in range(_STEPS):
        frozen = with_rules(program, z, data, key, index, more)
        gradient, matrix = curvature(program, z, frozen)
        factor = step_root(program, z, frozen, gradient, matrix)
        white = factor.T @ gradient
        decrements.append(float(white @ white))
        tell(f"mode: step {taken + 1}, {decrements[-1]:.2g} to go")
        if decrements[-1] < enough or stalled(decrements, len(z)):
            return z, (frozen, matrix)
        moved = _climb(program, z, factor, white, frozen)
        if not moved.any():
            return z, (frozen, matrix)
        z = lifted(program, z + factor @ moved, frozen)
        del frozen  # before there are others
    return z, None


def lifted(program: Program, z: np.ndarray, data: Data) -> np.ndarray:
    """A place back from where coordinates are logarithms of next to nothing, if the model knows any such.

    The slope there is one, so that a long step may lead there and many short ones back, and zero has no coordinate.
    """
    model = program.model(data.numbers)
    if not hasattr(model, "lifted"):
        return z
    values = {name: np.asarray(x) for name, x in values_at(program, z, data.alone).items()}
    higher = model.lifted(values)
    return z if higher is None else place_of(program, higher, data).astype(np.float64)


def stalled(decrements: list[float], size: int) -> bool:
    """Whether Newton steps of ``size`` globals have stopped becoming shorter."""
    patience = _PATIENCE_NEAR if decrements[-1] < _CLOSE**2 * size else _PATIENCE_FAR
    return len(decrements) > patience and decrements[-1] > 0.5 * min(decrements[:-patience])


def step_root(program: Program, z: np.ndarray, data: Data, gradient: np.ndarray, matrix: Any) -> Any:
    """A factor of the inverse of minus the Hessian, for steps: it is damped.

    Where an exponential stands behind a global, no step is much longer than where it can be taken for a line: an entry
    of a spectrum far below the noise bends next to nothing. And of layers a share of the diagonal is added that makes
    all positive (Levenberg and Marquardt).
    """
    more = np.abs(gradient) * bendings(program, z, data)
    if not isinstance(matrix, Layers):
        return inverse_root(np.diag(more) - matrix)[0]
    precision = (-matrix).damped(more)
    for share in _SHARES:
        factor, definite = inverse_root(precision.damped(share * np.abs(precision.diagonal)))
        if definite:
            break
    return factor


def _climb(program, z: np.ndarray, factor: Any, newton: np.ndarray, data: Data) -> np.ndarray:
    """Where the log density of the frozen points is highest, in whitened coordinates from ``z``; 0 when nowhere near.

    Newton's step where it is good, and from there, or from ``z``, quasi-Newton steps: one curvature then serves many
    of them. Newton's method alone crawled where a spectrum is superfluous, with steps a hundredth of their length.
    """

    def fall(white: np.ndarray) -> tuple[float, np.ndarray]:
        if white @ white > most:
            return far * (white @ white) - here, 2.0 * far * white
        value, slope = value_and_grad(program, z + factor @ white, data)
        value, slope = float(value), np.asarray(slope, dtype=np.float64)
        if not (np.isfinite(value) and np.isfinite(slope).all()):  # a slope back to where there are numbers
            return far * (white @ white) - here, 2.0 * far * white
        return -value, -(factor.T @ slope)

    far = newton @ newton
    most = np.inf if data.rest is None else _TRUSTED**2 * far
    here = float(value_and_grad(program, z, data)[0])
    good = -fall(newton)[0] - here > 0.2 * far
    start = newton if good else np.zeros_like(newton)
    rounding = 4 * np.finfo(data.anchor.dtype).eps
    options = {
        "maxcor": _MEMORY,
        "maxfun": _EVALUATIONS,
        "gtol": 0.1 * np.sqrt(DECREMENT / len(z)),
        "ftol": max(DECREMENT / max(abs(here), 1.0), rounding),
    }
    found = minimize(fall, start, jac=True, method="L-BFGS-B", options=options)
    return found.x if -found.fun > here else np.zeros_like(newton)


def _slope(program: Program, z: np.ndarray, data: Data) -> np.ndarray:
    return np.asarray(value_and_grad(program, z, data)[1], dtype=np.float64)


def averaged(
    fresh: Callable[[list[jax.Array]], list[np.ndarray]], key: jax.Array, factor: Any, tell, least: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Mean slope over pairs of sets of fresh points, at ``least`` so many; and how far its remaining error moves the
    posterior, in posterior sds. ``fresh`` gives the slopes of sets from a key each."""
    widths = sds(factor)
    slopes = np.zeros((2, len(widths)))
    for pairs in range(1, _MOST_REDRAWS // 2 + 1):
        slopes += fresh([jax.random.fold_in(key, 2 * pairs - 1), jax.random.fold_in(key, 2 * pairs)])
        shift = factor @ (factor.T @ (slopes[0] - slopes[1]) / (2 * pairs)) / widths
        if pairs >= least and np.abs(shift).max() < 0.4 * MC_SHIFT_LIMIT:
            break
    tell(f"integration error: {np.abs(shift).max():.2g} posterior sd with {2 * pairs} sets of points")
    return slopes.sum(0) / (2 * pairs), shift


def inverse_root(precision: Any) -> tuple[Any, bool]:
    """An upper triangular factor of the inverse, and whether ``precision`` was positive definite as it came.

    Where it was not, its eigenvalues (with the diagonal scaled to one) are taken without their signs: away from the
    mode that is a Newton step that climbs out of saddles (Dauphin et al. 2014), and near it what the integration error
    of a soft direction leaves.
    """
    layered = isinstance(precision, Layers)
    parts = (precision.block, precision.number, precision.columns) if layered else (precision,)
    if not all(np.isfinite(part).all() for part in parts):
        raise FloatingPointError(
            "the curvature of the log posterior is not finite: check the data for extreme values, and for units that "
            "hold no noise, as where all are alike"
        )
    if layered:
        return precision.inverse_root()
    definite = True
    try:
        upper = scipy.linalg.cholesky(precision, lower=False)
    except np.linalg.LinAlgError:
        definite = False
        root = np.sqrt(np.abs(np.diag(precision)).clip(1e-12))
        values, vectors = scipy.linalg.eigh(precision / np.outer(root, root))
        values = np.maximum(np.abs(values), _SOFTEST)
        # R'R = V values V' without squaring the condition.
        upper = scipy.linalg.qr(np.sqrt(values)[:, None] * vectors.T, mode="r")[0] * root
        upper *= np.sign(np.diag(upper))[:, None]
    # precision = U'U, so its inverse is (U^-1)(U^-1)'.
    return inverse_of_upper(upper), definite
