"""Statistics of the latent of every unit, by the shortest way that is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from bayesunmix._keys import generator
from bayesunmix.distributions.one_face import CutOff, cut_off, drawn
from bayesunmix.inference.program import Program
from bayesunmix.inference.units import Draws, Running, chunks, filled, latent_pass, local_sites, of_units

STATISTICS = ("mean", "sd", "lower", "upper", "sd_noise", "sd_model")
_LATENT_DRAWS = 400  # of every unit, behind an interval
_FEW = 32  # draws of globals that make no difference
_NO_DIFFERENCE = 0.01  # share of globals in the variance of a latent, below which that is so
_NORMAL = 0.2  # share of globals below which the interval is a normal's, whatever their posterior's shape
_TOGETHER = 2**24  # values of plain units worked on at a time
# Units worked on at a time, always as many: for more or fewer of them nothing is compiled anew.
_CUT_TOGETHER = 512  # with one end in reach
_POINTS_TOGETHER = 128  # by points, which then stay in a cache
_TINY = 1e-7  # probability of the least and the largest score
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def latent_statistics(
    draws: Draws, y: Any, covariates: dict[str, Any], prob: float, key: jax.Array
) -> tuple[np.ndarray, np.ndarray | None]:
    """``STATISTICS`` of every unit's latent, (unit, *latent, statistic), and the entropy that noise leaves, if any.

    Units whose latent has a closed form given the globals need no points: it is normal, or cut off at one end of its
    domain. Where globals make no difference to those, few draws of them are taken; for the others too, if they make
    none to those either.
    """
    some = draws.thinned(_FEW)
    plain = _plain(some, y, covariates)
    if plain is not None and plain.share[plain.exact].max(initial=0.0) > _NO_DIFFERENCE:
        some, plain = draws, _plain(draws, y, covariates)
    if plain is None or not plain.exact.any():
        return _by_points(draws, draws, y, covariates, prob, key, None)
    found = _in_closed_form(plain, prob)
    cut = np.flatnonzero(plain.exact & ~plain.normal)
    if len(cut):
        found[cut, :, 2:4] = _by_cut_off(some, y, covariates, prob, key, cut)
    hard = np.flatnonzero(~plain.exact)
    if len(hard):
        found[hard] = _by_points(some, draws, y, covariates, prob, key, hard)[0]
    return found, None


def _by_points(some: Draws, draws: Draws, y, covariates, prob: float, key, among) -> tuple[np.ndarray, Any]:
    """On weighted points, with ``some`` of the draws where those will do, else with all."""
    key_points, key_draws = jax.random.split(key)
    parts, entropies = [], []
    for _, chunk in chunks(draws, y, covariates, key_points, among=among, most=_POINTS_TOGETHER):
        key_chunk = jax.random.fold_in(key_draws, chunk.index[0])
        found = latent_pass(*some, chunk, key_chunk, -(-_LATENT_DRAWS // some.size))
        if some.size < draws.size:
            variance = found.variance_noise + found.variance_model
            if not bool((found.variance_model <= 2 * _NO_DIFFERENCE * variance).all()):
                found = latent_pass(*draws, chunk, key_chunk, -(-_LATENT_DRAWS // draws.size))
        if found.entropy is not None:
            entropies.append(np.asarray(found.entropy))
        mean, noise, spread = (np.asarray(a) for a in (found.mean, found.variance_noise, found.variance_model))
        lower, upper = _ends(found.draws, prob)
        sds = np.sqrt([noise + spread, noise, spread])
        parts.append(np.stack([mean, sds[0], lower, upper, sds[1], sds[2]], axis=-1))
    count = len(y) if among is None else len(among)
    return np.concatenate(parts)[:count], np.concatenate(entropies)[:count] if entropies else None


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
    exact: Any  # (units,) whether that is so at every draw of the globals
    free: Any  # (units,) whether none is in reach

    @property
    def share(self) -> np.ndarray:
        """Share of the globals in the variance, the largest of a unit."""
        total = self.variance_noise + self.variance_model
        return np.divide(self.variance_model, total, out=np.zeros_like(total), where=total > 0).max(1)

    @property
    def normal(self) -> np.ndarray:
        """Units whose latent is normal, whatever the globals add to its spread."""
        return self.free & (self.share < _NORMAL)


def _plain(draws: Draws, y: Any, covariates: dict[str, Any]) -> Plain | None:
    """None for a likelihood that knows no such units."""
    n_units = len(y)
    one = {name: of_units(value, slice(0, 1), n_units) for name, value in covariates.items()}
    if local_sites(draws.program, draws.numbers, y.shape[1:], one):
        return None
    shape = jax.ShapeDtypeStruct((1, *y.shape[1:]), jnp.result_type(float))
    kinds: list[bool] = []
    likelihood = lambda v: draws.program.likelihood(draws.numbers, draws.centre, v, one)  # noqa: E731
    jax.eval_shape(lambda v: kinds.append(hasattr(likelihood(v), "without_faces")), shape)
    if not kinds[0]:
        return None
    fixed = (draws.program, draws.numbers, draws.values)
    parts = _slices(y, covariates, np.arange(n_units), min(n_units, max(1, _TOGETHER // y[0].size)))
    # Waited for one by one: parts that are worked on are held.
    found = [jax.device_get(_plain_pass(*fixed, *part)) for part in parts]
    return Plain(*(np.concatenate(column)[:n_units] for column in zip(*found, strict=True)))


def _slices(y: Any, covariates: dict[str, Any], among: np.ndarray, size: int) -> Iterator[tuple[jax.Array, Any]]:
    """Values and covariates of units, so many at a time: the last ones are filled up with the last unit."""
    for part in filled(among, size):
        own = {name: of_units(value, part, len(y)) for name, value in covariates.items()}
        yield jnp.asarray(y[part], jnp.result_type(float)), own


@partial(jax.jit, static_argnames="program")
def _plain_pass(program: Program, numbers, values, y, covariates) -> Plain:
    def at(value) -> CutOff:
        return cut_off(program.likelihood(numbers, value, y, covariates).without_faces(y))

    def one(carry, value):
        found = at(value)
        means, noise, exact, free = carry
        means = means.seen(found.mean)
        noise = noise + (found.variance - noise) / means.number
        return (means, noise, exact & found.exact, free & found.free), None

    zero, always = jnp.zeros_like(at({n: v[0] for n, v in values.items()}).mean), jnp.ones(len(y), bool)
    (means, noise, exact, free), _ = jax.lax.scan(one, (Running.none(zero), zero, always, always), values)
    return Plain(means.mean, noise, means.spread / means.number, exact, free)


def _in_closed_form(plain: Plain, prob: float) -> np.ndarray:
    """``STATISTICS`` of all units as if they were normal."""
    sd = np.sqrt(plain.variance_noise + plain.variance_model)
    reach = ndtri((1 + prob) / 2) * sd
    noise, model = np.sqrt(plain.variance_noise), np.sqrt(plain.variance_model)
    return np.stack([plain.mean, sd, plain.mean - reach, plain.mean + reach, noise, model], axis=-1)


def _by_cut_off(draws: Draws, y: Any, covariates: dict[str, Any], prob: float, key, among: np.ndarray) -> np.ndarray:
    """Intervals (unit, latent, 2) of units with one end of their domain in reach, from draws that are spread evenly."""
    per_draw = -(-_LATENT_DRAWS // draws.size)
    # A lattice of two dimensions, the same for all units, moved at random.
    places, shift = np.arange(draws.size * per_draw), generator(key).random(2)
    share = (places / places.size + shift[0]) % 1.0
    score = ndtri(np.clip((places * _GOLDEN + shift[1]) % 1.0, _TINY, 1.0 - _TINY))
    dtype = jnp.result_type(float)
    lattice = tuple(jnp.asarray(x.reshape(draws.size, per_draw, 1), dtype) for x in (share, score))
    parts = []
    for values, own in _slices(y, covariates, among, _CUT_TOGETHER):
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
