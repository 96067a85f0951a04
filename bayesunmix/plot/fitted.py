"""Single pixels: what was measured, what the fit makes of it, and where a repetition would fall."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy import stats

from bayesunmix.uncertainty import uncertainty

from .images import centres, dim_label
from .style import COLOURS, COLUMN, RC, axis_label, canvas, dress, one_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def fitted(
    fit: Any,
    at: Sequence[int] | None = None,
    *,
    prob: float = 0.9,
    split: xr.Dataset | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Data of single pixels as dots, on the predictive mean and the band where a repetition would fall.

    Parameters
    ----------
    fit : Fit
    at : sequence of int, optional
        Positions among the fitted pixels, as in ``fit.units.values``; when left out, the pixels whose squared
        residuals are largest, median and smallest.
    prob : float
        Probability inside the band, channel by channel.
    split : xarray.Dataset, optional
        What ``bu.uncertainty(fit)`` returned, if it is at hand.
    ax : matplotlib Axes, optional
        Draws the one pixel of ``at`` there.

    Returns
    -------
    Figure, or the Axes given.

    Raises
    ------
    ValueError
        When ``ax`` is to hold several pixels, or a position lies outside the fitted ones.
    """
    import matplotlib

    units = fit.units
    split = uncertainty(fit) if split is None else split
    data, mean, sd = (first_feature(v, units) for v in (units.values, *of_units(split[["mean", "total"]], units)))
    if at is None:
        order = np.argsort(np.nansum(((data - mean) / sd) ** 2, axis=1))
        at = list(dict.fromkeys(int(order[place]) for place in (-1, len(order) // 2, 0)))
    wrong = [place for place in at if not 0 <= place < units.n_units]
    if wrong:
        raise ValueError(f"at: expected positions from 0 to {units.n_units - 1}, got {wrong}")
    one_axes(ax, len(at), "fitted")
    low, high = band(mean[list(at)], sd[list(at)], prob, getattr(fit.model, "likelihood", "normal"))
    channel = split["mean"].isel({d: 0 for d in units.pixel_dims})
    x = centres(channel, units.channel_dim)
    named = names(channel, units.channel_dim)
    with matplotlib.rc_context(RC):
        drawn: Figure | Axes
        if ax is None:
            drawn, panels = canvas(COLUMN, 8 + 34 * len(at), len(at), sharex=True)
        else:
            drawn, panels = ax, [dress(ax)]
        for row, (panel, place) in enumerate(zip(panels, at, strict=True)):
            if named is None:
                panel.fill_between(x, low[row], high[row], color=COLOURS[0], alpha=0.25, linewidth=0)
                panel.plot(x, mean[place], color=COLOURS[0], linewidth=0.9, label=f"mean and {100 * prob:g} % band")
            else:
                panel.bar(x, high[row] - low[row], 0.5, low[row], color=COLOURS[0], alpha=0.25, linewidth=0)
                ends = x - 0.25, x + 0.25
                panel.hlines(mean[place], *ends, color=COLOURS[0], label=f"mean and {100 * prob:g} % interval")
                panel.set_xticks(x, named)
            panel.plot(x, data[place], ".", color="black", markersize=1.8 if named is None else 4, label="data")
            panel.set_title(plain(where(units, place)))
            panel.margins(x=0.01)
        label = axis_label(xr.DataArray(0, attrs=units.attrs), "value")
        panels[len(panels) // 2].set_ylabel(label)
        panels[-1].set_xlabel(dim_label(channel, units.channel_dim))
        panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1.1), ncols=2, borderpad=0)
        return drawn


def band(mean: np.ndarray, sd: np.ndarray, prob: float, likelihood: str) -> tuple[np.ndarray, np.ndarray]:
    """Bounds that hold ``prob`` of repeated measurements with this predictive mean and sd.

    Counts are negative binomial, which is what Poisson's law with a gamma-distributed expectation gives; anything
    else is normal.
    """
    tails = ((1 - prob) / 2, (1 + prob) / 2)
    if likelihood != "poisson":
        low, high = (mean + stats.norm.ppf(tail) * sd for tail in tails)
        return low, high
    excess = np.maximum(sd**2 - mean, 1e-6 * np.maximum(mean, 1e-12))
    size = np.maximum(mean, 1e-12) ** 2 / excess
    low, high = (stats.nbinom.ppf(tail, size, size / (size + mean)) for tail in tails)
    return low, high


def names(channel: xr.DataArray, dim: str) -> list[str] | None:
    """Names of the entries of a vector; None for an axis of numbers."""
    if dim not in channel.coords or np.issubdtype(channel[dim].dtype, np.number):
        return None
    return [plain(name) for name in channel[dim].values]


def of_units(values: xr.Dataset, units: Any) -> list[np.ndarray]:
    """Every variable of a data set on the pixel dims as ``(unit, ...)``."""
    rows = [array.transpose(*units.pixel_dims, ...).values for array in values.data_vars.values()]
    inner = len(units.pixel_dims)
    return [row.reshape(-1, *row.shape[inner:])[units.index] for row in rows]


def first_feature(values: np.ndarray, units: Any) -> np.ndarray:
    """``(unit, channel)``: the first of several features of a sequence."""
    return values[..., 0] if units.feature_dim else values


def where(units: Any, place: int) -> str:
    """Where a fitted pixel is, in the words of the image's own axes."""
    found = np.unravel_index(units.index[place], units.pixel_shape)
    parts = []
    for dim, position in zip(units.pixel_dims, found, strict=True):
        coord = units.coords.get(dim)
        if coord is None or not np.issubdtype(coord.dtype, np.number):
            parts.append(f"{dim} {position}")
        else:
            parts.append(f"{dim} = {coord.values[position]:.4g} {coord.attrs.get('units', '')}".strip())
    return ", ".join(parts)
