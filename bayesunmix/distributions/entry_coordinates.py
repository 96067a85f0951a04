"""Coordinates of single entries of positive spectra, in which their posteriors are nearly normal."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints
from numpyro.distributions.transforms import ComposeTransform, SoftplusTransform, Transform

_NEWTON_STEPS = 40


def of_entries(turn, power) -> Transform:
    """The coordinate of an entry in units of its resolution.

    Linear well above one, logarithmic well below: a posterior of that width is near-Gaussian in it, at the boundary
    too. ``turn`` is that of :class:`CubeThenLine`, for counts; ``power`` that of :class:`PowerThenLine`, for sparse
    spectra.
    """
    parts: list[Transform] = [SoftplusTransform()]
    if turn is not None:
        parts.append(CubeThenLine(turn))
    if power is not None:
        parts.append(PowerThenLine(power))
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
    ``t / (1 + t)``: of a logistic law in ``log t``.
    """

    domain = constraints.positive
    codomain = constraints.positive

    def __init__(self, power):
        self._power = power

    def __call__(self, x):
        return x * (x / (1.0 + x)) ** (self._power - 1.0)

    def log(self, x):
        """Of what it makes of x, which may be smaller than any number."""
        return jnp.log(x) + (self._power - 1.0) * (jnp.log(x) - jnp.log1p(x))

    def _inverse(self, y):
        # Newton's method in logarithms, where the map is concave: from below the root, on which the first step leads,
        # it climbs steadily.
        power = jnp.broadcast_to(self._power, y.shape)
        wanted = jnp.log(jnp.maximum(y, jnp.finfo(y.dtype).tiny))

        def step(_, log_x):
            above = jax.nn.softplus(log_x)
            missing = wanted - power * log_x + (power - 1.0) * above
            return log_x + missing / (power - (power - 1.0) * jax.nn.sigmoid(log_x))

        return jnp.exp(jax.lax.fori_loop(0, _NEWTON_STEPS, step, jnp.minimum(wanted / power, wanted)))

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return (self._power - 1.0) * (jnp.log(x) - jnp.log1p(x)) + jnp.log(self._power + x) - jnp.log1p(x)
