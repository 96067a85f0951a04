"""Figures of chains of states: the transition matrix with its intervals, states along time, the memory check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesunmix.dynamics import transition_matrix

from .style import COLUMN, GREY, MASKED, PAGE, RC, axis_label, canvas, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def transitions(fit: Any, *, prob: float = 0.9, ax: Axes | None = None) -> Figure | Axes:
    """Transition probabilities with their credible intervals, a dot and a bar for every pair of states.

    Parameters
    ----------
    fit : Fit of HiddenMarkovModel or MarkovChain
    prob : float
        Mass of the intervals.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given.
    """
    import matplotlib
    from matplotlib.ticker import FixedLocator, NullLocator

    table = transition_matrix(fit, prob)
    states = table.sizes["state"]
    known = table.sel(statistic=list(_ENDS)).transpose("state", "next_state", "statistic").values
    inside = known[(known > 0) & (known < 1)]
    low, high = (inside.min(), inside.max()) if inside.size else (0.1, 0.9)
    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            figure, (ax,) = canvas(COLUMN, 20 + 3.4 * states**2)
        # Rare hops and long stays are read best on a scale that is logarithmic towards both ends.
        ax.set_xscale("logit")
        ax.set_xlim(max(0.7 * low, 1e-6), min(1.0 - 0.7 * (1.0 - high), 1.0 - 1e-6))
        labels = []
        for row, (i, j) in enumerate(np.ndindex(states, states)):
            mean, lower, upper = known[i, j]
            ax.plot([lower, upper], [row, row], color=colour(i), linewidth=1.4, solid_capstyle="butt")
            ax.plot(mean, row, "o" if i == j else "D", color=colour(i), markersize=3.2 if i == j else 2.6)
            labels.append(f"stays in {i}" if i == j else f"{i} → {j}")
        for row in range(1, states):
            ax.axhline(states * row - 0.5, color=MASKED, linewidth=0.6, zorder=0)
        ticks = [t for t in _TICKS if ax.get_xlim()[0] <= t <= ax.get_xlim()[1]]
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.set_yticks(range(states**2), labels)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(states**2 - 0.5, -0.5)
        ax.set_xlabel(f"transition probability per step ({prob:.0%} intervals)")
        return ax if figure is None else figure


def states(
    fit: Any, sequence: int = 0, *, feature: int = 0, draws: int = 50, latent: xr.Dataset | None = None
) -> Figure:
    """One sequence over time: its data coloured by the most probable state, and the probability of every state.

    Parameters
    ----------
    fit : Fit of HiddenMarkovModel
    sequence : int
        Which of the sequences.
    feature : int
        Which feature of the data.
    draws : int
        Posterior draws behind the probabilities.
    latent : xarray.Dataset, optional
        ``fit.latent()`` when it is already there, to spare the work.

    Returns
    -------
    Figure with two panels.
    """
    import matplotlib

    found = fit.latent(draws=draws) if latent is None else latent
    probability = found["state"].sel(statistic="mean").isel({fit.units.pixel_dims[0]: sequence})
    data = fit.data.isel({fit.units.pixel_dims[0]: sequence})
    if fit.units.feature_dim:
        data = data.isel({fit.units.feature_dim: feature})
    dim = fit.units.channel_dim
    time = data[dim] if dim in data.coords else xr.DataArray(np.arange(data.sizes[dim]), dims=dim, name="frame")
    share = probability.transpose(dim, "state").values
    best = np.where(np.isfinite(share).all(1), np.nan_to_num(share).argmax(1), -1)
    with matplotlib.rc_context(RC):
        figure, (upper, lower) = canvas(PAGE, 70, 2, sharex=True)
        upper.plot(time, data, color=GREY, linewidth=0.4)
        for k in range(share.shape[1]):
            upper.plot(time[best == k], data[best == k], ".", color=colour(k), markersize=2.5, label=f"state {k}")
            lower.plot(time, share[:, k], color=colour(k), linewidth=0.8)
        upper.set_ylabel(axis_label(fit.data, fit.data.name or "value"))
        upper.legend(ncols=share.shape[1], loc="lower right", bbox_to_anchor=(1, 1), markerscale=2.5, handletextpad=0.1)
        lower.set_ylim(-0.02, 1.02)
        lower.set_ylabel("probability of the state")
        lower.margins(x=0.01)
        lower.set_xlabel(axis_label(time, str(time.name)))
        return figure


def memory(check: xr.Dataset) -> Figure:
    """Hops over several steps in the paths, against the band that one-step memory predicts for them.

    Parameters
    ----------
    check : xarray.Dataset
        What ``bu.chapman_kolmogorov`` returned.

    Returns
    -------
    Figure with a panel per pair of states.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    size = check.sizes["state"]
    lag = check["lag"].values
    with matplotlib.rc_context(RC):
        width = PAGE / 25.4
        figure, axes = plt.subplots(
            size, size, figsize=(width, (0.15 + 0.2 * size) * width), sharex=True, squeeze=False, layout="constrained"
        )
        for i, j in np.ndindex(size, size):
            band = check["predicted"].sel(state=i, next_state=j)
            ax: Any = axes[i, j]
            low, high = (band.sel(statistic=s) for s in _ENDS[1:])
            ax.fill_between(lag, low, high, color=GREY, alpha=0.35, linewidth=0)
            ax.plot(lag, check["observed"].sel(state=i, next_state=j), "o-", color=colour(i), markersize=2.5)
            ax.set_title(f"{i} → {j}")
            ax.set_xticks(lag)
            ax.margins(x=0.04)
        figure.supxlabel("lag (frames)")
        figure.supylabel(f"share of hops: in the data (dots), predicted ({check.attrs['prob']:.0%} band)")
        return figure


_ENDS = ("mean", "lower", "upper")
_TICKS = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)
