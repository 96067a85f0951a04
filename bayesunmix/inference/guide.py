"""The Gaussian guide of SVI: started at the mode and its curvature, then improved on the ELBO."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesunmix.inference.layered import log_det, push
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import SVI
from bayesunmix.inference.target import slopes_at

_CHUNK = 10  # steps between looks at the ELBO
_PATIENCE = 3  # chunks without a rise
_NEGLIGIBLE = 0.01  # nats of the ELBO
WIDEST = 10  # beyond that the ratio of precisions is noise, or negative


class Guide(NamedTuple):
    """Normal distribution of the unconstrained globals: ``z = location + stretch * (factor @ white)``."""

    location: Any
    stretch: Any
    factor: Any

    def place(self, white):
        """Points of the guide, (..., size), from standard normal ones."""
        return self.location + self.stretch * (white @ self.factor.T)

    def moved(self, white) -> Guide:
        """The same guide elsewhere, by a step in whitened coordinates."""
        return self._replace(location=self.place(white))


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


def fit_guide(
    program: Program,
    mode: Mode,
    settings: SVI,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[Guide, np.ndarray, bool]:
    """Guide, ELBO of every step, and whether the ELBO had stopped rising (False when the steps ran out)."""
    location, factor = jax.device_put((mode.z, mode.factor))
    zero = {"shift": jnp.zeros_like(location), "log_stretch": jnp.zeros_like(location)}
    state = _State(zero, _optimiser(settings).init(zero))
    trace: list[float] = []
    recent: list[dict[str, jax.Array]] = []
    highest, waited, settled = -np.inf, 0, False
    for done in range(0, settings.steps, _CHUNK):
        path = []
        for step in range(done, done + _CHUNK):
            white, points = _draw(state, location, factor, jax.random.fold_in(key, step), settings)
            values, slopes = slopes_at(program, points, mode.data)
            state, elbo = _step(state, factor, white, values, slopes, settings)
            trace.append(float(elbo))
            path.append(state.parameters)
        recent.append(jax.tree_util.tree_map(lambda *parts: sum(parts) / len(parts), *path))
        latest = np.array(trace[-_CHUNK:])
        average, error = float(latest.mean()), float(latest.std(ddof=1)) / np.sqrt(_CHUNK)
        tell(done + _CHUNK, settings.steps, f"ELBO {average:.6g}")
        waited = 0 if average - highest > max(error, _NEGLIGIBLE) else waited + 1
        highest = max(highest, average)
        if waited >= (1 if error < _NEGLIGIBLE else _PATIENCE):
            settled = True
            break
    # The mean over chunks in which the ELBO no longer rose is less noisy than the last point.
    last = recent[-max(waited, 1) :]
    best = jax.tree_util.tree_map(lambda *parts: sum(parts) / len(parts), *last)
    return jax.tree_util.tree_map(np.asarray, _guide(best, location, factor)), np.array(trace), settled
