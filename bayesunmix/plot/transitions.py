"""Figures of chains of states: transition matrix and stays with intervals, states along time, the memory check."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesunmix.dynamics import dwell_times, time_step, transition_matrix

from .style import COLUMN, GREY, MASKED, PAGE, RC, axis_label, canvas, colour, dress

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def transition(fit: Any, *, prob: float = 0.9, ax: Axes | None = None) -> Figure | Axes:
    """The transition matrix: in every cell the posterior mean, and below it the credible interval.

    Parameters
    ----------
    fit : Fit of HiddenMarkovModel or MarkovChain
    prob : float
        Mass of the intervals.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given. Colours are on a logarithmic scale; transitions that the model forbids are grey.
    """
    import matplotlib
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter

    table = transition_matrix(fit, prob)
    known = table.sel(statistic=list(_ENDS)).transpose("state", "next_state", "statistic").values
    mean = np.where(known[..., 0] > 0, known[..., 0], np.nan)
    count = len(mean)
    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            width = COLUMN if count <= 5 else PAGE
            figure, (ax,) = canvas(width, 12 + 0.75 * width * min(1.0, 0.55 + 0.1 * count))
        dress(ax)
        colours = matplotlib.colormaps["cividis"].with_extremes(bad=MASKED)
        norm = LogNorm(min(0.1, float(np.nanmin(mean))), 1.0)
        drawn = ax.imshow(mean, cmap=colours, norm=norm, aspect="auto")
        dark = norm(np.nan_to_num(mean, nan=1.0)) < 0.6
        for i, j in np.ndindex(count, count):
            ink = "white" if dark[i, j] else "black"
            ax.text(j, i, _cell(*known[i, j]), ha="center", va="center", fontsize=5.5, linespacing=1.3, color=ink)
        ax.spines[:].set_visible(False)
        ax.set(xticks=range(count), yticks=range(count), xlabel="to state", ylabel="from state")
        ax.tick_params(length=0)
        bar = ax.figure.colorbar(drawn, ax=ax, label=f"transition probability per step\n({100 * prob:g} % intervals)")
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return ax if figure is None else figure


def _cell(mean: float, lower: float, upper: float) -> str:
    """Mean and interval to two digits of whatever of the probability and its complement is smaller."""
    if mean in (0.0, 1.0):
        return f"{mean:g}"
    digits = int(np.clip(1 - np.floor(np.log10(min(mean, 1 - mean))), 2, 6))
    return f"{mean:.{digits}f}\n{lower:.{digits}f}–{upper:.{digits}f}"


def dwell(fit: Any, *, prob: float = 0.9, ax: Axes | None = None) -> Figure | Axes:
    """How long each state lasts: the probability that a stay is longer than a time, and the mean stay in the legend.

    Parameters
    ----------
    fit : Fit of HiddenMarkovModel or MarkovChain
    prob : float
        Mass of the bands and of the intervals in the legend.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given. Stays of a chain with one-step memory are geometric, straight lines here; whether the
    data agree is what :func:`memory` shows.
    """
    import matplotlib

    table = dwell_times(fit, prob)
    known = table.sel(statistic=list(_ENDS)).transpose("state", "statistic").values
    step, unit = time_step(fit)
    finite = known[np.isfinite(known)]
    steps = np.arange(int(np.ceil(3.0 * (finite.max() if finite.size else step) / step)) + 1)
    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            figure, (ax,) = canvas(COLUMN, 58)
        dress(ax)
        for k, ends in enumerate(known):
            # A longer mean stay makes every stay longer, so the ends of its interval are those of the band.
            mean, low, high = ((1.0 - step / end) ** steps for end in ends)
            said = "never left" if np.isinf(ends[0]) else f"{ends[0]:.3g} ({ends[1]:.3g}–{ends[2]:.3g}) {unit}"
            ax.fill_between(step * steps, low, high, color=colour(k), alpha=0.3, linewidth=0)
            ax.plot(step * steps, mean, color=colour(k), label=f"state {k}: {said}")
        ax.set_yscale("log")
        ax.set(ylim=(0.01, 1.0), xlim=(0, step * steps[-1]))
        ax.set_yticks([0.01, 0.1, 1.0], ["0.01", "0.1", "1"])
        ax.set(xlabel=f"time ({unit}s)" if unit == "frame" else f"time ({unit})", ylabel="probability of a longer stay")
        ax.legend(title=f"mean stay ({100 * prob:g} % interval)", alignment="left", loc="upper right")
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
        figure.supylabel(f"share of hops: in the data (dots), predicted ({100 * check.attrs['prob']:g} % band)")
        return figure


_ENDS = ("mean", "lower", "upper")
