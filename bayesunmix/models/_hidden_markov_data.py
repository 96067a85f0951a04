"""What a hidden Markov model reads from its data once: sizes, scales of priors, and a place to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesunmix.models._prior_specs import PriorSpec, as_spec

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel

_RESTARTS = 8
_LLOYD = 50


def count_symbols(values: np.ndarray, families: Sequence[str], soft: bool, given: int | None) -> int | None:
    """Number of symbols of categorical features, at least what the data show."""
    if "categorical" not in families:
        return None
    if soft:
        return values.shape[-1]
    shown = [column[np.isfinite(column)] for column, family in _columns(values, families) if family == "categorical"]
    seen = int(max((v.max(initial=0) for v in shown), default=0)) + 1
    if given is not None and given < seen:
        raise ValueError(f"n_symbols: the data hold the symbol {seen - 1}, got n_symbols={given}")
    return given or max(seen, 2)


def check(values: np.ndarray, families: Sequence[str], *, soft: bool) -> None:
    """Refuse data that an emission cannot have made.

    Raises
    ------
    ValueError
        For the wrong number of features, what is not a count, symbol or probability, and negative waiting times.
    """
    width = values.shape[2] if values.ndim == 3 else 1
    wide = tuple(families) == ("normal",) or soft
    if not wide and width != len(families):
        raise ValueError(f"expected {len(families)} features (one for each emission), got data of shape {values.shape}")
    if soft:
        seen = np.isfinite(values).all(-1)
        if (values[seen] < 0).any() or not np.allclose(values[seen].sum(-1), 1.0, atol=1e-3):
            raise ValueError("soft: expected probabilities of the symbols that add to one in every frame")
        return
    for i, (column, family) in enumerate(_columns(values, families)):
        seen = column[np.isfinite(column)]
        if family in ("poisson", "categorical") and ((seen < 0) | (seen % 1 != 0)).any():
            raise ValueError(
                f"feature {i}: {family} emissions need whole numbers from 0 on, got {seen.min():g} and more"
            )
        if family == "exponential" and (seen < 0).any():
            raise ValueError(f"feature {i}: exponential emissions need positive numbers, got {seen.min():g}")


def _columns(values: np.ndarray, families: Sequence[str]) -> list[tuple[np.ndarray, str]]:
    """Features and their families; several features of one normal family all come as "normal"."""
    flat = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)
    own = list(families) if len(families) == flat.shape[1] else [families[0]] * flat.shape[1]
    return list(zip(flat.T, own, strict=True))


def default_priors(values: np.ndarray, model: HiddenMarkovModel) -> dict[str, PriorSpec]:
    """Weak priors in the units of the data.

    Means: normal around the mean of the data with twice their spread. Scales: log-normal around .3 of the spread, a
    factor of 7 either way (95 %). Covariances: inverse Wishart whose mean is a tenth of the spread's square. Rates:
    log-normal around the data's own rate, a factor of 19 either way. Probabilities: uniform.
    """
    columns = _columns(values, model.families)
    moments = [_moments(column, family) for column, family in columns]
    found: dict[str, dict[str, Any]] = {}
    wide = model.wide
    for i, (family, suffix) in enumerate(zip(model.families, model.suffixes, strict=True)):
        centre = np.array([m for m, _ in moments]) if wide else np.float64(moments[i][0])
        spread = np.array([s for _, s in moments]) if wide else np.float64(moments[i][1])
        if family == "normal":
            found[f"means{suffix}"] = {"kind": "Normal", "loc": centre, "scale": 2.0 * spread}
            found[f"scales{suffix}"] = {"kind": "LogNormal", "loc": np.log(0.3 * spread), "scale": np.float64(1.0)}
            if wide:
                degrees, scale = np.float64(np.size(spread) + 2), 0.1 * np.diag(spread**2)
                found["covariances"] = {"kind": "InverseWishart", "degrees": degrees, "scale": scale}
        elif family == "categorical":
            found[f"probabilities{suffix}"] = {"kind": "Dirichlet", "concentration": np.ones(model.n_symbols)}
        else:
            rate = centre if family == "poisson" else 1.0 / centre
            found[f"rates{suffix}"] = {"kind": "LogNormal", "loc": np.log(rate), "scale": np.float64(1.5)}
    return {name: as_spec(name, prior) for name, prior in found.items()}


def _moments(column: np.ndarray, family: str) -> tuple[float, float]:
    seen = column[np.isfinite(column)]
    centre, spread = (float(seen.mean()), float(seen.std())) if seen.size else (0.0, 1.0)
    if family in ("poisson", "exponential") and centre <= 0:
        centre = 1.0
    return centre, spread or 1.0


def emission_means(found: Mapping[str, Any], model: HiddenMarkovModel) -> np.ndarray:
    """What the states are put in order by, (state,): the mean of the first feature that is a number.

    Where all features are symbols, the mean symbol.
    """
    ranked = sorted(model.parameters.items(), key=lambda item: item[1] == "probabilities")
    for name, plain in ranked:
        value = model.fixed.get(name, found.get(name))
        family = model.families[model.suffixes.index(name.removeprefix(plain))]
        if plain == "means":
            full = np.broadcast_to(value, (model.n_states, *np.shape(value)[1:]))
            return full[:, 0] if full.ndim == 2 else full
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
    for column, family in _columns(values, model.families):
        if family == "categorical" and not model.soft:
            points.append((np.nan_to_num(column)[:, None] == np.arange(model.n_symbols)).astype(float))
            continue
        value = column[:, None]
        if family == "poisson":
            value = np.sqrt(value)
        elif family == "exponential":
            value = np.log(value + 1e-3 * np.nanmean(value))
        spread = np.nanstd(value) or 1.0
        points.append(np.nan_to_num((value - np.nanmean(value)) / spread))
    cloud = np.concatenate(points, axis=1)
    rng = np.random.default_rng(0)
    runs = [_kmeans(cloud, model.n_states, rng) for _ in range(_RESTARTS)]
    label = min(runs, key=lambda run: run[1])[0]
    if model.exchangeable or model.n_states == 1:
        order = np.argsort(emission_means(_parameters(values, label, model), model), kind="stable")
        return np.argsort(order)[label]
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
    """Clusters named after the states whose prior or known emissions lie nearest."""
    from scipy.optimize import linear_sum_assignment

    found = _parameters(values, label, model)
    cost = np.zeros((model.n_states, model.n_states))
    for name, value in found.items():
        target = _expected(name, model)
        if target is None:
            continue
        here, there = value.reshape(model.n_states, -1), target.reshape(model.n_states, -1)
        if model.parameters.get(name) in ("rates", "scales"):
            here, there = np.log(here), np.log(np.maximum(there, 1e-3 * here.min()))
        scale = np.concatenate([here, there]).std(0) + 1e-12
        cost += (((here[:, None] - there) / scale) ** 2).sum(-1)
    if not cost.any():
        order = np.argsort(emission_means(found, model), kind="stable")
        return np.argsort(order)[label]
    return linear_sum_assignment(cost)[1][label]


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
    columns = _columns(values, model.families)
    found: dict[str, np.ndarray] = {}
    if model.soft:
        weight = values.reshape(-1, values.shape[-1])
        seen = np.isfinite(weight).all(-1)
        sums = np.stack([weight[seen & (label == k)].sum(0) for k in range(model.n_states)]) + 1.0
        return {"probabilities": sums / sums.sum(1, keepdims=True)}
    for i, (family, suffix) in enumerate(zip(model.families, model.suffixes, strict=True)):
        own = columns if model.wide else columns[i : i + 1]
        groups = [[c[np.isfinite(c) & (label == k)] for c, _ in own] for k in range(model.n_states)]
        if family == "categorical":
            assert model.n_symbols is not None
            counts = np.stack([np.bincount(g[0].astype(int), minlength=model.n_symbols) for g in groups]) + 1.0
            found[f"probabilities{suffix}"] = counts / counts.sum(1, keepdims=True)
            continue
        overall = [_moments(c, f) for c, f in own]
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
