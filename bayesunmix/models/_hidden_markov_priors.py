"""Priors of a hidden Markov model: of its chain, and of what its states show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesunmix.distributions import emissions
from bayesunmix.distributions.chain_priors import Restricted, TransitionRows
from bayesunmix.models._hidden_markov_settings import EMISSIONS

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel


def initial_weights(model: HiddenMarkovModel):
    """Dirichlet concentration of ``initial``, (state,)."""
    return jnp.broadcast_to(jnp.asarray(model.initial_concentration), (model.n_states,))


def transition_weights(model: HiddenMarkovModel):
    """Dirichlet concentration of ``transition``, (state, next_state)."""
    full = jnp.broadcast_to(jnp.asarray(model.transition_concentration), (model.n_states, model.n_states))
    return full + model.stickiness * jnp.eye(model.n_states)


def prior_of(model: HiddenMarkovModel, name: str) -> dist.Distribution:
    """Prior of a parameter, one event."""
    if name == "initial":
        return dist.Dirichlet(initial_weights(model))
    if name == "transition":
        if model.restricted:
            return TransitionRows(transition_weights(model), model.allowed)
        return dist.Dirichlet(transition_weights(model)).to_event(1)
    plain, base = model.parameters[name], model.priors[name].distribution()
    if plain in ("covariances", "probabilities"):
        return base.expand((model.n_states,)).to_event(1)
    positive = plain in ("rates", "scales") and base.support is not dist.constraints.positive
    base = base.expand(model.shape_of(name))
    if positive or model.orders(name):
        return Restricted(base, ordered=model.orders(name), positive=plain in ("rates", "scales"))
    return base.to_event(len(model.dims[name]))


def emissions_at(model: HiddenMarkovModel, found: Mapping[str, Any], measurement_cov=None) -> tuple[Any, ...]:
    """Emission families at given parameters.

    ``measurement_cov`` is (sequence, time, feature, feature), or (sequence, time) variances of a single feature; every
    normal emission of a list takes its own variance.
    """
    noise = None if measurement_cov is None else jnp.asarray(measurement_cov)
    if noise is not None and noise.ndim < 4:
        noise = noise[..., None, None]
    made: list[Any] = []
    start = 0
    for family, suffix in zip(model.families, model.suffixes, strict=True):
        value: dict[str, Any] = {name: found.get(name + suffix) for name in EMISSIONS[family]}
        if family == "normal":
            wide = lambda v: v if v is None or model.wide else v[:, None]  # noqa: E731
            means, scales = wide(value["means"]), wide(value["scales"])
            own = noise if noise is None or model.wide else noise[..., start : start + 1, start : start + 1]
            made.append(emissions.Normal(means, scales, value["covariances"], own))
        elif family == "categorical":
            made.append(emissions.Categorical(value["probabilities"], () if model.soft else None))
        elif family == "poisson":
            made.append(emissions.Poisson(value["rates"]))
        else:
            made.append(emissions.Exponential(value["rates"]))
        start += made[-1].columns
    return tuple(made)


def label_groups(model: HiddenMarkovModel) -> tuple[tuple[int, ...], ...]:
    """States that change nothing but names when two of them are exchanged, each state in one group.

    Symmetries that need more than one exchange at once, such as a line of four states read from its other end, are not
    among them.
    """
    if model.ordered:
        return tuple((state,) for state in range(model.n_states))
    columns, squares = _told_of_states(model)
    groups: list[list[int]] = []
    for state in range(model.n_states):
        for group in groups:
            if _swappable(group[0], state, columns, squares):
                group.append(state)
                break
        else:
            groups.append([state])
    return tuple(map(tuple, groups))


def _told_of_states(model: HiddenMarkovModel) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Everything known before the data that has an axis of states, (state, ...), and of hops, (state, state)."""
    per_state = [(len(model.dims[n]), v) for n, v in model.fixed.items() if n != "transition"]
    for name, spec in model.priors.items():
        own = [value for key, value in spec.parameters.items() if key != "degrees"]
        per_state += [(len(model.dims[name]), value) for value in own]
    per_state.append((1, model.initial_concentration))
    with_states = [np.asarray(value) for ndim, value in per_state if np.ndim(value) >= max(ndim, 1)]
    count = model.n_states
    hops = (model.transition_concentration, model.fixed.get("transition", 1.0), model.allowed)
    return (
        [np.broadcast_to(value, (count, *value.shape[1:])) for value in with_states],
        [np.broadcast_to(np.asarray(value), (count, count)) for value in hops],
    )


def _swappable(one: int, other: int, columns: list[np.ndarray], squares: list[np.ndarray]) -> bool:
    swap = np.arange(len(squares[0]))
    swap[[one, other]] = other, one
    return all((v[one] == v[other]).all() for v in columns) and all((m[swap][:, swap] == m).all() for m in squares)
