"""How well a model predicts a unit that it has not seen: WAIC and leave-one-out on the marginal likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix._arviz import SHAPE_LIMIT, psis, relative_efficiency
from bayesunmix._keys import as_key
from bayesunmix.data.sharing import sum_error
from bayesunmix.fit import Fit, as_fit
from bayesunmix.inference.context import computing
from bayesunmix.inference.units import Draws, LikelihoodPass, likelihood_pass
from bayesunmix.predict import POINTS, likelihood_chunks, local_latents

VARIANCE_LIMIT = 0.4  # of the log density over draws: beyond, WAIC of that unit is not to be trusted
_FEWEST_TIME_BLOCKS = 10  # of a sequence
_ERROR_DRAWS = 100  # draws behind the numerical error


@dataclass(frozen=True, eq=False)
class Elpd:
    """Expected log pointwise predictive density: how probable the model finds a unit that it has not seen.

    Attributes
    ----------
    elpd : float
        Sum over units, in nats, for densities in the units of the data. Larger is better.
    se : float
        Its standard error from the spread between units.
    p : float
        Effective number of parameters.
    pointwise : xarray.DataArray
        The terms of ``elpd`` on the image's own pixels, NaN where masked.
    n_warn : int
        Units whose term is not to be trusted, or is minus infinity: some draws then say that their data cannot be.
    unit : str
        What is left out, such as "pixel"; with "(conditional)" where the latents are sample sites and are
        conditioned on.
    mcse : float
        Numerical error of ``elpd``: the standard deviation over sets of integration points; 0 where nothing
        is sampled.
    warning : str
        The verdict of a fit that failed its own diagnostics, on whose draws all this rests; else empty.
    """

    elpd: float
    se: float
    p: float
    pointwise: xr.DataArray
    n_warn: int
    unit: str
    mcse: float
    warning: str = ""


def waic(fit: Fit, *, conditional: bool = False, seed: int | jax.Array = POINTS, n_blocks: int | None = None) -> Elpd:
    """Widely applicable information criterion, on the scale of the log density.

    Per unit ``log(mean over draws of p(y | globals)) - variance over draws of log p(y | globals)``, with the
    unit's own latent integrated out: the density that predicts a new unit. A chunk of units at a time, in float64 on
    a CPU.

    Parameters
    ----------
    fit : Fit
    conditional : bool
        Allow a model whose latents are sample sites: the density is then conditional on them, does not say
        how a new unit is predicted, and keeps improving with every component that is added.
    seed : int or JAX key
        Picks the integration points where the likelihood is sampled.
    n_blocks : int, optional
        For sequences: the unit is one of so many stretches of a sequence given all of it that came before,
        log p(block | earlier), instead of a whole sequence. At least 10, and needed where there is one sequence.

    Returns
    -------
    Elpd
        ``n_warn`` counts the units whose variance exceeds 0.4.

    Raises
    ------
    ValueError
        When the latents are sample sites and ``conditional`` is False; for a single unit, a single sequence without
        ``n_blocks`` or too few blocks, and a single draw.
    FloatingPointError
        When a log density is not a number.

    References
    ----------
    Watanabe, J. Mach. Learn. Res. 11, 3571 (2010); Vehtari, Gelman & Gabry, Stat. Comput. 27, 1413 (2017),
    whose variance is here divided by the number of draws, as in ArviZ; Millar, Methods Ecol. Evol. 9, 1403
    (2018), on the marginal form.

    Examples
    --------
    >>> found = bu.waic(fit)
    >>> found.unit
    'pixel'
    >>> bool(np.isclose(found.elpd, found.pointwise.sum()))
    True
    """
    unit = _unit(as_fit(fit), conditional, n_blocks)
    log_mean, variance = np.empty((2, fit.units.n_units * (n_blocks or 1)))
    with computing():
        for part, found in _passes(fit, fit.draws(), as_key(seed), n_blocks):
            log_mean[part] = found.log_mean
            variance[part] = np.where(_impossible(found), np.inf, found.variance)
    return _elpd(fit, log_mean - variance, variance, variance, VARIANCE_LIMIT, unit, "waic", seed, n_blocks)


def loo(fit: Fit, *, conditional: bool = False, seed: int | jax.Array = POINTS, n_blocks: int | None = None) -> Elpd:
    """Leave-one-out cross-validation by Pareto-smoothed importance sampling.

    Per unit the log density of its data under the posterior of all other units, log p(y_u | y_-u), with the unit's
    own latent integrated out. Posterior draws are weighted by 1 / p(y_u | globals), the largest weights smoothed by
    a generalised Pareto distribution; a chunk of units at a time.

    Parameters
    ----------
    fit, conditional, seed, n_blocks
        As in :func:`waic`. Of blocks given their past only the block itself is left out.

    Returns
    -------
    Elpd
        ``pointwise`` carries the shape of every unit's tail as the coordinate ``pareto_k``; ``n_warn`` counts the
        units where it exceeds 0.7: a single unit then moves the posterior too far for its weights.

    Raises
    ------
    ValueError
        As :func:`waic`.

    References
    ----------
    Vehtari, Gelman & Gabry, Stat. Comput. 27, 1413 (2017); Vehtari et al., "Pareto smoothed importance sampling",
    J. Mach. Learn. Res. 25(72), 1 (2024).
    """
    unit = _unit(as_fit(fit), conditional, n_blocks)
    terms, gain, shape = np.empty((3, fit.units.n_units * (n_blocks or 1)))
    efficiency = relative_efficiency(fit.posterior)
    with computing():
        for part, found in _passes(fit, fit.draws(), as_key(seed), n_blocks):
            never = _impossible(found)
            log_p = np.where(never, 0.0, np.asarray(found.pointwise, dtype=np.float64)).T
            weights, tails = psis(-log_p, efficiency)
            shape[part] = np.where(never, np.inf, tails)
            terms[part] = np.where(never, -np.inf, _log_sum_exp(weights + log_p))
            gain[part] = np.asarray(found.log_mean) - terms[part]
    return _elpd(fit, terms, gain, shape, SHAPE_LIMIT, unit, "loo", seed, n_blocks)


def _impossible(found: LikelihoodPass) -> np.ndarray:
    """Units whose data have density zero at some draw: their variance is infinite, and so is the largest weight."""
    # Seen in what is summed over the draws already: all draws need not leave the device for it.
    log_mean, variance = np.asarray(found.log_mean), np.asarray(found.variance)
    if np.isnan(log_mean).any():
        raise FloatingPointError(
            f"the log density of {int(np.isnan(log_mean).sum())} units is not a number at some posterior draws: "
            "the model's distribution gives NaN for these data"
        )
    return np.isnan(variance) & (log_mean < np.inf)


def _elpd(
    fit: Fit,
    terms: np.ndarray,
    parameters: np.ndarray,
    trouble: np.ndarray,
    limit: float,
    unit: str,
    criterion: str,
    seed: int | jax.Array,
    n_blocks: int | None,
) -> Elpd:
    """Sums and maps of the terms of every unit; ``trouble`` beyond ``limit`` is counted."""
    units = fit.units
    dims, coords = ((), None) if n_blocks is None else (("block",), {"block": np.arange(n_blocks)})
    shape = (units.n_units,) if n_blocks is None else (units.n_units, n_blocks)
    pointwise = units.to_map(terms.reshape(shape), dims, coords).rename("elpd")
    if criterion == "loo":
        tails = units.to_map(trouble.reshape(shape), dims, coords)
        pointwise = pointwise.assign_coords(pareto_k=(pointwise.dims, tails.transpose(*pointwise.dims).values))
    return Elpd(
        elpd=float(terms.sum()),
        se=sum_error(terms, None if n_blocks else units.shared) if np.isfinite(terms).all() else np.inf,
        p=float(parameters.sum()),
        pointwise=pointwise.assign_attrs(units="nats", criterion=criterion),
        n_warn=int(np.sum(trouble > limit)),
        unit=unit,
        mcse=_integration_error(fit, seed, n_blocks),
        warning=warning_of(fit),
    )


def warning_of(fit: Fit) -> str:
    """The verdict of a fit that failed its own diagnostics; else empty."""
    return "" if fit.converged else str(fit.diagnostics.attrs["verdict"])


def _passes(fit: Fit, draws: Draws, key: jax.Array, n_blocks: int | None) -> Iterator[tuple[slice, LikelihoodPass]]:
    """Log densities of the units over the draws, chunk by chunk."""
    if n_blocks is not None:
        yield slice(None), _of_blocks(fit, draws, n_blocks)
        return
    for part, chunk, key_sets in likelihood_chunks(draws, fit.units, fit.covariates, key):
        yield part, likelihood_pass(*draws, chunk, key_sets)


def _of_blocks(fit: Fit, draws: Draws, n_blocks: int) -> LikelihoodPass:
    """The same of stretches of a sequence, each given its past."""
    units = fit.units
    if n_blocks < _FEWEST_TIME_BLOCKS or units.lengths is None or units.lengths.min() < n_blocks:
        raise ValueError(
            f"n_blocks: expected at least {_FEWEST_TIME_BLOCKS} blocks of sequences of as many frames, got {n_blocks}"
        )
    y = jnp.asarray(units.values, jnp.result_type(float))

    @jax.jit
    def densities(values):
        def one(value):
            fn = draws.program.likelihood(draws.numbers, value, y, fit.covariates)
            if not hasattr(fn, "log_prob_blocks"):
                raise TypeError("n_blocks: this model has no density of a block given its past")
            return fn.log_prob_blocks(y, n_blocks).reshape(-1)

        return jax.lax.map(one, values)

    log_p = densities({name: draws.values[name] for name, _ in draws.program.shapes})
    return LikelihoodPass(jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(log_p)), log_p.var(0), log_p)


def _integration_error(fit: Fit, seed: int | jax.Array, n_blocks: int | None) -> float:
    """Standard deviation of the elpd over sets of integration points, from two sets; 0 where nothing is sampled.

    The points of a unit shift its log density at all draws alike, so they shift the terms of WAIC and of
    leave-one-out alike. Every unit has points of its own: their errors are independent.
    """
    if n_blocks is not None:
        return 0.0
    key = as_key(seed)
    terms = np.zeros((2, fit.units.n_units))
    with computing():
        draws = fit.draws(_ERROR_DRAWS)
        for row, own in enumerate((key, jax.random.fold_in(key, 1))):
            for part, chunk, key_sets in likelihood_chunks(draws, fit.units, fit.covariates, own):
                if chunk.rule is None:
                    return 0.0
                found = likelihood_pass(*draws, chunk, key_sets)
                terms[row, part] = found.log_mean - found.variance
    finite = np.isfinite(terms).all(0)
    return float(np.sqrt(0.5 * np.sum((terms[0] - terms[1])[finite] ** 2)))


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    top = values.max(-1)
    return top + np.log(np.exp(values - top[..., None]).sum(-1))


def _unit(fit: Fit, conditional: bool, n_blocks: int | None) -> str:
    units = fit.units
    if fit.posterior.sizes["chain"] * fit.posterior.sizes["draw"] < 2:
        raise ValueError(
            "WAIC and LOO need many posterior draws, and there is one: fit with more, as bu.SVI(draws=1000)"
        )
    if units.n_units == 1 and units.lengths is None:
        raise ValueError("WAIC and LOO need several units to tell chance from merit, and one pixel was fitted")
    if units.n_units == 1 and n_blocks is None:
        raise ValueError(
            "WAIC and LOO need several units, and there is one sequence: pass n_blocks=20, say, to take stretches of "
            "it given their past as units"
        )
    names = local_latents(fit)
    if names and not conditional:
        raise ValueError(
            f"the latents {list(names)} are sample sites of every pixel: a criterion conditional on them rewards "
            "every added component. Integrate them out inside the observed site's distribution, or pass "
            "conditional=True"
        )
    if n_blocks is not None:
        return "block given its past"
    unit = getattr(fit.model, "unit", "pixel") if units.members is None else units.pixel_dims[-1]
    return f"{unit} (conditional)" if names else unit
