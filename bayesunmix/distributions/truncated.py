"""A standard normal variable between two bounds: its mass and its quantiles, stable in both tails.

Masses are taken relative to the largest density inside the bounds, and quantiles from the lower bound, so that neither
a far tail nor a narrow interval is lost to rounding, in float32 as in float64: a part that its face holds with all its
strength lies a thousand standard deviations off and moves by a thousandth of one. Derivatives are in closed form.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
_ROOT_2 = math.sqrt(2.0)
_ROOT_HALF_PI = math.sqrt(0.5 * math.pi)
_KNEE = 3.0


def log_mass(low: jax.Array, width: jax.Array) -> jax.Array:
    """Log of the integral of ``exp(-(z^2 - m^2) / 2)`` from ``low`` to ``low + width``, m the point nearest 0."""
    return _log_mass(_nearest(low, width), width)


def quantile(uniform: jax.Array, low: jax.Array, width: jax.Array) -> jax.Array:
    """How far above ``low`` the value lies below which a share ``uniform`` of the mass between the bounds is."""
    mirrored = 2.0 * low + width < 0
    found = _excess(jnp.where(mirrored, 1.0 - uniform, uniform), _nearest(low, width), width)
    return jnp.where(mirrored, width - found, found)


@jax.custom_jvp
def log_above(low: jax.Array) -> jax.Array:
    """Log of the probability of what is above ``low``."""
    density = jnp.exp(-0.5 * low**2)
    tail = density * _ratio(jnp.abs(low)) / (2.0 * _ROOT_HALF_PI)
    far = -0.5 * low**2 + jnp.log(_ratio(jnp.abs(low)) / (2.0 * _ROOT_HALF_PI))
    return jnp.where(low > 0, far, jnp.log1p(-tail))


@log_above.defjvp
def _log_above_jvp(lows, moves):
    (low,), (move,) = lows, moves
    density = jnp.exp(-0.5 * low**2)
    below = density / (2.0 * _ROOT_HALF_PI - density * _ratio(jnp.abs(low)))
    return log_above(low), -jnp.where(low > 0, 1.0 / _ratio(jnp.abs(low)), below) * move


def above(low: jax.Array) -> tuple[jax.Array, jax.Array]:
    """By how much the mean exceeds ``low`` where nothing is above that, and the variance."""
    held = _hazard_excess(jnp.abs(low))
    hazard = jnp.exp(-0.5 * low**2) / (2.0 * _ROOT_HALF_PI - jnp.exp(-0.5 * low**2) * _ratio(jnp.abs(low)))
    excess = jnp.where(low > 0, held, hazard - low)
    variance = 1.0 - (low + excess) * excess
    # Far out that is lost to rounding: the series of an exponential tail.
    y = 1.0 / jnp.maximum(low, 1.0) ** 2
    series = y * (1.0 - y * (6.0 - 50.0 * y))
    return excess, jnp.where(low < _far_out(low), variance, series)


def lean(low: jax.Array, excess: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Third and fourth cumulants where nothing is above, with the mean's excess over ``low``."""
    hazard = low + excess
    # Derivatives of the hazard: the cumulants are those of minus the log of the upper tail.
    slope = hazard * excess
    bend = slope * (hazard + excess) - hazard
    fourth = 2.0 * slope * (1.0 - slope) - bend * (hazard + excess)
    start = jnp.maximum(low, 1.0)
    y = 1.0 / start**2
    far = low > 12.0 if low.dtype == jnp.float64 else low > 6.0  # beyond, differences are lost to rounding
    third_far = (2.0 - y * (24.0 - y * (300.0 - 4144.0 * y))) / start**3
    fourth_far = (6.0 - y * (120.0 - y * (2100.0 - 37296.0 * y))) * y**2
    return jnp.where(far, third_far, bend), jnp.where(far, fourth_far, fourth)


def _nearest(low, width):
    """Lower bound of the interval mirrored, if need be, so that its far end is the positive one."""
    return jnp.where(2.0 * low + width < 0, -(low + width), low)


@jax.custom_jvp
def _log_mass(near: jax.Array, width: jax.Array) -> jax.Array:
    tail_near, tail_far = _ratio(jnp.abs(near)), _ratio(jnp.abs(near + width))
    decay = _decay(near, width)
    outside = tail_near - decay * tail_far
    around = 2.0 * _ROOT_HALF_PI - jnp.exp(-0.5 * near**2) * (tail_near + decay * tail_far)
    wide = jnp.where(near > 0, outside, around)
    # Between bounds close to each other the difference of the tails is lost to rounding: the density's parabola.
    middle = near + 0.5 * width
    relative = jnp.exp(jnp.where(near > 0, -0.25 * width * (near + middle), -0.5 * middle**2))
    narrow = relative * jnp.maximum(width, _least(width)) * (1.0 + (middle**2 - 1.0) * width**2 / 24.0)
    return jnp.log(jnp.where(_is_narrow(near, width), narrow, wide))


@_log_mass.defjvp
def _log_mass_jvp(bounds, moves):
    (near, width), (move, move_width) = bounds, moves
    log_total = _log_mass(near, width)
    outside = near > 0
    at_far = jnp.exp(jnp.where(outside, -0.5 * width * (2.0 * near + width), -0.5 * (near + width) ** 2) - log_total)
    # The largest density moves with a bound that cuts the mode off; little is left of the difference far out.
    beyond = -_hazard_excess(jnp.abs(near)) + at_far * _tail_lost(near, width)
    by_both = jnp.where(outside, beyond, at_far - jnp.exp(-0.5 * near**2 - log_total))
    close = jnp.where(outside, -0.5 * width, -(near + 0.5 * width))
    return log_total, jnp.where(_is_narrow(near, width), close, by_both) * move + at_far * move_width


@jax.custom_jvp
def _excess(share: jax.Array, near: jax.Array, width: jax.Array) -> jax.Array:
    """Distance from ``near`` within which a share of the mass lies."""
    info = jnp.finfo(near.dtype)
    tail_near, tail_far = _ratio(jnp.abs(near)), _ratio(jnp.abs(near + width))
    decay = _decay(near, width)
    # Invert the upper tail; where it underflows, its leading term and one correction do.
    density = jnp.exp(-0.5 * near**2)
    upper = jnp.where(near > 0, density * tail_near, 2.0 * _ROOT_HALF_PI - density * tail_near)
    upper = upper + share * (density * decay * tail_far - upper)
    inverted = -ndtri(jnp.clip(upper / (2.0 * _ROOT_HALF_PI), info.tiny, 1.0 - info.epsneg)) - near
    drop = -jnp.log1p(-jnp.minimum(share * (1.0 - decay * tail_far / tail_near), 1.0 - info.epsneg))
    start = jnp.maximum(near, 1.0)
    guess = 2.0 * drop / (start + jnp.sqrt(start**2 + 2.0 * drop))
    drop = jnp.maximum(drop - jnp.log1p(guess / start), 0.0)
    guess = 2.0 * drop / (start + jnp.sqrt(start**2 + 2.0 * drop))
    found = jnp.where(near < _far_out(near), inverted, guess)
    # Between close bounds: even, with the slope of the density.
    even = width * (share - 0.5 * share * (1.0 - share) * (near + 0.5 * width) * width)
    return jnp.clip(jnp.where(_is_narrow(near, width), even, found), 0.0, width)


@_excess.defjvp
def _excess_jvp(primals, tangents):
    share, near, width = primals
    move_share, move, move_width = tangents
    found = _excess(share, near, width)
    z, far = near + found, near + width
    # Differentiate Phi(z) = (1 - share) Phi(near) + share Phi(far).
    by_far = jnp.minimum(share * jnp.exp(-0.5 * (width - found) * (far + z)), 1.0)
    by_near = jnp.minimum((1.0 - share) * jnp.exp(0.5 * found * (near + z)), 1.0)
    # Of both bounds together. Far out the difference to 1 is lost to rounding: it is that of the tails at z and at
    # the bounds; between close bounds it is that of a slope.
    by_both = by_near - 1.0 + by_far
    far_out = by_far * _tail_lost(near, width) - _tail_lost(near, found)
    by_both = jnp.where(near < _far_out(near), by_both, far_out)
    by_both = jnp.where(_is_narrow(near, width), -0.5 * share * (1.0 - share) * width**2, by_both)
    top = jnp.where(near > 0, 0.5 * found * (near + z), 0.5 * z**2)
    by_share = jnp.exp(_log_mass(near, width) + top)
    return found, by_share * move_share + by_both * move + by_far * move_width


def _decay(near, width):
    """Density at the far bound over that at the near one."""
    return jnp.exp(-0.5 * width * (2.0 * near + width))


def _is_narrow(near: jax.Array, width: jax.Array) -> jax.Array:
    limit = 1e-3 if near.dtype == jnp.float64 else 0.03
    return width * (1.0 + near + width) < limit


def _least(width):
    """A width below which there would be no logarithm."""
    return jnp.finfo(width.dtype).tiny * 1e6


def _far_out(near) -> float:
    return 30.0 if near.dtype == jnp.float64 else 10.0


def _tail_lost(near, width):
    """How much smaller Mills' ratio is at the far bound, as a share of that at the near one."""
    start = jnp.maximum(near, 1.0)
    far = start + width
    series = width / far * (1.0 - 2.0 / (start * far))
    direct = 1.0 - _ratio(jnp.abs(near + width)) / _ratio(jnp.abs(near))
    return jnp.where(near < _far_out(near), direct, series)


def _hazard_excess(x: jax.Array) -> jax.Array:
    """Density over upper tail, less x, for x >= 0; its asymptotic series far out."""
    y = 1.0 / jnp.maximum(x, 1.0)
    series = y * (1.0 + y**2 * (-2.0 + y**2 * (10.0 - 74.0 * y**2)))
    return jnp.where(x < _far_out(x), 1.0 / _ratio(x) - x, series)


def _ratio(x: jax.Array) -> jax.Array:
    """Mills' ratio, upper tail over density, for x >= 0: sqrt(pi/2) erfcx(x / sqrt(2)).

    Chebyshev interpolation of ``(1 + 2 t) erfcx(t)`` in ``(t - 3) / (t + 3)`` (Shepherd and Laframboise, Math.
    Comput. 36, 249 (1981)), which is smooth up to infinity: to 1e-10 in float64, to rounding in float32. Its terms fall
    off so fast that powers lose nothing, and they are two operations each instead of three.
    """
    t = x / _ROOT_2
    s = (t - _KNEE) / (t + _KNEE)
    first, *others = _coefficients(14 if x.dtype == jnp.float64 else 9)
    series = jnp.full_like(x, first)
    for coefficient in others:
        series = series * s + coefficient
    return _ROOT_HALF_PI * series / (1.0 + 2.0 * t)


@functools.cache
def _coefficients(degree: int) -> list[float]:
    """Of the powers of ``(t - 3) / (t + 3)``, the highest first."""
    from numpy.polynomial import chebyshev
    from scipy.special import erfcx

    def scaled(s):
        with np.errstate(divide="ignore"):
            t = _KNEE * (1.0 + s) / (1.0 - s)
        return (1.0 + 2.0 * t) * erfcx(t)

    return chebyshev.cheb2poly(chebyshev.chebinterpolate(scaled, degree))[::-1].tolist()
