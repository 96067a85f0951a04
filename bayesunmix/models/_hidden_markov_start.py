"""Where inference of a hidden Markov model starts: frames clustered, clusters named after states, hops counted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from bayesunmix.models._hidden_markov_data import moments, parts_of

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel

_RESTARTS = 8
_LLOYD = 50


def emission_means(found: Mapping[str, Any], model: HiddenMarkovModel) -> np.ndarray:
    """What the states are put in order by, (state,): the mean of the first feature that is a number.

    Where all features are symbols, the mean symbol.
    """
    ranked = sorted(model.parameters.items(), key=lambda item: item[1] == "probabilities")
    for name, plain in ranked:
        value = model.fixed.get(name, found.get(name))
        family = model.families[model.suffixes.index(name.removeprefix(plain))]
        if plain == "means":
            first = np.asarray(value)
            first = first[:, 0] if first.ndim == 2 else first
            return first if first.shape == (model.n_states,) else np.broadcast_to(first, model.n_states)
        if plain == "rates":
            rates = np.broadcast_to(value, (model.n_states,))
            return rates if family == "poisson" else 1.0 / rates
        if plain == "probabilities":
            return np.asarray(value) @ np.arange(np.shape(value)[-1])
    raise AssertionError("every emission family has means, rates or probabilities")


def start(values: np.ndarray, model: HiddenMarkovModel) -> dict[str, np.ndarray]:
    """Parameters of clustered frames, clusters in the order of the first parameter that orders states."""
    states = model.n_states
    label = _clusters(values, model).reshape(values.shape[:2])
    seen = np.isfinite(values.reshape(*values.shape[:2], -1)).any(-1)
    first = np.bincount(label[:, 0], minlength=states)
    hops = np.ones((states, states)) + 2.0 * np.eye(states)
    both = seen[:, 1:] & seen[:, :-1]
    np.add.at(hops, (label[:, :-1][both], label[:, 1:][both]), 1.0)
    hops = hops * np.array(model.allowed)
    found = {
        "initial": (first + 1.0) / (first + 1.0).sum(),
        "transition": hops / hops.sum(1, keepdims=True),
        **_parameters(values, label.reshape(-1), model),
    }
    return {name: value for name, value in found.items() if name not in model.fixed}


def _clusters(values: np.ndarray, model: HiddenMarkovModel) -> np.ndarray:
    """A cluster of every frame, (sequence * time,); nearest states where emissions are known or ordered."""
    points = []
    for value, family in zip(parts_of(values, model), model.families, strict=True):
        if family == "categorical" and not model.soft:
            points.append((np.nan_to_num(value) == np.arange(model.n_symbols)).astype(float))
            continue
        if family == "poisson":
            value = np.sqrt(value)
        elif family == "exponential":
            value = np.log(value + 1e-3 * np.nanmean(value))
        spread = np.nanstd(value, axis=0)
        points.append(np.nan_to_num((value - np.nanmean(value, axis=0)) / np.where(spread > 0, spread, 1.0)))
    cloud = np.concatenate(points, axis=1)
    rng = np.random.default_rng(0)
    runs = [_kmeans(cloud, model.n_states, rng) for _ in range(_RESTARTS)]
    label = min(runs, key=lambda run: run[1])[0]
    return _matched(values, label, model)


def _kmeans(cloud: np.ndarray, states: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Lloyd's iteration from centres drawn far from each other; labels and the sum of squares."""
    centres = cloud[rng.integers(len(cloud))][None]
    while len(centres) < states:
        far = ((cloud[:, None] - centres) ** 2).sum(-1).min(1) + 1e-12
        centres = np.concatenate([centres, cloud[rng.choice(len(cloud), p=far / far.sum())][None]])
    label = np.full(len(cloud), -1)
    for _ in range(_LLOYD):
        distance = ((cloud[:, None] - centres) ** 2).sum(-1)
        new = distance.argmin(1)
        if (new == label).all():
            break
        label = new
        for k in np.unique(label):
            centres[k] = cloud[label == k].mean(0)
    return label, float(distance.min(1).sum())


def _matched(values: np.ndarray, label: np.ndarray, model: HiddenMarkovModel) -> np.ndarray:
    """Clusters named after the states whose prior or known emissions lie nearest.

    Where emissions say nothing: in the order of their means, and so that few hops are impossible.
    """
    found = _parameters(values, label, model)
    cost = np.zeros((model.n_states, model.n_states))
    for name, value in found.items():
        target = _expected(name, model)
        if target is None:
            continue
        here, there = value.reshape(model.n_states, -1), target.reshape(model.n_states, -1)
        if model.parameters.get(name) in ("rates", "scales"):
            here, there = np.log(here), np.log(np.maximum(there, 1e-3 * here.min()))
        scale = np.concatenate([here, there]).std(0)
        cost += (((here[:, None] - there) / np.where(scale > 0.0, scale, 1.0)) ** 2).sum(-1)
    if cost.any():
        return linear_sum_assignment(cost)[1][label]
    name_of = np.argsort(np.argsort(emission_means(found, model), kind="stable"))
    if model.restricted:
        name_of = _possible(name_of, label.reshape(values.shape[:2]), np.array(model.allowed))
    return name_of[label]


def _possible(name_of: np.ndarray, label: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """Names of clusters exchanged by pairs as long as that makes impossible hops rarer."""
    hops = np.zeros(allowed.shape)
    np.add.at(hops, (label[:, :-1], label[:, 1:]), 1.0)
    impossible = lambda names: hops[~allowed[np.ix_(names, names)]].sum()  # noqa: E731
    while True:
        pairs = itertools.combinations(range(len(name_of)), 2)
        swapped = [name_of, *(_exchanged(name_of, *pair) for pair in pairs)]
        best = min(swapped, key=impossible)  # the first of equals: as it was
        if best is name_of:
            return name_of
        name_of = best


def _exchanged(values: np.ndarray, one: int, other: int) -> np.ndarray:
    found = values.copy()
    found[[one, other]] = found[[other, one]]
    return found


def _expected(name: str, model: HiddenMarkovModel) -> np.ndarray | None:
    """What is known or expected of a parameter before the data, where it differs between states."""
    shape = model.shape_of(name)
    value = model.fixed.get(name)
    if value is None:
        spec = model.priors[name]
        value = spec.get("loc", spec.get("concentration") if spec.kind == "Dirichlet" else None)
        if value is not None and spec.kind == "LogNormal":
            value = np.exp(value)
        if value is not None and spec.kind == "Dirichlet":
            value = np.asarray(value) / np.sum(value, axis=-1, keepdims=True)
    if value is None:
        return None
    full = np.broadcast_to(np.asarray(value, dtype=np.float64), shape)
    return None if (full == full[:1]).all() else full


def _parameters(values: np.ndarray, label: np.ndarray, model: HiddenMarkovModel) -> dict[str, np.ndarray]:
    """Emission parameters of every cluster, held away from zero."""
    found: dict[str, np.ndarray] = {}
    for part, family, suffix in zip(parts_of(values, model), model.families, model.suffixes, strict=True):
        if family == "categorical":
            assert model.n_symbols is not None
            seen = np.isfinite(part).all(-1)
            if model.soft:
                sums = np.stack([part[seen & (label == k)].sum(0) for k in range(model.n_states)])
            else:
                own = [part[seen & (label == k), 0].astype(int) for k in range(model.n_states)]
                sums = np.stack([np.bincount(symbols, minlength=model.n_symbols) for symbols in own])
            found[f"probabilities{suffix}"] = (sums + 1.0) / (sums + 1.0).sum(1, keepdims=True)
            continue
        groups = [[c[np.isfinite(c) & (label == k)] for c in part.T] for k in range(model.n_states)]
        overall = [moments(c, family) for c in part.T]
        mean = np.array([[v.mean() if v.size else m for v, (m, _) in zip(g, overall, strict=True)] for g in groups])
        if family == "normal":
            sd = np.array(
                [[v.std() if v.size > 2 else 0.3 * s for v, (_, s) in zip(g, overall, strict=True)] for g in groups]
            )
            sd = np.maximum(sd, [0.02 * s for _, s in overall])
            found[f"means{suffix}"] = mean if model.wide else mean[:, 0]
            if f"covariances{suffix}" in model.parameters:
                found["covariances"] = sd[:, :, None] ** 2 * np.eye(sd.shape[1])
            else:
                found[f"scales{suffix}"] = sd if model.wide else sd[:, 0]
        else:
            level = np.maximum(mean[:, 0], 0.02 * overall[0][0])
            found[f"rates{suffix}"] = level if family == "poisson" else 1.0 / level
    for name in found:
        if model.parameters.get(name) is not None and model.orders(name):
            # An ordered start: sorted, and apart.
            spread = np.ptp(found[name]) or abs(float(found[name][0])) or 1.0
            found[name] = np.sort(found[name]) + 1e-3 * spread * np.arange(model.n_states)
    return found
