"""Prediction of entries that the fit has not seen: an independent check of WAIC and leave-one-out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from bayesunmix._keys import as_key
from bayesunmix._model_units import units_of
from bayesunmix.data.units import Units
from bayesunmix.elpd import Elpd, warning_of
from bayesunmix.fit import Fit, fit
from bayesunmix.inference import NUTS, SVI, Gibbs
from bayesunmix.inference.context import computing
from bayesunmix.inference.units import POINT_SETS, chunks, likelihood_pass
from bayesunmix.predict import POINTS

_VARIANCE_LIMIT = 1.0  # of the log density of a pixel's hidden entries over draws


def heldout(
    model: Any,
    data: Any,
    fraction: float = 0.1,
    seed: int | jax.Array = 0,
    *,
    method: SVI | NUTS | Gibbs | None = None,
    mask: Any = None,
    progress: bool = True,
    **covariates: Any,
) -> Elpd:
    """Hide single entries of an image, fit the rest, and score what the fit says of the hidden ones.

    Entries are hidden at random and the same for every model with one ``seed``, so that scores can be compared. The
    score of a pixel is the log density of its hidden entries given its other entries, log E p(hidden | seen, globals)
    over the posterior of the rest of the image. A model that binds its priors to data binds them to what is left.

    Parameters
    ----------
    model
        One whose likelihood can integrate missing entries (NaN) out: it says so by ``missing_entries = True``, or does
        it when its setting ``missing`` is True.
    data, method, mask
        As in :func:`bayesunmix.fit`; entries that are NaN already are neither fitted nor scored.
    fraction : float
        Share of the entries that is hidden. Every pixel keeps one at least.
    seed : int or JAX key
    progress : bool
    **covariates
        Handed to the model.

    Returns
    -------
    Elpd
        ``pointwise`` sums over the hidden entries of a pixel, in nats, NaN for pixels without any; ``p`` is the sum of
        the posterior variances of these terms; ``n_warn`` counts the pixels where it exceeds 1: their average over
        draws rests on few; ``unit`` "hidden entries of a pixel".

    Raises
    ------
    TypeError
        When the likelihood of the model cannot leave entries out.
    ValueError
        When ``fraction`` is not between 0 and 1, or hides nothing in so small an image.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: expected a number between 0 and 1, got {fraction}")
    if not getattr(model, "missing_entries", False) and isinstance(getattr(model, "missing", None), bool):
        model = replace(model, missing=True)
    if not getattr(model, "missing_entries", False):
        raise TypeError(
            f"{getattr(model, '__name__', type(model).__name__)} cannot leave single entries out: its likelihood would "
            "have to integrate NaN out and the model to say so (missing_entries = True); compare by waic or loo"
        )
    key_hide, key_fit = jax.random.split(as_key(seed))
    units = units_of(model, data, mask)
    hidden = _hide(np.isfinite(units.values), fraction, key_hide)
    if not hidden.any():
        raise ValueError(f"fraction: {fraction} of {hidden.size} entries hides none of them: expected a larger share")
    left = units.to_map(np.where(hidden, np.nan, units.values), units.inner_dims).assign_attrs(units.attrs)
    fitted = fit(model, left, method, mask="finite", seed=key_fit, progress=progress, **covariates)
    return _score(fitted, units, hidden)


def _hide(seen: np.ndarray, fraction: float, key: jax.Array) -> np.ndarray:
    """Entries to hide among those ``seen`` (unit, channel): one of every unit stays."""
    order = np.array(jax.random.uniform(key, seen.shape))
    order[~seen] = 2.0
    hidden = order < fraction
    units = np.flatnonzero((seen & ~hidden).sum(1) == 0)
    # The one that would be hidden last.
    last = np.where(seen, order, -1.0)[units].argmax(1)
    hidden[units, last] = False
    return hidden


def _score(fitted: Fit, units: Units, hidden: np.ndarray) -> Elpd:
    """Sums of the terms of every unit with hidden entries, and their numerical error from two sets of points."""
    log_mean, variance = _terms(fitted, units, hidden, POINTS)
    again, _ = _terms(fitted, units, hidden, POINTS + 1)
    some = hidden.any(1)
    terms = np.where(some, log_mean, np.nan)
    own = terms[some]
    return Elpd(
        elpd=float(own.sum()),
        se=float(np.sqrt(own.size * own.var())),
        p=float(variance[some].sum()),
        pointwise=units.to_map(terms).rename("elpd").assign_attrs(units="nats", criterion="heldout"),
        n_warn=int(np.sum(variance[some] > _VARIANCE_LIMIT)),
        unit="hidden entries of a pixel",
        mcse=float(np.sqrt(0.5 * np.sum((log_mean - again)[some] ** 2))),
        warning=warning_of(fitted),
    )


def _terms(fitted: Fit, units: Units, hidden: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Log mean and variance over draws of the density of the hidden entries given the others, each (unit,).

    It is the density of all entries over that of those which were seen.
    """
    seen = np.where(hidden, np.nan, units.values)
    log_mean, variance = np.empty((2, units.n_units))
    with computing():
        draws, key = fitted.draws(), as_key(points)
        held = 4 * draws.size + 2 * POINT_SETS
        both = (chunks(draws, y, fitted.covariates, key, held) for y in (units.values, seen))
        for (part, everything), (_, rest) in zip(*both, strict=True):
            key_sets = jax.random.fold_in(key, part.start)
            found = [np.asarray(likelihood_pass(*draws, c, key_sets).pointwise) for c in (everything, rest)]
            log_p = found[0] - found[1]
            top = log_p.max(0)
            log_mean[part], variance[part] = top + np.log(np.exp(log_p - top).mean(0)), log_p.var(0)
    return log_mean, variance
