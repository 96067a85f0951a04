"""Laws of one part given those before it: a normal distribution that faces cut off, and power laws at its ends."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from bayesunmix.distributions import truncated

REACH = 30.0  # standard deviations beyond which an open part is not drawn
_ENDS = 0.25, 0.25  # shares of the points drawn at either end of a part: dyadic, so that a Sobol set holds each exactly
_CUT = 3.0  # how fast the power laws fall off beyond their scale


class Part(NamedTuple):
    """Exponent of one part v (from its centre) given those before it: slope v - (v - expected)^2 / (2 scale^2)."""

    slope: jax.Array
    scale: jax.Array
    expected: jax.Array

    @property
    def location(self):
        return self.expected + self.slope * self.scale**2

    @property
    def log_total(self):
        """Log of the integral of the exponential over all v."""
        return self.exponent(self.location) + jnp.log(self.scale) + truncated.LOG_ROOT_2PI

    def exponent(self, v):
        return self.slope * v - 0.5 * ((v - self.expected) / self.scale) ** 2

    def mass(self, lowest, highest):
        """Lower bound and width in standard deviations, and log of the integral of the exponential between bounds."""
        # Not by way of the location, which is far off where a face holds the part.
        low = (lowest - self.expected) / self.scale - self.slope * self.scale
        low, width = jnp.broadcast_arrays(low, jnp.maximum(highest - lowest, 0.0) / self.scale)
        top = self.exponent(jnp.clip(self.location, lowest, highest))
        return low, width, top + jnp.log(self.scale) + truncated.log_mass(low, width)

    def draw(self, u, low, width, lowest, highest):
        return jnp.clip(lowest + self.scale * truncated.quantile(u, low, width), lowest, highest)


def laws(base, closed: bool) -> tuple[jax.Array, jax.Array]:
    """Which law a point's part is drawn from (0 low end, 1 normal, 2 high end), and its coordinate within it."""
    at_low, at_high = _ENDS if closed else (_ENDS[0], 0.0)
    law = jnp.where(base < at_low, 0, jnp.where(base < 1.0 - at_high, 1, 2))
    start = jnp.where(law == 0, 0.0, jnp.where(law == 1, at_low, 1.0 - at_high))
    share = jnp.where(law == 0, at_low, jnp.where(law == 1, 1.0 - at_low - at_high, at_high or 1.0))
    return law, (base - start) / share


class Ends(NamedTuple):
    """Laws of a part near the ends of its range, in its log odds ``y = log(x / (room - x))``, or ``log x`` if open.

    At the low end the distribution function ``(1 + exp(-cut (y - y_0)))^(-alpha / cut)`` (Dagum's): the power law
    ``x^(alpha - 1)`` that falls off smoothly beyond the scale ``y_0``, where the normal factor takes over; at the high
    end its mirror image with the exponent of what is left.
    """

    part: Part
    centre: jax.Array
    room: jax.Array | None
    alpha: jax.Array
    rest: jax.Array

    def _scale(self, distance):
        """Log odds of the length over which the normal factor changes, seen from an end at this distance."""
        length = self.part.scale / jnp.sqrt(1.0 + (distance / self.part.scale) ** 2)
        return jnp.log(length) if self.room is None else jnp.log(length / (self.room + length))

    def draw(self, law, u, log_room, x_normal, log_mass, even):
        """The part from its centre, its log, log of what is left, and log density of the mixture of the laws.

        Where ``even``, the middle law is uniform: what is left may be too little to be a number.
        """
        eps, tiny = jnp.finfo(u.dtype).eps, jnp.finfo(u.dtype).tiny
        closed = self.room is not None
        location = self.centre + self.part.location
        y_low = self._scale(location)
        if closed:
            room = jnp.maximum(self.room, 16.0 * tiny / eps)
            y_high = -self._scale(self.room - location)
            x_normal = jnp.clip(x_normal, eps * room, (1.0 - eps) * room)
            y_normal = jnp.where(even, jnp.log(u) - jnp.log1p(-u), jnp.log(x_normal) - jnp.log(room - x_normal))
        else:
            y_high = y_low
            y_normal = jnp.log(jnp.maximum(x_normal, eps * self.part.scale))
        at_low = y_low - _log_expm1(-_CUT / self.alpha * jnp.log(u)) / _CUT
        at_high = y_high + _log_expm1(-_CUT / self.rest * jnp.log(u)) / _CUT if closed else y_normal
        y = jnp.where(law == 0, at_low, jnp.where(law == 1, y_normal, at_high))
        if closed:
            log_x, log_left = log_room - jax.nn.softplus(-y), log_room - jax.nn.softplus(y)
            log_jacobian = log_room - log_x - log_left  # dy / dx
        else:
            log_x, log_left, log_jacobian = y, log_room, -y
        v = jnp.where(law == 1, x_normal, jnp.exp(log_x)) - self.centre
        shares = [_ENDS[0], 1.0 - _ENDS[0] - (_ENDS[1] if closed else 0.0)]
        terms = [
            _log_law(y - y_low, self.alpha) + log_jacobian + math.log(shares[0]),
            self.part.exponent(v) - log_mass + math.log(shares[1]),
        ]
        if closed:
            terms.append(_log_law(y_high - y, self.rest) + log_jacobian + math.log(_ENDS[1]))
        return v, log_x, log_left, _log_sum(terms)


def _log_sum(terms):
    """Log of the sum of the exponentials of a few arrays, elementwise: several times faster than on a stack."""
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    return top + jnp.log(sum(jnp.exp(t - top) for t in terms))


def _log_law(y, exponent):
    """Log density of Dagum's law in ``y``, from its scale."""
    return jnp.log(exponent) - _CUT * y - (exponent / _CUT + 1.0) * jax.nn.softplus(-_CUT * y)


def _log_expm1(t):
    """log(exp(t) - 1) for t > 0, whatever its size."""
    return t + jnp.log(-jnp.expm1(-t))
