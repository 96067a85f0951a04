"""Statistics of the latent of every unit, by the shortest way that is exact."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from bayesunmix.inference.program import Program
from bayesunmix.inference.units import Draws, Running, chunks, latent_pass, local_sites, of_units

STATISTICS = ("mean", "sd", "lower", "upper", "sd_noise", "sd_model")
_LATENT_DRAWS = 400  # of every unit, behind an interval
_FEW = 32  # draws of globals that make no difference
_NO_DIFFERENCE = 0.01  # share of globals in the variance of a latent, below which that is so
_NORMAL = 0.2  # share of globals below which the interval is a normal's, whatever their posterior's shape
_ROUND = 64  # parts of an image, of which a whole number is worked on by points
_LEAST = 1024  # units to such a part
_TOGETHER = 2**24  # values of plain units worked on at a time


def latent_statistics(
    draws: Draws, y: Any, covariates: dict[str, Any], prob: float, key: jax.Array
) -> tuple[np.ndarray, np.ndarray | None]:
    """``STATISTICS`` of every unit's latent, (unit, *latent, statistic), and the entropy that noise leaves, if any.

    Units whose latent is normal given the globals need no points. Where globals make no difference to those, few
    draws of them are taken for the others, if they make none to those either.
    """
    plain = _plain(draws, y, covariates)
    if plain is None:
        return _by_points(draws, draws, y, covariates, prob, key, None)
    hard = _rounded(np.flatnonzero(~plain.holds), len(y))
    found = _of_normal(plain, prob)
    if len(hard):
        share = plain.share[plain.holds]
        few = share.size > 0 and share.max() < _NO_DIFFERENCE
        found[hard], _ = _by_points(draws.thinned(_FEW) if few else draws, draws, y, covariates, prob, key, hard)
    return found, None


def _rounded(chosen: np.ndarray, n_units: int) -> np.ndarray:
    """Sorted positions, with some others to make their number round: nothing is compiled for one unit more or less."""
    step = max(_LEAST, -(-n_units // _ROUND))
    more = min(n_units, -(-len(chosen) // step) * step) - len(chosen)
    others = np.setdiff1d(np.arange(min(n_units, len(chosen) + more)), chosen)[:more]
    return np.union1d(chosen, others)


def _by_points(some: Draws, draws: Draws, y, covariates, prob: float, key, among) -> tuple[np.ndarray, Any]:
    """On weighted points, with ``some`` of the draws where those will do, else with all."""
    key_points, key_draws = jax.random.split(key)
    tails = [(1 - prob) / 2, (1 + prob) / 2]
    parts, entropies = [], []
    for _, chunk in chunks(draws, y, covariates, key_points, among=among):
        key_chunk = jax.random.fold_in(key_draws, chunk.index[0])
        found = latent_pass(*some, chunk, key_chunk, -(-_LATENT_DRAWS // some.size))
        if some.size < draws.size:
            variance = found.variance_noise + found.variance_model
            if not bool((found.variance_model <= 2 * _NO_DIFFERENCE * variance).all()):
                found = latent_pass(*draws, chunk, key_chunk, -(-_LATENT_DRAWS // draws.size))
        if found.entropy is not None:
            entropies.append(np.asarray(found.entropy))
        mean, noise, spread = (np.asarray(a) for a in (found.mean, found.variance_noise, found.variance_model))
        # Positions (n + 1) p: an interval between them holds its share of new draws, however few there are.
        lower, upper = np.quantile(np.asarray(found.draws), tails, axis=0, method="weibull")
        sds = np.sqrt([noise + spread, noise, spread])
        parts.append(np.stack([mean, sds[0], lower, upper, sds[1], sds[2]], axis=-1))
    return np.concatenate(parts), np.concatenate(entropies) if entropies else None


# ---------------------------------------------------------------------- normal given the globals


class Plain(NamedTuple):
    """The latent of every unit as if it were normal given the globals."""

    mean: np.ndarray  # (units, latent)
    variance_noise: np.ndarray
    variance_model: np.ndarray
    holds: np.ndarray  # (units,) whether it is, at every draw of the globals

    @property
    def share(self) -> np.ndarray:
        """Share of the globals in the variance, the largest of a unit."""
        total = self.variance_noise + self.variance_model
        return np.divide(self.variance_model, total, out=np.zeros_like(total), where=total > 0).max(1)


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
    size = max(1, min(n_units, _TOGETHER // y[0].size))
    parts = []
    for start in range(0, n_units, size):
        part = slice(max(0, min(start, n_units - size)), start + size)  # the last one reaches back
        own = {name: of_units(value, part, n_units) for name, value in covariates.items()}
        values = jnp.asarray(y[part], jnp.result_type(float))
        found = jax.device_get(_plain_pass(draws.program, draws.numbers, draws.values, values, own))
        parts.append(jax.tree_util.tree_map(lambda x, skip=start - part.start: x[skip:], found))
    plain = Plain(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return plain._replace(holds=plain.holds & (plain.share < _NORMAL))


@partial(jax.jit, static_argnames="program")
def _plain_pass(program: Program, numbers, values, y, covariates) -> tuple[jax.Array, ...]:
    def one(carry, value):
        mean, variance, far = program.likelihood(numbers, value, y, covariates).without_faces(y)
        means, noise, holds = carry
        means = means.seen(mean)
        return (means, noise + (variance - noise) / means.number, holds & far), None

    first = program.likelihood(numbers, {n: v[0] for n, v in values.items()}, y, covariates).without_faces(y)
    zero = jnp.zeros_like(first[0])
    start = (Running.none(zero), zero, jnp.ones(len(zero), bool))
    (means, noise, holds), _ = jax.lax.scan(one, start, values)
    return means.mean, noise, means.spread / means.number, holds


def _of_normal(plain: Plain, prob: float) -> np.ndarray:
    sd = np.sqrt(plain.variance_noise + plain.variance_model)
    reach = ndtri((1 + prob) / 2) * sd
    own = (plain.mean - reach, plain.mean + reach, np.sqrt(plain.variance_noise), np.sqrt(plain.variance_model))
    return np.stack([plain.mean, sd, *own], axis=-1)
