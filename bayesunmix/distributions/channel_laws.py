"""What a detector makes of the mean of a channel: the law of one value, elementwise.

Every law gives its log density, its slope in the mean, a non-negative curvature to expand it with, and what an
expansion misses at a distance; ``noise`` are the law's own parameters, a tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from bayesunmix.distributions.counting import Counts

_LOG_2PI = 1.8378770664093453
_LEAST = -1.0 + 1e-6  # relative distance at which a mean would be zero, nearly


class Missed(NamedTuple):
    """What an expansion of a log density misses, which has the slope at the mean and the curvature ``spread`` above."""

    unit: Any  # of distances from the mean, elementwise
    at: Callable[[Any], Any]  # distances in that unit to what is missed


@dataclass(frozen=True)
class Law:
    """Functions of (mean, value, noise), elementwise; compared by identity."""

    noise: tuple[str, ...]  # names of its parameters
    log_density: Callable[[Any, Any, tuple], Any]
    slope: Callable[[Any, Any, tuple], Any]
    bend: Callable[[Any, Any, tuple], Any]  # minus the second derivative, or its mean where that is not positive
    beyond: Callable[[Any, Any, tuple, Any], Missed] | None  # (mean, value, noise, spread); None where nothing is
    variance: Callable[[Any, tuple], Any]
    distribution: Callable[[Any, tuple], Any]
    constant: Callable[[Any], Any] = jnp.zeros_like  # (value) of the log density, left out there
    only_filled: bool = False  # whether nothing is beyond the expansion where the value is 0
    positive: bool = True  # whether the mean must be
    any_unit: bool = True  # whether its parameters are in the unit of the data, whatever that is; counts have none

    def least_mean(self, dtype) -> float:
        """What a mean is raised to: the slope of the curvature of counts divides by its fourth power on the way."""
        tiny = float(jnp.finfo(dtype).tiny)
        return 2.0 * tiny**0.25 if self.only_filled else tiny

    def second(self, mean, value, noise):
        """Second derivative of the log density in the mean."""
        return jax.jvp(lambda m: self.slope(m, value, noise), (mean,), (jnp.ones_like(mean),))[1]

    def by_noise(self, mean, value, noise, i: int):
        """Derivative of the log density in the law's own parameter ``i``."""
        own = jnp.broadcast_to(noise[i], jnp.shape(mean))
        put = lambda x: self.log_density(mean, value, (*noise[:i], x, *noise[i + 1 :]))  # noqa: E731
        return jax.jvp(put, (own,), (jnp.ones_like(own),))[1]

    def by_mean_and_noise(self, mean, value, noise, i: int):
        """Mixed second derivative."""
        one = jnp.ones_like(mean)
        return jax.jvp(lambda m: self.by_noise(m, value, noise, i), (mean,), (one,))[1]

    def by_noise_twice(self, mean, value, noise, i: int, j: int):
        """Second derivative in two of the law's own parameters."""
        own = jnp.broadcast_to(noise[j], jnp.shape(mean))
        put = lambda x: self.by_noise(mean, value, (*noise[:j], x, *noise[j + 1 :]), i)  # noqa: E731
        return jax.jvp(put, (own,), (jnp.ones_like(own),))[1]


def _poisson_beyond(mean, value, noise, spread):
    bend = 0.5 * value * (mean / (mean + spread)) ** 2

    def at(x):
        x = jnp.where(x > _LEAST, x, _LEAST)
        return value * (jnp.log1p(x) - x) + bend * x**2

    return Missed(mean, at)


POISSON = Law(
    noise=(),
    log_density=lambda mean, value, noise: value * jnp.log(mean) - mean,
    constant=lambda value: -gammaln(value + 1.0),
    slope=lambda mean, value, noise: value / mean - 1.0,
    bend=lambda mean, value, noise: value / mean**2,
    beyond=_poisson_beyond,
    variance=lambda mean, noise: mean,
    distribution=lambda mean, noise: Counts(mean),
    only_filled=True,
    any_unit=False,
)

NORMAL = Law(
    noise=("noise_scale",),
    log_density=lambda mean, value, noise: -0.5 * ((value - mean) / noise[0]) ** 2 - jnp.log(noise[0]) - 0.5 * _LOG_2PI,
    slope=lambda mean, value, noise: (value - mean) / noise[0] ** 2,
    bend=lambda mean, value, noise: jnp.broadcast_to(noise[0] ** -2.0, jnp.shape(mean)),
    beyond=None,
    variance=lambda mean, noise: jnp.broadcast_to(noise[0] ** 2, jnp.shape(mean)),
    distribution=lambda mean, noise: dist.Normal(mean, noise[0]),
    positive=False,
)


def _spread(mean, noise):
    gain, read = noise
    return gain * mean + read**2


def _camera_density(mean, value, noise):
    variance = _spread(mean, noise)
    return -0.5 * (value - mean) ** 2 / variance - 0.5 * jnp.log(variance) - 0.5 * _LOG_2PI


def _camera_slope(mean, value, noise):
    variance, gain = _spread(mean, noise), noise[0]
    away = value - mean
    return away / variance + 0.5 * gain * (away / variance) ** 2 - 0.5 * gain / variance


def _camera_bend(mean, value, noise):
    # Fisher's information: the observed one may be negative.
    variance, gain = _spread(mean, noise), noise[0]
    return 1.0 / variance + 0.5 * (gain / variance) ** 2


def _camera_beyond(mean, value, noise, spread):
    here, left = _spread(mean, noise), value - mean
    slope, bend = _camera_slope(mean, value, noise), _camera_bend(mean + spread, value, noise)

    def at(away):
        # Density at a distance relative to here, without the large common terms.
        there = _spread(mean + away, noise)
        change = 0.5 * left * (left / here) * (noise[0] * away / there) + away * (left - 0.5 * away) / there
        return change - 0.5 * jnp.log1p(noise[0] * away / here) - slope * away + 0.5 * bend * away**2

    return Missed(jnp.ones_like(mean), at)


SCALED_POISSON = Law(
    noise=("gain", "read_noise"),
    log_density=_camera_density,
    slope=_camera_slope,
    bend=_camera_bend,
    beyond=_camera_beyond,
    variance=_spread,
    distribution=lambda mean, noise: dist.Normal(mean, jnp.sqrt(_spread(mean, noise))),
)

LAWS = {"normal": NORMAL, "poisson": POISSON, "scaled-poisson": SCALED_POISSON}


def with_gaps(law: Law) -> Law:
    """The same law where values that were not measured are NaN, which say nothing."""

    def of_seen(function):
        """``function(..., value, noise)``, 0 where the value is missing."""

        def seen(*arguments):
            *mean, value, noise = arguments
            gap = jnp.isnan(value)
            return jnp.where(gap, 0.0, function(*mean, jnp.where(gap, 1.0, value), noise))

        return seen

    def beyond(mean, value, noise, spread):
        gap = jnp.isnan(value)
        unit, at = law.beyond(mean, jnp.where(gap, 1.0, value), noise, spread)
        return Missed(unit, lambda away: jnp.where(gap, 0.0, at(away)))

    return replace(
        law,
        log_density=of_seen(law.log_density),
        slope=of_seen(law.slope),
        bend=of_seen(law.bend),
        beyond=law.beyond and beyond,
        constant=lambda value: jnp.where(jnp.isnan(value), 0.0, law.constant(jnp.nan_to_num(value))),
    )


LAWS_WITH_GAPS = {name: with_gaps(law) for name, law in LAWS.items()}
