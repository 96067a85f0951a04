"""What a fitted chain of states says: dwell times, stationary shares, time scales, first passages, paths, and a check.

Everything is computed draw by draw from the posterior of the transition matrix, so that every answer has its
interval. Times are in frames, or in the unit of the data's time coordinate where it is evenly spaced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix._keys import as_key
from bayesunmix.distributions import paths
from bayesunmix.fit import Fit
from bayesunmix.inference.context import computing

_STATISTICS = ("mean", "sd", "lower", "upper")


def transition_matrix(fit: Fit, prob: float = 0.9) -> xr.DataArray:
    """Transition probabilities per step: one frame, or the model's ``lag``.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    prob : float
        Mass of the equal-tailed interval ``lower`` to ``upper``.

    Returns
    -------
    xarray.DataArray
        Dims (state, next_state, statistic); ``statistic`` is mean, sd, lower, upper.

    Raises
    ------
    TypeError
        For a model without a transition matrix (here and in the functions below).

    Examples
    --------
    >>> hops = bu.fit(bu.models.MarkovChain(2), [[0, 0, 1, 1, 1, 0, 0, 0, 1, 1]], progress=False)
    >>> table = bu.transition_matrix(hops)
    >>> bool(np.allclose(table.sel(statistic="mean").sum("next_state"), 1))
    True
    """
    return _summary(_transitions(fit), ("state", "next_state"), prob, "transition")


def dwell_times(fit: Fit, prob: float = 0.9) -> xr.DataArray:
    """Mean time from entering a state to leaving it; infinite for a state never left.

    A chain of ``lag`` frames a step does not see excursions that are over within a step. Where few hops out of a state
    were seen, the posterior has a long tail: read the interval rather than the mean.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    prob : float
        Mass of the equal-tailed interval ``lower`` to ``upper``.

    Returns
    -------
    xarray.DataArray
        Dims (state, statistic), in ``attrs["units"]``: those of an even time axis, else frames.

    Examples
    --------
    >>> hops = bu.fit(bu.models.MarkovChain(2), [[0, 0, 1, 1, 1, 0, 0, 0, 1, 1]], progress=False)
    >>> bu.dwell_times(hops).attrs["units"]
    'frame'
    """
    step, unit = time_step(fit)

    def dwell(matrix):
        with np.errstate(divide="ignore"):
            return step / (1.0 - np.diagonal(matrix, axis1=-2, axis2=-1))

    return _summary(dwell(_transitions(fit)), ("state",), prob, "dwell_time", unit)


def stationary_distribution(fit: Fit, prob: float = 0.9) -> xr.DataArray:
    """Share of time in every state in the long run; NaN where that depends on the start (two absorbing states).

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    prob : float
        Mass of the equal-tailed interval ``lower`` to ``upper``.

    Returns
    -------
    xarray.DataArray
        Dims (state, statistic).
    """
    matrix = _transitions(fit)
    reach = _reach(_possible(matrix))
    # One class that all states lead to, or the share depends on the start.
    unique = bool(reach.all(0).any())
    shares = _stationary(matrix) if unique else np.full(matrix.shape[:-1], np.nan)
    return _summary(shares, ("state",), prob, "stationary_distribution")


def implied_timescales(fit: Fit, prob: float = 0.9) -> xr.DataArray:
    """Relaxation times ``-step / log |eigenvalue|`` of all eigenvalues but the first, slowest first.

    A driven chain may have complex eigenvalues; their modulus is what decays.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    prob : float
        Mass of the equal-tailed interval ``lower`` to ``upper``.

    Returns
    -------
    xarray.DataArray
        Dims (mode, statistic), in ``attrs["units"]``.

    References
    ----------
    Swope, Pitera and Suits, J. Phys. Chem. B 108, 6571 (2004).
    """
    step, unit = time_step(fit)
    values = np.sort(np.abs(np.linalg.eigvals(_transitions(fit))), axis=-1)[..., ::-1][..., 1:]
    with np.errstate(divide="ignore"):
        times = step / np.abs(np.log(np.clip(values, 0.0, 1.0)))
    return _summary(times, ("mode",), prob, "implied_timescale", unit)


def mean_first_passage_times(fit: Fit, prob: float = 0.9) -> xr.DataArray:
    """Mean time from a state until another is first reached; 0 on the diagonal, infinite where it may never be.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    prob : float
        Mass of the equal-tailed interval ``lower`` to ``upper``.

    Returns
    -------
    xarray.DataArray
        Dims (state, target, statistic), in ``attrs["units"]``.
    """
    step, unit = time_step(fit)
    matrix = _transitions(fit)
    states = matrix.shape[-1]
    found = np.zeros_like(matrix)
    possible = _possible(matrix)
    for target in range(states):
        ways = possible.copy()
        ways[target] = np.arange(states) == target  # a path ends there
        reach = _reach(ways)
        sure = [k for k in range(states) if k != target and reach[reach[k], target].all()]
        never = [k for k in range(states) if k != target and k not in sure]
        found[..., never, target] = np.inf
        if not sure:
            continue
        inner = -matrix[..., sure, :][..., sure]
        # What leaves a state, without the cancellation in one minus what stays.
        own = np.arange(len(sure))
        away = matrix[..., sure, :].copy()
        away[..., own, sure] = 0.0
        inner[..., own, own] = np.maximum(away.sum(-1), np.finfo(np.float64).tiny)
        found[..., sure, target] = step * np.linalg.solve(inner, np.ones((*inner.shape[:-1], 1)))[..., 0]
    return _summary(found, ("state", "target"), prob, "mean_first_passage_time", unit)


def viterbi(fit: Fit) -> xr.DataArray:
    """The single most probable path of states at the posterior mean of the parameters.

    A path says nothing about its uncertainty: ``fit.latent()`` has the probability of every state in every frame, and
    ``fit.sample_latent()`` whole paths.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel``.

    Returns
    -------
    xarray.DataArray
        Number of the state, dims (sequence, time); NaN beyond the end of a sequence.

    Raises
    ------
    TypeError
        For a model without hidden states.
    """
    with computing():
        draws = fit.draws()
        y = jnp.asarray(fit.units.values, jnp.result_type(float))
        fn = draws.program.likelihood(draws.numbers, draws.centre, y, fit.covariates)
        if not hasattr(fn, "conditional") or not hasattr(fn, "transition"):
            raise TypeError("viterbi: expected a fit of HiddenMarkovModel, whose states are hidden")
        path = np.asarray(jax.jit(lambda y: fn.conditional(y).viterbi())(y), dtype=np.float64)
    return fit.units.to_map(path, (fit.units.channel_dim,)).rename("path")


def chapman_kolmogorov(
    fit: Fit, lags: Sequence[int] = (1, 2, 4, 8), *, prob: float = 0.9, draws: int = 100, seed: int | jax.Array = 0
) -> xr.Dataset:
    """Is the memory one step long? Hops over several steps in the paths, against what the chain predicts for them.

    For every draw of the posterior, a path given the data and a path simulated with the same lengths are cut into
    hops over ``lag`` steps, and the share of hops from a state to another is taken in both. With one-step memory the
    two have one distribution, whatever the lag. Paths of hidden states are drawn with the model's own transitions, so
    the check sees what the data force on them.

    Parameters
    ----------
    fit : Fit
        Of a ``HiddenMarkovModel`` or ``MarkovChain``.
    lags : sequence of int
        In steps of the chain.
    prob : float
        Mass of the band of the simulated paths.
    draws : int
        Of the posterior, a pair of paths each.
    seed : int or JAX key

    Returns
    -------
    xarray.Dataset
        ``observed (lag, state, next_state)``, the mean over draws; ``predicted`` with a dim ``statistic``: mean, sd,
        and the band of mass ``prob`` of the simulated paths; ``p_value``, two-sided, of the difference over draws;
        attribute ``outside``, the share of entries of ``observed`` beyond the band. Paths that are never in a state, or
        too short for the lag, are left out of its entries; NaN where that is half of them or more.

    Raises
    ------
    ValueError
        For lags that are not whole numbers from 1 on.
    """
    lags = tuple(int(lag) for lag in lags)
    if not lags or min(lags) < 1:
        raise ValueError(f"lags: expected whole numbers from 1 on, got {lags}")
    stride = getattr(fit.model, "lag", 1)
    observed, simulated = _paths(fit, draws, as_key(seed), stride)
    states = fit.model.n_states
    ours = np.stack([_hop_shares(observed, lag, states) for lag in lags], axis=1)
    theirs = np.stack([_hop_shares(simulated, lag, states) for lag in lags], axis=1)
    dims = ("lag", "state", "next_state")
    coords = {"lag": [lag * stride for lag in lags], "state": np.arange(states), "next_state": np.arange(states)}
    # A path that never leaves a state says nothing about its hops; most of the paths have to.
    both = np.isfinite(ours) & np.isfinite(theirs)
    often = both.mean(0) >= 0.5
    with np.errstate(invalid="ignore"):
        less, more = ((both & (way(theirs, ours))).sum(0) / both.sum(0) for way in (np.less, np.greater))
    p_value = np.where(often, np.minimum(1.0, 2.0 * np.minimum(1.0 - less, 1.0 - more)), np.nan)
    centre = _over_paths(ours, often, prob)[..., 0]
    band = _over_paths(theirs, often, prob)
    seen = np.isfinite(centre) & np.isfinite(band[..., 2])
    outside = ((centre < band[..., 2]) | (centre > band[..., 3]))[seen]
    return xr.Dataset(
        {
            "observed": (dims, centre),
            "predicted": ((*dims, "statistic"), band),
            "p_value": (dims, p_value),
        },
        coords={**coords, "statistic": list(_STATISTICS)},
        attrs={"prob": prob, "outside": float(outside.mean()) if outside.size else float("nan")},
    )


# ---------------------------------------------------------------------- parts


def _transitions(fit: Fit) -> np.ndarray:
    """Draws of the transition matrix, (chain, draw, state, next_state)."""
    if "transition" in fit.posterior:
        return fit.posterior["transition"].values
    known = getattr(fit.model, "fixed", {}).get("transition")
    if known is None:
        raise TypeError("expected a fit of HiddenMarkovModel or MarkovChain, which have a transition matrix")
    return np.asarray(known, dtype=np.float64)[None, None]


def _possible(matrix: np.ndarray) -> np.ndarray:
    """Which hops have a probability in any draw, (state, next_state)."""
    return np.asarray((matrix > 0).any(axis=(0, 1)))


def _reach(ways: np.ndarray) -> np.ndarray:
    """Which states lead to which in any number of steps, none included."""
    found = ways | np.eye(len(ways), dtype=bool)
    for _ in range(len(ways)):
        found = (found.astype(int) @ found.astype(int)) > 0
    return found


def time_step(fit: Fit) -> tuple[float, str]:
    """Duration of one step of a fitted chain, and its unit: "frame" where the data have no even time axis.

    A time axis without units gives "unit of time", the name of the dim last.
    """
    lag = float(getattr(fit.model, "lag", 1))
    time = fit.units.coords.get(fit.units.channel_dim)
    if time is None or time.size < 2 or time.dtype.kind not in "fiu":
        return lag, "frame"
    gaps = np.diff(time.values.astype(np.float64))
    if gaps[0] <= 0 or not np.allclose(gaps, gaps[0], rtol=1e-3, atol=0.0):
        return lag, "frame"
    return lag * float(gaps.mean()), str(time.attrs.get("units") or f"unit of {time.name}")


def _stationary(matrix: np.ndarray) -> np.ndarray:
    """Left eigenvector of eigenvalue 1, by the linear system with its normalisation; (..., state)."""
    states = matrix.shape[-1]
    system = np.swapaxes(np.eye(states) - matrix, -1, -2).copy()
    system[..., -1, :] = 1.0
    right = np.zeros((*matrix.shape[:-1], 1))
    right[..., -1, 0] = 1.0
    return np.linalg.solve(system, right)[..., 0]


def _statistics(draws: np.ndarray, prob: float) -> np.ndarray:
    """Mean, sd, lower and upper over the first axis, last; NaN where draws are NaN."""
    if not 0 < prob < 1:
        raise ValueError(f"prob: expected a number between 0 and 1, got {prob}")
    finite = np.isfinite(draws).all(0)
    filled = np.where(finite, draws, 0.0)
    tails = np.quantile(filled, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    found = np.stack([filled.mean(0), filled.std(0), *tails], axis=-1)
    everywhere = np.where(np.isposinf(draws).any(0), np.inf, np.nan)
    return np.where(finite[..., None], found, everywhere[..., None])


def _over_paths(shares: np.ndarray, often: np.ndarray, prob: float) -> np.ndarray:
    """The same over the paths that have a share, NaN where they are not ``often`` there."""
    found = np.full((*shares.shape[1:], len(_STATISTICS)), np.nan)
    for where in np.argwhere(often):
        own = shares[(slice(None), *where)]
        found[tuple(where)] = _statistics(own[np.isfinite(own)], prob)
    return found


def _summary(draws: np.ndarray, dims: Sequence[str], prob: float, name: str, unit: str | None = None) -> xr.DataArray:
    values = _statistics(draws.reshape(-1, *draws.shape[2:]), prob)
    coords: dict[str, Any] = {dim: np.arange(size) for dim, size in zip(dims, values.shape, strict=False)}
    attrs: dict[str, Any] = {"prob": prob} | ({"units": unit} if unit else {})
    return xr.DataArray(
        values, {**coords, "statistic": list(_STATISTICS)}, (*dims, "statistic"), name=name, attrs=attrs
    )


def _hop_shares(paths: np.ndarray, lag: int, states: int) -> np.ndarray:
    """Share of hops over ``lag`` frames from a state to another, pooled over sequences, (draw, state, next_state)."""
    found = np.full((len(paths), states, states), np.nan)
    if lag >= paths.shape[2]:
        return found
    here, there = paths[:, :, :-lag], paths[:, :, lag:]
    for i, (a, b) in enumerate(zip(here, there, strict=True)):
        both = np.isfinite(a) & np.isfinite(b)
        counts = np.zeros((states, states))
        np.add.at(counts, (a[both].astype(int), b[both].astype(int)), 1.0)
        total = counts.sum(1, keepdims=True)
        found[i] = np.where(total > 0, counts / np.maximum(total, 1.0), np.nan)
    return found


def _paths(fit: Fit, draws: int, key: jax.Array, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Paths given the data and simulated ones in every ``stride``-th frame: (draw, sequence, time), padded with NaN."""
    units = fit.units
    beyond = (np.arange(units.values.shape[1]) >= np.asarray(units.lengths)[:, None])[:, ::stride]
    with computing():
        chosen = fit.draws(draws)
        y = jnp.asarray(units.values, jnp.result_type(float))
        make: Callable = partial(chosen.program.likelihood, chosen.numbers, y=y, covariates=fit.covariates)

        @jax.jit
        def one(inputs):
            value, key = inputs
            fn = make(value)
            key_seen, key_new = jax.random.split(key)
            seen = fn.conditional(y).sample(key_seen).argmax(-1) if hasattr(fn, "conditional") else y
            new = paths.simulate_path(key_new, fn.initial, fn.transition, beyond.shape[1], len(y)).T
            return jnp.asarray(seen[:, ::stride], y.dtype), jnp.asarray(new, y.dtype)

        values = {name: chosen.values[name] for name, _ in chosen.program.shapes}
        seen, new = (np.array(a) for a in jax.lax.map(one, (values, jax.random.split(key, chosen.size))))
    seen[:, beyond], new[:, beyond] = np.nan, np.nan
    return seen, new
