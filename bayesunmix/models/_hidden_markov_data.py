"""What a hidden Markov model reads from its data once: sizes, scales of priors, and a place to start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesunmix.models._prior_specs import PriorSpec, as_spec

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel

_RESTARTS = 8
_LLOYD = 50


def count_symbols(values: np.ndarray, families: Sequence[str], soft: bool, given: int | None) -> int | None:
    """Number of symbols of categorical features, at least what the data show; of soft ones, their columns."""
    categorical = families.count("categorical")
    if not categorical:
        return None
    width = values.shape[2] if values.ndim == 3 else 1
    if soft:
        found, rest = divmod(width - (len(families) - categorical), categorical)
        if rest or found < 2 or found != (given or found):
            raise ValueError(
                f"soft: expected a column for every symbol of a categorical feature and one for every other feature, "
                f"got {width} columns for {', '.join(families)}" + (f" and n_symbols={given}" if given else "")
            )
        return found
    if width != len(families):
        raise ValueError(f"expected {len(families)} features (one for each emission), got data of shape {values.shape}")
    parts = _parts(values, families, None)
    shown = [part[np.isfinite(part)] for part, family in zip(parts, families, strict=True) if family == "categorical"]
    seen = int(max((v.max(initial=0) for v in shown), default=0)) + 1
    if given is not None and given < seen:
        raise ValueError(f"n_symbols: the data hold the symbol {seen - 1}, got n_symbols={given}")
    return given or max(seen, 2)


def check(values: np.ndarray, model: HiddenMarkovModel) -> None:
    """Refuse data that an emission cannot have made.

    Raises
    ------
    ValueError
        For the wrong number of features, what is not a count, symbol or probability, and negative waiting times.
    """
    families, width = model.families, values.shape[2] if values.ndim == 3 else 1
    if values.shape[1] == 1 and model.n_states > 1:
        raise ValueError(
            f"expected sequences of several frames, got {len(values)} of one frame each, in which nothing hops; one "
            "sequence of many frames goes in as (X, [len(X)]) or X[None]"
        )
    if families != ("normal",) and not model.soft and width != len(families):
        raise ValueError(f"expected {len(families)} features (one for each emission), got data of shape {values.shape}")
    for i, (part, family) in enumerate(zip(parts_of(values, model), families, strict=True)):
        seen = part[np.isfinite(part).all(-1)]
        if family == "categorical" and model.soft:
            if (seen < 0).any() or not np.allclose(seen.sum(-1), 1.0, atol=1e-3):
                raise ValueError("soft: expected probabilities of the symbols that add to one in every frame")
        elif family in ("poisson", "categorical") and ((seen < 0) | (seen % 1 != 0)).any():
            raise ValueError(
                f"feature {i}: {family} emissions need whole numbers from 0 on, got {seen.min():g} and more"
            )
        elif family == "exponential" and (seen < 0).any():
            raise ValueError(f"feature {i}: exponential emissions need positive numbers, got {seen.min():g}")


def check_noise(noise: Any, shape: tuple[int, ...], model: HiddenMarkovModel) -> None:
    """Refuse what is no covariance, or does not belong to data of ``shape`` or to the model's emissions."""
    if noise is None:
        return
    if "normal" not in model.families:
        raise ValueError(f"measurement_cov: belongs to normal emissions, got {', '.join(model.families)}")
    features = shape[2] if len(shape) == 3 else 1
    wanted = [(*shape[:2], features, features)] + [shape[:2]] * (features == 1)
    if tuple(np.shape(noise)) not in wanted:
        raise ValueError(f"measurement_cov: expected shape {' or '.join(map(str, wanted))}, got {np.shape(noise)}")
    if isinstance(noise, jax.core.Tracer):
        return
    matrix = np.asarray(noise).reshape(wanted[0])
    if not np.isfinite(matrix).all() or (np.linalg.eigvalsh(matrix) < -1e-9 * np.abs(matrix).max()).any():
        raise ValueError("measurement_cov: expected covariances, finite and without negative variances")
    between = matrix * ~np.eye(features, dtype=bool)
    if not model.wide and between.any():
        raise ValueError(
            "measurement_cov: emissions of a list are independent given the state, so expected no covariance between "
            'features; describe them by one emission="normal"'
        )


def parts_of(values: np.ndarray, model: HiddenMarkovModel) -> list[np.ndarray]:
    """The columns (frame, column) that every emission describes."""
    return _parts(values, model.families, model.n_symbols if model.soft else None)


def _parts(values: np.ndarray, families: Sequence[str], soft_symbols: int | None) -> list[np.ndarray]:
    flat = values.reshape(-1, values.shape[2] if values.ndim == 3 else 1)
    if len(families) == 1:
        return [flat]
    widths = [soft_symbols or 1 if family == "categorical" else 1 for family in families]
    return np.split(flat, np.cumsum(widths)[:-1], axis=1)


def default_priors(values: np.ndarray, model: HiddenMarkovModel) -> dict[str, PriorSpec]:
    """Weak priors in the units of the data.

    Means: normal around the mean of the data with twice their spread. Scales: log-normal around .3 of the spread, a
    factor of 7 either way (95 %). Covariances: inverse Wishart whose mean is a tenth of the spread's square. Rates:
    log-normal around the data's own rate, a factor of 19 either way. Probabilities: uniform.
    """
    found: dict[str, dict[str, Any]] = {}
    wide = model.wide
    parts = parts_of(values, model)
    for part, family, suffix in zip(parts, model.families, model.suffixes, strict=True):
        moments = np.array([_moments(column, family) for column in part.T])
        centre, spread = moments.T if wide else moments[0]
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
        overall = [_moments(c, family) for c in part.T]
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
