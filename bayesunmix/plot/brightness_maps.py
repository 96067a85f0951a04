"""Maps of the brightness: what is common to all channels of a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import centres, colour_bar, dim_label, draw, flatten, map_canvas, spread
from .style import COLUMN, RC, canvas, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def brightness(
    fit: Any, *, latent: xr.Dataset | None = None, at: dict[str, int] | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """Brightness of every pixel, posterior mean and standard deviation side by side.

    A line scan is drawn as a profile with its 90 % interval.

    Parameters
    ----------
    fit : Fit
        Of a model with ``brightness=True``.
    latent : xarray.Dataset, optional
        ``fit.latent()`` when it is already there, to spare the work.
    at : dict, optional
        Positions along the dims before the last two (``{"time": 3}``); the middle when left out.
    ax : matplotlib Axes, optional
        Draws the mean alone, or the line scan, there.

    Returns
    -------
    Figure, or the Axes given.

    Raises
    ------
    ValueError
        When the model has no brightness.
    """
    import matplotlib

    found = fit.latent() if latent is None else latent
    if "brightness" not in found:
        raise ValueError("the pixels of this model have no brightness; fit LinearUnmixing(..., brightness=True)")
    values = found["brightness"]
    dims = [d for d in values.dims if d != "statistic"]
    mean, sd = values.sel(statistic="mean", drop=True), values.sel(statistic="sd", drop=True)
    with matplotlib.rc_context(RC):
        figure: Figure | None = None
        if len(dims) == 1:
            if ax is None:
                figure, (ax,) = canvas(COLUMN, 50)
            dress(ax)
            x = centres(values, dims[0])
            low, high = (values.sel(statistic=s).values for s in ("lower", "upper"))
            ax.fill_between(x, low, high, alpha=0.3, linewidth=0)
            ax.plot(x, mean.values)
            ax.set_xlabel(dim_label(values, dims[0]))
            ax.set_ylabel("brightness (mean 1)")
            return figure or ax
        columns = {"posterior mean": (mean, "viridis", "brightness (mean 1)")}
        if ax is None:
            columns["posterior sd"] = (sd, "cividis", "sd of brightness")
            figure, panels, _ = map_canvas(mean, 1, 2)
        else:
            panels = np.array([[dress(ax)]])
        note = ""
        for column, (title, (quantity, colours, label)) in enumerate(columns.items()):
            low, high = spread(quantity)
            image, note = flatten(quantity.transpose(*dims), at)
            shown = draw(panels[0, column], image, bar=column == 0, cmap=colours, vmin=low, vmax=high)
            panels[0, column].set_title(title)
            colour_bar(shown, panels[:, column], label)
        if figure is None:
            return panels[0, 0]
        if note:
            figure.suptitle(plain(note))
        return figure
