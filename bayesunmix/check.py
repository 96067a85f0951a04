"""Where a model fails: every pixel's data against what the fitted model would produce."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from bayesunmix._keys import as_key
from bayesunmix.fit import Fit, as_fit
from bayesunmix.inference.context import computing
from bayesunmix.inference.replicates import Discrepancy, one_draw, rank_pass
from bayesunmix.inference.units import cached, chi_square, chunks, prediction_pass
from bayesunmix.misfit import (
    Neighbours,
    alike_above,
    chi_square_above,
    fisher,
    largest_above,
    neighbours,
    scatter,
    too_many_above,
    too_many_below,
)

_MEANING = {
    "residual": "Data minus predicted mean, in total predictive standard deviations.",
    "chi2": "Squared deviations from a posterior draw of the noise-free pixel, in noise variances, summed.",
    "discrepancy": "The discrepancy that was asked for, at a posterior draw of globals and latent.",
    "p_value": "Probability that the model makes a pixel this bad or worse; uniform for a right model.",
    "p_mean": "The same averaged over posterior draws: less noisy, but not uniform for a right model.",
    "p_autocorrelation": "Probability that residuals of adjacent channels are at least this alike; uniform if right.",
    "p_largest": "Probability that a pixel's largest residual is at least this large; uniform if right.",
    "p_neighbours": "Probability that a pixel's residuals are at least this like its neighbours'; uniform if right.",
    "p_channel": "Probability that a channel scatters this much more or less than its noise; uniform if right.",
    "test_p": "Probability of a result at least as odd under a right model, over the whole image.",
    "test_size": "How large the effect is.",
}
# What each test of the whole image measures, and what a failure means.
_TESTS = {
    "discrepancy": (
        "reduced chi-square",
        "Pixels lie farther from the model than its noise allows: it lacks a phase, an edge or a change of thickness.",
    ),
    "dispersion": (
        "scatter over expected",
        "The noise level is wrong: above 1 the data scatter more than the model says (counts wider than Poisson, a "
        "gain, a doubled dose), below 1 less.",
    ),
    "autocorrelation": (
        "mean correlation",
        "Residuals of adjacent channels are alike: it lacks a peak or an edge, or the energy axis shifts.",
    ),
    "neighbours": (
        "Moran's I",
        "Residuals of adjacent pixels are alike: something with a shape in the image is missing, such as a phase in "
        "one region, drift or blur.",
    ),
    "largest": (
        "residual in sd",
        "Single values stand out: spikes from X-rays or cosmic rays, or bad pixels of the detector.",
    ),
    "channels": (
        "scatter over expected",
        "Some channels scatter more or less than the noise of the model: dead or hot channels, or noise that depends "
        "on the channel.",
    ),
}
_OF_VECTORS = {
    "discrepancy": (
        "reduced chi-square",
        "Vectors lie farther from their classes than these scatter: a class is lacking, or is not normal.",
    ),
    "autocorrelation": ("mean correlation", "Residuals of adjacent features are alike: classes lack a correlation."),
    "neighbours": ("Moran's I", "Residuals of vectors next to one another are alike: they depend on where they are."),
    "largest": ("residual in sd", "Single values stand out: vectors of no class, or measured wrongly."),
    "channels": ("scatter over expected", "Some features scatter more or less than the classes do."),
}
_LAWS = {"discrepancy": chi_square_above, "autocorrelation": alike_above, "largest": largest_above}
_OF_ONES_OWN = ("mean", "The discrepancy that was asked for is larger in the data than in what the model would make.")
_SMALL_P = 0.01
_UNIFORM_P = 0.001  # below this a test fails


class _Seen(NamedTuple):
    """What the passes over the units found."""

    residual: np.ndarray  # against the predictive mean and sd, (unit, channel)
    by_unit: dict[str, np.ndarray]
    chi2: np.ndarray  # chi-square at the draw, what is expected of it and with what variance, (3, unit)
    at_draw: np.ndarray | None  # residual at the draw, (unit, channel)
    fourth: np.ndarray | None  # (channel,)
    tops: np.ndarray | None  # the highest of all residuals in all replicates, (replicates,), where there are any


def check(
    fit: Fit,
    draws: int = 100,
    seed: int | jax.Array = 0,
    *,
    replicates: int = 99,
    discrepancy: Discrepancy | None = None,
) -> xr.Dataset:
    """Posterior predictive check of every pixel, and tests of the image for what a sum of squares does not see.

    The discrepancy of a pixel is chi-square, ``T = sum over channels (y - mean)**2 / variance`` with mean and
    variance of p(y | latent, globals). ``p_value`` is Pr(T_rep > T) at one posterior draw of latent and globals: only
    then is it uniform when the model is right (Gelman, Meng & Stern 1996 average over draws; that is ``p_mean``,
    which piles up around one half). All pixels share the draw of the globals, so their p-values are independent too
    and those of whole images are exact. Where units share measurements, as neighbour vectors share atoms, every unit
    has its p-value and the tests of the whole take only ``fit.units.independent``, the ones that share none: with all
    of them the sum of chi-square scatters half as much again as it should.

    Parameters
    ----------
    fit : Fit
    draws : int
        Posterior draws behind ``residual`` and ``p_mean``, at least 2.
    seed : int or JAX key
        Another seed takes another posterior draw.
    replicates : int
        Simulated measurements of every pixel behind its p-values, which have steps of 1 / (replicates + 1) then. Where
        noise is normal, no values are missing and there are 8 channels and more, their laws are known and nothing is
        simulated. In sums over the image no p-value counts for less than that step.
    discrepancy : function, optional
        In place of chi-square: ``discrepancy(y, emission) -> (unit,)`` of data (unit, channel) and the NumPyro
        distribution p(y | latent, globals), written in ``jax.numpy``; larger is worse. It is traced, and must not
        depend on anything that changes between calls.

    Returns
    -------
    xarray.Dataset
        ``residual`` on the data's dims; ``chi2``, ``p_value``, ``p_mean`` on the pixel dims, NaN where masked, and
        ``discrepancy`` when one was given. For spectra also ``p_autocorrelation``, ``p_largest``, ``p_neighbours``
        on the pixel dims and ``p_channel``. Along ``test``: ``test_p``, ``test_size``, and what a failure means,
        ``test_meaning``.
        Attributes: ``ks_p`` (Kolmogorov and Smirnov's test of ``p_value`` against uniform), ``reduced_chi2`` (mean
        chi2 per channel, about 1), ``small_p_share`` (share of pixels with p_value < .01, about .01), ``passed``
        (1 when no test has a p below .001), and ``verdict``, in words.

    Raises
    ------
    TypeError
        For anything but a fit, counts that are no whole numbers, and a discrepancy that does not give a number a unit.
    ValueError
        For too few draws or replicates.

    References
    ----------
    Gelman, Meng & Stern, "Posterior predictive assessment of model fitness via realized discrepancies",
    Statistica Sinica 6, 733 (1996); Johnson, "A Bayesian chi-squared test for goodness-of-fit", Ann. Statist.
    32, 2361 (2004), for one draw; Fisher's combination of p-values over pixels; Moran, Biometrika 37, 17 (1950).
    """
    if index(draws) < 2 or index(replicates) < 1:
        raise ValueError(f"expected draws of at least 2 and replicates of at least 1, got {draws} and {replicates}")
    units = as_fit(fit).units
    if discrepancy is not None and not callable(discrepancy):
        raise TypeError(f"discrepancy: expected a function of data and emission, got {discrepancy!r}")
    own = None if discrepancy is None else _PerUnit(discrepancy)
    seen = _passes(fit, draws, as_key(seed), replicates, own)
    arrays = {"residual": units.to_map(seen.residual, units.inner_dims)}
    arrays.update({name: units.to_map(values) for name, values in seen.by_unit.items()})
    free = np.ones(units.n_units, bool) if units.independent is None else units.independent
    p_value, chi2 = seen.by_unit["p_value"][free], seen.chi2[:, free]
    reduced = float(chi2[0].sum() / np.isfinite(units.values[free]).sum())
    size = reduced if own is None else float(seen.by_unit["discrepancy"][free].mean())
    tests = {
        "discrepancy": (size, fisher(p_value, 1.0 / (replicates + 1))),
        "dispersion": _dispersion(chi2),
    }
    if seen.at_draw is not None and seen.fourth is not None and free.all():
        near = neighbours(seen.at_draw, units.keep.values)
        arrays["p_neighbours"] = units.to_map(near.p_value)
        by_channel, p_channel = _by_channel(seen.at_draw, seen.fourth, np.isfinite(units.values).sum(0))
        known = {d: c for d, c in units.coords.items() if d == units.channel_dim}
        arrays["p_channel"] = xr.DataArray(p_channel, known, (units.channel_dim,))
        tests.update(_of_residuals(seen, near, by_channel, p_channel, replicates))
    for name, array in arrays.items():
        array.attrs["long_name"] = _MEANING[name]
    unit = getattr(fit.model, "unit", "pixel")
    words = _TESTS | (_OF_VECTORS if unit == "vector" else {}) | ({} if own is None else {"discrepancy": _OF_ONES_OWN})
    found = xr.Dataset(arrays).assign(_as_table(tests, words))
    unit = unit if units.independent is None else "unit"
    return found.assign_attrs(_summary(p_value, tests, words, reduced, unit, units.n_units))


@dataclass(frozen=True)
class _PerUnit:
    """A discrepancy, refused when what it gives is not one number a unit. Equal when the function is the same."""

    of: Discrepancy

    def __call__(self, y: jax.Array, emission: Any) -> jax.Array:
        found = self.of(y, emission)
        if np.shape(found) != (len(y),):
            raise TypeError(
                f"discrepancy: expected one number a unit, shape {(len(y),)} for data {np.shape(y)}, got "
                f"{np.shape(found)}: sum over the channels, the last axis"
            )
        return found


def _passes(fit: Fit, draws: int, key: jax.Array, replicates: int, discrepancy: Discrepancy | None) -> _Seen:
    units = fit.units
    residual = np.empty(units.values.shape)
    by_unit: dict[str, list[np.ndarray]] = {}
    chi2, at_draw, fourth, tops = [], [], [], []
    judge = discrepancy or chi_square
    with computing():
        chosen = fit.draws(draws)
        key_points, key_moments, key_rank, key_one = jax.random.split(key, 4)
        for part, chunk in chunks(chosen, units.values, fit.covariates, key_points, most=cached(units.values)):
            seen = prediction_pass(*chosen, chunk, jax.random.fold_in(key_moments, part.start), judge)
            total = np.sqrt(np.asarray(seen.variance_mean + seen.mean_variance))
            residual[part] = (units.values[part] - np.asarray(seen.mean)) / total
            by_unit.setdefault("p_mean", []).append(np.asarray(seen.exceeded))
        one, complete = one_draw(fit.draws(), key_one), bool(np.isfinite(units.values).all())
        for part, chunk in chunks(one, units.values, fit.covariates, jax.random.fold_in(key_points, 1)):
            ranked = rank_pass(*one, chunk, jax.random.fold_in(key_rank, part.start), judge, replicates, complete)
            chi2.append(np.asarray(ranked.chi2))
            named: dict[str, Any] = {
                "p_value" if name == "discrepancy" else f"p_{name}": ranked.p_value[name]
                if name in ranked.p_value
                else _LAWS[name](np.asarray(found), units.values.shape[1])
                for name, found in ranked.found.items()
            }
            if discrepancy is not None:
                named["discrepancy"] = ranked.found["discrepancy"]
            for name, values in named.items():
                by_unit.setdefault(name, []).append(np.asarray(values))
            if ranked.residual is not None:
                at_draw.append(np.asarray(ranked.residual, units.values.dtype))
                fourth.append(np.asarray(ranked.fourth))
            if ranked.tops is not None:
                tops.append(np.asarray(ranked.tops).ravel())
                tops = [np.sort(np.concatenate(tops))[-replicates:]]
    summed = np.concatenate(chi2, axis=1)
    return _Seen(
        residual,
        {"chi2": summed[0], **{name: np.concatenate(parts) for name, parts in by_unit.items()}},
        summed,
        np.concatenate(at_draw) if at_draw else None,
        np.sum(fourth, axis=0) if fourth else None,
        tops[0] if tops else None,
    )


def _dispersion(chi2: np.ndarray) -> tuple[float, float]:
    """Scatter of all data over what is expected of it, and its two-sided p."""
    total, expected, variance = chi2.sum(1)
    return float(total / expected), float(scatter(total, expected, variance))


def _by_channel(residual: np.ndarray, fourth: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean square of every channel's residuals, about 1, and its two-sided p; NaN where there are no data."""
    seen = present > 0
    total = (residual**2).sum(0, dtype=np.float64)
    ratio, p = np.full((2, len(total)), np.nan)
    ratio[seen] = total[seen] / present[seen]
    p[seen] = scatter(total[seen], present[seen], (fourth - present)[seen])
    return ratio, p


def _of_residuals(
    seen: _Seen, near: Neighbours, by_channel: np.ndarray, p_channel: np.ndarray, replicates: int
) -> dict[str, tuple[float, float]]:
    """Size and p of the tests that look at residuals by channel."""
    away = seen.at_draw
    assert away is not None
    highest = np.abs(away).max(1)
    above = too_many_below(seen.by_unit["p_largest"])
    if seen.tops is not None:
        above = too_many_above(highest, seen.tops, replicates)
    along = float((away[:, 1:] * away[:, :-1]).sum() / max((away**2).sum(), np.finfo(float).tiny))
    worst = int(np.nanargmin(p_channel))
    # The smallest of so many independent p-values.
    least = -np.expm1(np.isfinite(p_channel).sum() * np.log1p(-min(p_channel[worst], 0.999)))
    return {
        "autocorrelation": (along, fisher(seen.by_unit["p_autocorrelation"], 1.0 / (replicates + 1))),
        "neighbours": (near.moran, near.p),
        "largest": (float(highest.max()), above),
        "channels": (float(by_channel[worst]), float(least)),
    }


def _as_table(tests: dict[str, tuple[float, float]], words: Mapping[str, tuple[str, str]]) -> dict[str, xr.DataArray]:
    coords = {"test": list(tests)}
    size, p = np.array(list(tests.values())).T
    meaning = [f"{words[name][1]} (Size: {words[name][0]}.)" for name in tests]
    return {
        "test_p": xr.DataArray(p, coords, ("test",), attrs={"long_name": _MEANING["test_p"]}),
        "test_size": xr.DataArray(size, coords, ("test",), attrs={"long_name": _MEANING["test_size"]}),
        "test_meaning": xr.DataArray(meaning, coords, ("test",)),
    }


def _summary(
    p_value: np.ndarray,
    tests: dict[str, tuple[float, float]],
    words: Mapping[str, tuple[str, str]],
    reduced: float,
    unit: str,
    n_all: int,
) -> dict[str, float | str | int]:
    from scipy.stats import binom, kstest

    n_units = len(p_value)
    small = int(np.sum(p_value < _SMALL_P))
    uniform = float(kstest(p_value, "uniform").pvalue)
    too_many = binom.sf(small - 1, n_units, _SMALL_P) < _UNIFORM_P
    failed = [name for name, (_, p) in tests.items() if p < _UNIFORM_P]
    share = f"{small} of {n_units} {unit}s have a p-value below {_SMALL_P:g} ({_SMALL_P * n_units:.3g} expected)"
    if n_units < n_all:
        share += f"; of {n_all} these share no measurement with one another"
    others = [name for name in failed if name not in ("discrepancy", "dispersion")]
    by_chi_square = words["discrepancy"] is not _OF_ONES_OWN
    eye = "chi-square" if by_chi_square else "the discrepancy"
    less, more = (
        ("The data scatter less", "The data scatter more")
        if by_chi_square
        else ("The discrepancy is smaller", "The discrepancy is larger")
    )
    size = f"{words['discrepancy'][0]} {tests['discrepancy'][0]:.3g}"
    if too_many:
        verdict = f"The model misses part of the data: {share}; see the maps of p_value and residual for where."
    elif uniform >= _UNIFORM_P and not {"discrepancy", "dispersion"} & set(failed):
        limits = f", as far as {eye} sees" if others else ""
        verdict = f"The model accounts for the data{limits}: {share}."
    elif np.median(p_value) > 0.5:
        verdict = f"{less} than the model says ({size})."
    else:
        verdict = f"{more} than the model says ({size})."
    said = [f"{words[name][1]} ({words[name][0]} {tests[name][0]:.2g}.)" for name in others]
    return {
        "ks_p": uniform,
        "reduced_chi2": reduced,
        "small_p_share": small / n_units,
        "passed": int(not failed and not too_many and uniform >= _UNIFORM_P),
        "verdict": " ".join([verdict, *said]),
    }
