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


def alike(model: HiddenMarkovModel) -> bool:
    """Whether priors and fixed values are the same for every state."""
    per_state = [(len(model.dims[n]), v) for n, v in model.fixed.items() if n != "transition"]
    for name, spec in model.priors.items():
        own = [value for key, value in spec.parameters.items() if key != "degrees"]
        per_state += [(len(model.dims[name]), value) for value in own]
    per_state.append((1, model.initial_concentration))
    square = [np.asarray(m) for m in (model.transition_concentration, model.fixed.get("transition", 1.0))]
    if any((m.ndim == 1 and np.ptp(m) > 0) or (m.ndim == 2 and not _symmetric(m)) for m in square):
        return False
    return not any(_differ(np.asarray(value), ndim) for ndim, value in per_state)


def _differ(value: np.ndarray, ndim: int) -> bool:
    """Whether an array with a leading axis of states tells them apart."""
    return value.ndim >= ndim and value.ndim > 0 and bool((value != value[:1]).any())


def _symmetric(matrix: np.ndarray) -> bool:
    """Whether a matrix is the same for every order of the states: one value on the diagonal, one off it."""
    rest = matrix[~np.eye(len(matrix), dtype=bool)]
    return bool(np.ptp(np.diag(matrix)) == 0 and (rest.size == 0 or np.ptp(rest) == 0))
