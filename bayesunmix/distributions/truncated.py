"""A standard normal variable between two bounds: its mass and its quantiles, stable in both tails.

Masses are taken relative to the largest density inside the bounds, so that neither a far tail nor a narrow
interval underflows, in float32 as in float64. Derivatives are in closed form.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

_ROOT_2 = math.sqrt(2.0)
_ROOT_HALF_PI = math.sqrt(0.5 * math.pi)
_KNEE = 3.0


@jax.custom_jvp
def log_mass(low: jax.Array, high: jax.Array) -> jax.Array:
    """Log of the integral of ``exp(-(z^2 - m^2) / 2)`` from ``low`` to ``high``, m the point of them nearest 0."""
    near, far = _by_distance(low, high)
    tail_near, tail_far = _ratio(jnp.abs(near)), _ratio(far)
    decay = jnp.exp(0.5 * (near**2 - far**2))
    outside = tail_near - decay * tail_far
    around = 2.0 * _ROOT_HALF_PI - jnp.exp(-0.5 * near**2) * (tail_near + decay * tail_far)
    wide = jnp.where(near > 0, outside, around)
    # Between bounds close to each other the difference of the tails is lost to rounding: the density's parabola.
    # A width below rounding would have no logarithm.
    width, middle = jnp.maximum(far - near, jnp.finfo(far.dtype).eps * (1.0 + far)), 0.5 * (near + far)
    relative = jnp.exp(0.5 * (jnp.maximum(near, 0.0) ** 2 - middle**2))
    narrow = relative * width * (1.0 + (middle**2 - 1.0) * width**2 / 24.0)
    return jnp.log(jnp.where(_is_narrow(near, far), narrow, wide))


@log_mass.defjvp
def _log_mass_jvp(bounds, moves):
    (low, high), (move_low, move_high) = bounds, moves
    log_total = log_mass(low, high)
    top = jnp.clip(0.0, low, high)
    at_low = jnp.exp(0.5 * (top**2 - low**2) - log_total)
    at_high = jnp.exp(0.5 * (top**2 - high**2) - log_total)
    # ``top`` moves with a bound that cuts the mode off.
    slope = (jnp.where(low > 0, low, 0.0) - at_low) * move_low
    slope = slope + (jnp.where(high < 0, high, 0.0) + at_high) * move_high
    return log_total, slope


@jax.custom_jvp
def quantile(uniform: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """Value below which a share ``uniform`` of the mass between the bounds lies."""
    near, far = _by_distance(low, high)
    mirrored = low + high < 0
    share = jnp.where(mirrored, 1.0 - uniform, uniform)  # of the mass, counted from ``near``
    info = jnp.finfo(near.dtype)
    tail_near, tail_far = _ratio(jnp.abs(near)), _ratio(far)
    decay = jnp.exp(0.5 * (near**2 - far**2))
    # Invert the upper tail; where it underflows, its leading term and one correction do.
    density = jnp.exp(-0.5 * near**2)
    upper = jnp.where(near > 0, density * tail_near, 2.0 * _ROOT_HALF_PI - density * tail_near)
    upper = upper + share * (density * decay * tail_far - upper)
    inverted = -ndtri(jnp.clip(upper / (2.0 * _ROOT_HALF_PI), info.tiny, 1.0 - info.epsneg))
    remaining = 1.0 - share * (1.0 - decay * tail_far / tail_near)
    start = jnp.maximum(near, 1.0)
    leading = start**2 - 2.0 * jnp.log(jnp.maximum(remaining, info.tiny))
    guess = jnp.sqrt(leading) - 0.5 * jnp.log(leading / start**2) / jnp.sqrt(leading)
    limit = 30.0 if near.dtype == jnp.float64 else 10.0
    found = jnp.where(near < limit, inverted, guess)
    # Between close bounds: even, with the slope of the density.
    width, middle = far - near, 0.5 * (near + far)
    even = near + width * (share - 0.5 * share * (1.0 - share) * middle * width)
    found = jnp.clip(jnp.where(_is_narrow(near, far), even, found), near, far)
    return jnp.where(mirrored, -found, found)


@quantile.defjvp
def _quantile_jvp(primals, tangents):
    uniform, low, high = primals
    move, move_low, move_high = tangents
    z = quantile(uniform, low, high)
    # Differentiate Phi(z) = (1 - u) Phi(low) + u Phi(high).
    by_low = jnp.minimum((1.0 - uniform) * jnp.exp(0.5 * (z**2 - low**2)), 1.0)
    by_high = jnp.minimum(uniform * jnp.exp(0.5 * (z**2 - high**2)), 1.0)
    by_uniform = jnp.exp(log_mass(low, high) + 0.5 * (z**2 - jnp.clip(0.0, low, high) ** 2))
    return z, by_uniform * move + by_low * move_low + by_high * move_high


def _by_distance(low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The interval mirrored, if need be, so that its far end is the positive one."""
    mirrored = low + high < 0
    return jnp.where(mirrored, -high, low), jnp.where(mirrored, -low, high)


def _is_narrow(near: jax.Array, far: jax.Array) -> jax.Array:
    limit = 1e-3 if near.dtype == jnp.float64 else 0.03
    return (far - near) * (1.0 + far) < limit


def _ratio(x: jax.Array) -> jax.Array:
    """Mills' ratio, upper tail over density, for x >= 0: sqrt(pi/2) erfcx(x / sqrt(2)).

    Chebyshev series of ``(1 + 2 t) erfcx(t)`` in ``(t - 3) / (t + 3)`` (Shepherd and Laframboise, Math.
    Comput. 36, 249 (1981)), which is smooth up to infinity: to 1e-10 in float64, to rounding in float32.
    """
    t = x / _ROOT_2
    s = 2.0 * (t - _KNEE) / (t + _KNEE)
    coefficients = _coefficients(14 if x.dtype == jnp.float64 else 9)
    total, previous = jnp.zeros_like(x), jnp.zeros_like(x)
    for coefficient in reversed(coefficients[1:]):
        total, previous = s * total - previous + float(coefficient), total
    series = 0.5 * s * total - previous + float(coefficients[0])
    return _ROOT_HALF_PI * series / (1.0 + 2.0 * t)


@functools.cache
def _coefficients(degree: int) -> np.ndarray:
    from numpy.polynomial import chebyshev
    from scipy.special import erfcx

    def scaled(s):
        with np.errstate(divide="ignore"):
            t = _KNEE * (1.0 + s) / (1.0 - s)
        return (1.0 + 2.0 * t) * erfcx(t)

    return chebyshev.chebinterpolate(scaled, degree)
