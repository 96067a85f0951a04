"""Coordinates of single entries of positive spectra, in which their posteriors are nearly normal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ComposeTransform, SoftplusTransform, Transform

_NEWTON_STEPS = 40


def of_entries(turn, power, again=1.0) -> Transform:
    """The coordinate of an entry in units of its resolution.

    Linear well above one, logarithmic well below: a posterior of that width is near-Gaussian in it, at the boundary
    too. ``turn`` is that of :class:`CubeThenLine`, for counts; ``power`` that of :class:`PowerThenLine`, for sparse
    spectra, and ``again`` how much higher the power is than the one that was expected: so that what an entry is seen to
    be hardly depends on it.
    """
    parts: list[Transform] = [SoftplusTransform()]
    if turn is not None:
        parts.append(CubeThenLine(turn))
    if power is not None:
        parts.append(PowerThenLine(power, again))
    return ComposeTransform(parts)


class MadeAnew(Transform):
    """A transform that is never handed to compiled functions."""

    def tree_flatten(self):
        raise NotImplementedError("made anew from its constraint wherever it is needed")


class CubeThenLine(MadeAnew):
    """The cube of small values, a line through large ones: ``s^3 / (1 + (s / turn)^2)``.

    The cube root of a gamma variable is nearly normal (Wilson and Hilferty), down to the exponential that a dark
    channel leaves. Many counts are nearly normal as they are, and what ties channels of two spectra together is linear.
    """

    domain = constraints.positive
    codomain = constraints.positive

    def __init__(self, turn):
        self._turn = turn

    def __call__(self, x):
        return x**3 / (1.0 + (x / self._turn) ** 2)

    def _inverse(self, y):
        # The one positive root of s^3 - a s^2 - y by Cardano's formula, whose cube roots multiply to (a / 3)^2.
        third = y / (3.0 * self._turn**2)
        half = third**3 + 0.5 * y
        first = jnp.cbrt(half + jnp.sqrt(0.25 * y**2 + third**3 * y))
        return third + first + third**2 / jnp.maximum(first, jnp.finfo(first.dtype).tiny)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        q = (x / self._turn) ** 2
        return 2.0 * jnp.log(x) + jnp.log(3.0 + q) - 2.0 * jnp.log1p(q)


class PowerThenLine(MadeAnew):
    """A power of small values, a line through large ones: ``t (t / (1 + t))^(power - 1)``.

    A variable with a density of ``y^(1 / power - 1)`` near zero is this power of one with an even density there, nearly
    ``t / (1 + t)``: of a logistic law in ``log t``. With ``again`` the same once more with that power: near zero it is
    the product of both, and from one on hardly another than the first. In logarithms, since numbers do not reach as far
    down.
    """

    domain = constraints.positive
    codomain = constraints.positive

    def __init__(self, power, again=1.0):
        self._powers = power, again

    def __call__(self, x):
        return jnp.exp(self.log(x))

    def log(self, x):
        """Logarithm of what it makes of x."""
        log_y = jnp.log(x)
        for power in self._powers:
            log_y = _raised(log_y, power)
        return log_y

    def _inverse(self, y):
        log_x = jnp.log(jnp.where(y < 0, jnp.nan, jnp.maximum(y, jnp.finfo(y.dtype).tiny)))
        for power in reversed(self._powers):
            log_x = _lowered(log_x, power)
        return jnp.exp(log_x)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        log_y, found = jnp.log(x), 0.0
        for power in self._powers:
            # Of y in x it is that in logarithms, between 1 and the power, times y / x.
            found = found + jnp.log(1.0 + (power - 1.0) * jax.nn.sigmoid(-log_y))
            log_y = _raised(log_y, power)
        return found + log_y - jnp.log(x)


def _raised(log_x, power):
    return log_x - (power - 1.0) * jax.nn.softplus(-log_x)


def _lowered(wanted, power):
    """By Newton's method: the map of logarithms is concave, or of a power below 1 convex, so that the first step leads
    to one side of the root, and the others along it."""
    power = jnp.broadcast_to(power, wanted.shape)

    def step(_, log_x):
        slope = 1.0 + (power - 1.0) * jax.nn.sigmoid(-log_x)
        return log_x + (wanted - _raised(log_x, power)) / slope

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.minimum(wanted / power, wanted))
