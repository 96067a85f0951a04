"""Components of a fit: explained variances beside the noise, loadings with their bands, maps of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .images import centres, dim_label, draw, flatten
from .style import COLOURS, COLUMN, GREY, PAGE, RC, canvas, colour, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scree(fit: Any, *, prob: float = 0.9, ax: Axes | None = None) -> Figure | Axes:
    """Variance that each component explains, with credible intervals, and where noise would hide it.

    Parameters
    ----------
    fit : Fit
        Of a model with components, such as ProbabilisticPCA.
    prob : float
        Probability inside the intervals.
    ax : matplotlib Axes, optional
        Where to draw.

    Returns
    -------
    Figure, or the Axes given. Variances are those of the components without noise. The line is the variance of
    the noise along any direction, the grey area what a component must exceed to be seen among so many pixels;
    components are filled where they do with more than 95 % probability.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    if "explained_variance" not in fit.posterior:
        raise TypeError(f"expected a fit with components, such as of ProbabilisticPCA, got {fit!r}")
    posterior = fit.posterior.stack(sample=("chain", "draw"))
    variance = posterior["explained_variance"].transpose("sample", "component").values
    noise = posterior["noise_scale"] ** 2
    noise = noise.mean([d for d in noise.dims if d != "sample"]).values
    visible = noise * fit.model.visible_share
    low, middle, high = np.quantile(variance, [(1 - prob) / 2, 0.5, (1 + prob) / 2], axis=0)
    sure = (variance > visible[:, None]).mean(axis=0) > 0.95
    number = np.arange(variance.shape[1])  # as the components are called everywhere else
    with matplotlib.rc_context(RC):
        figure = None
        if ax is None:
            figure, (ax,) = canvas(COLUMN, 60)
        dress(ax)
        ax.axhspan(0, float(np.median(visible)), color=GREY, alpha=0.25, linewidth=0, label="hidden by noise")
        ax.axhline(float(np.median(noise)), color=GREY, linewidth=0.8, label="noise")
        for k in number:
            ax.errorbar(
                k,
                middle[k],
                yerr=[[middle[k] - low[k]], [high[k] - middle[k]]],
                fmt="o",
                markersize=4,
                color=COLOURS[0],
                markerfacecolor=COLOURS[0] if sure[k] else "white",
                elinewidth=1.2,
                label=f"{100 * prob:g} % interval" if k == 0 else None,
            )
        ax.set_yscale("log")
        bottom = min(low.min(), float(np.median(visible))) / 2
        ax.set_ylim(bottom=bottom)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(-0.5, len(number) - 0.5)
        ax.set_xlabel("component")
        units = fit.units.attrs.get("units")
        if getattr(fit.model, "likelihood", "normal") == "poisson":
            ax.set_ylabel("principal inertia")
        else:
            ax.set_ylabel(plain(f"variance, ({units})²") if units not in (None, "", "1") else "variance")
        count = _count(posterior["n_above_noise"].values)
        ax.legend(
            title=count, alignment="left", loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, ncols=3,
            columnspacing=1.2,
        )  # fmt: skip
        return ax if figure is None else figure


def _count(above: np.ndarray) -> str:
    """How many components are above the noise, with probability."""
    values, counts = np.unique(above.astype(int), return_counts=True)
    most = values[counts.argmax()]
    return f"{most} above noise (probability {counts.max() / counts.sum():.2f})"


def components(fit: Any, *, prob: float = 0.9, most: int = 6, latent: xr.Dataset | None = None) -> Figure:
    """Loadings of the components with credible bands, each beside the map (or profile) of its mean scores.

    Parameters
    ----------
    fit : Fit
        Of a model with components, such as ProbabilisticPCA.
    prob : float
        Probability inside the bands, channel by channel.
    most : int
        Components to draw, the strongest ones.
    latent : xarray.Dataset, optional
        ``fit.latent()`` when it is already there, to spare the work.

    Returns
    -------
    Figure
    """
    import matplotlib
    import matplotlib.pyplot as plt

    if "explained_variance" not in fit.posterior:
        raise TypeError(f"expected a fit with components, such as of ProbabilisticPCA, got {fit!r}")
    posterior = fit.posterior["components"].stack(sample=("chain", "draw"))
    loadings = posterior.transpose("component", "sample", ...)[:most]
    channel = loadings.dims[-1]
    x = centres(loadings, str(channel))
    low, high = np.quantile(loadings.values, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    score = (fit.latent(prob) if latent is None else latent)["score"].sel(statistic="mean")
    rows = len(loadings)
    with matplotlib.rc_context(RC):
        figure, panels = plt.subplots(
            rows, 2, figsize=(PAGE / 25.4, (12 + 30 * rows) / 25.4), squeeze=False, layout="constrained",
            width_ratios=(3, 1),
        )  # fmt: skip
        for k, (spectrum, (left, right)) in enumerate(zip(loadings.values.mean(axis=1), panels, strict=True)):
            left.fill_between(x, low[k], high[k], color=colour(k), alpha=0.35, linewidth=0)
            left.plot(x, spectrum, color=colour(k))
            left.axhline(0, color=GREY, linewidth=0.5)
            left.margins(x=0)
            if k < rows - 1:  # one axis for all
                left.tick_params(labelbottom=False)
                left.xaxis.get_offset_text().set_visible(False)
            left.set_ylabel(f"component {k}")
            scores = score.isel(component=k, drop=True)
            if scores.ndim == 1:
                right.plot(centres(scores, str(scores.dims[0])), scores, color=colour(k))
                right.set_xlabel(dim_label(scores, str(scores.dims[0])))
            else:
                image, _ = flatten(scores, None)
                end = float(np.nanquantile(np.abs(scores.values), 0.995))
                drawn = draw(right, image, bar=k == 0, outer=k == rows - 1, cmap="RdBu_r", vmin=-end, vmax=end)
                figure.colorbar(drawn, ax=right, label="score")
        panels[-1, 0].set_xlabel(dim_label(loadings, str(channel)))
        panels[0, 0].set_title(plain(f"loadings, mean and {100 * prob:g} % band"))
        return figure
