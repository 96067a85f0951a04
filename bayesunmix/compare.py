"""Which model predicts best: WAIC on the marginal likelihood, and a table of differences and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from bayesunmix._keys import as_key
from bayesunmix.fit import Fit
from bayesunmix.inference.precision import native_precision
from bayesunmix.inference.units import Draws, likelihood_pass
from bayesunmix.predict import POINTS, likelihood_chunks, local_latents

if TYPE_CHECKING:
    import pandas as pd

VARIANCE_LIMIT = 0.4  # of the log density over draws: beyond, WAIC of that unit is not to be trusted
TIE = 4.0  # nats: a smaller difference never decides
BLOCK = 8  # pixels along each side of a jackknife block
_FEWEST_BLOCKS = 4
_FEWEST_TIME_BLOCKS = 10  # of a sequence
_ERROR_DRAWS = 100  # draws behind the numerical error
_ERROR_SHARE = 0.1  # largest numerical error, in standard errors of a difference, at which there is a verdict


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
        Units whose term is not to be trusted.
    unit : str
        What is left out, such as "pixel"; with "(conditional)" where the latents are sample sites and are
        conditioned on.
    mcse : float
        Numerical error of ``elpd``: the standard deviation over sets of integration points; 0 where nothing
        is sampled.
    """

    elpd: float
    se: float
    p: float
    pointwise: xr.DataArray
    n_warn: int
    unit: str
    mcse: float


def waic(fit: Fit, *, conditional: bool = False, seed: int | jax.Array = POINTS, n_blocks: int | None = None) -> Elpd:
    """Widely applicable information criterion, on the scale of the log density.

    Per unit ``log(mean over draws of p(y | globals)) - variance over draws of log p(y | globals)``, with the
    unit's own latent integrated out: the density that predicts a new unit. Accumulated in a stream over the
    draws in float64 on a CPU.

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
        When the latents are sample sites and ``conditional`` is False; for a single sequence without ``n_blocks``, or
        too few blocks.

    References
    ----------
    Watanabe, J. Mach. Learn. Res. 11, 3571 (2010); Vehtari, Gelman & Gabry, Stat. Comput. 27, 1413 (2017),
    whose variance is here divided by the number of draws, as in ArviZ; Millar, Methods Ecol. Evol. 9, 1403
    (2018), on the marginal form.
    """
    unit = _unit(fit, conditional)
    units = fit.units
    if n_blocks is not None:
        return _by_blocks(fit, n_blocks)
    if units.n_units == 1 and units.lengths is not None:
        raise ValueError(
            "WAIC needs several units, and there is one sequence: pass n_blocks=20, say, to take stretches of it given "
            "their past as units"
        )
    log_mean, variance = np.empty((2, units.n_units))
    between = np.zeros(units.n_units)
    with native_precision():
        chosen, few = fit.draws(), fit.draws(_ERROR_DRAWS)
        key = as_key(seed)
        for part, chunk, key_sets in likelihood_chunks(chosen, units, fit.covariates, key):
            found = likelihood_pass(*chosen, chunk, key_sets, False)
            log_mean[part], variance[part] = found.log_mean, found.variance
        if chunk.rule is not None:
            between = _terms(few, fit, key) - _terms(few, fit, jax.random.fold_in(key, 1))
    pointwise = log_mean - variance
    if units.independent is not None:
        # A unit that depends on others, which were fitted, is not left out by leaving its term out.
        unit = f"{units.pixel_dims[-1]} (sharing none)"
        pointwise = np.where(units.independent, pointwise, np.nan)
        variance, between = variance[units.independent], between[units.independent]
    terms = pointwise[np.isfinite(pointwise)]
    return Elpd(
        elpd=float(terms.sum()),
        se=float(np.sqrt(terms.size * terms.var())),
        p=float(variance.sum()),
        pointwise=units.to_map(pointwise).rename("elpd").assign_attrs(units="nats", criterion="waic"),
        n_warn=int(np.sum(variance > VARIANCE_LIMIT)),
        unit=unit,
        # Every unit has points of its own, so the errors of units are independent.
        mcse=float(np.sqrt(0.5 * np.sum(between**2))),
    )


def _by_blocks(fit: Fit, n_blocks: int) -> Elpd:
    """The same with stretches of a sequence as units, each given its past."""
    units = fit.units
    if n_blocks < _FEWEST_TIME_BLOCKS or units.lengths is None or units.lengths.min() < n_blocks:
        raise ValueError(
            f"n_blocks: expected at least {_FEWEST_TIME_BLOCKS} blocks of sequences of as many frames, got {n_blocks}"
        )
    with native_precision():
        chosen = fit.draws()
        y = jnp.asarray(units.values, jnp.result_type(float))

        @jax.jit
        def terms(values):
            def one(value):
                fn = chosen.program.likelihood(chosen.numbers, value, y, fit.covariates)
                if not hasattr(fn, "log_prob_blocks"):
                    raise TypeError("n_blocks: this model has no density of a block given its past")
                return fn.log_prob_blocks(y, n_blocks)

            log_p = jax.lax.map(one, values)
            return jax.nn.logsumexp(log_p, axis=0) - jnp.log(len(log_p)), log_p.var(0)

        found = terms({name: chosen.values[name] for name, _ in chosen.program.shapes})
        log_mean, variance = (np.asarray(part, dtype=np.float64) for part in found)
    pointwise = log_mean - variance
    blocks = {"block": np.arange(n_blocks)}
    return Elpd(
        elpd=float(pointwise.sum()),
        se=float(np.sqrt(pointwise.size * pointwise.var())),
        p=float(variance.sum()),
        pointwise=units.to_map(pointwise, ("block",), blocks)
        .rename("elpd")
        .assign_attrs(units="nats", criterion="waic"),
        n_warn=int(np.sum(variance > VARIANCE_LIMIT)),
        unit="block given its past",
        mcse=0.0,
    )


def _terms(draws: Draws, fit: Fit, key: jax.Array) -> np.ndarray:
    """Terms of WAIC with the integration points of ``key``."""
    terms = np.empty(fit.units.n_units)
    for part, chunk, key_sets in likelihood_chunks(draws, fit.units, fit.covariates, key):
        found = likelihood_pass(*draws, chunk, key_sets, False)
        terms[part] = found.log_mean - found.variance
    return terms


def _unit(fit: Fit, conditional: bool) -> str:
    names = local_latents(fit)
    if names and not conditional:
        raise ValueError(
            f"the latents {list(names)} are sample sites of every pixel: a criterion conditional on them rewards "
            "every added component. Integrate them out inside the observed site's distribution, or pass "
            "conditional=True"
        )
    unit = getattr(fit.model, "unit", "pixel")
    return f"{unit} (conditional)" if names else unit


def compare(fits: Mapping[str, Fit], criterion: str = "waic", *, n_blocks: int | None = None) -> pd.DataFrame:
    """Rank fits of the same data by how well they predict.

    Parameters
    ----------
    fits : mapping of name to Fit
        Two or more, of the same pixels and channels.
    criterion : "waic"
    n_blocks : int, optional
        For sequences: blocks given their past as units, see :func:`waic`.

    Returns
    -------
    pandas.DataFrame
        One row a model, best first: ``rank`` (from 0), ``elpd``, ``p``, ``elpd_diff`` (best minus this),
        ``se``, ``dse`` (standard error of the difference: the larger of that from single pixels and that from
        blocks of 8 x 8, because a detector's blur and drift make neighbours alike), ``weight`` (stacking),
        ``warning`` (units not to be trusted, or a fit that failed its own diagnostics).
        ``attrs["preferred"]`` is the smallest model whose ``elpd_diff`` is below max(4, 2 dse), or None where
        the numerical error of a difference is too large to say; ``attrs["verdict"]`` says it in a sentence.
        Small means few globals.

    Raises
    ------
    ValueError
        For fewer than two fits, or fits of other data, other masks or another unit.

    References
    ----------
    Vehtari, Gelman & Gabry (2017) for the paired standard error; Yao et al., Bayesian Anal. 13, 917 (2018)
    for stacking.
    """
    import pandas as pd

    if criterion != "waic":
        raise ValueError(f'criterion: expected "waic", got {criterion!r}')
    _same_data(fits)
    found = {name: waic(fit, conditional=True, n_blocks=n_blocks) for name, fit in fits.items()}
    _same_unit(found)
    names = sorted(found, key=lambda name: -found[name].elpd)
    best = found[names[0]]
    sizes = {name: _n_globals(fits[name]) for name in names}
    weights = dict(zip(names, stack([_terms_of(found[name]) for name in names]), strict=True))
    rows = []
    for rank, name in enumerate(names):
        one = found[name]
        rows.append(
            {
                "rank": rank,
                "elpd": one.elpd,
                "p": one.p,
                "elpd_diff": best.elpd - one.elpd,
                "se": one.se,
                "dse": 0.0 if rank == 0 else difference_error(best.pointwise - one.pointwise),
                "weight": weights[name],
                "warning": one.n_warn > 0 or not fits[name].converged,
            }
        )
    table = pd.DataFrame(rows, index=pd.Index(names))
    error = {name: float(np.hypot(best.mcse, found[name].mcse)) for name in names[1:]}
    preferred, verdict = _decide(table, sizes, error)
    table.attrs.update(preferred=preferred, verdict=verdict, criterion=criterion, unit=best.unit)
    return table


def difference_error(difference: xr.DataArray) -> float:
    """Standard error of the sum of pointwise differences: between pixels, or between blocks of pixels if
    larger.

    Blocks are 8 x 8 pixels of the last two pixel dims, each left out in turn (delete-block jackknife); with
    fewer than four blocks there is nothing to be learned from them.
    """
    kept = np.isfinite(difference.values)
    values = difference.values[kept]
    n_units = values.size
    single = np.sqrt(n_units * values.var())
    if difference.ndim < 2:
        return float(single)
    where = np.indices(difference.shape)
    where[-2:] //= BLOCK
    _, block = np.unique(where[:, kept], axis=1, return_inverse=True)
    block = block.reshape(-1)
    counts, sums = np.bincount(block), np.bincount(block, weights=values)
    if len(counts) < _FEWEST_BLOCKS:
        return float(single)
    left = (sums.sum() - sums) * n_units / (n_units - counts)
    n_blocks = len(counts)
    blocked = np.sqrt((n_blocks - 1) / n_blocks * np.sum((left - left.mean()) ** 2))
    return float(max(single, blocked))


def stack(terms: list[np.ndarray]) -> np.ndarray:
    """Weights of the mixture of predictive densities with the highest score, from log densities (units,) per
    model.

    The score is concave in the weights; the expectation-maximisation step climbs it without a step size.
    """
    log_density = np.stack(terms)
    density = np.exp(log_density - log_density.max(axis=0))
    weights = np.full(len(terms), 1.0 / len(terms))
    for _ in range(10_000):
        new = weights * np.mean(density / (weights @ density), axis=1)
        moved = np.abs(new - weights).max()
        weights = new
        if moved < 1e-7:
            break
    return weights / weights.sum()


def _terms_of(one: Elpd) -> np.ndarray:
    values = one.pointwise.values
    return values[np.isfinite(values)]


def _n_globals(fit: Fit) -> int:
    """Number of globals: elements of the posterior in one draw."""
    return sum(int(np.prod(array.shape[2:])) for array in fit.posterior.data_vars.values())


def _decide(table: pd.DataFrame, sizes: dict[str, int], error: dict[str, float]) -> tuple[str | None, str]:
    """The preferred model, and why, in one sentence."""
    # The rule turns on 2 dse and never on less than TIE, so that is what the numerical error is held against.
    scale = {name: max(TIE / 2.0, float(table.loc[name, "dse"])) for name in error}
    behind = {name: float(table.loc[name, "elpd_diff"]) for name in error}
    doubtful = [
        name
        for name in error
        if error[name] > _ERROR_SHARE * scale[name] and behind[name] - 3.0 * error[name] < 2.0 * scale[name]
    ]
    if doubtful:
        worst = max(doubtful, key=lambda name: error[name] / scale[name])
        return None, (
            f"No verdict: the numerical error of the difference to {worst} ({error[worst]:.2g} nats) exceeds a "
            f"tenth of its standard error ({table.loc[worst, 'dse']:.2g})."
        )
    best = table.index[0]
    tied = [best, *(name for name in error if behind[name] < 2.0 * scale[name])]
    preferred = min(tied, key=lambda name: sizes[name])
    if len(tied) == 1:
        return preferred, f"{best} predicts clearly better than every other: prefer it."
    listed = ", ".join(map(str, tied[:-1])) + f" and {tied[-1]}"
    return preferred, f"{listed} predict indistinguishably well: prefer {preferred}, the smallest."


def _same_data(fits: Mapping[str, Fit]) -> None:
    if len(fits) < 2:
        raise ValueError(f"fits: expected two or more to compare, got {len(fits)}")
    (first, reference), *others = fits.items()
    for name, fit in others:
        here, there = fit.units, reference.units
        if (here.pixel_shape, here.n_channels) != (there.pixel_shape, there.n_channels):
            raise ValueError(
                f"{first} and {name} were fitted to images of other sizes ({there.pixel_shape} x "
                f"{there.n_channels} and {here.pixel_shape} x {here.n_channels}): fit both to the same"
            )
        if not np.array_equal(here.index, there.index):
            raise ValueError(f"{first} and {name} were fitted with other masks: fit both to the same pixels")
        if fit.provenance["data_hash"] != reference.provenance["data_hash"]:
            raise ValueError(f"{first} and {name} were fitted to other data: fit both to the same")


def _same_unit(found: Mapping[str, Elpd]) -> None:
    kinds = {one.unit for one in found.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{name}: {one.unit}" for name, one in found.items())
        raise ValueError(f"these fits leave out other things and cannot be compared ({listed})")
