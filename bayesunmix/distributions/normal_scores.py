"""Coordinates in which what is expected of a positive variable is a standard normal variable.

What the data say of an entry ``x`` of a sparse spectrum is normal, ``N(centre, error)``, and its prior goes by
``x^(1 / power - 1)``. A centre of two or three errors leaves two places for it, near zero and around the centre, for
which no Gaussian does in any simple coordinate. In its normal score, ``ndtri(F(x))`` with ``F`` the distribution
function of both together, it is normal; and where the expectation was somewhat off, nearly so.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from scipy.special import ndtri

from bayesunmix.distributions.entry_coordinates import MadeAnew, PowerThenLine, of_entries
from bayesunmix.distributions.truncated import LOG_ROOT_2PI

_NODES = 64
_FINER = 16  # times as many steps in the sums that make them
_LOWEST = -14.0  # of the coordinate of entries, whose density there falls by e a unit
_BEYOND, _CLEAR = 6.0, 8.0  # errors: above the centre; of a centre from which on the entry's own coordinate is as good
_WIDEST = 1e3  # score, either way


class Expected(NamedTuple):
    """What is expected of entries, and their map from normal scores to the coordinate of entries."""

    centre: Any  # (...)
    error: Any  # infinite where nothing is expected: the score is then that coordinate itself
    power: Any
    log_mass: Any
    score: Any  # (..., nodes), rising
    place: Any  # (..., nodes) the coordinate there


def nothing_expected(shape: tuple[int, ...]) -> Expected:
    """Where scores are the coordinates of entries."""
    line = np.broadcast_to(np.linspace(-_CLEAR, _CLEAR, _NODES), (*shape, _NODES))
    return Expected(np.zeros(shape), np.full(shape, np.inf), np.ones(shape), np.zeros(shape), line, line)


def expecting(turn, centre, error, power) -> Expected:
    """Expectations of arrays of one shape; nothing where ``error`` is infinite, or ``centre`` far above it.

    ``turn`` is that of :func:`~bayesunmix.distributions.entry_coordinates.of_entries`. Call in double precision.
    """
    known = np.isfinite(error) & (centre < _CLEAR * error)
    centre, error = np.where(known, centre, 1.0), np.where(known, error, 1.0)
    entry, top = of_entries(turn, jnp.asarray(power)), jnp.maximum(centre, 0.0) + _BEYOND * error
    highest = np.asarray(entry.inv(top))
    share = np.linspace(0.0, 1.0, (_NODES - 1) * _FINER + 1).reshape(-1, *(1,) * centre.ndim)
    place = _LOWEST + (highest - _LOWEST) * share
    blank = nothing_expected(centre.shape)
    found = blank._replace(centre=centre, error=error, power=power)
    log_density = np.asarray(_log_density(jnp.asarray(place), found, turn))
    peak = log_density.max(0)
    density = np.exp(log_density - peak)
    tail = density[-1] * error / _BEYOND * np.exp(-np.asarray(entry.log_abs_det_jacobian(highest, top)))
    cell = 0.5 * np.diff(place, axis=0) * (density[1:] + density[:-1])
    below = np.cumsum(np.concatenate([density[:1], cell]), axis=0)
    above = np.cumsum(np.concatenate([tail[None], cell[::-1]]), axis=0)[::-1]
    mass = below[-1] + tail
    score = np.where(below < above, ndtri(np.minimum(below / mass, 0.5)), -ndtri(np.minimum(above / mass, 0.5)))
    nodes = lambda x, other: np.where(known[..., None], np.moveaxis(x[::_FINER], 0, -1), other)  # noqa: E731
    return Expected(
        centre,
        np.where(known, error, np.inf),
        power,
        np.log(mass) + peak,
        nodes(score, blank.score),
        nodes(place, blank.place),
    )


def _log_density(place, expected: Expected, turn):
    """Of the coordinate of entries, as it is expected."""
    inner, outer = of_entries(turn, None), PowerThenLine(expected.power)
    t = inner(place)
    log_x = outer.log(t)
    volume = inner.log_abs_det_jacobian(place, t) + outer.log_abs_det_jacobian(t, None)
    away = (jnp.exp(log_x) - expected.centre) / expected.error
    return (1.0 / expected.power - 1.0) * log_x - 0.5 * away**2 + volume - expected.log_mass


def _log_slope(score, place, expected: Expected, turn):
    """Of the map, which is a line beyond the nodes."""
    score = jnp.clip(score, expected.score[..., 0], expected.score[..., -1])
    place = jnp.clip(place, expected.place[..., 0], expected.place[..., -1])
    return -0.5 * score**2 - LOG_ROOT_2PI - _log_density(place, expected, turn)


@jax.custom_jvp
def _placed(score, expected: Expected, turn):
    """The coordinate of entries at a normal score: a cubic between nodes, a line beyond them."""
    first = jnp.clip((score[..., None] >= expected.score).sum(-1) - 1, 0, expected.score.shape[-1] - 2)

    def at(nodes, i):
        return jnp.take_along_axis(jnp.broadcast_to(nodes, (*i.shape, nodes.shape[-1])), i[..., None], -1)[..., 0]

    left, right = at(expected.score, first), at(expected.score, first + 1)
    low, high = at(expected.place, first), at(expected.place, first + 1)
    step, rise = right - left, high - low
    slopes = (step * jnp.exp(_log_slope(s, p, expected, turn)) for s, p in ((left, low), (right, high)))
    down, up = (jnp.minimum(slope, 3.0 * rise) for slope in slopes)  # three times the mean slope keeps it rising
    own = (score - left) / step
    t = jnp.clip(own, 0.0, 1.0)
    inside = low + t * (down + t * (3.0 * rise - 2.0 * down - up + t * (down + up - 2.0 * rise)))
    return inside + (own - t) * jnp.where(own < t, down, up)


@_placed.defjvp
def _(primals, tangents):
    score, expected, turn = primals
    place = _placed(score, expected, turn)
    return place, tangents[0] * jnp.exp(_log_slope(score, place, expected, turn))


class NormalScores(MadeAnew):
    """From normal scores to the coordinate of entries.

    The slope of the true map is known at every place, the normal density over that of the place. It stands for the
    slope of the cubic wherever a derivative is asked for: so the log density of what was expected is the parabola that
    it should be, to rounding, and its second derivative -1, where that of a cubic would have steps.
    """

    domain = constraints.real
    codomain = constraints.real

    def __init__(self, turn, expected: Expected):
        self._turn, self._known = turn, jnp.isfinite(expected.error)
        self._expected = expected._replace(error=jnp.where(self._known, expected.error, 1.0))

    def __call__(self, x):
        return jnp.where(self._known, self._at(x), x)

    def _at(self, score):
        return _placed(self._where_known(score), self._expected, self._turn)

    def _where_known(self, x):
        """0 elsewhere, where the map is not used and its slope might not be a number."""
        return jnp.where(self._known, x, 0.0)

    def _inverse(self, y):
        """By bisection."""

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            above = self._at(middle) > y
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        widest = jnp.full(y.shape, _WIDEST, y.dtype)
        low, high = jax.lax.fori_loop(0, 80, halve, (-widest, widest))
        return jnp.where(self._known, 0.5 * (low + high), y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        at = self._where_known(x), self._where_known(y)
        return jnp.where(self._known, _log_slope(*at, self._expected, self._turn), 0.0)
