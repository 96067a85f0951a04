"""Map of what each pixel tells beyond an image without signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import colour_bar, draw, flatten, map_canvas, profile, spread
from .style import COLUMN, RC, canvas, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABEL = "information (nats)"


def information(
    fit: Any, *, found: xr.Dataset | None = None, at: dict[str, int] | None = None, ax: Axes | None = None
) -> Figure | Axes:
    """Relative entropy of every pixel against the signal-free image, in nats, with the total in the title.

    A pixel near zero is predicted no better by the components than without them; a negative one worse. A line scan
    is drawn as a profile.

    Parameters
    ----------
    fit : Fit
        Of a model with components, such as ProbabilisticPCA.
    found : xarray.Dataset, optional
        ``bu.relative_entropy(fit)`` when it is already there, to spare the work; with a baseline of one's own, too.
    at : dict, optional
        Positions along the dims before the last two; the middle when left out.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given.
    """
    import matplotlib

    if found is None:
        from bayesunmix.information import relative_entropy

        found = relative_entropy(fit)
    values = found["information"]
    title = f"{found.attrs['total']:.0f} ± {found.attrs['se']:.0f} nats in all"
    if "per_count" in found.attrs:
        title += f", {found.attrs['per_count']:.2g} a count"
    with matplotlib.rc_context(RC):
        figure: Figure | None = None
        if values.ndim == 1:
            if ax is None:
                figure, (ax,) = canvas(COLUMN, 50)
            profile(dress(ax), values)
            ax.axhline(0, color="black", linewidth=0.6, zorder=0)
            ax.set_ylabel(_LABEL)
        else:
            if ax is None:
                figure, panels, _ = map_canvas(values, 1, 1)
                ax = panels[0, 0]
            image, note = flatten(values, at)
            low, high = spread(values)
            shown = draw(dress(ax), image, cmap="viridis", vmin=low, vmax=high)
            title = f"{title}; {note}" if note else title
            colour_bar(shown, np.array([ax]), _LABEL)
        ax.set_title(plain(title))
        return figure or ax
