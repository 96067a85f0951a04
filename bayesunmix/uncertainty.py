"""How uncertain a prediction is, and how much of that more data would remove."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix._counts import as_count
from bayesunmix._keys import as_key
from bayesunmix.fit import Fit, as_fit
from bayesunmix.inference.context import computing
from bayesunmix.inference.program import at_units
from bayesunmix.inference.units import cached, chunks, prediction_pass
from bayesunmix.predict import check_unit, local_latents, per_unit_covariates

_MOST_BYTES = 2**30  # of all maps in double precision

_MEANING = {
    "same": {
        "mean": "What this pixel would show if it were measured again without noise.",
        "epistemic": "Standard deviation of that expectation: ignorance that more data would reduce.",
        "aleatoric": "Standard deviation of the noise of one measurement, which more data do not reduce.",
        "total": "Standard deviation of this pixel measured again: total**2 = epistemic**2 + aleatoric**2.",
    },
    "new": {
        "mean": "What another pixel of the same population would show on average.",
        "epistemic": "Standard deviation of that average: ignorance that more pixels would reduce.",
        "aleatoric": "Standard deviation between pixels, noise included, which more data do not reduce.",
        "total": "Standard deviation of another pixel's measurement: total**2 = epistemic**2 + aleatoric**2.",
    },
}


def uncertainty(fit: Fit, unit: str = "same", draws: int = 200, seed: int | jax.Array = 0) -> xr.Dataset:
    """Predictive mean and standard deviation, split by the law of total variance.

    Parameters
    ----------
    fit : Fit
    unit : "same" or "new"
        "same": the fitted pixels measured again; aleatoric**2 = E Var(y | latent, globals), epistemic**2 =
        Var E(y | latent, globals) over the posterior. "new": another pixel, its latent's spread counted as
        aleatoric; aleatoric**2 = E Var(y | globals), epistemic**2 = Var E(y | globals).
    draws : int
        Posterior draws to average over, at least 2. The relative error of epistemic is about 1 / sqrt(2
        draws).
    seed : int or JAX key

    Returns
    -------
    xarray.Dataset
        ``mean``, ``epistemic``, ``aleatoric``, ``total`` as standard deviations in the units and precision of the
        data; on its coordinates, NaN where masked, for ``unit="same"``, and per channel for ``unit="new"``. For
        ``unit="same"`` of a model of classes or hidden states also the split of their entropy, as in
        :meth:`Fit.latent`, in nats: ``entropy`` = ``entropy_noise``, which more data do not reduce, +
        ``mutual_information`` of label and globals.

    Raises
    ------
    ValueError
        For ``unit="new"`` with a model whose prediction depends on the fitted pixels, and for a fit of one draw.

    Examples
    --------
    >>> split = bu.uncertainty(fit)
    >>> bool(np.allclose(split["total"] ** 2, split["epistemic"] ** 2 + split["aleatoric"] ** 2))
    True
    """
    check_unit(unit)
    draws = as_count("draws", draws, least=2)
    units = as_fit(fit).units
    with computing():
        chosen = fit.draws(draws)
        if chosen.size < 2:
            raise ValueError(f"fit: expected at least 2 draws to tell a variance, got {chosen.size}: fit with more")
        if unit == "same":
            # Four numbers a value are the whole image four times over: no more precise than the data, nor than seven
            # digits where that would take gigabytes.
            dtype = units.values.dtype if 4 * units.values.size * 8 < _MOST_BYTES else np.dtype(np.float32)
            parts = {name: np.empty(units.values.shape, dtype) for name in _MEANING[unit]}
            key_points, key_draws = jax.random.split(as_key(seed))
            for part, chunk in chunks(chosen, units.values, fit.covariates, key_points, most=cached(units.values)):
                found = prediction_pass(*chosen, chunk, jax.random.fold_in(key_draws, part.start))
                for name, values in _split(found.mean, found.variance_mean, found.mean_variance).items():
                    parts[name][part] = values
            maps = {name: units.to_map(parts.pop(name), units.inner_dims) for name in tuple(parts)}
        else:
            _refuse_dependence(fit)
            moments = _population(*chosen, fit.covariates, units.values.shape[1:])
            known = {d: c for d, c in units.coords.items() if d in units.inner_dims}
            maps = {
                name: xr.DataArray(values, dims=units.inner_dims, coords=known)
                for name, values in _split(*moments).items()
            }
    own = {"units": units.attrs["units"]} if "units" in units.attrs else {}
    arrays = {name: one.assign_attrs(long_name=_MEANING[unit][name], **own) for name, one in maps.items()}
    if unit == "same" and _has_labels(fit):
        latent = fit.latent(draws=draws, seed=seed)
        arrays |= {name: latent[name] for name in ("entropy", "entropy_noise", "mutual_information")}
    return xr.Dataset(arrays, attrs={"unit": unit, "draws": chosen.size})


def _has_labels(fit: Fit) -> bool:
    """Whether the latent of a unit is a label, or labels, so that its distribution has an entropy."""
    if getattr(fit.model, "latent", None) is None:
        return False
    found = []
    with computing():
        draws = fit.draws(1)
        first = at_units(fit.covariates, slice(1), fit.units.n_units)

        def look() -> None:
            y = jnp.asarray(fit.units.values[:1], jnp.result_type(float))
            fn = draws.program.likelihood(draws.numbers, {n: v[0] for n, v in draws.values.items()}, y, first)
            found.append(hasattr(fn, "conditional") and hasattr(fn.conditional(y), "entropy"))

        jax.eval_shape(look)
    return found[0]


def _split(mean: Any, variance_of_mean: Any, mean_variance: Any) -> dict[str, np.ndarray]:
    """The parts by name, as standard deviations."""
    mean, epistemic, aleatoric = (np.asarray(x, np.float64) for x in (mean, variance_of_mean, mean_variance))
    return {
        "mean": mean,
        "epistemic": np.sqrt(epistemic),
        "aleatoric": np.sqrt(aleatoric),
        "total": np.sqrt(epistemic + aleatoric),
    }


@partial(jax.jit, static_argnames=("program", "shape"))
def _population(program, numbers, values, covariates, shape: tuple[int, ...]):
    """Mean over draws, variance (ddof 1) of the marginal mean, and mean of the marginal variance."""

    def one(value):
        fn = program.likelihood(numbers, value, jnp.zeros((1, *shape)), covariates)
        return tuple(jnp.broadcast_to(part, (1, *shape))[0] for part in (fn.mean, fn.variance))

    means, variances = jax.lax.map(one, {name: values[name] for name, _ in program.shapes})
    return means.mean(0), means.var(0, ddof=1), variances.mean(0)


def _refuse_dependence(fit: Fit) -> None:
    if local_latents(fit):
        raise ValueError(
            'unit="new" needs the latent integrated out of the likelihood, but this model samples it: '
            "use posterior_predictive(fit, unit='new')"
        )
    names = per_unit_covariates(fit)
    if names:
        raise ValueError(f'unit="new": the covariates {names} belong to the fitted pixels, another pixel has none')
