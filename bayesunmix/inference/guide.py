"""The Gaussian guide of SVI: started at the mode and its curvature, then improved on the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.target import Data, log_density

_CHUNK = 10  # steps between looks at the ELBO
_PATIENCE = 3  # chunks without a rise
_CHECK_DRAWS = 64
_RANDOM_DIRECTIONS = 32
SHIFT_LIMIT = 0.25  # posterior sds
RATIO_LIMITS = (0.8, 1.25)
_SURE = 3.5  # standard errors: a false alarm in a few hundred directions about once in ten fits
_WIDEST = 10  # beyond that the ratio of precisions is noise, or negative
_DOUBT = 0.15  # of a ratio of precisions


class Guide(NamedTuple):
    """Normal distribution of the unconstrained globals: ``z = location + stretch * (factor @ white)``."""

    location: jax.Array
    stretch: jax.Array
    factor: jax.Array

    def place(self, white: jax.Array) -> jax.Array:
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


@partial(jax.jit, static_argnames=("program", "settings"))
def _chunk(program: Program, state: _State, location, factor, data: Data, key, settings: SVI):
    """Some steps on the ELBO; returns the state, the ELBO of every step, and the mean of the parameters over them."""
    optimiser = _optimiser(settings)

    def loss(parameters, key):
        guide = Guide(location + factor @ parameters["shift"], jnp.exp(parameters["log_stretch"]), factor)
        half = jax.random.normal(key, (settings.samples // 2, location.size), location.dtype)
        white = jnp.concatenate([half, -half])
        # Path derivative only (Roeder et al. 2017): the noise of the gradient vanishes as the guide becomes exact.
        frozen = jax.tree_util.tree_map(jax.lax.stop_gradient, guide)

        def one(w):
            z = guide.place(w)
            back = jax.scipy.linalg.solve_triangular(factor, (z - frozen.location) / frozen.stretch, lower=False)
            log_q = -0.5 * (back**2).sum() - jnp.log(frozen.stretch).sum()
            return log_density(program, z, data) - log_q

        elbo = jax.lax.map(one, white).mean()
        return -elbo, elbo

    def step(state, key):
        gradient, elbo = jax.grad(loss, has_aux=True)(state.parameters, key)
        update, inner = optimiser.update(gradient, state.optimiser)
        parameters = optax.apply_updates(state.parameters, update)
        return _State(parameters, inner), (elbo, parameters)

    state, (elbo, path) = jax.lax.scan(step, state, jax.random.split(key, _CHUNK))
    return state, elbo, jax.tree_util.tree_map(lambda p: p.mean(0), path)


def fit_guide(
    program: Program,
    mode: Mode,
    settings: SVI,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Guide, np.ndarray, bool]:
    """Guide, ELBO of every step, and whether the ELBO had stopped rising (False when the steps ran out)."""
    location, factor = jnp.asarray(mode.z), jnp.asarray(mode.factor)
    zero = {"shift": jnp.zeros_like(location), "log_stretch": jnp.zeros_like(location)}
    state = _State(zero, _optimiser(settings).init(zero))
    trace: list[np.ndarray] = []
    recent: list[dict[str, jax.Array]] = []
    highest, waited, settled = -np.inf, 0, False
    for done in range(0, settings.steps, _CHUNK):
        here = jax.random.fold_in(key, done)
        state, elbo, mean = _chunk(program, state, location, factor, mode.data, here, settings)
        trace.append(np.asarray(elbo, dtype=np.float64))
        recent = [*recent, mean][-_PATIENCE:]
        average, error = trace[-1].mean(), trace[-1].std(ddof=1) / np.sqrt(_CHUNK)
        tell(done + _CHUNK, settings.steps, f"ELBO {average:.6g}")
        waited = 0 if average > highest + error else waited + 1
        highest = max(highest, average)
        if waited == _PATIENCE:
            settled = True
            break
    # The mean over the last chunks, in which the ELBO no longer rose, is less noisy than the last point.
    best = jax.tree_util.tree_map(lambda *parts: sum(parts) / len(parts), *recent)
    guide = Guide(location + factor @ best["shift"], jnp.exp(best["log_stretch"]), factor)
    return guide, np.concatenate(trace), settled


@partial(jax.jit, static_argnames="program")
def _scores(program: Program, guide: Guide, data: Data, white: jax.Array) -> jax.Array:
    """Slope of the log posterior in the guide's own whitened coordinates, at its points."""
    return jax.lax.map(jax.grad(lambda w: log_density(program, guide.place(w), data)), white)


class GuideCheck(NamedTuple):
    """Guide against posterior, a value per direction: all parameters first, then random directions."""

    mean_shift: np.ndarray  # of the posterior mean from the guide's, in guide sds
    mean_shift_error: np.ndarray  # Monte Carlo standard error
    precision_ratio: np.ndarray  # posterior over guide
    precision_ratio_error: np.ndarray

    @property
    def sd_ratio(self) -> np.ndarray:
        """Posterior over guide."""
        return np.maximum(self.precision_ratio, 1e-12) ** -0.5

    def faults(self) -> list[str]:
        """What is beyond the limits by more than Monte Carlo error, in words."""
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
    identity).
    """
    key_draw, key_direction = jax.random.split(key)
    size = guide.location.size
    half = jax.random.normal(key_draw, (_CHECK_DRAWS // 2, size), guide.location.dtype)
    white = jnp.concatenate([half, -half])
    scores = np.asarray(_scores(program, guide, data, white), dtype=np.float64)
    points = np.asarray(white, dtype=np.float64)
    own = np.asarray(guide.factor, dtype=np.float64)
    random = np.asarray(jax.random.normal(key_direction, (_RANDOM_DIRECTIONS, size)), dtype=np.float64)
    directions = np.concatenate([own, random])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    along, excess = points @ directions.T, (scores + points) @ directions.T
    pairs = 0.5 * (excess[: len(half)] + excess[len(half) :])  # an antithetic pair is one observation
    steep = -(along * excess) / (along**2).mean(0)
    steep = 0.5 * (steep[: len(half)] + steep[len(half) :])
    root = np.sqrt(len(half))
    return GuideCheck(pairs.mean(0), pairs.std(0, ddof=1) / root, 1.0 + steep.mean(0), steep.std(0, ddof=1) / root)
