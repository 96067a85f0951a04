"""Marginal likelihood of a linear mixture seen by any detector, with brightness free or fixed.

    a_n ~ Dirichlet(alpha)                  abundances of unit n, K parts
    s_n ~ Gamma(c, c), or 1                 brightness, of mean 1
    y_np ~ law(s_n sum_k a_nk W_kp)         channel p

With h = s a the prior of a unit is ``prod h_k^(alpha_k - 1) (sum h)^(c - sum alpha) exp(-c sum h)`` over parts of any
size; without brightness h = a on the simplex. The integral over h is taken around its mode
(:mod:`bayesunmix.distributions.simplex`), what a law has beyond a Gaussian included at every point.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions import constraints

from bayesunmix.distributions import chunks, simplex
from bayesunmix.distributions.channel_laws import LAWS, LAWS_WITH_GAPS
from bayesunmix.distributions.mixed_spectra import Curved, MixedSpectra
from bayesunmix.distributions.nodes import Nodes, missed_covariance, nodes
from bayesunmix.distributions.score_curvature import Scores, curvature
from bayesunmix.distributions.weighted import WeightedPoints

_CURVATURE_POINTS = 32
# A brightness common to all units is known far less well than each unit's: the small difference of two large numbers.
_OPEN_CURVATURE_POINTS = 256
_SPARSE = 4  # one channel in so many is worked on where no unit of a chunk has more with counts


class Rule(NamedTuple):
    """Units ready for evaluation: the frame of their integrals, and their data."""

    frame: simplex.Frame
    value: jax.Array  # (units, channel)
    constant: jax.Array  # (units,) of their log density
    spread: jax.Array | None  # (units, channel) standard deviation of the mean; None for a law that is Gaussian
    filled: Filled | None  # of a law that sees no other channels


class Filled(NamedTuple):
    """Channels of units that have counts, as many as any unit is worked on with; padded with an empty one."""

    all: jax.Array  # (units,) whether these are all that the unit has
    channel: jax.Array  # (units, most)
    value: jax.Array
    spread: jax.Array


class DetectedUnmixing(MixedSpectra):
    """Linear mixture under a law per channel, abundances (and brightness) integrated out.

    Parameters
    ----------
    endmembers : (K, channel)
        Positive where the law is one of counts.
    concentration : (K,), optional
        Dirichlet concentration of the abundances; uniform on the simplex when not given.
    brightness_shape : scalar, optional
        Shape c of the brightness; all units have brightness 1 when not given.
    law : "normal", "poisson" or "scaled-poisson"
    noise_scale, gain, read_noise : scalar or (channel,)
        Those that the law has.
    missing : bool
        Whether entries of the data may be NaN, which were not measured.
    n_points : int, optional
        Integration points per unit.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "endmembers": constraints.independent(constraints.real, 2),
        "concentration": constraints.independent(constraints.positive, 1),
        "brightness_shape": constraints.positive,
        "noise_scale": constraints.positive,
        "gain": constraints.positive,
        "read_noise": constraints.positive,
    }
    pytree_data_fields = ("endmembers", "concentration", "brightness_shape", "noise_scale", "gain", "read_noise")
    pytree_aux_fields = ("law", "missing", "n_points")

    def __init__(
        self,
        endmembers,
        concentration,
        *,
        law,
        brightness_shape=None,
        noise_scale=None,
        gain=None,
        read_noise=None,
        missing=False,
        n_points=None,
        validate_args=None,
    ):
        given = lambda x: None if x is None else jnp.asarray(x)  # noqa: E731
        self.endmembers = jnp.asarray(endmembers)
        self.concentration, self.brightness_shape = given(concentration), given(brightness_shape)
        self.noise_scale, self.gain, self.read_noise = given(noise_scale), given(gain), given(read_noise)
        self.law, self.missing = law, missing
        n_parts = self.endmembers.shape[0] + (brightness_shape is not None)
        few = max(16, 2 ** (n_parts + 1))
        self.n_points = n_points or (few if concentration is None else simplex.default_points(n_parts, False))
        super().__init__((), self.endmembers.shape[-1:], validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every unit of ``batch_shape``; the parameters stay shared."""
        own = {name: getattr(self, name) for name in (*self.pytree_data_fields, *self.pytree_aux_fields)}
        new = DetectedUnmixing(own.pop("endmembers"), own.pop("concentration"), **own)
        new._batch_shape = tuple(batch_shape)
        return new

    @property
    def closed(self) -> bool:
        """Whether the parts of a unit sum to one."""
        return self.brightness_shape is None

    @property
    def _law(self):
        return (LAWS_WITH_GAPS if self.missing else LAWS)[self.law]

    def _noise(self) -> tuple:
        return tuple(getattr(self, name) for name in self._law.noise)

    # ------------------------------------------------------------------ the marginal likelihood

    def rule(self, value, key, index, *, n_points=None) -> Rule:
        """Integration rule of every unit at these parameters.

        ``value`` (units, channel); ``key`` and ``index`` (units,) pick the unit's own points.
        """
        n_parts = len(self.endmembers)
        value = jnp.asarray(value, self.endmembers.dtype)
        start = jnp.full((n_parts, len(value)), 1.0 / n_parts, value.dtype)
        if not self.closed:
            seen = ~jnp.isnan(value)
            level = jnp.where(seen, value, 0.0).sum(1) / (seen @ jnp.abs(self.endmembers).mean(0))
            start = start * jnp.clip(level, 0.05, 20.0)
        frame = simplex.frame(
            lambda h: self._local(h, value, self._tame_power()),
            start,
            self.concentration,
            key,
            index,
            n_points or self.n_points,
            closed=self.closed,
        )
        spread = self._spread(frame, value)
        filled = _filled(value, spread, -(-value.shape[1] // _SPARSE)) if self._law.only_filled else None
        return jax.lax.stop_gradient(Rule(frame, value, self._law.constant(value).sum(1), spread, filled))

    def _spread(self, frame: simplex.Frame, value):
        """How uncertain a unit's mean is in every channel."""
        if self._law.beyond is None:
            return None
        bend = self._local(frame.centre, value, self._tame_power()).bend
        size = 1.0 if self.closed else frame.centre.sum(0)
        covariance = simplex.spread(bend, frame.force, size, closed=self.closed)
        variance = sum(
            covariance[i][j][:, None] * (self.endmembers[i] * self.endmembers[j])
            for i in range(len(covariance))
            for j in range(len(covariance))
        )
        return _single(jnp.sqrt(jnp.maximum(variance, 0.0)))

    def log_prob_on(self, rule: Rule):
        """Log marginal density of the units of ``rule`` (made at nearby parameters), shape (units,)."""

        def some(frame, own):
            at_centre, pull, gram, beyond = self._expanded(Rule(frame, *own))
            return at_centre + simplex.log_integral(frame, pull, gram, self.concentration, beyond)

        return chunks.over_units(some, rule.frame, rule[1:], self.event_shape[0], self._channels_at_points())

    def _channels_at_points(self) -> int:
        """How many are looked at at every point."""
        return 1 if self._law.beyond is None else self.event_shape[0]

    def _power(self):
        """Of the sum of the parts, where brightness is free."""
        return None if self.closed else self.brightness_shape - self._exponents().sum()

    def _tame_power(self):
        """The same for a reference point, which a negative power would draw to zero in dark units."""
        if self.closed:
            return None
        smallest = self.brightness_shape - simplex.BARRIER * len(self.endmembers)
        return jnp.maximum(self._power(), jnp.minimum(smallest, 0.0))

    def _local(self, h, value, above, spread=0.0) -> simplex.Local:
        """Log density of data and parts, without the powers of the parts, and its derivatives.

        ``above`` is the power of the sum of the parts. The curvature is that at means higher by ``spread``.
        """
        law, noise = self._law, self._noise()
        mean = h.T @ self.endmembers
        if law.positive:
            mean = jnp.maximum(mean, law.least_mean(mean.dtype))
        n_parts = len(h)
        total = law.log_density(mean, value, noise).sum(1)
        slope = self.endmembers @ law.slope(mean, value, noise).T
        bend = law.bend(mean + spread, value, noise)
        rows = [[bend @ (self.endmembers[i] * self.endmembers[j]) for j in range(i + 1)] for i in range(n_parts)]
        if not self.closed:
            size = h.sum(0)
            total = total + above * jnp.log(size) - self.brightness_shape * size
            slope = slope + above / size - self.brightness_shape
            # A convex term has no curvature to expand with: its tangent alone.
            rows = [[b + jnp.maximum(above, 0.0) / size**2 for b in row] for row in rows]
        full = [[rows[max(i, j)][min(i, j)] for j in range(n_parts)] for i in range(n_parts)]
        return simplex.Local(total, slope, full)

    def _expanded(self, rule: Rule):
        """Value, slope and curvature of the log integrand at the centre, and what lies beyond them.

        A density of counts falls off more slowly than the Gaussian of its curvature at the top, whose points then
        seldom come where much of the integral is and weigh much there. So the curvature is that a standard deviation
        away.
        """
        centre, spread = rule.frame.centre, rule.spread
        local = self._local(centre, rule.value, self._power(), 0.0 if spread is None else spread)
        constant = simplex.log_dirichlet_constant(self._exponents())
        if not self.closed:
            shape = self.brightness_shape
            constant = constant + shape * jnp.log(shape) - gammaln(shape)
        n_units = centre.shape[1]
        gram = jnp.stack([jnp.stack([jnp.broadcast_to(b, (n_units,)) for b in row]) for row in local.bend])
        shared = (self.endmembers, self._noise(), self.brightness_shape, self._exponents().sum())
        shared = jax.tree_util.tree_map(_single, shared)
        own = (_single(centre.T), rule.value, spread, rule.filled)
        beyond = simplex.Beyond(self._beyond, shared, own, self._channels_at_points())
        return local.value + rule.constant + constant, local.slope, gram, beyond

    def _beyond(self, away, shared, own):
        """What the log integrand has beyond its expansion, (points, units)."""
        endmembers, noise, shape, total = shared
        centre, value, spread, filled = own
        found = jnp.zeros_like(away[0])
        if self._law.beyond is not None:
            law = partial(self._beyond_law, away, centre, noise=noise)
            every = lambda: law(value, spread, [row[None] for row in endmembers])  # noqa: E731
            few = lambda: law(filled.value, filled.spread, [row[filled.channel] for row in endmembers])  # noqa: E731
            found = every() if filled is None else jax.lax.cond(filled.all.all(), few, every)
        if not self.closed:
            above = shape - total
            x = jnp.maximum(sum(away) / centre.sum(1), -1.0 + 1e-6)
            found = found + above * (jnp.log1p(x) - x) + 0.5 * jnp.maximum(above, 0.0) * x**2
        return found

    def _beyond_law(self, away, centre, value, spread, rows, noise):
        """The law's share, with ``rows`` the endmembers (units or 1, channel) in the channels that are seen."""
        value = _single(value)
        mean = simplex.total([c[:, None] * row for c, row in zip(centre.T, rows, strict=True)])
        mean = jnp.maximum(mean, self._law.least_mean(jnp.float32))
        unit, beyond = self._law.beyond(mean, value, noise, spread)
        rows = [row / unit for row in rows]

        @jax.checkpoint
        def at_point(away):
            return beyond(simplex.total([v[:, None] * row for v, row in zip(away, rows, strict=True)])).sum(-1)

        # One point after the other: backwards, numbers of all points at once come and go from memory.
        return jax.lax.map(at_point, jnp.stack(away, axis=1))

    # ------------------------------------------------------------------ the latent

    def conditional_on(self, rule: Rule) -> WeightedPoints:
        """Distribution of the latent given the data, on the points of a rule made at nearby parameters."""
        _, pull, gram, beyond = self._expanded(rule)
        return self._latent_on(nodes(rule.frame, pull, gram, self.concentration, beyond))

    def _latent_on(self, found: Nodes) -> WeightedPoints:
        points, weights, _ = found
        if self.closed:
            return WeightedPoints(points, weights)
        size = jnp.maximum(points.sum(0), jnp.finfo(points.dtype).tiny)
        return WeightedPoints(jnp.concatenate([points / size, size[None]]), weights)

    def emission(self, latent):
        """p(y | latent, parameters) for ``latent`` (..., K) or, with brightness last, (..., K + 1)."""
        mean = latent @ self.endmembers if self.closed else (latent[..., :-1] @ self.endmembers) * latent[..., -1:]
        return self._law.distribution(mean, self._noise()).to_event(1)

    def sample_with_latent(self, key, sample_shape=()):
        """Data and the latent that made them."""
        key_abundance, key_brightness, key_data = jax.random.split(key, 3)
        shape = tuple(sample_shape) + self.batch_shape
        latent = dist.Dirichlet(self._exponents()).sample(key_abundance, shape)
        if not self.closed:
            size = dist.Gamma(self.brightness_shape, self.brightness_shape).sample(key_brightness, shape)
            latent = jnp.concatenate([latent, size[..., None]], axis=-1)
        return self.emission(latent).sample(key_data), latent

    @property
    def variance(self):
        total = self._exponents().sum()
        share = self._exponents() / total
        mean = share @ self.endmembers
        spread = (share @ self.endmembers**2 - mean**2) / (total + 1.0)
        if not self.closed:
            spread = spread + (spread + mean**2) / self.brightness_shape
        return jnp.broadcast_to(spread + self._law.variance(mean, self._noise()), self.batch_shape + self.event_shape)

    def curvature_on(self, rule: Rule, wanted=()) -> Curved:
        """Gradient and Hessian of ``log_prob_on(rule).sum()`` in all parameters."""
        _, pull, gram, beyond = self._expanded(rule)
        least = _CURVATURE_POINTS if self.closed else _OPEN_CURVATURE_POINTS
        found = nodes(rule.frame, pull, gram, self.concentration, beyond, least=least)
        scores = Scores(self._law, self.endmembers, self._noise(), self.concentration, self.brightness_shape)
        missed = missed_covariance(rule.frame, pull, gram, self.concentration, least)
        latent = self._latent_on(found)
        return Curved(*curvature(scores, rule.value, found, missed), latent.mean.sum(0))


def _single(x):
    return x.astype(jnp.float32)


def _filled(value, spread, most: int) -> Filled:
    there = value > 0
    place = jnp.where(there, jnp.cumsum(there, axis=1) - 1, most)
    row = jnp.arange(len(value))[:, None]
    channel = jnp.broadcast_to(jnp.arange(value.shape[1], dtype=jnp.int32), value.shape)
    first = jnp.argmin(value, axis=1, keepdims=True).astype(jnp.int32)  # an empty one, where there are fewer
    channel = jnp.broadcast_to(first, (len(value), most)).at[row, place].set(channel, mode="drop")
    at = lambda x: jnp.take_along_axis(x, channel, axis=1)  # noqa: E731
    return Filled(there.sum(1) <= most, channel, at(_single(value)), at(spread))
