"""Gibbs sampling of a hidden Markov model: forward filter, backward sample, then every parameter given the paths.

Where prior and emission are conjugate a parameter is drawn from its exact conditional. Elsewhere the conditional under
a conjugate stand-in for the prior is the proposal, and a Metropolis step accepts by the ratio of prior to stand-in:
exact for every prior, ordered ones included, and nearly always accepted where the data say more than the prior. For
priors that disagree with the data, positive parameters take a few steps of a random walk besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import biject_to

from bayesunmix.align import sorted_labels
from bayesunmix.distributions import cholesky, paths
from bayesunmix.distributions.chain_priors import InverseWishart
from bayesunmix.distributions.hidden_markov import HiddenMarkov
from bayesunmix.models._hidden_markov_data import check_noise
from bayesunmix.models._hidden_markov_priors import emissions_at, initial_weights, transition_weights

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel

Values = dict[str, jax.Array]
_WALKS = 4  # of every entry, a sweep


class PathSampler:
    """Chains side by side, as the engine drives them: ``start``, ``sweeps``, ``finished``."""

    def __init__(self, model: HiddenMarkovModel, y: Any, covariates: Mapping[str, Any]):
        unknown = sorted(set(covariates) - {"measurement_cov"})
        if unknown:
            raise TypeError(f"expected no covariates but measurement_cov, got {unknown}")
        self._model, self._sorted_by = _without_order(model)
        self._y = jax.device_put(np.asarray(y, jnp.result_type(float)))
        noise = covariates.get("measurement_cov")
        check_noise(noise, self._y.shape, model)
        self._noise = None if noise is None else jax.device_put(np.asarray(noise, self._y.dtype))

    def start(self, rng: np.random.Generator, chains: int) -> Values:
        """Clustered frames, every parameter moved at random in unconstrained coordinates."""
        model, begin = self._model, self._model.initial(np.asarray(self._y))
        free = jax.device_get(_unconstrained(model, {n: np.asarray(v, self._y.dtype) for n, v in begin.items()}))
        moved = {name: free[name] + 0.2 * rng.normal(size=(chains, *free[name].shape)) for name in begin}
        return _constrained(model, moved)

    def sweeps(self, state: Values, rng: np.random.Generator, thin: int, count: int):
        """All chains ``thin * count`` times: where they are then, and ``count`` states on the way, (chain, draw, ...).

        Compiled for a block of draws; a shorter one is cut from it.
        """
        seed = rng.integers(2**31, size=(), dtype=np.int64)
        state, kept = _sweeps(self._model, seed, np.asarray(thin), state, self._y, self._noise)
        return state, {name: np.moveaxis(np.asarray(value), 0, 1)[:, :count] for name, value in kept.items()}

    def finished(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Draws (chain, draw, ...) with their states in the order that the model asks for."""
        if not self._sorted_by:
            return dict(values)
        return sorted_labels(values, self._model.dims, self._model.label_dims, self._sorted_by)


def _without_order(model: HiddenMarkovModel) -> tuple[HiddenMarkovModel, str]:
    """A model whose states change places freely, and the parameter that its draws are then sorted by.

    With one prior for all states an ordered posterior is the one without order, sorted. Without order a state that
    the data do not hold can go from one side of the others to the other.
    """
    ordered = [name for name in model.parameters if model.orders(name)]
    free = replace(model, ordered=False)
    return (free, ordered[0]) if len(ordered) == len(free.label_groups) == 1 else (model, "")


@partial(jax.jit, static_argnames="draws")
def _sweeps(model: HiddenMarkovModel, seed, thin, state: Values, y, noise, draws: int = 16) -> tuple[Values, Values]:
    chains = len(next(iter(state.values())))

    def once(i, state):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), i), chains)
        return jax.vmap(lambda key, values: _sweep(model, key, values, y, noise))(keys, state)

    def draw(state, i):
        state = jax.lax.fori_loop(i * thin, (i + 1) * thin, once, state)
        return state, state

    return jax.lax.scan(draw, state, jnp.arange(draws))


@jax.jit
def _unconstrained(model: HiddenMarkovModel, values: dict[str, Any]) -> dict[str, jax.Array]:
    return {name: biject_to(model.prior(name).support).inv(value) for name, value in values.items()}


@jax.jit
def _constrained(model: HiddenMarkovModel, moved: dict[str, Any]) -> dict[str, jax.Array]:
    """Parameters of every chain, from unconstrained ones (chain, ...)."""
    return {name: jax.vmap(biject_to(model.prior(name).support))(value) for name, value in moved.items()}


def _sweep(model: HiddenMarkovModel, key, values: Values, y, noise) -> Values:
    key_path, key_rows, key_frames, key_emit = jax.random.split(key, 4)
    full = {**{n: jnp.asarray(v, y.dtype) for n, v in model.fixed.items()}, **values}
    full = {n: jnp.broadcast_to(v, model.shape_of(n)) for n, v in full.items()}
    families = emissions_at(model, full, noise)
    chain = HiddenMarkov(full["initial"], full["transition"], families, y.shape[1:], log_form=model.log_form)
    frames = chain.frames(y)
    filter_ = paths.filtered(full["initial"], full["transition"], frames, log_form=model.log_form)
    path = paths.sample_path(key_path, full["transition"], filter_).T  # (sequence, time)
    columns = y.reshape(*y.shape[:2], -1)
    # Frames after the last that was seen hold no data: their states are summed out, not sampled.
    seen = jnp.isfinite(columns).any(-1)
    live = jnp.cumsum(seen[:, ::-1], axis=1)[:, ::-1] > 0
    found = dict(values)
    member = jax.nn.one_hot(path, model.n_states, dtype=y.dtype)  # sums over frames are then matrix products
    # One call for initial and transition: the draws' loops cost more than their numbers.
    hops = jnp.einsum("nti,ntj->ij", member[:, :-1], member[:, 1:] * live[:, 1:, None])
    counts = jnp.concatenate([(initial_weights(model) + member[:, 0].sum(0))[None], transition_weights(model) + hops])
    allowed = jnp.concatenate([jnp.ones((1, model.n_states), bool), jnp.array(model.allowed)])
    rows = _dirichlet(key_rows, counts, allowed)
    found |= {name: row for name, row in (("initial", rows[0]), ("transition", rows[1:])) if name in values}
    start = 0
    for i, (family, plain, suffix) in enumerate(zip(families, model.families, model.suffixes, strict=True)):
        part = columns[..., start : start + family.columns]
        start += family.columns
        keys = jax.random.split(jax.random.fold_in(key_emit, i))
        if plain == "normal":
            found |= _normal(model, keys, full, suffix, family, part, member, jax.random.fold_in(key_frames, i))
        elif plain == "categorical":
            found |= _categorical(model, keys, full, suffix, family, part, member)
        else:
            found |= _rates(model, keys, full, suffix, plain, part, member)
    return {name: found[name] for name in values}


def _dirichlet(key, concentration, allowed):
    log_gamma = jax.random.loggamma(key, concentration)
    return jax.nn.softmax(jnp.where(allowed, log_gamma, -jnp.inf), axis=-1)


class _Proposal(NamedTuple):
    """A draw from the conditional under a conjugate stand-in for the prior, and that stand-in."""

    value: jax.Array
    stand_in: Any  # distribution over single entries


def _accept(model: HiddenMarkovModel, key, name: str, old, proposal: _Proposal):
    """Metropolis: the likelihood cancels, prior over stand-in remains; entry by entry unless they are ordered."""
    if model.orders(name):
        prior = model.prior(name)
        ratio = prior.log_prob(proposal.value) - prior.log_prob(old)
        ratio = ratio - (proposal.stand_in.log_prob(proposal.value) - proposal.stand_in.log_prob(old)).sum()
        return jnp.where(jnp.log(jax.random.uniform(key)) < ratio, proposal.value, old)
    prior = model.priors[name].distribution()
    ratio = prior.log_prob(proposal.value) - prior.log_prob(old)
    ratio = ratio - (proposal.stand_in.log_prob(proposal.value) - proposal.stand_in.log_prob(old))
    return jnp.where(jnp.log(jax.random.uniform(key, old.shape)) < ratio, proposal.value, old)


def _walk(model: HiddenMarkovModel, key, name: str, value, likelihood, step):
    """Random-walk Metropolis of positive numbers in their logarithm, for priors far from the stand-in.

    Even and odd states take turns, so that of two neighbours in an order only one moves.
    """
    prior = model.priors[name].distribution()
    index = jnp.arange(model.n_states).reshape(-1, *[1] * (value.ndim - 1))

    def inside(v):
        wrong = (v[1:] <= v[:-1]) if model.orders(name) else jnp.zeros(v[1:].shape, bool)
        edge = jnp.zeros(v[:1].shape, bool)
        return ~(jnp.concatenate([edge, wrong]) | jnp.concatenate([wrong, edge]))

    def target(v):
        return likelihood(v) + prior.log_prob(v) + jnp.log(v)

    def turn(value, inputs):
        key, parity = inputs
        key_move, key_accept = jax.random.split(key)
        mine = index % 2 == parity
        moved = jnp.where(mine, value * jnp.exp(step * jax.random.normal(key_move, value.shape, value.dtype)), value)
        accept = jnp.log(jax.random.uniform(key_accept, value.shape)) < target(moved) - target(value)
        return jnp.where(mine & accept & inside(moved), moved, value), None

    keys = jax.random.split(key, 2 * _WALKS)
    return jax.lax.scan(turn, value, (keys, jnp.tile(jnp.arange(2), _WALKS)))[0]


# ---------------------------------------------------------------------- normal


def _normal(model, keys, full: Values, suffix: str, family, y, member, key_frames) -> Values:
    spread = f"covariances{suffix}" if f"covariances{suffix}" in model.parameters else f"scales{suffix}"
    joint = family.covariances is not None or family.noise is not None
    if joint:
        y, seen = _complete(key_frames, family, y, member)
        seen = jnp.broadcast_to(seen[..., None], y.shape)
    else:
        seen = jnp.isfinite(y)
        y = jnp.where(seen, y, 0.0)
    flat, weight = y.reshape(-1, y.shape[-1]), seen.reshape(-1, y.shape[-1]).astype(y.dtype)
    state = member.reshape(-1, model.n_states)
    count, total = state.T @ weight, state.T @ (flat * weight)
    found: Values = {}
    means = family.means
    name = f"means{suffix}"
    if name in model.priors:
        if family.covariances is None:
            precision = family.scales**-2.0
            centre, width = _stand_in_of_means(model, name, flat, weight)
            stiff = width**-2.0 + count * precision
            middle = (centre * width**-2.0 + total * precision) / stiff
            drawn = middle + jax.random.normal(keys[0], means.shape, y.dtype) / jnp.sqrt(stiff)
        else:
            precision = jnp.linalg.inv(family.covariances)
            centre, width = _stand_in_of_means(model, name, flat, weight)
            own = (jnp.broadcast_to(width, means.shape) ** -2.0)[..., None] * jnp.eye(means.shape[1])
            stiff = own + count[:, :1, None] * precision
            pull = jnp.broadcast_to(centre * width**-2.0, means.shape) + jnp.einsum("kij,kj->ki", precision, total)
            back = cholesky.inverse(cholesky.factor(stiff))
            white = jax.random.normal(keys[0], means.shape, y.dtype)
            drawn = jnp.einsum("kji,kj->ki", back, jnp.einsum("kij,kj->ki", back, pull) + white)
        stand_in = dist.Normal(_like(centre, means, model), _like(width, means, model))
        old = full[name]
        drawn = drawn if model.wide else drawn[:, 0]
        found[name] = _accept(model, jax.random.fold_in(keys[0], 1), name, old, _Proposal(drawn, stand_in))
        means = found[name] if model.wide else found[name][:, None]
    if spread not in model.priors:
        return found
    away = (flat - state @ means) * weight
    if family.covariances is not None:
        scatter = jnp.einsum("fk,fi,fj->kij", state, away, away)
        spec = model.priors[spread]
        if spec.kind != "InverseWishart":
            raise ValueError(f"Gibbs draws {spread} under an InverseWishart prior, got {spec.kind}; use bu.NUTS()")
        drawn = InverseWishart(spec["degrees"] + count[:, 0], spec["scale"] + scatter).sample(keys[1])
        return {**found, spread: drawn}
    squares = state.T @ away**2
    # Half an observation of a thousandth of the data's variance: wide enough for any prior.
    total_count = jnp.maximum(weight.sum(0), 1.0)
    centre = (flat * weight).sum(0) / total_count
    shape, level = 0.5, 1e-3 * (((flat - centre) ** 2) * weight).sum(0) / total_count + _least(flat - centre, weight)
    gamma = jax.random.gamma(keys[1], shape + 0.5 * count, dtype=y.dtype)
    drawn = jnp.sqrt((level + 0.5 * squares) / gamma)
    stand_in = _RootInverseGamma(shape, _like(level, drawn, model))
    drawn = drawn if model.wide else drawn[:, 0]
    accepted = _accept(model, jax.random.fold_in(keys[1], 1), spread, full[spread], _Proposal(drawn, stand_in))
    count, squares = (v if model.wide else v[:, 0] for v in (count, squares))
    likelihood = lambda v: -count * jnp.log(v) - 0.5 * squares / v**2  # noqa: E731
    step = 2.4 / jnp.sqrt(2.0 * count + 1.0)
    return {**found, spread: _walk(model, jax.random.fold_in(keys[1], 2), spread, accepted, likelihood, step)}


class _RootInverseGamma(NamedTuple):
    """Of a scale whose square is inverse gamma; up to a constant."""

    shape: Any
    level: Any

    def log_prob(self, scale):
        return -(2.0 * self.shape + 1.0) * jnp.log(scale) - self.level / scale**2


def _stand_in_of_means(model, name: str, flat, weight):
    """The prior itself where it is normal, else a wide normal around the data; broadcast against (state, feature)."""
    spec = model.priors[name]
    if spec.kind == "Normal":
        column = (lambda v: v) if model.wide else (lambda v: v[..., None])
        return column(jnp.asarray(spec["loc"])), column(jnp.asarray(spec["scale"]))
    count = jnp.maximum(weight.sum(0), 1.0)
    centre = (flat * weight).sum(0) / count
    return centre, 3.0 * jnp.sqrt(((flat - centre) ** 2 * weight).sum(0) / count + _least(flat - centre, weight))


def _least(away, weight):
    """A trillionth of the variance of all features, for one that does not vary; in any unit."""
    variance = (away**2 * weight).sum() / jnp.maximum(weight.sum(), 1.0)
    return 1e-12 * jnp.where(variance > 0.0, variance, 1.0)


def _like(value, reference, model):
    """A stand-in's number in the shape of the parameter."""
    full = jnp.broadcast_to(value, reference.shape)
    return full if model.wide else full[:, 0]


def _complete(key, family, y, member):
    """Vectors without missing features or measurement noise, given everything else; and whether a frame was seen.

    A draw of vector and noise is corrected by what the data say about their sum (Matheron's rule).
    """
    known = jnp.isfinite(y)
    one = family._replace(noise=None)
    size = family.columns
    own = one.covariances if one.covariances is not None else one.scales[..., None] ** 2 * jnp.eye(size)
    own = jnp.einsum("ntk,kij->ntij", member, own)
    noise = jnp.zeros_like(own) if family.noise is None else jnp.broadcast_to(family.noise, own.shape)
    white = jax.random.normal(key, (2, *y.shape), y.dtype)
    drawn = member @ family.means + jnp.einsum("...ij,...j->...i", cholesky.factor(own), white[0])
    values, vectors = jnp.linalg.eigh(noise)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0.0))[..., None, :]
    shown = drawn + jnp.einsum("...ij,...j->...i", root, white[1])
    both = known[..., :, None] & known[..., None, :]
    matrix = jnp.where(both, own + noise, jnp.eye(size))
    away = jnp.where(known, jnp.where(known, y, 0.0) - shown, 0.0)
    pull = cholesky.solve(cholesky.factor(matrix), away)
    return drawn + jnp.einsum("...ij,...j->...i", own, jnp.where(known, pull, 0.0)), known.any(-1)


# ---------------------------------------------------------------------- symbols, counts and waits


def _categorical(model, keys, full: Values, suffix: str, family, y, member) -> Values:
    name = f"probabilities{suffix}"
    if name not in model.priors:
        return {}
    spec = model.priors[name]
    if spec.kind != "Dirichlet":
        raise ValueError(f"Gibbs draws {name} under a Dirichlet prior, got {spec.kind}; use bu.NUTS()")
    seen = jnp.isfinite(y).all(-1)
    symbols = family.probabilities.shape[1]
    if model.soft:
        weight = jnp.where(seen[..., None], y, 1.0) * (member @ family.probabilities)
        symbol = jax.random.categorical(keys[1], jnp.log(weight))
    else:
        symbol = jnp.where(seen, y[..., 0], 0).astype(jnp.int32)
    shown = jax.nn.one_hot(symbol, symbols, dtype=y.dtype) * seen[..., None]
    counts = jnp.einsum("nti,ntj->ij", member, shown)
    return {name: _dirichlet(keys[0], spec["concentration"] + counts, True)}


def _rates(model, keys, full: Values, suffix: str, plain: str, y, member) -> Values:
    name = f"rates{suffix}"
    if name not in model.priors:
        return {}
    seen = jnp.isfinite(y[..., 0]).reshape(-1)
    value = jnp.where(seen, y[..., 0].reshape(-1), 0.0)
    state = member.reshape(-1, model.n_states)
    count, total = state.T @ seen.astype(y.dtype), state.T @ value
    typical = jnp.where(value.sum() > 0.0, value.sum(), 1.0) / jnp.maximum(seen.sum(), 1)
    # Gamma is conjugate to both; a shape of one half and the data's own level is wide in either.
    shape, level = 0.5, 0.5 / typical if plain == "poisson" else 0.5 * typical
    events, exposure = (total, count) if plain == "poisson" else (count, total)
    drawn = jax.random.gamma(keys[0], shape + events, dtype=y.dtype) / (level + exposure)
    stand_in = dist.Gamma(shape, level)
    accepted = _accept(model, keys[1], name, full[name], _Proposal(drawn, stand_in))
    likelihood = lambda v: events * jnp.log(v) - exposure * v  # noqa: E731
    step = 2.4 / jnp.sqrt(events + 1.0)
    return {name: _walk(model, jax.random.fold_in(keys[1], 2), name, accepted, likelihood, step)}
