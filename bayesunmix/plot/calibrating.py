"""The ranks of `bu.calibrate` as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import COLOURS, GREY, MASKED, PAGE, RC, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

_BINS = 10


def calibration(found: xr.Dataset) -> Figure:
    """For every parameter how often the truth stands where among posterior draws, and the coverage of intervals.

    Parameters
    ----------
    found : xarray.Dataset
        What ``bu.calibrate`` returned.

    Returns
    -------
    Figure. One row a parameter: left the share of ranks in ten bins over the share expected, with two standard errors
    across images (a hill in the middle: intervals too wide; high ends: too narrow; a slope: shifted); right what
    intervals cover beyond their level, with two standard errors.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    names = [str(name) for name in found["name"].values]
    ranks, draws = found["ranks"].values, int(found.attrs["draws"])
    count = len(ranks)
    fraction = (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (draws + 1)
    edges = np.linspace(0, 1, _BINS + 1)
    with matplotlib.rc_context(RC):
        size = (PAGE / 25.4, (12 + 27 * len(names)) / 25.4)
        figure, axes = plt.subplots(len(names), 2, figsize=size, squeeze=False, layout="constrained", sharex="col")
        for (left, right), name in zip(axes, names, strict=True):
            own = fraction[:, found["parameter"].values == name]
            by_image = np.stack([np.histogram(row, edges)[0] for row in own]) / own.shape[1] * _BINS
            share, error = by_image.mean(0), 2 * by_image.std(0) / np.sqrt(max(count - 1, 1))
            left.axhline(1, color=GREY, linewidth=0.6)
            left.fill_between(edges, 1 - _closed(error), 1 + _closed(error), step="post", color=MASKED, linewidth=0)
            left.stairs(share, edges, baseline=None, color=COLOURS[0], linewidth=1.0)
            low, high = min(0.5, float(share.min()) - 0.1), max(1.5, float(share.max()) + 0.1)
            left.set(
                xlim=(0, 1), ylim=(max(0.0, low), high), ylabel=plain(f"{name}\nranks / expected".replace("_", " "))
            )
            p = found.attrs["uniform_p"][name]
            left.set_title(f"p = {p:.2g}" if np.isfinite(p) else "")
            beyond = found["coverage"].sel(name=name) - found["level"]
            right.axhline(0, color=GREY, linewidth=0.6)
            error = 2 * found["coverage_se"].sel(name=name)
            right.errorbar(found["level"], beyond, yerr=error, fmt="o", markersize=3, color=COLOURS[0], elinewidth=0.9)
            reach = max(0.05, 1.2 * float((np.abs(beyond) + error.fillna(0)).max()))
            right.set(ylim=(-reach, reach), ylabel="coverage − level")
        axes[-1, 0].set_xlabel(f"rank of the truth among {draws} draws (fraction)")
        axes[-1, 1].set_xlabel("level of the interval")
        axes[0, 1].set_title(f"{count} images")
        return figure


def _closed(values: np.ndarray) -> np.ndarray:
    """Steps with their last value once more, for the last edge."""
    return np.append(values, values[-1])
