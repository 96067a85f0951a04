"""Abundance maps with their uncertainty beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import centres, colour_bar, dim_label, draw, flatten, map_canvas, spread
from .style import COLUMN, RC, canvas, colour, dress, member_names, one_axes, plain
from .truth import matched

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {
    "mean": "posterior mean",
    "sd": "posterior sd",
    "sd_noise": "sd, noise part",
    "sd_model": "sd, model part",
}


def maps(
    fit: Any,
    *,
    show: Sequence[str] = ("mean", "sd"),
    endmembers: Sequence[int] | None = None,
    threshold: float = 0.5,
    truth: xr.Dataset | None = None,
    latent: xr.Dataset | None = None,
    at: dict[str, int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Abundance maps: a row per endmember, a column per quantity: a map stands beside its uncertainty.

    A single quantity of several endmembers is drawn three in a row.
    A line scan is drawn as profiles with their 90 % intervals instead, whatever `show` says.

    Parameters
    ----------
    fit : Fit
        A fit whose local latent is ``abundance``.
    show : sequence of str
        Columns: statistics of ``fit.latent()`` (``"mean"``, ``"sd"``, ``"lower"``, ...), or ``"exceedance"``
        for the probability that the abundance is above `threshold`.
    endmembers : sequence of int, optional
        Positions of the endmembers to draw; all of them when left out.
    threshold : float
        For ``"exceedance"``.
    truth : xarray.Dataset, optional
        A simulator's truth: its endmembers are matched to the fitted ones and their maps come first.
    latent : xarray.Dataset, optional
        ``fit.latent()`` when it is already there, to spare the work.
    at : dict, optional
        Positions along the dims before the last two (``{"time": 3}``); the middle when left out.
    ax : matplotlib Axes, optional
        Allowed when there is one panel: one endmember and one quantity, or a line scan.

    Returns
    -------
    Figure, or the Axes given.

    Raises
    ------
    ValueError
        When `ax` is given for several panels, or `show` names an unknown quantity.
    """
    import matplotlib

    abundance = (fit.latent() if latent is None else latent)["abundance"]
    pixel_dims = [d for d in abundance.dims if d not in ("endmember", "statistic")]
    members = list(range(abundance.sizes["endmember"])) if endmembers is None else list(endmembers)
    true = None if truth is None else matched(fit, truth)["abundance"]
    names = member_names(abundance.coords["endmember"].values, true)

    with matplotlib.rc_context(RC):
        if len(pixel_dims) == 1:
            return _profiles(abundance, true, members, names, ax)
        columns = {} if true is None else {"truth": true}
        columns |= {name: _quantity(fit, abundance, name, threshold) for name in show}
        one_axes(ax, len(members) * len(columns), "maps")
        across = min(3, len(members)) if len(columns) == 1 else 1
        if ax is None:
            rows = math.ceil(len(members) / across)
            figure, panels, _ = map_canvas(abundance.isel(statistic=0), rows, across * len(columns), titled=across > 1)
            panels = panels.reshape(-1, len(columns))
            for spare in panels[len(members) :].flat:
                spare.remove()
        else:
            panels = np.array([[dress(ax)]])
        note = ""
        for column, (name, values) in enumerate(columns.items()):
            title = f"P(abundance > {threshold:g})" if name == "exceedance" else _TITLES.get(name, name)
            looks = _looks(name, values.isel(endmember=members))
            for row, member in enumerate(members):
                image, note = flatten(values.isel(endmember=member, drop=True).transpose(*pixel_dims), at)
                panel = panels[row, column]
                mappable = draw(panel, image, bar=row == column == 0, outer=row == len(members) - 1, **looks)
                if ax is not None:
                    panel.set_title(f"{names[member]}, {title}")
                elif across > 1:
                    panel.set_title(names[member].replace(" (", "\n("))
                elif row == 0:
                    panel.set_title(title)
                if column == 0 and across == 1 and ax is None:
                    panel.annotate(
                        names[member].replace(" (", "\n("), (0, 0.5), (-4, 0), "axes fraction", "offset points",
                        rotation=90, ha="right", va="center", multialignment="center",
                    )  # fmt: skip
            colour_bar(mappable, panels[: len(members), column], _bar_label(name), across)
        if ax is not None:
            return ax
        heading = [title] * (across > 1) + [plain(note)] * bool(note)
        if heading:
            figure.suptitle(", ".join(heading))
        return figure


def _quantity(fit: Any, abundance: xr.DataArray, name: str, threshold: float) -> xr.DataArray:
    if name == "exceedance":
        draws = fit.sample_latent()["abundance"]
        return (draws > threshold).mean("draw").where(draws.notnull().all("draw"))
    known = list(abundance.coords["statistic"].values)
    if name not in known:
        raise ValueError(f"show= may hold {[*known, 'exceedance']}, got {name!r}")
    return abundance.sel(statistic=name, drop=True)


def _bar_label(name: str) -> str:
    if name == "exceedance":
        return "probability"
    return "sd of abundance" if name.startswith("sd") else "abundance"


def _looks(name: str, values: xr.DataArray) -> dict[str, Any]:
    """Colour map and limits: shared down a column, so that endmembers can be compared."""
    if name.startswith("sd"):
        low, high = spread(values)
        return {"cmap": "cividis", "vmin": low, "vmax": high}
    return {"cmap": "viridis", "vmin": 0.0, "vmax": 1.0}


def _profiles(
    abundance: xr.DataArray, truth: xr.DataArray | None, members: list[int], names: list[str], ax: Axes | None
) -> Figure | Axes:
    figure = None
    if ax is None:
        figure, (ax,) = canvas(COLUMN, 60)
    dress(ax)
    dim = next(d for d in abundance.dims if d not in ("endmember", "statistic"))
    position = centres(abundance, dim)
    for member in members:
        mean, low, high = abundance.isel(endmember=member).sel(statistic=["mean", "lower", "upper"]).values.T
        ax.plot(position, mean, color=colour(member), label=names[member])
        ax.fill_between(position, low, high, color=colour(member), alpha=0.3, linewidth=0)
        if truth is not None:
            label = "truth" if member == members[-1] else None
            ax.plot(position, truth.isel(endmember=member), ":", color="black", linewidth=0.8, label=label)
    ax.set_xlabel(dim_label(abundance, dim))
    ax.set_ylabel("abundance")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return ax if figure is None else figure
