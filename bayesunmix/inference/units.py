"""What the posterior says of every unit: one pass over draws of the globals, a chunk of units at a time.

For each draw of the globals the likelihood's ``conditional`` gives the unit's latent, on points of its own
around a proposal made once, at the posterior mean; ``emission`` gives the data that the latent predicts. A
distribution without ``conditional`` has no latent and predicts by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import gammaincc
from numpyro import handlers

from bayesunmix.data.rows import let_go
from bayesunmix.distributions.unmixing_rule import with_data, without_data
from bayesunmix.inference.program import ONE_AT_A_TIME, Array, Program, at_units, on_device

_CHUNK_BYTES = 2**26  # of integration points held at a time
_CACHED = 2**19  # values of an array that is gone through for every draw
POINT_SETS = 128  # of integration points, beside the rule's own, behind a marginal likelihood that is reported
_FEWEST_WHITE = 8  # channels from which laws of white residuals are as good as exact
_SETS_OF_MEAN = (8, 32)  # of points, behind what points add to the variance of means of few draws, and of many


class Draws(NamedTuple):
    """Draws of the globals and the numbers of the model they belong to."""

    program: Program
    numbers: tuple[Any, ...]
    values: dict[str, Array]  # leading axis: draw

    @property
    def size(self) -> int:
        return len(next(iter(self.values.values())))

    @property
    def centre(self) -> dict[str, Array]:
        """Mean over the draws, where proposals are made."""
        return {name: np.asarray(value).mean(0) for name, value in self.values.items()}

    def thinned(self, most: int) -> Draws:
        """At most so many of them, evenly."""
        take = evenly(self.size, most)
        return self._replace(values={name: np.asarray(value)[take] for name, value in self.values.items()})


def evenly(count: int, most: int | None) -> np.ndarray:
    """Positions among ``count``, at most so many, spread evenly; None for all."""
    if most is None or most >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


class Chunk(NamedTuple):
    """Some of the units, ready for every draw."""

    y: Any
    index: Any  # a field, which hides a method of tuple
    rule: Any  # None where the likelihood has no rule
    covariates: dict[str, jax.Array]
    local: dict[str, Array]  # draws of the latents that are sample sites in the plate, (draw, unit, ...)


def chunks(
    draws: Draws,
    y: np.ndarray,
    covariates: dict[str, Any],
    key: jax.Array,
    held: int = 0,
    among: np.ndarray | None = None,
    most: int | None = None,
) -> Iterator[tuple[Any, Chunk]]:
    """Slices of the units with their chunk. All but the last are of one size, so two programs are compiled at
    most.

    ``held`` is the number of values that the pass keeps of every unit, ``most`` how many units are worked on at a time
    at most. With ``among``, positions, only those units are visited, and positions are handed out instead of slices,
    always as many: the last are filled up with the last unit.
    """
    n_units = len(y)
    one = at_units(covariates, slice(1), n_units)
    local = local_sites(draws.program, draws.numbers, y, covariates)
    size = min(_units_a_chunk(draws, y, one, local, held), most or n_units)
    if among is None and most is None:
        size = dividing(n_units, size)  # one program less
    overall = draws.centre
    slices = (slice(start, min(start + size, n_units)) for start in range(0, n_units, size))
    parts: Iterable[Any] = slices if among is None else filled(among, size)
    for turn, part in enumerate(parts):
        index = np.arange(n_units)[part]
        values = np.asarray(y[part], jnp.result_type(float))
        if turn == 0:
            let_go(y)  # while programs are compiled
        own = at_units(covariates, part, n_units)
        here = {name: draws.values[name][:, part] for name in local}
        centre = {**overall, **{name: np.asarray(value).mean(0) for name, value in here.items()}}
        rule = _rule(draws.program, draws.numbers, centre, values, own, key, index)
        yield part, Chunk(values, index, rule, own, here)


def cached(y: np.ndarray) -> int:
    """Units of which arrays by channel, as passes over predictions go through for every draw, stay in a cache."""
    return max(256, _CACHED // y[0].size)


def filled(among: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Positions, ``size`` at a time: the last ones are filled up with the last."""
    for start in range(0, len(among), size):
        yield among[np.minimum(np.arange(start, start + size), len(among) - 1)]


def dividing(count: int, most: int) -> int:
    """The largest divisor of a number above half of ``most``, up to that; where there is none, that itself."""
    return next((size for size in range(most, most // 2, -1) if count % size == 0), most)


def local_sites(program: Program, numbers, y: Any, covariates: dict[str, Any]) -> tuple[str, ...]:
    """Latents that are sample sites inside the plate "unit"."""
    return _looked_at(program, numbers, y, covariates)[0]


def kind_of_likelihood(program: Program, numbers, y: Any, covariates: dict[str, Any]) -> type:
    """Class of the distribution of the units."""
    return _looked_at(program, numbers, y, covariates)[1]


def _looked_at(program: Program, numbers, y: Any, covariates: dict[str, Any]) -> tuple[tuple[str, ...], type]:
    shape, one = y.shape[1:], at_units(covariates, slice(1), len(y))
    return _look(program, numbers, shape, one) if one else _known(program, tuple(map(np.shape, numbers)), shape)


@lru_cache
def _known(program: Program, sizes: tuple[tuple[int, ...], ...], shape: tuple[int, ...]):
    return _look(program, tuple(on_device(np.ones(size)) for size in sizes), shape, {})


def _look(program: Program, numbers, shape: tuple[int, ...], one: dict[str, Any]) -> tuple[tuple[str, ...], type]:
    sites: dict[str, Any] = {}

    def run() -> None:
        with ONE_AT_A_TIME, handlers.trace() as trace, handlers.seed(rng_seed=0):
            program.model(numbers)(jnp.zeros((1, *shape)), n_units=1, **one)
        sites.update(trace)

    jax.eval_shape(run)
    local = tuple(n for n, site in sites.items() if site["type"] == "sample" and is_local(site))
    return local, type(sites["y"]["fn"])


def is_local(site: dict[str, Any]) -> bool:
    """Whether an unobserved site of a trace has one value per unit."""
    return not site.get("is_observed") and any(frame.name == "unit" for frame in site["cond_indep_stack"])


def _units_a_chunk(draws: Draws, y: np.ndarray, one: dict[str, Any], local: tuple[str, ...], held: int) -> int:
    shape = jax.ShapeDtypeStruct((1, *y.shape[1:]), jnp.result_type(float))
    centre = {name: value[:1] if name in local else value for name, value in draws.centre.items()}
    probe = _rule.eval_shape(draws.program, draws.numbers, centre, shape, one, jax.random.key(0), np.arange(1))
    rule = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree_util.tree_leaves(probe))
    return max(256, int(_CHUNK_BYTES // (rule + 8 * 8 * y[0].size + 8 * held)))


def inputs_of(program: Program, values: dict[str, Any], chunk: Chunk) -> dict[str, Any]:
    """What a scan over draws reads: sampled sites, those of the plate restricted to the chunk's units."""
    return {name: chunk.local[name] if name in chunk.local else values[name] for name, _ in program.shapes}


def _make_rule(program, numbers, centre, y, covariates, key, index):
    fn = program.likelihood(numbers, centre, y, covariates)
    return without_data(fn.rule(y, key, index)) if hasattr(fn, "rule") else None


_rule = partial(jax.jit, static_argnames="program")(_make_rule)


def _likelihood(program, numbers, value, chunk: Chunk, key):
    """Likelihood at one draw of the globals, and its rule with fresh points, if it has one."""
    fn = program.likelihood(numbers, value, chunk.y, chunk.covariates)
    return fn, None if chunk.rule is None else with_data(fn.redraw(chunk.rule, key, chunk.index), chunk.y)


def _conditional(fn, rule, y):
    """The conditional of the latent of every unit; None without a latent."""
    if rule is not None:
        return fn.conditional_on(rule)
    return fn.conditional(y) if hasattr(fn, "conditional") else None


class LatentPass(NamedTuple):
    """Latent of every unit, units first."""

    mean: jax.Array  # (units, *latent)
    variance_noise: jax.Array  # E Var(latent | y, globals)
    variance_model: jax.Array  # Var E(latent | y, globals)
    draws: jax.Array  # (draws * per_draw, units, *latent)
    entropy: jax.Array | None  # mean over draws of the conditional's entropy, where it has one


@partial(jax.jit, static_argnames=("program", "per_draw"))
def latent_pass(program: Program, numbers, values, chunk: Chunk, key, per_draw: int) -> LatentPass:
    """Moments and draws of the latent, over all draws of the globals in ``values``.

    Every draw has points of its own, which scatter the means. By how much, other sets of points tell at the mean of the
    draws, visited in the same loop, whose body takes long to compile.
    """
    values = inputs_of(program, values, chunk)
    n_draws = len(next(iter(values.values())))
    n_sets = 0 if chunk.rule is None else int(np.clip(n_draws // 2, *_SETS_OF_MEAN))
    at_mean = {n: jnp.broadcast_to(v.mean(0), (n_sets, *v.shape[1:])) for n, v in values.items()}
    visits = {n: jnp.concatenate([v, at_mean[n]]) for n, v in values.items()}

    def conditional(value, key):
        return _conditional(*_likelihood(program, numbers, value, chunk, key), chunk.y)

    def one(carry, visit):
        value, key, drawn = visit
        key_points, key_draw = jax.random.split(key)
        found = conditional(value, key_points)
        draws, sets, noise = carry
        draws, sets = draws.seen(found.mean, drawn), sets.seen(found.mean, ~drawn)
        noise = noise + jnp.where(drawn, found.variance, 0.0)
        return (draws, sets, noise), (found.sample(key_draw, (per_draw,)), getattr(found, "entropy", None))

    like = jax.eval_shape(lambda: conditional({n: v[0] for n, v in values.items()}, key).mean)
    zero = jnp.zeros(like.shape, like.dtype)
    none = Running.none(zero)
    keys = jax.random.split(key, n_draws + n_sets)
    drawn = jnp.arange(n_draws + n_sets) < n_draws
    (draws, sets, noise), (latents, entropy) = jax.lax.scan(one, (none, none, zero), (visits, keys, drawn))
    entropy = None if entropy is None else entropy[:n_draws].mean(0)
    error = sets.spread / (n_sets - 1) if n_sets else 0.0
    model = jnp.maximum(draws.spread / n_draws - error, 0.0)
    # The points tighten the variances given the globals by as much as they scatter the means.
    noise = noise / n_draws + draws.spread / n_draws - model
    return LatentPass(draws.mean, noise, model, latents[:n_draws].reshape(-1, *zero.shape), entropy)


class Running(NamedTuple):
    """Mean and sum of squared deviations so far."""

    number: jax.Array
    mean: jax.Array
    spread: jax.Array

    @classmethod
    def none(cls, zero: jax.Array) -> Running:
        """Before the first value."""
        return cls(jnp.zeros((), zero.dtype), zero, zero)

    def seen(self, value, counts: Any = True) -> Running:
        """With one more value, if it counts."""
        number = self.number + counts
        moved = jnp.where(counts, value - self.mean, 0.0)
        mean = self.mean + moved / jnp.maximum(number, 1.0)
        return Running(number, mean, self.spread + moved * (value - mean))


class PredictionPass(NamedTuple):
    """What is predicted for the units that were fitted."""

    mean: jax.Array  # (units, channel)
    variance_mean: jax.Array  # Var E(y | latent, globals), (units, channel), ddof 1
    mean_variance: jax.Array  # E Var(y | latent, globals), (units, channel)
    exceeded: jax.Array  # probability of a replicate that is more discrepant than the data, mean over draws, (units,)


@partial(jax.jit, static_argnames=("program", "discrepancy"))
def prediction_pass(
    program: Program, numbers, values, chunk: Chunk, key, discrepancy: Callable | None = None
) -> PredictionPass:
    """Law of total variance over joint draws of globals and latent; with a ``discrepancy`` a replicate each, unless its
    law is known."""

    def one(carry, inputs):
        value, key = inputs
        key_emission, key_replicate = jax.random.split(key)
        emission = emission_at(program, numbers, value, chunk, key_emission)
        means, noise, exceeded = carry
        means = means.seen(jnp.broadcast_to(emission.mean, chunk.y.shape))
        noise = noise + (emission.variance - noise) / means.number
        if discrepancy is not None:
            found = discrepancy(chunk.y, emission)
            if discrepancy is chi_square and is_white(emission, chunk.y.shape):
                exceeded = exceeded + gammaincc(0.5 * (~jnp.isnan(chunk.y)).sum(-1), 0.5 * found)
            else:
                again = discrepancy(sample_as(chunk.y, emission, key_replicate), emission)
                exceeded = exceeded + (again > found) + 0.5 * (again == found)
        return (means, noise, exceeded), None

    values = inputs_of(program, values, chunk)
    zero = jnp.zeros_like(chunk.y)
    n_draws = len(next(iter(values.values())))
    start = (Running.none(zero), zero, jnp.zeros(len(zero), zero.dtype))
    (means, noise, exceeded), _ = jax.lax.scan(one, start, (values, jax.random.split(key, n_draws)))
    return PredictionPass(means.mean, means.spread / max(n_draws - 1, 1), noise, exceeded / n_draws)


def chi_square(y, emission):
    """Discrepancy of every unit: the emission's own, or squared deviations in standard deviations, summed."""
    if hasattr(emission, "discrepancy"):
        return emission.discrepancy(y)
    away = jnp.where(jnp.isnan(y), 0.0, y - emission.mean)
    return (away**2 / emission.variance).sum(-1)


def is_white(emission, shape: tuple[int, ...]) -> bool:
    """Whether residuals of data of this shape over the emission's standard deviations are independent normal numbers.

    What sums over the channels of a unit follow is then known: see :mod:`bayesunmix.misfit`.
    """
    normal = isinstance(emission, dist.Independent) and isinstance(emission.base_dist, dist.Normal)
    return normal and len(shape) == 2 and shape[1] >= _FEWEST_WHITE


def sample_as(y, distribution, key):
    """One replicate of the units, with values missing where they are missing in the data."""
    return jnp.where(jnp.isnan(y), y, _sample(distribution, key, y.shape))


def _sample(distribution, key, shape):
    """One replicate of the units, whether or not the distribution was spread over them."""
    missing = len(shape) - len(distribution.batch_shape) - len(distribution.event_shape)
    return distribution.sample(key, shape[:missing])


@partial(jax.jit, static_argnames="program")
def replicate_pass(program: Program, numbers, values, chunk: Chunk, key) -> jax.Array:
    """These units measured again, one replicate a draw: (draws, units, channel)."""

    def one(inputs):
        value, key = inputs
        key_emission, key_data = jax.random.split(key)
        return _sample(emission_at(program, numbers, value, chunk, key_emission), key_data, chunk.y.shape)

    values = inputs_of(program, values, chunk)
    return jax.lax.map(one, (values, jax.random.split(key, len(next(iter(values.values()))))))


@partial(jax.jit, static_argnames="program")
def draw_pass(program: Program, numbers, values, chunk: Chunk, key) -> jax.Array:
    """The latent of these units, one draw at every draw of the globals: (draws, units, *latent)."""

    def one(inputs):
        value, key = inputs
        return _drawn(program, numbers, value, chunk, key)[1]

    values = inputs_of(program, values, chunk)
    return jax.lax.map(one, (values, jax.random.split(key, len(next(iter(values.values()))))))


def emission_at(program, numbers, value, chunk, key):
    """p(y | latent, globals) at one draw of both."""
    fn, latent = _drawn(program, numbers, value, chunk, key)
    return fn if latent is None else fn.emission(latent)


def _drawn(program, numbers, value, chunk, key):
    """Likelihood at one draw of the globals, and one of its latent, if it has any."""
    key_points, key_draw = jax.random.split(key)
    fn, rule = _likelihood(program, numbers, value, chunk, key_points)
    if hasattr(fn, "draw_on"):  # cheaper than the conditional itself
        return fn, fn.draw_on(rule, key_draw)
    conditional = _conditional(fn, rule, chunk.y)
    return fn, None if conditional is None else conditional.sample(key_draw)


class LikelihoodPass(NamedTuple):
    """Marginal log-likelihood of every unit over the draws."""

    log_mean: jax.Array  # (units,) log of the mean over draws
    variance: jax.Array  # (units,) of the log over draws, ddof 0
    pointwise: jax.Array  # (draws, units)


@partial(jax.jit, static_argnames="program")
def likelihood_pass(program: Program, numbers, values, chunk: Chunk, key) -> LikelihoodPass:
    """Log density of every unit of a chunk at every draw.

    The draws share a unit's integration points, and so nearly all of its integration error: what many sets of
    points find at the mean of the draws is taken off everywhere. They are visited in the same loop, whose body, the
    integrals, takes long to compile.
    """
    values = inputs_of(program, values, chunk)
    n_draws = len(next(iter(values.values())))
    n_sets = 0 if chunk.rule is None else 1 + POINT_SETS  # the chunk's own points first
    at_mean = {n: jnp.broadcast_to(v.mean(0), (n_sets, *v.shape[1:])) for n, v in values.items()}
    visits = {n: jnp.concatenate([v, at_mean[n]]) for n, v in values.items()}

    def one(visit):
        value, key, fresh = visit
        fn = program.likelihood(numbers, value, chunk.y, chunk.covariates)
        if chunk.rule is None:
            return fn.log_prob(chunk.y)
        other = fn.redraw(chunk.rule, key, chunk.index)
        rule = jax.tree_util.tree_map(lambda new, own: jnp.where(fresh, new, own), other, chunk.rule)
        return fn.log_prob_on(with_data(rule, chunk.y))

    fresh = jnp.arange(n_draws + n_sets) > n_draws
    log_p = jax.lax.map(one, (visits, jax.random.split(key, n_draws + n_sets), fresh))
    kept, sets = log_p[:n_draws], log_p[n_draws:]
    if n_sets:
        kept = kept + (jax.nn.logsumexp(sets, axis=0) - jnp.log(n_sets) - sets[0])
    return LikelihoodPass(jax.nn.logsumexp(kept, axis=0) - jnp.log(n_draws), kept.var(0), kept)
