"""Endmember spectra with their credible bands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import centres, dim_label
from .style import COLUMN, RC, axis_label, canvas, colour, dress, member_names, plain
from .truth import endmember_draws, matched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def endmembers(
    fit: Any, *, prob: float = 0.9, truth: xr.Dataset | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """Endmember spectra: posterior mean and credible band, and below them the posterior sd of each channel.

    Parameters
    ----------
    fit : Fit
        A fit with endmembers, inferred or fixed (fixed ones have no band).
    prob : float
        Probability inside the band, channel by channel.
    truth : xarray.Dataset, optional
        A simulator's truth, drawn dotted; below, the true error joins the sd it should be compared with.
    ax : matplotlib Axes, optional
        Draws the spectra there, without the lower panel.

    Returns
    -------
    Figure, or the Axes given.
    """
    import matplotlib

    draws = endmember_draws(fit)
    channel = draws.dims[-1]
    true = None if truth is None else matched(fit, truth)["endmembers"].transpose("endmember", ...)
    names = member_names(draws.coords["endmember"].values, true)
    inferred = draws.sizes["draw"] > 1
    across = max(1, min(3, 54 // (6 + max(map(len, names)))))  # names that stand side by side above the spectra
    rows = math.ceil((len(names) + (true is not None)) / across)

    with matplotlib.rc_context(RC):
        figure, lower = None, None
        if ax is None:
            heights = [3, 1.3] if inferred else [1]
            height = 78 + 3.5 * rows - 20 * (not inferred)
            figure, panels = canvas(COLUMN, height, len(heights), sharex=True, height_ratios=heights)
            ax, lower = panels[0], panels[1] if inferred else None
        dress(ax)
        x = centres(draws, channel)
        _bands(ax, x, draws.values, prob, names)
        if true is not None:
            for k, spectrum in enumerate(true.values):
                label = "truth" if k == len(names) - 1 else None
                ax.plot(x, spectrum, color="black", linestyle=":", linewidth=0.8, label=label)
        ax.set_ylabel(axis_label(draws, "intensity"))
        ax.margins(x=0)
        title = f"mean and {100 * prob:g} % band" if inferred else "fixed"
        ax.legend(
            title=title,
            alignment="left",
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderpad=0,
            ncols=across,
            columnspacing=1,
        )
        if lower is not None:
            _spreads(lower, x, draws, true)
        (lower or ax).set_xlabel(dim_label(draws, channel))
        return ax if figure is None else figure


def _bands(ax: Axes, x: np.ndarray, draws: np.ndarray, prob: float, names: list[str]) -> None:
    low, high = np.quantile(draws, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    for k, name in enumerate(names):
        ax.fill_between(x, low[k], high[k], color=colour(k), alpha=0.35, linewidth=0)
        ax.plot(x, draws[:, k].mean(axis=0), color=colour(k), label=name)


def _spreads(ax: Axes, x: np.ndarray, draws: xr.DataArray, true: xr.DataArray | None) -> None:
    spreads = draws.std("draw").values
    for k, spread in enumerate(spreads):
        ax.plot(x, spread, color=colour(k))
        if true is not None:
            error = np.abs(draws.values[:, k].mean(axis=0) - true.values[k])
            ax.plot(x, error, ".", color=colour(k), markersize=1.5, alpha=0.7)
    ax.set_ylim(bottom=0)
    units = draws.attrs.get("units")
    name = "sd" if units in (None, "", "1") else f"sd\n({units})"
    ax.set_ylabel(plain(name) if true is None else "sd (line),\n|error| (dots)")
