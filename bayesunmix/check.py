"""Where a model fails: every pixel's data against what the fitted model would produce."""

from __future__ import annotations

import jax
import numpy as np
import xarray as xr

from bayesunmix._keys import as_key
from bayesunmix.fit import Fit
from bayesunmix.inference.precision import native_precision
from bayesunmix.inference.units import chunks, discrepancy_pass, prediction_pass

_MEANING = {
    "residual": "Data minus predicted mean, in total predictive standard deviations.",
    "chi2": "Squared deviations from a posterior draw of the noise-free pixel, in noise variances, summed.",
    "p_value": "Probability that the model makes a pixel this bad or worse; uniform for a right model.",
    "p_mean": "The same averaged over posterior draws: less noisy, but not uniform for a right model.",
}
_SMALL_P = 0.01
_UNIFORM_P = 0.001  # below this the p-values are not called uniform


def check(fit: Fit, draws: int = 100, seed: int | jax.Array = 0, *, replicates: int = 99) -> xr.Dataset:
    """Posterior predictive check of every pixel.

    The discrepancy of a pixel is chi-square, ``T = sum over channels (y - mean)**2 / variance`` with mean and
    variance of p(y | latent, globals). ``p_value`` is Pr(T_rep > T) at one posterior draw of latent and
    globals per pixel: only then is it uniform when the model is right (Gelman, Meng & Stern 1996 average over
    draws; that is ``p_mean``, which piles up around one half).

    Parameters
    ----------
    fit : Fit
    draws : int
        Posterior draws behind ``residual`` and ``p_mean``, at least 2.
    seed : int or JAX key
    replicates : int
        Simulated measurements of every pixel behind ``p_value``, whose smallest step is 1 / (replicates + 1).

    Returns
    -------
    xarray.Dataset
        ``residual`` on the data's dims, ``chi2``, ``p_value``, ``p_mean`` on the pixel dims, NaN where
        masked. Attributes: ``ks_p`` (p-value of Kolmogorov and Smirnov's test of ``p_value`` against
        uniform), ``reduced_chi2`` (mean chi2 per channel, about 1), ``small_p_share`` (share of pixels with
        p_value < .01, about .01), and ``verdict``, a sentence.

    References
    ----------
    Gelman, Meng & Stern, "Posterior predictive assessment of model fitness via realized discrepancies",
    Statistica Sinica 6, 733 (1996); Johnson, "A Bayesian chi-squared test for goodness-of-fit", Ann. Statist.
    32, 2361 (2004), for one draw.
    """
    if draws < 2 or replicates < 1:
        raise ValueError(f"expected draws of at least 2 and replicates of at least 1, got {draws} and {replicates}")
    units = fit.units
    residual = np.empty(units.values.shape)
    by_unit = np.empty((3, units.n_units))
    with native_precision():
        chosen = fit.draws(draws)
        key_points, key_moments, key_rank = jax.random.split(as_key(seed), 3)
        for part, chunk in chunks(chosen, units.values, fit.covariates, key_points):
            seen = prediction_pass(*chosen, chunk, jax.random.fold_in(key_moments, part.start), replicate=True)
            ranked = discrepancy_pass(chosen, chunk, jax.random.fold_in(key_rank, part.start), replicates)
            total = np.sqrt(np.asarray(seen.variance_mean + seen.mean_variance))
            residual[part] = (units.values[part] - np.asarray(seen.mean)) / total
            by_unit[:, part] = ranked.chi2, ranked.p_value, seen.exceeded
    arrays = {"residual": units.to_map(residual, units.inner_dims)}
    arrays.update(zip(("chi2", "p_value", "p_mean"), map(units.to_map, by_unit), strict=True))
    for name, array in arrays.items():
        array.attrs["long_name"] = _MEANING[name]
    unit = getattr(fit.model, "unit", "pixel")
    return xr.Dataset(arrays, attrs=_summary(by_unit[0], by_unit[1], np.isfinite(units.values).sum(), unit))


def _summary(chi2: np.ndarray, p_value: np.ndarray, n_values: int, unit: str) -> dict[str, float | str]:
    from scipy.stats import binom, kstest

    n_units = len(p_value)
    small = int(np.sum(p_value < _SMALL_P))
    reduced = float(np.sum(chi2) / n_values)
    uniform = float(kstest(p_value, "uniform").pvalue)
    too_many = binom.sf(small - 1, n_units, _SMALL_P) < _UNIFORM_P
    share = f"{small} of {n_units} {unit}s have a p-value below {_SMALL_P:g} ({_SMALL_P * n_units:.3g} expected)"
    if too_many:
        verdict = f"The model misses part of the data: {share}; see the maps of p_value and residual for where."
    elif uniform >= _UNIFORM_P:
        verdict = f"The model accounts for the data, as far as chi-square sees: {share}."
    elif np.median(p_value) > 0.5:
        verdict = f"The data scatter less than the model says (reduced chi-square {reduced:.3g})."
    else:
        verdict = f"The data scatter more than the model says (reduced chi-square {reduced:.3g})."
    return {
        "ks_p": uniform,
        "reduced_chi2": reduced,
        "small_p_share": small / n_units,
        "verdict": verdict,
    }
