"""What a hidden Markov model reads from its data once: checks, sizes, and scales of priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesunmix.models._prior_specs import PriorSpec, as_spec

if TYPE_CHECKING:
    from bayesunmix.models.hidden_markov_model import HiddenMarkovModel


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
        summary = np.array([moments(column, family) for column in part.T])
        centre, spread = summary.T if wide else summary[0]
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


def moments(column: np.ndarray, family: str) -> tuple[float, float]:
    seen = column[np.isfinite(column)]
    centre, spread = (float(seen.mean()), float(seen.std())) if seen.size else (0.0, 1.0)
    if family in ("poisson", "exponential") and centre <= 0:
        centre = 1.0
    return centre, spread or 1.0
