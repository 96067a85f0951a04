"""How the fit ran: the ELBO of SVI, the chains of NUTS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .style import COLUMN, RC, axis_label, canvas, colour, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trace(fit: Any, *, variable: str | None = None, ax: Axes | None = None) -> Figure | Axes:
    """The run of the fit: the ELBO against the step for SVI, the draws of a parameter by chain for NUTS.

    Parameters
    ----------
    fit : Fit
        The fit.
    variable : str, optional
        For NUTS, the posterior variable to follow, ``"noise_scale"`` or the first one when left out. Of an
        array, the element is shown whose chains differ most.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given.

    Raises
    ------
    ValueError
        When `variable` is no variable of ``fit.posterior``.
    """
    import matplotlib

    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            figure, (ax,) = canvas(COLUMN, 48)
        dress(ax)
        if "elbo" in fit.diagnostics and variable is None:
            _elbo(ax, fit.diagnostics["elbo"])
        else:
            _chains(ax, fit.posterior, variable)
        return ax if figure is None else figure


def _elbo(ax: Axes, elbo: xr.DataArray) -> None:
    steps = elbo["step"].values if "step" in elbo.coords else np.arange(elbo.size)
    values = elbo.values[np.isfinite(elbo.values)]
    ax.plot(steps[np.isfinite(elbo.values)], values, color=colour(0))
    if values.size > 8:
        late = values[values.size // 8 :]
        room = max(np.ptp(late), 1e-12 * abs(late[-1]), 1e-12)
        ax.set_ylim(late.min() - 0.3 * room, max(late.max(), values.max()) + 0.1 * room)
    ax.margins(x=0)
    ax.set(xlabel="step", ylabel="ELBO (nats)")


def _chains(ax: Axes, posterior: xr.Dataset, variable: str | None) -> None:
    if variable is None:
        variable = "noise_scale" if "noise_scale" in posterior else str(next(iter(posterior)))
    if variable not in posterior:
        raise ValueError(f"variable must be one of {sorted(map(str, posterior))}, got {variable!r}")
    draws, name = posterior[variable], variable.replace("_", " ")
    rest = [d for d in draws.dims if d not in ("chain", "draw")]
    if rest:
        between = draws.mean("draw").std("chain") / draws.std(("chain", "draw"))
        draws = draws.isel(between.fillna(0).argmax(rest))
        places = [f"{d} {draws.coords[d].item():.4g}" for d in rest if d in draws.coords]
        name = f"{name} at {', '.join(places)}" if places else name
    for k, chain in enumerate(draws.transpose("chain", "draw").values):
        ax.plot(chain, color=colour(k), linewidth=0.6, label=f"chain {k}")
    ax.set(xlabel="draw", ylabel=axis_label(posterior[variable], "value"), title=plain(name))
    ax.margins(x=0)
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), borderpad=0)
