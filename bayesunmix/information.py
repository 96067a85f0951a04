"""How much an image tells beyond an image without signal: relative entropy, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.compare import difference_error
from bayesunmix.elpd import waic
from bayesunmix.fit import Fit, fit


def relative_entropy(fitted: Fit, baseline: Fit | None = None, *, seed: Any = 0) -> xr.Dataset:
    """Information that an image carries, in nats: how much better a model predicts it than a signal-free one.

    The expected log predictive density of every pixel under the fit, minus that under the baseline. Both
    integrate the pixel's own latent out, so that a component which describes noise adds nothing.

    Parameters
    ----------
    fitted : Fit
    baseline : Fit, optional
        What stands for no signal, fitted to the same data; of a model with ``n_components`` the same model
        without any when left out, which is then fitted here: mean spectrum and noise only or, of
        ``ProbabilisticPCA(noise="poisson")``, the product of a row and a column factor (rank-one independence).
    seed : int or JAX key
        Of that fit.

    Returns
    -------
    xarray.Dataset
        ``information`` on the pixel dims, in nats, NaN where masked. Attributes: ``total``, ``se`` (standard
        error of the total, from blocks of pixels where that is larger), and ``per_count`` (total over the sum of the
        data) where the data are whole numbers and never negative.

    Raises
    ------
    TypeError
        When there is no baseline and the model has no components to take away.
    ValueError
        When the baseline was fitted to other data.

    References
    ----------
    Trebbia and Bonnet, "EELS elemental mapping with unconventional methods I", Ultramicroscopy 34, 165 (1990): the
    relative entropy of an image against a random one, there from eigenvalues, here from predictive densities.
    """
    if baseline is None:
        if not hasattr(fitted.model, "signal_free"):
            raise TypeError(
                f"{type(fitted.model).__name__} has no components to take away: pass baseline=, a fit without signal"
            )
        mask = "finite" if np.isnan(fitted.units.values).any() else fitted.units.keep
        baseline = fit(fitted.model.signal_free, fitted.data, mask=mask, seed=seed, progress=False)
    if baseline.provenance["data_hash"] != fitted.provenance["data_hash"]:
        raise ValueError("baseline was fitted to other data, or with another mask: fit both to the same")
    gain = waic(fitted).pointwise - waic(baseline).pointwise
    total = float(gain.sum())
    attrs: dict[str, float] = {"total": total, "se": difference_error(gain)}
    values = fitted.units.values
    counts = values[np.isfinite(values)]
    if counts.min() >= 0 and np.array_equal(counts, np.rint(counts)):
        attrs["per_count"] = total / float(counts.sum(dtype=np.float64))
    gain = gain.rename("information")
    gain.attrs = {"units": "nats", "long_name": "information beyond the signal-free image"}
    return xr.Dataset({"information": gain}, attrs=attrs)
