"""Where the model fails, and how its predictive uncertainty splits."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import centres, colour_bar, dim_label, draw, flatten, map_canvas, profile, spread
from .style import COLOURS, COLUMN, GREY, MASKED, RC, dress, one_axes, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Panel = tuple[xr.DataArray, str, dict[str, Any]]  # values, label, colour map and limits
_RESIDUALS = {"rms": "residual rms (sd)", "chi2": "χ² per channel", "p_value": "predictive p-value"}
_PARTS = {"epistemic": COLOURS[3], "aleatoric": COLOURS[0], "total": "black"}


def residuals(
    fit: Any,
    *,
    checked: xr.Dataset | None = None,
    show: Sequence[str] = ("rms", "chi2", "p_value"),
    at: dict[str, int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Maps of residual, chi-square and predictive p-value; below, the residual by channel and all p-values.

    A model that fits has residuals of about one standard deviation everywhere and flat p-values; structure in
    a map or a channel that stands out says where to look.

    Parameters
    ----------
    fit : Fit
        The fit to criticise.
    checked : xarray.Dataset, optional
        ``bu.check(fit)`` when it is already there, to spare the work.
    show : sequence of str
        Maps to draw: ``"rms"`` (root mean square over channels of the standardised residual), ``"chi2"``
        (divided by the number of channels), ``"p_value"``.
    at : dict, optional
        Positions along the dims before the last two; the middle when left out.
    ax : matplotlib Axes, optional
        Allowed when `show` holds one name; then only that map is drawn.

    Returns
    -------
    Figure, or the Axes given.
    """
    import matplotlib

    if checked is None:
        from bayesunmix.check import check

        checked = check(fit)
    _known(show, _RESIDUALS)
    residual = checked["residual"]
    channel = residual.dims[-1]
    values = {
        "rms": _rms(residual, [channel]),
        "chi2": checked["chi2"] / residual.sizes[channel],
        "p_value": checked["p_value"],
    }
    with matplotlib.rc_context(RC):
        unit = getattr(fit.model, "unit", "pixel")
        labels = _RESIDUALS | ({"chi2": "χ² per frame"} if unit == "sequence" else {})
        panels = [(values[name], labels[name], _residual_look(name, values[name])) for name in show]
        if ax is not None:
            return _single(ax, panels, at)
        figure, below = _page(panels, at, ("channel", "histogram"))
        x = centres(residual, channel)
        below["channel"].plot(x, _rms(residual, residual.dims[:-1]), color=COLOURS[0])
        below["channel"].axhline(1, color=GREY, linewidth=0.6)
        below["channel"].margins(x=0)
        below["channel"].set(xlabel=dim_label(residual, channel), ylabel=_RESIDUALS["rms"])
        if "histogram" in below:
            counted = "atom" if residual.dims[0] == "atom" else unit
            _histogram(below["histogram"], checked["p_value"], f"{counted}s")
        return figure


def uncertainty(
    fit: Any,
    *,
    split: xr.Dataset | None = None,
    show: Sequence[str] = ("epistemic", "aleatoric", "total"),
    at: dict[str, int] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """Predictive standard deviation, split in what more data would remove and noise, by pixel and channel.

    Parameters
    ----------
    fit : Fit
        The fit.
    split : xarray.Dataset, optional
        ``bu.uncertainty(fit)`` when it is already there, to spare the work.
    show : sequence of str
        Maps to draw, of ``"epistemic"``, ``"aleatoric"``, ``"total"``: root mean squares over channels.
    at : dict, optional
        Positions along the dims before the last two; the middle when left out.
    ax : matplotlib Axes, optional
        Allowed when `show` holds one name; then only that map is drawn.

    Returns
    -------
    Figure, or the Axes given.
    """
    import matplotlib

    if split is None:
        from bayesunmix.uncertainty import uncertainty as split_of

        split = split_of(fit)
    _known(show, _PARTS)
    channel = fit.data.dims[-1]
    units = fit.data.attrs.get("units")
    label = plain(f"sd ({units})" if units else "sd (data units)")
    with matplotlib.rc_context(RC):
        panels = []
        for name in show:
            values = _rms(split[name], [channel])
            low, high = spread(values)
            panels.append(
                (values, f"{name} {label}".replace(" (", "\n("), {"cmap": "cividis", "vmin": low, "vmax": high})
            )
        if ax is not None:
            return _single(ax, panels, at)
        figure, below = _page(panels, at, ("parts", "share"))
        x = centres(fit.data, channel)
        by_channel = {name: _rms(split[name], fit.data.dims[:-1]) for name in _PARTS}
        for name, colour in _PARTS.items():
            below["parts"].plot(x, by_channel[name], color=colour, label=name, zorder=1 + (name != "total"))
        below["parts"].set_ylabel(label)
        below["parts"].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0)
        share = 100 * (by_channel["epistemic"] / by_channel["total"]) ** 2
        below["share"].plot(x, share, color=_PARTS["epistemic"])
        below["share"].set_ylabel("epistemic variance (%)")
        for axes in below.values():
            axes.margins(x=0)
            axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
            axes.set_xlabel(dim_label(fit.data, channel))
        return figure


def _rms(values: xr.DataArray, dims: Iterable[Hashable]) -> xr.DataArray:
    return (values**2).mean(list(dims)) ** 0.5


def _known(show: Sequence[str], names: dict[str, str]) -> None:
    wrong = [name for name in show if name not in names]
    if wrong or not show:
        raise ValueError(f"show= may hold {list(names)}, got {list(show)}")


def _residual_look(name: str, values: xr.DataArray) -> dict[str, Any]:
    if name == "p_value":
        return {"cmap": "cividis", "vmin": 0.0, "vmax": 1.0}
    low, high = spread(values)
    return {"cmap": "viridis", "vmin": low, "vmax": high}


def _single(ax: Axes, panels: list[_Panel], at: dict[str, int] | None) -> Axes:
    one_axes(ax, len(panels), "show")
    dress(ax)
    _panel(ax, *panels[0], at=at, bar=True)
    return ax


def _page(panels: list[_Panel], at: dict[str, int] | None, below: Sequence[str]) -> tuple[Figure, dict[str, Axes]]:
    """Maps in a row and room for curves below; of a single unit, which has no map, the curves alone."""
    if panels[0][0].size == 1:
        import matplotlib.pyplot as plt

        names = [name for name in dict.fromkeys(below) if name != "histogram"]
        figure, axes = plt.subplots(
            len(names), 1, figsize=(COLUMN / 25.4, 40 * len(names) / 25.4), squeeze=False, layout="constrained"
        )
        return figure, dict(zip(names, axes[:, 0], strict=True))
    figure, top, lower = map_canvas(panels[0][0], 1, len(panels), below=below)
    note = ""
    for column, (ax, panel) in enumerate(zip(top[0], panels, strict=True)):
        note = _panel(ax, *panel, at=at, bar=column == 0)
    if note:
        figure.suptitle(plain(note))
    return figure, lower


def _panel(
    ax: Axes, values: xr.DataArray, label: str, look: dict[str, Any], *, at: dict[str, int] | None, bar: bool
) -> str:
    if values.ndim == 1:
        profile(ax, values)
        room = 0.05 * (look["vmax"] - look["vmin"])
        ax.set(ylabel=label, ylim=(look["vmin"] - room, look["vmax"] + room))
        return ""
    image, note = flatten(values, at)
    colour_bar(draw(ax, image, bar=bar, **look), np.array([ax]), label)
    return note


def _histogram(ax: Axes, p_value: xr.DataArray, units: str) -> None:
    p = p_value.values[np.isfinite(p_value.values)]
    bins = 10 if p.size < 400 else 20
    expected = p.size / bins
    sd = np.sqrt(expected * (1 - 1 / bins))
    ax.axhspan(max(expected - 2 * sd, 0), expected + 2 * sd, color=MASKED, linewidth=0)
    ax.hist(p, bins=np.linspace(0, 1, bins + 1).tolist(), color=COLOURS[0], histtype="step", linewidth=1.0)
    ax.set_ylim(bottom=0)
    ax.set(xlim=(0, 1), xlabel=_RESIDUALS["p_value"], ylabel=units)
