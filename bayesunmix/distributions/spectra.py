"""The prior of endmember spectra, whose unconstrained coordinate suits a Gaussian guide."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaln, log_ndtr, ndtr, ndtri
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    IdentityTransform,
    Transform,
    biject_to,
)

from bayesunmix.distributions import truncated
from bayesunmix.distributions.entry_coordinates import MadeAnew, of_entries
from bayesunmix.distributions.normal_scores import Expected, NormalScores, expecting

_TURNS = 2.0, 6.0  # softplus at which the cube turns into a line, at least and at most: 4 counts and 108
_WIDEST = 100.0  # log scale of a row, either way
_LOWEST_LEVEL = 1.0  # of the coordinates of a row of its own scale, on average
_FAR = 40.0  # standard deviations that no draw exceeds


class _Spectra(constraints.Constraint):
    """Rows of spectra: fixed ones equal to ``location``; the others real, or positive and resolved to ``width``.

    ``level`` (endmember, 1) is the mean coordinate of a typical row, where rows have scales of their own;
    ``turn`` (channel,) where the cube root of small values of counts turns into a line; ``power`` (endmember, 1) that
    of sparse spectra, and ``expected`` what is expected of their entries, in units of ``width``.
    """

    event_dim = 2

    def __init__(self, location, width, level, turn, power, expected, fixed: tuple[bool, ...], signed: bool):
        self.location, self.width, self.level, self.turn = location, width, level, turn
        self.power, self.expected = power, expected
        self.fixed, self.signed = fixed, signed

    def __call__(self, x):
        inside = jnp.ones(x.shape, bool) if self.signed else x > 0
        at_fixed = jnp.asarray(self.fixed)[:, None]
        return jnp.where(at_fixed, x == self.location, inside).all((-1, -2))

    def feasible_like(self, prototype):
        rest = jnp.ones_like(prototype) * self.width
        return jnp.where(jnp.asarray(self.fixed)[:, None], self.location, rest)

    def tree_flatten(self):
        names = ("location", "width", "level", "turn", "power", "expected")
        return tuple(getattr(self, name) for name in names), (names, {"fixed": self.fixed, "signed": self.signed})


class _OwnScale(MadeAnew):
    """Positive rows as scale times shape: ``y = inner(x - a + level) exp(a / level - 1)`` with a the mean of x.

    Moving all of x by the same amount multiplies a row and leaves its shape; everything else changes the shape, by an
    amount in proportion to the scale. To first order around ``level`` it is ``inner`` itself.
    """

    domain = constraints.independent(constraints.real, 1)
    codomain = constraints.independent(constraints.positive, 1)

    def __init__(self, inner: Transform, level):
        self._inner, self._level = inner, level

    def _split(self, x):
        mean = x.mean(-1, keepdims=True)
        return x - mean + self._level, mean / self._level - 1.0

    def __call__(self, x):
        shape, log_scale = self._split(x)
        return self._inner(shape) * jnp.exp(log_scale)

    def _inverse(self, y):
        """By bisection: the mean of the shape's coordinate falls as the scale rises."""
        coordinate = lambda log_scale: self._inner.inv(y * jnp.exp(-log_scale))  # noqa: E731

        def halve(_, bounds):
            low, high = bounds
            middle = 0.5 * (low + high)
            above = coordinate(middle).mean(-1, keepdims=True) > self._level
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        start = jnp.zeros((*y.shape[:-1], 1), y.dtype)
        low, high = jax.lax.fori_loop(0, 100, halve, (start - _WIDEST, start + _WIDEST))
        log_scale = 0.5 * (low + high)
        return coordinate(log_scale) + self._level * log_scale

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        shape, log_scale = self._split(x)
        inner = self._inner(shape)
        steep = self._inner.log_abs_det_jacobian(shape, inner)
        # Determinant of a diagonal matrix and one of rank one.
        lever = jnp.log((inner * jnp.exp(-steep)).mean(-1) / self._level[..., 0])
        return steep.sum(-1) + shape.shape[-1] * log_scale[..., 0] + lever


class _Coordinates(MadeAnew):
    """From the unconstrained rows (unknown, channel) to all rows (endmember, channel), the fixed ones put in."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.independent(constraints.real, 2)

    def __init__(self, constraint: _Spectra):
        self._all = constraint.location
        self._rows = np.flatnonzero(~np.asarray(constraint.fixed))
        width = jnp.broadcast_to(constraint.width, self._all.shape)[self._rows]
        if constraint.signed:
            self._inner = IdentityTransform()
        else:
            power: Any = None if constraint.power is None else constraint.power[self._rows]
            scaled = AffineTransform(0.0, width, domain=constraints.positive)
            if constraint.expected is None:
                parts = [of_entries(constraint.turn, power), scaled]
            else:
                expected = jax.tree_util.tree_map(lambda x: x[self._rows], constraint.expected)
                own = of_entries(constraint.turn, expected.power, power / expected.power)
                parts = [NormalScores(constraint.turn, expected), own, scaled]
            self._inner = ComposeTransform(parts)
        if constraint.level is not None:
            self._inner = _OwnScale(self._inner, constraint.level[self._rows])

    def __call__(self, x):
        rows = self._inner(x)
        whole = jnp.broadcast_to(self._all, (*rows.shape[:-2], *self._all.shape)).astype(rows.dtype)
        return whole.at[..., self._rows, :].set(rows)

    def _inverse(self, y):
        return self._inner.inv(y[..., self._rows, :])

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        found = self._inner.log_abs_det_jacobian(x, y[..., self._rows, :])
        if found.ndim == x.ndim:
            found = found.sum(-1)
        return found.sum(-1)

    def forward_shape(self, shape):
        return (*shape[:-2], len(self._all), shape[-1])

    def inverse_shape(self, shape):
        return (*shape[:-2], len(self._rows), shape[-1])


biject_to.register(_Spectra)(_Coordinates)


class Spectra(dist.Distribution):
    """Spectra (endmember, channel), each entry normal around ``location`` and, unless ``signed``, non-negative.

    Parameters
    ----------
    location : (endmember, channel)
        0 for spectra of which nothing is known, which are then half-normal unless ``signed``.
    spread : (endmember, channel)
        Standard deviation of the normal before it is cut at zero.
    width : float or broadcastable
        Resolution at which values are told from zero. It changes the coordinate that inference uses, a softplus, and
        not the distribution; where ``counted`` (the data are counts, of which a value of ``width`` gives about one)
        the coordinate is the cube root of one, for values within what counts of the other spectra hide.
    length : float, optional
        Entries of a spectrum hang together over so many channels: their normal scores follow a stationary
        autoregressive process of second order with correlation ``(1 + d (1 - r^2) / (1 + r^2)) r^d`` at distance d,
        ``r = exp(-sqrt(3) / length)``, the discrete kin of a Matern-3/2 process. Every entry keeps its own
        distribution (a Gaussian copula).
    sparsity : (endmember,), optional
        Entries are ``spread`` times a chi variable with 1 / sparsity degrees of freedom, where ``location`` is 0 (1 is
        half-normal, and is to be given elsewhere): the logarithm of a small one is uniform over a range in proportion
        to the sparsity. Not for signed spectra, nor with a ``length``.
    expected : Expected, optional
        What is expected of the entries once the data are seen, as :meth:`expecting` makes it: it shapes the coordinate
        and not the distribution. For sparse spectra without scales of their own.
    fixed : tuple of bool
        Which rows equal ``location``.
    own_scale : bool
        Whether the coordinate of a row is its scale apart from its shape. That suits a posterior that knows shapes far
        better than scales, and shapes in proportion to the scale; signed rows have none.
    """

    support_event_dim = 2
    pytree_data_fields = ("location", "spread", "width", "length", "sparsity", "expected")
    pytree_aux_fields = ("fixed", "signed", "counted", "own_scale")

    def __init__(
        self,
        location,
        spread,
        width=1.0,
        length=None,
        *,
        sparsity=None,
        expected: Expected | None = None,
        fixed: tuple[bool, ...] | None = None,
        signed: bool = False,
        counted: bool = False,
        own_scale: bool = False,
        validate_args=None,
    ):
        self.location, self.spread = jnp.broadcast_arrays(jnp.asarray(location), jnp.asarray(spread))
        self.width, self.length = jnp.asarray(width), length
        self.expected = expected
        self.sparsity = None if sparsity is None else jnp.asarray(sparsity)
        self.fixed = fixed or (False,) * len(self.location)
        self.signed, self.counted, self.own_scale = signed, counted, own_scale
        super().__init__((), self.location.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self):
        typical = jnp.maximum(self.location, 0.8 * self.spread) / self.width  # the mean of a half-normal
        turn = _turn(typical) if self.counted and not self.signed else None
        power = None if self.sparsity is None else self.sparsity[:, None]
        level = None
        if self.own_scale and not self.signed:
            level = jnp.maximum(of_entries(turn, power).inv(typical).mean(-1, keepdims=True), _LOWEST_LEVEL)
        return _Spectra(self.location, self.width, level, turn, power, self.expected, self.fixed, self.signed)

    def expecting(self, centre, error) -> Expected:
        """What to expect of entries (endmember, channel) of which the data say ``N(centre, error)``; nothing where the
        error is infinite."""
        turn = self.support.turn
        with jax.enable_x64(True):
            turn = None if turn is None else jnp.asarray(np.asarray(turn, np.float64))
            width = np.asarray(self.width, np.float64)
            power = np.broadcast_to(np.asarray(self.sparsity, np.float64)[:, None], self.location.shape)
            return expecting(turn, centre / width, error / width, power)

    def sample(self, key, sample_shape=()):
        score = jax.random.normal(key, (*sample_shape, *self.location.shape), jnp.result_type(float))
        if self.length is not None:
            score = _correlated(score, self.length)
        if self.signed:
            drawn = self.location + self.spread * score
        else:
            low = jnp.broadcast_to(-self.location / self.spread, score.shape)
            drawn = self.spread * truncated.quantile(ndtr(score), low, _FAR - low)
        if self.sparsity is not None:
            half = jnp.broadcast_to(0.5 / self.sparsity[:, None], score.shape)
            log_square = np.log(2.0) + jax.random.loggamma(jax.random.fold_in(key, 1), half, dtype=score.dtype)
            drawn = jnp.where(self.location == 0, self.spread * jnp.exp(0.5 * log_square), drawn)
        return jnp.where(jnp.asarray(self.fixed)[:, None], self.location, drawn)

    def log_prob(self, value):
        rows = np.flatnonzero(~np.asarray(self.fixed))
        x, location, spread = value[..., rows, :], self.location[rows], self.spread[rows]
        z = (x - location) / spread
        log_density = -0.5 * z**2 - jnp.log(spread) - truncated.LOG_ROOT_2PI
        if not self.signed:
            log_density = log_density - log_ndtr(location / spread)
        if self.length is not None:
            score = z if self.signed else _score(x / spread, location / spread)
            log_density = log_density + _log_correlated(score, self.length)
        if self.sparsity is not None:
            log_density = log_density + _log_chi_over_half_normal(x / spread, 1.0 / self.sparsity[rows, None])
        return log_density.sum((-1, -2))


def _log_chi_over_half_normal(x, freedom):
    """Log density of a chi variable with ``freedom`` degrees of freedom, over that with one."""
    log_x = jnp.log(jnp.maximum(x, 2.0 * float(jnp.finfo(x.dtype).tiny) ** 0.5))  # the second derivative has its square
    constant = gammaln(0.5) - gammaln(0.5 * freedom) - 0.5 * (freedom - 1.0) * np.log(2.0)
    return (freedom - 1.0) * log_x + constant


def _turn(counts):
    """Where the coordinate of counts turns into a line, (channel,), for typical ``counts`` (endmember, channel).

    A dark entry of a channel in which others are bright has no gamma's posterior: it is told from what is counted of
    the others, with a normal error of so many counts, and is a normal variable cut at zero. Its coordinate is nearly
    a line from that error on.
    """
    error = jnp.sqrt((len(counts) + 1.0) * counts.mean(0))
    return jnp.clip(jnp.sqrt(error), *_TURNS)


def _score(x, location):
    """Normal score of a value x > 0 of a unit normal around ``location`` cut at zero."""
    z = x - location
    above = ndtr(-z) / ndtr(location)
    nearest = jnp.minimum(z, 0.0)
    log_mass = truncated.log_mass(-location, x) - 0.5 * nearest**2 - truncated.LOG_ROOT_2PI
    tiny = jnp.finfo(x.dtype).tiny
    below = jnp.maximum(jnp.exp(log_mass - log_ndtr(location)), tiny)
    in_low_half = below < 0.5
    low = ndtri(jnp.where(in_low_half, below, 0.5))
    return jnp.where(in_low_half, low, -ndtri(jnp.where(in_low_half, 0.5, jnp.maximum(above, tiny))))


def _steps(length):
    """Coefficients of the two values before, standard deviation of the step, and correlation of neighbours."""
    ratio = jnp.exp(-jnp.sqrt(3.0) / length)
    square = ratio**2
    step = (1.0 - square) * jnp.sqrt((1.0 - square) / (1.0 + square))
    return 2.0 * ratio, -square, step, 2.0 * ratio / (1.0 + square)


def _log_correlated(score, length):
    """Log density of the process over that of independent normal scores, per entry."""
    first, second, step, near = _steps(length)
    log_alone = -0.5 * score**2
    root = jnp.sqrt(1.0 - near**2)
    starts = -0.5 * ((score[..., 1:2] - near * score[..., :1]) / root) ** 2 - jnp.log(root)
    expected = first * score[..., 1:-1] + second * score[..., :-2]
    rest = -0.5 * ((score[..., 2:] - expected) / step) ** 2 - jnp.log(step)
    return jnp.concatenate([log_alone[..., :1], starts, rest], axis=-1) - log_alone


def _correlated(white, length):
    """The process made from independent normal scores (..., channel)."""
    first, second, step, near = _steps(length)
    start = (white[..., 0], near * white[..., 0] + jnp.sqrt(1.0 - near**2) * white[..., 1])

    def move(last, noise):
        new = first * last[1] + second * last[0] + step * noise
        return (last[1], new), new

    rest = jax.lax.scan(move, start, jnp.moveaxis(white[..., 2:], -1, 0))[1]
    return jnp.concatenate([jnp.stack(start, axis=-1), jnp.moveaxis(rest, 0, -1)], axis=-1)
