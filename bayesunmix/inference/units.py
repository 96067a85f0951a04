"""What the posterior says of every unit: one pass over draws of the globals, a chunk of units at a time.

For each draw of the globals the likelihood's ``conditional`` gives the unit's latent, on points of its own around a
proposal made once, at the posterior mean; ``emission`` gives the data that the latent predicts. A distribution without
``conditional`` has no latent and predicts by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.program import Program

_CHUNK_BYTES = 2**28  # of integration points held at a time


class Draws(NamedTuple):
    """Draws of the globals and the numbers of the model they belong to."""

    program: Program
    numbers: tuple[Any, ...]
    values: dict[str, jax.Array]  # leading axis: draw

    @property
    def size(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def centre(self) -> dict[str, jax.Array]:
        """Mean over the draws, where proposals are made."""
        return {name: value.mean(0) for name, value in self.values.items()}


class Chunk(NamedTuple):
    """Some of the units, ready for every draw."""

    y: jax.Array
    index: jax.Array
    rule: Any  # None where the likelihood has no rule
    covariates: dict[str, jax.Array]


def chunks(draws: Draws, y: np.ndarray, covariates: dict[str, Any], key: jax.Array) -> Iterator[tuple[slice, Chunk]]:
    """Slices of the units with their chunk. All but the last are of one size, so two programs are compiled at most."""
    n_units = len(y)
    size = _units_a_chunk(draws, y)
    for start in range(0, n_units, size):
        part = slice(start, min(start + size, n_units))
        index = jnp.arange(part.start, part.stop)
        values = jnp.asarray(y[part], jnp.result_type(float))
        own = {name: _of_units(value, part, n_units) for name, value in covariates.items()}
        rule = _rule(draws.program, draws.numbers, draws.centre, values, own, key, index)
        yield part, Chunk(values, index, rule, own)


def _of_units(value: Any, part: slice, n_units: int) -> Any:
    return value[part] if np.ndim(value) and len(value) == n_units else value


def _units_a_chunk(draws: Draws, y: np.ndarray) -> int:
    shape = jax.ShapeDtypeStruct((1, y.shape[1]), jnp.result_type(float))
    centre = draws.centre
    probe = jax.eval_shape(
        lambda v: _make_rule(draws.program, draws.numbers, centre, v, {}, jax.random.key(0), jnp.arange(1)), shape
    )
    per_unit = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree_util.tree_leaves(probe)) + 8 * 8 * y.shape[1]
    return max(256, int(_CHUNK_BYTES // per_unit))


def _make_rule(program, numbers, centre, y, covariates, key, index):
    fn = program.likelihood(numbers, centre, y, covariates)
    return fn.rule(y, key, index) if hasattr(fn, "rule") else None


_rule = partial(jax.jit, static_argnames="program")(_make_rule)


def _condition(program, numbers, value, chunk: Chunk, key):
    """Likelihood at one draw of the globals, and the conditional of the latent on fresh points."""
    fn = program.likelihood(numbers, value, chunk.y, chunk.covariates)
    if chunk.rule is not None:
        return fn, fn.conditional_on(fn.redraw(chunk.rule, key, chunk.index))
    if hasattr(fn, "conditional"):
        return fn, fn.conditional(chunk.y)
    return fn, None


class LatentPass(NamedTuple):
    """Latent of every unit, units first."""

    mean: jax.Array  # (units, *latent)
    variance_noise: jax.Array  # E Var(latent | y, globals)
    variance_model: jax.Array  # Var E(latent | y, globals)
    draws: jax.Array  # (draws * per_draw, units, *latent)


@partial(jax.jit, static_argnames=("program", "per_draw"))
def latent_pass(program: Program, numbers, values, chunk: Chunk, key, per_draw: int) -> LatentPass:
    """Moments and draws of the latent, over all draws of the globals in ``values``."""

    def one(carry, inputs):
        value, key = inputs
        key_points, key_draw = jax.random.split(key)
        _, conditional = _condition(program, numbers, value, chunk, key_points)
        mean, variance = conditional.mean, conditional.variance
        count, centre, spread, noise = carry
        count = count + 1.0
        moved = mean - centre
        centre = centre + moved / count
        carry = (count, centre, spread + moved * (mean - centre), noise + (variance - noise) / count)
        return carry, conditional.sample(key_draw, (per_draw,))

    shape = jax.eval_shape(lambda: one_mean(program, numbers, values, chunk, key))
    zero = jnp.zeros(shape.shape, shape.dtype)
    n_draws = len(next(iter(values.values())))
    start = (jnp.zeros((), shape.dtype), zero, zero, zero)
    (count, mean, spread, noise), draws = jax.lax.scan(one, start, (values, jax.random.split(key, n_draws)))
    return LatentPass(mean, noise, spread / count, draws.reshape(-1, *zero.shape))


def one_mean(program, numbers, values, chunk, key):
    """Mean of the latent at the first draw, for its shape."""
    return _condition(program, numbers, {n: v[0] for n, v in values.items()}, chunk, key)[1].mean


class PredictionPass(NamedTuple):
    """Moments of what is predicted for the units that were fitted, each (units, channel)."""

    mean: jax.Array
    variance_mean: jax.Array  # Var E(y | latent, globals)
    mean_variance: jax.Array  # E Var(y | latent, globals)


@partial(jax.jit, static_argnames="program")
def prediction_pass(program: Program, numbers, values, chunk: Chunk, key) -> PredictionPass:
    """Law of total variance over joint draws of globals and latent."""

    def one(carry, inputs):
        value, key = inputs
        emission = _emission(program, numbers, value, chunk, key)
        mean = jnp.broadcast_to(emission.mean, chunk.y.shape)
        count, centre, spread, noise = carry
        count = count + 1.0
        moved = mean - centre
        centre = centre + moved / count
        return (count, centre, spread + moved * (mean - centre), noise + (emission.variance - noise) / count), None

    zero = jnp.zeros_like(chunk.y)
    n_draws = len(next(iter(values.values())))
    start = (jnp.zeros((), chunk.y.dtype), zero, zero, zero)
    (count, mean, spread, noise), _ = jax.lax.scan(one, start, (values, jax.random.split(key, n_draws)))
    return PredictionPass(mean, spread / count, noise)


def _emission(program, numbers, value, chunk, key):
    """p(y | latent, globals) at one draw of both."""
    key_points, key_draw = jax.random.split(key)
    fn, conditional = _condition(program, numbers, value, chunk, key_points)
    return fn if conditional is None else fn.emission(conditional.sample(key_draw))


class LikelihoodPass(NamedTuple):
    """Marginal log-likelihood of every unit over the draws, each (units,), in a stream."""

    log_mean: jax.Array  # log of the mean over draws
    variance: jax.Array  # of the log over draws, ddof 1
    pointwise: jax.Array  # (draws, units) or (0, units)


@partial(jax.jit, static_argnames=("program", "keep"))
def likelihood_pass(program: Program, numbers, values, chunk: Chunk, keep: bool) -> LikelihoodPass:
    """Running log-sum-exp and Welford over draws; the draws themselves too when ``keep``."""

    def one(carry, value):
        fn = program.likelihood(numbers, value, chunk.y, chunk.covariates)
        log_p = fn.log_prob(chunk.y) if chunk.rule is None else fn.log_prob_on(chunk.rule)
        top, total, count, centre, spread = carry
        higher = jnp.maximum(top, log_p)
        total = total * jnp.exp(top - higher) + jnp.exp(log_p - higher)
        count = count + 1.0
        moved = log_p - centre
        centre = centre + moved / count
        return (higher, total, count, centre, spread + moved * (log_p - centre)), log_p if keep else None

    dtype = chunk.y.dtype
    zero = jnp.zeros(chunk.y.shape[0], dtype)
    start = (jnp.full_like(zero, -jnp.inf), zero, jnp.zeros((), dtype), zero, zero)
    (top, total, count, _, spread), kept = jax.lax.scan(one, start, values)
    none = jnp.zeros((0, zero.size), dtype)
    return LikelihoodPass(top + jnp.log(total / count), spread / (count - 1.0), kept if keep else none)
