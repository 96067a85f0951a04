"""A fit in the two words that decompositions share: factors (spectra) and loadings (what each pixel has of them)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from bayesunmix._model_units import of_sequences
from bayesunmix.fit import Fit

_FACTORS = ("endmembers", "components", "means")


class Decomposition(NamedTuple):
    """Posterior mean and standard deviation of both.

    ``factors`` are (component, channel), called ``components_`` by scikit-learn; ``loadings`` are (unit, component),
    called scores or what ``transform`` returns.
    """

    factors: np.ndarray
    factors_sd: np.ndarray
    loadings: np.ndarray
    loadings_sd: np.ndarray


def decomposition(fit: Fit, seed: Any = 0, *, append_mean: bool = False) -> Decomposition:
    """Factors and loadings of the units of a fit, such that ``loadings @ factors`` is what the model expects.

    With ``append_mean`` the mean spectrum of a model that has one is the last factor, with loadings of exactly one;
    without it, that mean is to be added. A brightness is not part of the loadings.

    Raises
    ------
    TypeError
        For a model without spectra and weights.
    """
    factors, factors_sd = spectra(fit)
    maps = fit.latent(seed=seed)[fit.model.latent]
    loadings, loadings_sd = (
        maps.sel(statistic=name).values.reshape(-1, len(factors))[fit.units.index] for name in ("mean", "sd")
    )
    if append_mean and "mean" in fit.posterior:
        mean, mean_sd = _moments(fit.posterior["mean"])
        factors, factors_sd = np.vstack([factors, mean]), np.vstack([factors_sd, mean_sd])
        one = np.ones((len(loadings), 1))
        loadings, loadings_sd = np.hstack([loadings, one]), np.hstack([loadings_sd, 0 * one])
    return Decomposition(factors, factors_sd, loadings, loadings_sd)


def spectra(fit: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation of endmembers, components or class means, (component, channel)."""
    name = next((n for n in _FACTORS if n in fit.posterior), None)
    known = getattr(fit.model, "endmembers", None)
    if of_sequences(fit.model) or getattr(fit.model, "latent", None) is None or (name is None and known is None):
        raise TypeError(
            f"expected a model of spectra and their weights (LinearUnmixing, ProbabilisticPCA, GaussianMixture), got "
            f"{getattr(fit.model, '__name__', type(fit.model).__name__)}"
        )
    if name is None:
        exact = np.asarray(known, dtype=np.float64)
        return exact, np.zeros_like(exact)
    return _moments(fit.posterior[name])


def _moments(draws: xr.DataArray) -> tuple[np.ndarray, np.ndarray]:
    return draws.mean(("chain", "draw")).values, draws.std(("chain", "draw")).values
