"""A patch of an image as overlapping round Gaussians on a sloping background, fitted for every patch at once.

    mu(y, x) = b + b_y y + b_x x + sum_j A_j exp(-((y - y_j)^2 + (x - x_j)^2) / 2 w_j^2)

Atom 0 is the one the patch belongs to; the others are its neighbours, which are fitted along so that what they leave
open enters the covariance of atom 0. Counts are Poisson of mean mu, other data normal around it.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_PLANE = 3  # parameters of the background
_PER_ATOM = 4  # amplitude, y, x, log width
_BATCH = 16
_DECREMENT = 1e-5  # squared length of the step in standard errors at which a fit ends


class Patches(NamedTuple):
    """Patches of side pixels (n, side, side), around pixel positions that the coordinates of atoms are relative to."""

    values: jax.Array
    used: jax.Array  # (n, side, side), False outside of the image
    start: jax.Array  # (n, size) parameters
    precision: jax.Array  # (n, size) of the normal prior around ``start``
    present: jax.Array  # (n, atoms), False where there are fewer neighbours


class Spots(NamedTuple):
    """Fitted parameters and what is known of them, a row per patch; arrays of JAX or NumPy."""

    parameters: Any  # (n, size)
    covariance: Any  # (n, 4, 4) of atom 0: amplitude, y, x, log width
    chi2: Any  # (n,) squared residuals in the noise variance
    freedom: Any  # (n,) pixels less fitted parameters


def model(parameters: jax.Array, present: jax.Array, side: int) -> tuple[jax.Array, jax.Array]:
    """Mean (pixels,) of a patch and its Jacobian (pixels, size)."""
    half = (side - 1) / 2
    y, x = (g.ravel() - half for g in jnp.meshgrid(jnp.arange(side), jnp.arange(side), indexing="ij"))
    plane = jnp.stack([jnp.ones_like(y), y, x], axis=-1)
    atom = parameters[_PLANE:].reshape(-1, _PER_ATOM)
    width = jnp.exp(atom[:, 3])
    dy, dx = (y[:, None] - atom[:, 1]) / width, (x[:, None] - atom[:, 2]) / width
    spot = jnp.exp(-0.5 * (dy**2 + dx**2)) * present
    bright = atom[:, 0] * spot
    slopes = jnp.stack([spot, bright * dy / width, bright * dx / width, bright * (dy**2 + dx**2)], axis=-1)
    mean = plane @ parameters[:_PLANE] + bright.sum(-1)
    return mean, jnp.concatenate([plane, slopes.reshape(y.size, -1)], axis=-1)


@partial(jax.jit, static_argnames=("poisson", "most_steps"))
def fit_spots(patches: Patches, noise: jax.Array, poisson: bool, most_steps: int) -> Spots:
    """Levenberg and Marquardt's method with expected curvature on every patch.

    ``noise`` is the standard deviation of normal noise; with ``poisson`` it is the smallest mean, which keeps a
    count of zero from weighing infinitely.
    """
    return jax.lax.map(lambda one: _fit_one(one, noise, poisson, most_steps), patches, batch_size=_BATCH)


def _fit_one(patch: Patches, noise, poisson: bool, most_steps: int) -> Spots:
    side = patch.values.shape[0]
    y, used = patch.values.ravel(), patch.used.ravel()

    def look(parameters):
        """Objective, its downhill slope and expected curvature, and the squared residuals in units of noise."""
        mean, jacobian = model(parameters, patch.present, side)
        if poisson:
            mean = jnp.maximum(mean, noise)
            weight = used / mean
            misfit = (used * (mean - y * jnp.log(mean))).sum()
        else:
            weight = used / noise**2
            misfit = 0.5 * (weight * (y - mean) ** 2).sum()
        away = parameters - patch.start
        value = misfit + 0.5 * (patch.precision * away**2).sum()
        slope = jacobian.T @ (weight * (y - mean)) - patch.precision * away
        data = jacobian.T @ (weight[:, None] * jacobian)
        return value, slope, data, (weight * (y - mean) ** 2).sum()

    def step(state):
        parameters, damping, _, count = state
        value, slope, data, _ = look(parameters)
        curvature = data + jnp.diag(patch.precision)
        scale = jnp.diag(jnp.diag(curvature))
        move = jax.scipy.linalg.solve(curvature + damping * scale, slope, assume_a="pos")
        tried = parameters + move
        better = look(tried)[0] < value
        done = (slope @ move) < _DECREMENT
        parameters = jnp.where(better, tried, parameters)
        return parameters, jnp.where(better, damping * 0.2, jnp.minimum(damping * 8.0, 1e8)), done, count + 1

    start = (patch.start, jnp.asarray(1e-2, y.dtype), jnp.asarray(False), 0)
    parameters, *_ = jax.lax.while_loop(lambda s: ~s[2] & (s[3] < most_steps), step, start)
    _, _, data, chi2 = look(parameters)
    root = jax.scipy.linalg.cho_factor(data + jnp.diag(patch.precision), lower=True)
    inverse = jax.scipy.linalg.cho_solve(root, jnp.eye(parameters.size, dtype=y.dtype))
    own = slice(_PLANE, _PLANE + _PER_ATOM)
    return Spots(parameters, inverse[own, own], chi2, used.sum() - (inverse * data).sum())
