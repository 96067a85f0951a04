"""Statistics of the latent of every unit, by the shortest way that is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from bayesunmix._keys import generator
from bayesunmix.distributions.one_face import FreeNormal, cut_off, drawn
from bayesunmix.distributions.skewed import standard_quantiles
from bayesunmix.inference.program import Program, at_units, narrowed
from bayesunmix.inference.units import (
    Draws,
    Running,
    chunks,
    evenly,
    filled,
    kind_of_likelihood,
    latent_pass,
    local_sites,
)

STATISTICS = ("mean", "sd", "lower", "upper", "sd_noise", "sd_model")
_LATENT_DRAWS = 400  # of every unit, behind an interval
_FEWEST, _FEW = 8, 32  # draws of globals that make no difference
_MANY_POINTS, _FEW_POINTS = 256, 32  # of a unit, for what noise leaves and for what globals add
_NO_DIFFERENCE = 0.01  # share of globals in the variance of a latent, below which that is so
_NORMAL = 0.2  # share of globals below which the interval is a normal's, whatever their posterior's shape
_TOGETHER = 2**22  # values of plain units worked on at a time
# Units worked on at a time, always as many: for more or fewer of them nothing is compiled anew.
_CUT_TOGETHER = 512  # with one end in reach
_POINTS_TOGETHER, _MANY_TOGETHER = 128, 64  # by points, which then stay in a cache
_AHEAD = 4  # passes that are started before they are asked for
_TINY = 1e-7  # probability of the least and the largest score
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def latent_statistics(
    draws: Draws, y: Any, covariates: dict[str, Any], prob: float, key: jax.Array
) -> tuple[np.ndarray, np.ndarray | None]:
    """``STATISTICS`` of every unit's latent, (unit, *latent, statistic), and the entropy that noise leaves, if any.

    Units whose latent has a closed form given the globals need no points: it is normal, or cut off at one end of its
    domain. Where globals make no difference to those, few draws of them are taken, and the intervals are those given
    the globals; for the others too few draws, if they make none to those either.
    """
    plain, few = _plain_of_few(draws, y, covariates)
    if plain is None or not plain.exact.any():
        return _by_points(draws, y, covariates, prob, key)
    hard = np.flatnonzero(~plain.exact)
    by_points = partial(_by_points, draws, y, covariates, prob, key, hard)
    passes = _many_points(draws, y, covariates, key, hard) if few else iter(())
    ahead = list(islice(passes, _AHEAD))  # beside what follows
    # Before the statistics of all are held.
    known = by_points()[0] if len(hard) and not few else None
    found = _in_closed_form(plain, prob)
    cut = np.flatnonzero(plain.exact & ~plain.normal)
    if len(cut) and few:
        found[cut, :, 2:4] = _cut_off_ends(plain, prob, cut)
    elif len(cut):
        found[cut, :, 2:4] = _by_cut_off(draws, y, covariates, prob, key, cut)
    if len(hard):
        if few:
            known = _by_many_points(chain(ahead, passes), prob)
        found[hard] = (by_points()[0] if known is None else known)[: len(hard)]
    return found, None


def _by_points(draws: Draws, y, covariates, prob: float, key, among=None) -> tuple[np.ndarray, Any]:
    """On weighted points of their own at every draw of the globals."""
    key_points, key_draws = jax.random.split(key)
    parts, entropies = [], []
    for _, chunk in chunks(draws, y, covariates, key_points, among=among, most=_POINTS_TOGETHER):
        key_chunk = jax.random.fold_in(key_draws, chunk.index[0])
        found = latent_pass(*draws, chunk, key_chunk, -(-_LATENT_DRAWS // draws.size))
        if found.entropy is not None:
            entropies.append(np.asarray(found.entropy))
        parts.append(_statistics(found.mean, found.variance_noise, found.variance_model, _ends(found.draws, prob)))
    count = len(y) if among is None else len(among)
    return np.concatenate(parts)[:count], np.concatenate(entropies)[:count] if entropies else None


def _many_points(draws: Draws, y, covariates, key, among: np.ndarray) -> Iterator[tuple[jax.Array, ...]]:
    """Some units at a time, the last ones filled up, on many points at the mean of the globals."""
    some = draws.thinned(_FEWEST)
    blocks = filled(among, _MANY_TOGETHER), _slices(draws, y, covariates, among, _MANY_TOGETHER)
    for index, (values, own) in zip(*blocks, strict=True):
        yield _many_points_pass(*some, values, own, key, index)


def _by_many_points(passes: Iterator[tuple[jax.Array, ...]], prob: float) -> np.ndarray | None:
    """``STATISTICS`` of units from :func:`_many_points`; None where globals make a difference to one of them."""
    parts = []
    for mean, noise, model, points, weights in map(jax.device_get, passes):
        if (model > 2 * _NO_DIFFERENCE * (noise + model)).any():
            return None
        parts.append(_statistics(mean, noise, model, _weighted_ends(points, weights, prob)))
    return np.concatenate(parts)


@partial(jax.jit, static_argnames="program")
def _many_points_pass(program: Program, numbers, values, y, covariates, key, index) -> tuple[jax.Array, ...]:
    """Mean, its variances by noise and by globals, points (units, latent, points) and weights (units, points)."""

    def at(value):
        return program.likelihood(numbers, value, y, covariates)

    fn = at({name: value.mean(0) for name, value in values.items()})
    rule = fn.rule(y, key, index, n_points=_MANY_POINTS)
    found = fn.conditional_on(rule)
    # On the same points at every draw, so that they add nothing to what the globals do.
    few = rule._replace(frame=rule.frame._replace(base=rule.frame.base[:, :_FEW_POINTS]))
    means = jax.lax.map(lambda value: at(value).conditional_on(few).mean, values)
    return found.mean, found.variance, means.var(0), jnp.moveaxis(found.points, -1, 0), found.weights.T


def _statistics(mean, noise, model, ends) -> np.ndarray:
    """``STATISTICS`` (..., statistic) from a mean, its variances by noise and by globals, and the ends (2, ...) of its
    interval, or how many standard deviations they are away."""
    mean, noise, model = (np.asarray(x) for x in (mean, noise, model))
    # Statistics first in memory: who looks at one of them reads it as it lies.
    found = np.empty((len(STATISTICS), *mean.shape), mean.dtype)
    found[0], found[1], found[4], found[5] = mean, np.sqrt(noise + model), np.sqrt(noise), np.sqrt(model)
    if np.ndim(ends):
        found[2:4] = ends
    else:
        np.multiply(found[1], ends, out=found[3])
        np.subtract(mean, found[3], out=found[2])
        found[3] += mean
    return np.moveaxis(found, 0, -1)


def _weighted_ends(points: np.ndarray, weights: np.ndarray, prob: float) -> np.ndarray:
    """The ends of the interval of every latent, (2, unit, latent), from points (unit, latent, point) and their weights
    (unit, point)."""
    order = np.argsort(points, axis=-1)
    points = np.take_along_axis(points, order, -1)
    weights = np.take_along_axis(np.broadcast_to(weights[:, None], order.shape), order, -1)
    below = np.cumsum(weights, axis=-1) - 0.5 * weights

    def at(share: float) -> np.ndarray:
        after = np.clip((below < share).sum(-1, keepdims=True), 1, below.shape[-1] - 1)
        (low, high), (left, right) = ([np.take_along_axis(x, after - i, -1) for i in (1, 0)] for x in (below, points))
        part = np.clip((share - low) / np.maximum(high - low, np.finfo(low.dtype).tiny), 0.0, 1.0)
        return (left + part * (right - left))[..., 0]

    return np.stack([at((1 - prob) / 2), at((1 + prob) / 2)])


def _ends(draws: jax.Array, prob: float) -> np.ndarray:
    """The ends of the interval of every latent, (2, unit, *latent), from draws."""
    # Sorted at once, a unit's draws beside each other: a fifth of the time of np.quantile.
    ordered = np.sort(np.ascontiguousarray(np.moveaxis(np.asarray(draws), 0, -1)), axis=-1)
    last = ordered.shape[-1] - 1

    def at(share: float) -> np.ndarray:
        # Positions (n + 1) p: an interval between them holds its share of new draws, however few there are.
        place = min(max((last + 2) * share - 1.0, 0.0), float(last))
        low = int(place)
        lower, upper = ordered[..., low], ordered[..., min(low + 1, last)]
        return lower + (place - low) * (upper - lower)

    return np.stack([at((1 - prob) / 2), at((1 + prob) / 2)])


# ---------------------------------------------------------------------- in closed form given the globals


class Plain(NamedTuple):
    """The latent of every unit as if one end of its domain were in reach at most."""

    mean: Any  # (units, latent)
    variance_noise: Any
    variance_model: Any
    share: Any  # (units,) of the globals in the variance, the largest of a unit
    exact: Any  # (units,) whether that is so at every draw of the globals
    free: Any  # (units,) whether none is in reach
    first: Any  # (units,) which latent is nearest to its end, at the mean of the globals
    low: Any  # (units,) where that end is in the latent's standard deviations
    correlation: Any  # (latent, latent) of all latents there, as if no end were in reach

    @property
    def normal(self) -> np.ndarray:
        """Units whose latent is normal, whatever the globals add to its spread."""
        return self.free & (self.share < _NORMAL)


def _plain_of_few(draws: Draws, y: Any, covariates: dict[str, Any]) -> tuple[Plain | None, bool]:
    """By as few draws of the globals as move no mean much; and whether few will do."""
    for number in (_FEWEST, _FEW):
        plain = _plain(draws, y, covariates, number)
        if plain is None or plain.share[plain.exact].max(initial=0.0) <= _NO_DIFFERENCE * number / _FEW:
            return plain, True
    return _plain(draws, y, covariates, draws.size), False


def _plain(draws: Draws, y: Any, covariates: dict[str, Any], number: int) -> Plain | None:
    """By so many draws; None for a likelihood that knows no such units."""
    n_units = len(y)
    looked_at = draws.program, draws.numbers, y, covariates
    if local_sites(*looked_at) or not hasattr(kind_of_likelihood(*looked_at), "without_faces"):
        return None
    visited = evenly(draws.size, number)
    # How many they are is no part of the program.
    fixed = (draws.program, draws.numbers, draws.values, np.resize(visited, draws.size), len(visited))
    parts = _slices(draws, y, covariates, np.arange(n_units), min(n_units, max(1, _TOGETHER // y[0].size)))
    # Waited for one by one: parts that are worked on are held.
    found = [jax.device_get(_plain_pass(*fixed, *part)) for part in parts]
    joined = (np.concatenate(column)[:n_units] for column in zip(*found, strict=True))
    return Plain(*joined)._replace(correlation=found[0].correlation)


def _slices(
    draws: Draws, y: Any, covariates: dict[str, Any], among: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, Any]]:
    """Values and covariates of units, so many at a time: the last ones are filled up with the last unit."""
    kind = kind_of_likelihood(draws.program, draws.numbers, y, covariates)
    for part in filled(among, size):
        yield narrowed(y[part], kind), at_units(covariates, part, len(y))


@partial(jax.jit, static_argnames="program")
def _plain_pass(program: Program, numbers, values, visited, number, y, covariates) -> Plain:
    def free_normal(value) -> FreeNormal:
        return program.likelihood(numbers, value, y, covariates).without_faces(y)

    def one(i, carry):
        found = cut_off(free_normal({name: value[visited[i]] for name, value in values.items()}))
        means, noise, exact, free = carry
        means = means.seen(found.mean)
        noise = noise + (found.variance - noise) / means.number
        return means, noise, exact & found.exact, free & found.free

    normal = free_normal({name: value.mean(0) for name, value in values.items()})
    zero, always = jnp.zeros_like(normal.mean), jnp.ones(len(y), bool)
    means, noise, exact, free = jax.lax.fori_loop(0, number, one, (Running.none(zero), zero, always, always))
    model = means.spread / means.number
    share = jnp.where(model > 0.0, model / (noise + model), 0.0).max(1)
    first, low, _ = normal.at_nearest()
    correlation = normal.covariance / (normal.sd * normal.sd[:, None])
    return Plain(means.mean, noise, model, share, exact, free, first, low[:, 0], correlation)


def _in_closed_form(plain: Plain, prob: float) -> np.ndarray:
    """``STATISTICS`` of all units as if they were normal."""
    return _statistics(*plain[:3], ndtri((1 + prob) / 2))


def _cut_off_ends(plain: Plain, prob: float, among: np.ndarray) -> np.ndarray:
    """Intervals (unit, latent, 2) of units with one end of their domain in reach, at the mean of the globals."""
    first, low, ends = plain.first[among], plain.low[among], np.array([1 - prob, 1 + prob]) / 2
    scores = np.empty((2, *plain.mean[among].shape))
    for i in np.unique(first):
        scores[:, first == i] = standard_quantiles(ends, low[first == i], plain.correlation[i])
    sd = np.sqrt(plain.variance_noise[among] + plain.variance_model[among])
    return np.moveaxis(plain.mean[among] + sd * scores, 0, -1)


def _by_cut_off(draws: Draws, y: Any, covariates: dict[str, Any], prob: float, key, among: np.ndarray) -> np.ndarray:
    """Intervals (unit, latent, 2) of units with one end of their domain in reach, from draws that are spread evenly."""
    per_draw = -(-_LATENT_DRAWS // draws.size)
    # A lattice of two dimensions, the same for all units, moved at random.
    places, shift = np.arange(draws.size * per_draw), generator(key).random(2)
    share = (places / places.size + shift[0]) % 1.0
    score = ndtri(np.clip((places * _GOLDEN + shift[1]) % 1.0, _TINY, 1.0 - _TINY))
    dtype = jnp.result_type(float)
    lattice = tuple(x.reshape(draws.size, per_draw, 1).astype(dtype) for x in (share, score))
    parts = []
    for values, own in _slices(draws, y, covariates, among, _CUT_TOGETHER):
        found = _cut_off_pass(draws.program, draws.numbers, draws.values, values, own, lattice)
        parts.append(np.moveaxis(_ends(found, prob), 0, -1))
    return np.concatenate(parts)[: len(among)]


@partial(jax.jit, static_argnames="program")
def _cut_off_pass(program: Program, numbers, values, y, covariates, lattice) -> jax.Array:
    def one(inputs):
        value, place = inputs
        return drawn(program.likelihood(numbers, value, y, covariates).without_faces(y), *place)

    found = jax.lax.map(one, (values, lattice))
    return found.reshape(-1, *found.shape[2:])
