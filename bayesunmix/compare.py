"""Which model predicts best: a table of differences, their errors, and one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from scipy.sparse import csr_array

from bayesunmix.data.sharing import sum_error
from bayesunmix.elpd import Elpd, loo, waic
from bayesunmix.fit import Fit, as_fit
from bayesunmix.inference.context import computing
from bayesunmix.spatial import morans_i

if TYPE_CHECKING:
    import pandas as pd

TIE = 4.0  # nats: a smaller difference never decides
BLOCK = 8  # pixels along each side of a jackknife block
_FEWEST_BLOCKS = 4
_ERROR_SHARE = 0.1  # largest numerical error, in standard errors of a difference, at which there is a verdict
_CLUSTERED_P = 0.001  # of Moran's I, below which differences are said to cluster
_CRITERIA = {"waic": waic, "loo": loo}


def compare(fits: Mapping[str, Fit], criterion: str = "waic", *, n_blocks: int | None = None) -> pd.DataFrame:
    """Rank fits of the same data by how well they predict.

    Parameters
    ----------
    fits : mapping of name to Fit
        Two or more, of the same pixels and channels.
    criterion : "waic" or "loo"
    n_blocks : int, optional
        For sequences: blocks given their past as units, see :func:`bayesunmix.waic`.

    Returns
    -------
    pandas.DataFrame
        One row a model, best first: ``rank`` (from 0), ``elpd``, ``p``, ``elpd_diff`` (best minus this),
        ``se``, ``dse`` (standard error of the difference: the larger of that from single pixels and that from
        blocks of 8 x 8, because a detector's blur and drift make neighbours alike; of atoms that share neighbours,
        from products of their differences), ``weight`` (stacking),
        ``warning`` (units not to be trusted, or a fit that failed its own diagnostics), ``diff_per_unit``
        (``elpd_diff`` in nats per pixel) and ``moran`` (Moran's I of the map of differences: how alike neighbours
        are in what the model lacks).
        ``attrs["preferred"]`` is the smallest model whose ``elpd_diff`` is below max(4, 2 dse), or None where
        the numerical error of a difference is too large to say; ``attrs["verdict"]`` says it in plain words,
        whether differences cluster in the image, and what the warnings are. Small means few globals.

    Raises
    ------
    TypeError
        For anything but a mapping of names to fits.
    ValueError
        For fewer than two fits, or fits of other data, other masks or another unit, and as :func:`bayesunmix.waic`.

    References
    ----------
    Vehtari, Gelman & Gabry (2017) for the paired standard error; Yao et al., Bayesian Anal. 13, 917 (2018)
    for stacking.
    """
    import pandas as pd

    if criterion not in _CRITERIA:
        raise ValueError(f'criterion: expected "waic" or "loo", got {criterion!r}')
    if not isinstance(fits, Mapping):
        raise TypeError(f'fits: expected {{"one": fit, "other": fit}}, got {type(fits).__name__}')
    for name, fit in fits.items():
        as_fit(fit, f"fits[{name!r}]")
    _same_data(fits)
    found = {name: _CRITERIA[criterion](fit, conditional=True, n_blocks=n_blocks) for name, fit in fits.items()}
    _same_unit(found)
    names = sorted(found, key=lambda name: -found[name].elpd)
    best = found[names[0]]
    sizes = {name: _n_globals(fits[name]) for name in names}
    weights = dict(zip(names, stack([_terms_of(found[name]) for name in names]), strict=True))
    rows, clustered = [], {}
    for rank, name in enumerate(names):
        one = found[name]
        difference = best.pointwise - one.pointwise
        difference = difference.where(np.isfinite(difference))
        mapped = rank and best.unit.startswith(("pixel", "vector")) and bool(difference.notnull().any())
        moran, clustered[name] = morans_i(difference) if mapped else (0.0, 1.0)
        rows.append(
            {
                "rank": rank,
                "elpd": one.elpd,
                "p": one.p,
                "elpd_diff": best.elpd - one.elpd,
                "se": one.se,
                "dse": difference_error(difference, fits[name].units.shared) if rank else 0.0,
                "weight": weights[name],
                "warning": one.n_warn > 0 or not fits[name].converged,
                "diff_per_unit": (best.elpd - one.elpd) / _terms_of(best).size,
                "moran": moran,
            }
        )
    table = pd.DataFrame(rows, index=pd.Index(names))
    error = {name: float(np.hypot(best.mcse, found[name].mcse)) for name in names[1:]}
    preferred, verdict = _decide(table, sizes, error)
    verdict += _on_clusters(table, sizes, clustered) + _on_warnings(fits, found, criterion)
    table.attrs.update(preferred=preferred, verdict=verdict, criterion=criterion, unit=best.unit)
    return table


def difference_error(difference: xr.DataArray, shared: csr_array | None = None) -> float:
    """Standard error of the sum of pointwise differences: between pixels, or between blocks of pixels if
    larger; of units of which those ``shared`` have parts in common, with what they have in common.

    Blocks are 8 x 8 pixels of the last two pixel dims, each left out in turn (delete-block jackknife); with
    fewer than four blocks there is nothing to be learned from them.
    """
    kept = np.isfinite(difference.values)
    values = difference.values[kept]
    if not (n_units := values.size):
        return float("nan")
    single = sum_error(values, shared)
    if difference.ndim < 2:
        return single
    where = np.indices(difference.shape)
    where[-2:] //= BLOCK
    _, block = np.unique(where[:, kept], axis=1, return_inverse=True)
    block = block.reshape(-1)
    counts, sums = np.bincount(block), np.bincount(block, weights=values)
    if len(counts) < _FEWEST_BLOCKS:
        return single
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
    log_density = log_density[:, np.isfinite(log_density).any(axis=0)]
    density = np.exp(log_density - log_density.max(axis=0))
    weights = np.full(len(terms), 1.0 / len(terms))
    for _ in range(10_000 if density.size else 0):
        new = weights * np.mean(density / (weights @ density), axis=1)
        moved = np.abs(new - weights).max()
        weights = new
        if moved < 1e-7:
            break
    return weights / weights.sum()


def _terms_of(one: Elpd) -> np.ndarray:
    values = one.pointwise.values
    return values[~np.isnan(values)]


def _n_globals(fit: Fit) -> int:
    """Free numbers that a model draws: none that follow from others, and none that are known."""
    with computing():
        return fit.draws(1).program.size


def _decide(table: pd.DataFrame, sizes: dict[str, int], error: dict[str, float]) -> tuple[str | None, str]:
    """The preferred model, and why, in one sentence."""
    if not np.isfinite(table["elpd"].iloc[0]):
        return None, "No verdict."
    # The rule turns on 2 dse and never on less than TIE, so that is what the numerical error is held against.
    scale = {name: max(TIE / 2.0, float(table.loc[name, "dse"])) for name in error}
    behind = {name: float(table.loc[name, "elpd_diff"]) for name in error}
    best = table.index[0]
    tied = [best, *(name for name in error if behind[name] < 2.0 * scale[name])]
    preferred = min(tied, key=lambda name: sizes[name])
    doubtful = [
        name
        for name in error
        if error[name] > _ERROR_SHARE * scale[name]
        and _could_decide(
            behind[name],
            behind.get(preferred, 0.0),
            3.0 * error[name],
            2.0 * scale[name],
            sizes[name] - sizes[preferred],
        )
    ]
    if doubtful:
        worst = max(doubtful, key=lambda name: error[name] / scale[name])
        return None, (
            f"No verdict: the numerical error of the difference to {worst} ({error[worst]:.2g} nats) exceeds a "
            f"tenth of its standard error ({table.loc[worst, 'dse']:.2g})."
        )
    if len(tied) == 1:
        return preferred, f"Prefer {_in_words([best])}: clearly better than every other."
    words = _in_words(sorted(tied, key=lambda name: sizes[name]))
    return preferred, f"{words} are indistinguishable: prefer {_size(preferred)[0]}, the smallest."


def _could_decide(behind: float, preferred: float, error: float, tie: float, larger: int) -> bool:
    """Whether another value within the numerical error could change which model is preferred.

    ``behind`` and ``preferred`` are how far this model and the preferred one lie below the best. A model larger than
    the preferred one could only by being clearly better than it, a smaller one by catching up, and the preferred one
    itself by falling back.
    """
    if larger > 0:
        return error + preferred - behind > tie
    return behind + error > tie if larger == 0 else behind - error < tie


def _on_clusters(table: pd.DataFrame, sizes: dict[str, int], clustered: dict[str, float]) -> str:
    """What it means that a smaller model falls behind in some regions of the image: of the closest such model."""
    best = table.index[0]
    for name in table.index[1:]:
        if clustered[name] < _CLUSTERED_P and sizes[name] < sizes[best]:
            return (
                f" Where {_in_words([name])} fall{'' if _size(name)[1] else 's'} behind, neighbours do so "
                f"together (Moran's I {table.loc[name, 'moran']:.2g}): by itself that is misfit, not evidence for "
                "another phase; map the difference of their pointwise terms."
            )
    return ""


def _on_warnings(fits: Mapping[str, Fit], found: Mapping[str, Elpd], criterion: str) -> str:
    """Which rows rest on a fit that failed its diagnostics, or on units whose terms cannot be trusted."""
    said = ""
    failed = [name for name, fit in fits.items() if not fit.converged]
    if failed:
        said += f" Careful: {_in_words(failed)} failed the diagnostics of the fit."
    never = [name for name, one in found.items() if not np.isfinite(one.elpd)]
    if never:
        said += f" {_in_words(never)}: some posterior draws give density zero to data that were seen."
    if next(iter(found.values())).unit.endswith("(conditional)"):
        said += (
            " All this is conditional on the latents of every pixel, which rewards each component that is added: it "
            "ranks descriptions of these pixels, not predictions of new ones."
        )
    doubtful = {name: one.n_warn for name, one in found.items() if one.n_warn and name not in never}
    if doubtful:
        counts = ", ".join(f"{n} for {_in_words([name])}" for name, n in doubtful.items())
        advice = 'vary too much for WAIC: confirm with criterion="loo"'
        why = advice if criterion == "waic" else "have a Pareto k above 0.7"
        said += f" Terms of some {next(iter(found.values())).unit.split()[0]}s {why} ({counts})."
    return said


def _size(name: str) -> tuple[str, str]:
    """The name "n_endmembers=3", as ``sweep`` gives it, in parts: 3, endmembers. Any other name is a whole."""
    found = re.fullmatch(r"n_(\w+)=(\d+)", name)
    return (found[2], found[1]) if found else (name, "")


def _in_words(names: Sequence[str]) -> str:
    """ "3 and 4 endmembers", or "a, b and c"."""
    parts = [_size(str(name)) for name in names]
    alike = len({word for _, word in parts}) == 1
    said = [number for number, _ in parts] if alike else [str(name) for name in names]
    listed = said[0] if len(said) == 1 else ", ".join(said[:-1]) + f" and {said[-1]}"
    return f"{listed} {parts[0][1]}".strip() if alike else listed


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
        if getattr(fit.model, "lag", 1) != getattr(reference.model, "lag", 1):
            raise ValueError(f"{first} and {name} have other lags, so they score other frames of the same data")


def _same_unit(found: Mapping[str, Elpd]) -> None:
    kinds = {one.unit for one in found.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{name}: {one.unit}" for name, one in found.items())
        raise ValueError(f"these fits leave out other things and cannot be compared ({listed})")
