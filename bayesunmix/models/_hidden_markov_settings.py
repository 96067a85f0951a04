"""What a user may ask of a hidden Markov model: names and ranges of its settings, and the same in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayesunmix._counts import as_count
from bayesunmix.models._prior_specs import as_spec

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel

EMISSIONS = {
    "normal": ("means", "scales", "covariances"),
    "categorical": ("probabilities",),
    "poisson": ("rates",),
    "exponential": ("rates",),
}
_CONCENTRATIONS = {"transition_concentration": 2, "initial_concentration": 1, "stickiness": 0}


def checked_sizes(model: HiddenMarkovModel) -> dict[str, Any]:
    """States, emissions and how they hop, in one form; names and ranges checked.

    Raises
    ------
    ValueError
        For what is out of range.
    """
    states = model.n_states
    as_count("n_states", states)
    single = isinstance(model.emission, str)
    emission = model.emission if single else tuple(map(str, model.emission))
    families = (emission,) if single else emission
    for one in families:
        if one not in EMISSIONS:
            raise ValueError(f"emission: expected one of {', '.join(map(repr, EMISSIONS))}, got {one!r}")
    if not families:
        raise ValueError("emission: expected at least one family, got an empty list")
    if model.covariance not in ("full", "diagonal"):
        raise ValueError(f'covariance: expected "full" or "diagonal", got {model.covariance!r}')
    if model.soft and "categorical" not in families:
        raise ValueError(f'soft: only for emission="categorical", alone or in a list, got {emission!r}')
    return {
        "n_states": int(states),
        "emission": emission,
        "ordered": model.ordered if isinstance(model.ordered, bool) else tuple(map(str, model.ordered)),
        "absorbing": tuple(int(k) for k in model.absorbing),
        "forbidden": tuple((int(i), int(j)) for i, j in model.forbidden),
        **{name: _concentration(model, name, ndim) for name, ndim in _CONCENTRATIONS.items()},
    }


def check_ways(model: HiddenMarkovModel) -> None:
    """Refuse states that do not exist, and states without a way out or in."""
    named = (*model.absorbing, *(k for pair in model.forbidden for k in pair))
    if not all(0 <= k < model.n_states for k in named) or not all(any(row) for row in model.allowed):
        raise ValueError(f"absorbing, forbidden: expected states below {model.n_states}, and a way out of every state")


def checked_numbers(model: HiddenMarkovModel) -> dict[str, Any]:
    """Priors as specs and fixed values as arrays, their names checked."""
    known = [*model.parameters, *(f"covariances{s}" for s in model.suffixes)]
    priors = _named("priors", model.priors, known)
    fixed = _named("fixed", model.fixed, [*known, "initial", "transition"])
    return {
        "priors": {n: as_spec(n, p) for n, p in priors.items()},
        "fixed": {n: v if hasattr(v, "aval") else np.asarray(v, dtype=np.float64) for n, v in fixed.items()},
    }


def needs_log_form(model: HiddenMarkovModel) -> bool:
    """Whether some hop or first state is impossible, which only logarithms keep exact.

    A model under compilation, whose fixed values are no numbers, keeps what it was made with.
    """
    known = [v for n, v in model.fixed.items() if n in ("initial", "transition") and isinstance(v, np.ndarray)]
    return model.log_form or model.restricted or any((v == 0).any() for v in known)


def check_values(model: HiddenMarkovModel) -> None:
    """Refuse fixed values and priors that a model of this size cannot have.

    Raises
    ------
    ValueError
        For shapes that do not fit, probabilities that do not add to one, and scales or rates that are not positive.
    """
    for name, given in model.fixed.items():
        if name in model.parameters or name in ("initial", "transition"):
            _check_fixed(name, model.parameters.get(name, name), np.asarray(given), model.shape_of(name))
    if "transition" in model.fixed and model.n_states > 1:
        hops = np.broadcast_to(np.asarray(model.fixed["transition"]), model.shape_of("transition"))
        if hops[~np.asarray(model.allowed)].any():
            raise ValueError("fixed: transition: gives a probability to a hop that absorbing or forbidden rule out")
    for name in model.priors:
        shape = model.shape_of(name)
        try:
            fits = model.prior(name).event_shape == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"priors: {name}: expected parameters that broadcast to {_shape(model, name)}, got "
                             f"{model.priors[name]}")  # fmt: skip


def _shape(model: HiddenMarkovModel, name: str) -> str:
    return ", ".join(f"{dim} {size}" for dim, size in zip(model.dims[name], model.shape_of(name), strict=True))


def _check_fixed(name: str, plain: str, given: np.ndarray, shape: tuple[int, ...]) -> None:
    try:
        value = np.broadcast_to(given, shape)
    except ValueError:
        raise ValueError(
            f"fixed: {name}: expected shape {shape}, or what broadcasts to it, got {given.shape}"
        ) from None
    if not np.isfinite(value).all():
        raise ValueError(f"fixed: {name}: expected finite numbers, got {given}")
    if plain in ("initial", "transition", "probabilities"):
        if (value < 0).any() or not np.allclose(value.sum(-1), 1.0, atol=1e-6):
            raise ValueError(f"fixed: {name}: expected probabilities that add to one along the last axis, got {given}")
    elif plain in ("scales", "rates") and (value <= 0).any():
        raise ValueError(f"fixed: {name}: expected positive numbers, got {given}")
    elif plain == "covariances" and (np.linalg.eigvalsh(value) <= 0).any():
        raise ValueError(f"fixed: {name}: expected positive definite matrices, got {given}")


def known_symbols(model: HiddenMarkovModel) -> int | None:
    """Number of symbols that the user's own settings hold; None where they leave it to the data."""
    if model.n_symbols is not None:
        return model.n_symbols
    rows = [v for n, v in model.fixed.items() if model.parameters.get(n) == "probabilities"]
    rows += [spec["concentration"] for n, spec in model.priors.items()
             if model.parameters[n] == "probabilities" and spec.kind == "Dirichlet"]  # fmt: skip
    return max((np.shape(row)[-1] for row in rows if np.ndim(row) > 0), default=None)


def describe(model: HiddenMarkovModel) -> str:
    """The priors in plain words, a line each."""
    count = f"{model.n_states} hidden state" + ("s" if model.n_states > 1 else "")
    shown = " x ".join(model.families)
    uniform = np.all(np.asarray(model.transition_concentration) == 1.0) and model.stickiness == 0
    sticky = f", {float(model.stickiness):g} added to the concentration of staying" if model.stickiness else ""
    lines = [
        f"Every sequence hops between {count}; a frame shows its state through: {shown}.",
        f"Transition probabilities: {'uniform' if uniform else 'Dirichlet'} in every row{sticky}.",
    ]
    if model.absorbing:
        lines.append(f"States never left: {', '.join(map(str, model.absorbing))}.")
    for name in model.parameters:
        if name in model.fixed:
            lines.append(f"{name}: known, taken as exact.")
        elif name in model.priors:
            lines.append(f"{name}: {model.priors[name]}" + (", increasing." if model.orders(name) else "."))
        else:
            lines.append(f"{name}: scale taken from the data when the model is fitted.")
    return "\n".join(lines)


def _concentration(model: HiddenMarkovModel, name: str, ndim: int) -> np.ndarray:
    value = np.asarray(getattr(model, name), dtype=np.float64)
    try:
        np.broadcast_to(value, (int(model.n_states),) * ndim)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not (np.isfinite(value).all() and (value > 0 if name != "stickiness" else value >= 0).all()):
        raise ValueError(f"{name}: expected positive numbers, got {value}; forbid a transition with forbidden=")
    return value


def _named(field: str, given: Mapping[str, Any] | None, known: Sequence[str]) -> Mapping[str, Any]:
    unknown = sorted(set(given or {}) - set(known))
    if unknown:
        raise ValueError(f"{field}: this model has no {unknown}; it has {sorted(set(known))}")
    return given or {}
