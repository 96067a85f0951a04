"""Every unit against replicates of itself, at one posterior draw of the globals and of every latent.

One draw is shared by all units. Data and draw then have the joint distribution of data and truth, so that under a right
model the replicates and the data are exchangeable: ranks are uniform, and independent between units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.program import Array, Program
from bayesunmix.inference.units import Chunk, Draws, chi_square, emission_at, inputs_of, is_white, sample_as

Discrepancy = Callable[[jax.Array, Any], jax.Array]  # (units, channel) and their emission -> (units,)


def standardised(y: Array, emission: Any) -> jax.Array:
    """Deviations from the emission's mean in its standard deviations; 0 where the data are missing."""
    return jnp.where(jnp.isnan(y), 0.0, (y - emission.mean) / jnp.sqrt(emission.variance))


def along_channels(y: Array, emission: Any) -> jax.Array:
    """Correlation of the residuals of adjacent channels, per unit."""
    away = standardised(y, emission)
    products = (away[..., 1:] * away[..., :-1]).sum(-1)
    return products / jnp.maximum((away**2).sum(-1), jnp.finfo(away.dtype).tiny)


def largest(y: Array, emission: Any) -> jax.Array:
    """Largest residual of a unit, whatever its sign."""
    return jnp.abs(standardised(y, emission)).max(-1)


class Ranked(NamedTuple):
    """Discrepancies of the units at the draw, and where they stand among replicates."""

    found: dict[str, jax.Array]  # (units,)
    p_value: dict[str, jax.Array]  # Pr(T_rep > T), (units,), of those whose law is not known
    chi2: jax.Array  # chi-square, what is expected of it, and the variance of its difference from that, (3, units)
    residual: jax.Array | None  # standardised at the draw, (units, channel)
    fourth: jax.Array | None  # sum over units of the mean fourth power of a replicate's residual, (channel,)
    tops: jax.Array | None  # largest residual of every replicate, (replicates, units), where its law is not known


def one_draw(draws: Draws, key: jax.Array) -> Draws:
    """One of the draws, picked at random."""
    at = int(jax.random.randint(key, (), 0, draws.size))
    return draws._replace(values={name: np.asarray(value)[at][None] for name, value in draws.values.items()})


@partial(jax.jit, static_argnames=("program", "discrepancy", "replicates", "complete"))
def rank_pass(
    program: Program,
    numbers,
    values,
    chunk: Chunk,
    key,
    discrepancy: Discrepancy,
    replicates: int,
    complete: bool,
) -> Ranked:
    """Ranks of the units' discrepancies at the first draw in ``values``, at whose values the chunk was made.

    Residuals by channel, and what is made of them, are there for spectra whose emission has a mean and a variance for
    every channel and no discrepancy of its own. Where the noise is normal and the data are ``complete``, only a
    discrepancy of the user's own needs replicates.
    """
    key_latent, key_data, key_rank = jax.random.split(key, 3)
    y = chunk.y
    value = {name: of_draw[0] for name, of_draw in inputs_of(program, values, chunk).items()}
    emission = emission_at(program, numbers, value, chunk, key_latent)
    by_channel = y.ndim == 2 and y.shape[1] > 2 and not hasattr(emission, "discrepancy")
    judged = {"discrepancy": discrepancy}
    if by_channel:
        judged.update(autocorrelation=along_channels, largest=largest)
    found = {name: of(y, emission) for name, of in judged.items()}
    white = complete and by_channel and is_white(emission, y.shape)
    if white:
        judged = {} if discrepancy is chi_square else {"discrepancy": discrepancy}

    def again(carry, key):
        above, ties, moments, fourth = carry
        other = sample_as(y, emission, key)
        theirs = {name: of(other, emission) for name, of in judged.items()}
        above = {name: above[name] + (theirs[name] > found[name]) for name in judged}
        ties = {name: ties[name] + (theirs[name] == found[name]) for name in judged}
        if not white:
            chi2 = chi_square(other, emission)
            moments = moments + jnp.stack([chi2, chi2**2])
            if by_channel:
                fourth = fourth + (standardised(other, emission) ** 4).sum(0)
        return (above, ties, moments, fourth), theirs.get("largest")

    zero = jnp.zeros(len(y), y.dtype)
    none = dict.fromkeys(judged, zero)
    start = (none, none, jnp.zeros((2, len(y)), y.dtype), jnp.zeros(y.shape[1:] if by_channel else (), y.dtype))
    count = replicates if judged else 0
    (above, ties, moments, fourth), tops = jax.lax.scan(again, start, jax.random.split(key_data, replicates)[:count])
    # A rank among replicates, ties and the step between ranks broken at random, is exactly uniform.
    uniform = jax.random.uniform(key_rank, (len(judged), len(y)), y.dtype)
    ranks = {name: above[name] + own * (ties[name] + 1.0) for name, own in zip(judged, uniform, strict=True)}
    if white:
        expected = jnp.full_like(zero, y.shape[1])
        variance, fourth = 2.0 * expected, jnp.full(y.shape[1:], 3.0 * len(y), y.dtype)
    else:
        expected, square = moments / replicates
        # An average over replicates has an error of its own.
        variance = jnp.maximum(square - expected**2, 0.0) * (1.0 + 1.0 / replicates)
        fourth = fourth / replicates
    return Ranked(
        found,
        {name: rank / (replicates + 1.0) for name, rank in ranks.items()},
        jnp.stack([chi_square(y, emission), expected, variance]),
        standardised(y, emission) if by_channel else None,
        fourth if by_channel else None,
        tops,
    )


@partial(jax.jit, static_argnames="program")
def moments_pass(program: Program, numbers, values, chunk: Chunk, key) -> tuple[jax.Array, jax.Array, jax.Array]:
    """At every draw: what the units should show, the sd of its noise, and a replicate, each (draws, units, channel)."""

    def one(inputs):
        value, key = inputs
        key_emission, key_data = jax.random.split(key)
        emission = emission_at(program, numbers, value, chunk, key_emission)
        shape = chunk.y.shape
        noise = jnp.sqrt(jnp.broadcast_to(emission.variance, shape))
        return jnp.broadcast_to(emission.mean, shape), noise, sample_as(chunk.y, emission, key_data)

    values = inputs_of(program, values, chunk)
    return jax.lax.map(one, (values, jax.random.split(key, len(next(iter(values.values()))))))
