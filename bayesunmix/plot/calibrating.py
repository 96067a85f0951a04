"""The ranks of `bu.calibrate` as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import COLOURS, COLUMN, GREY, MASKED, RC, dress, one_axes, plain

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BINS = 10


def calibration(
    found: xr.Dataset,
    *,
    show: Sequence[str] = ("ranks", "coverage"),
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Figure | Axes:
    """For every parameter how often the truth stands where among posterior draws, and the coverage of intervals.

    Parameters
    ----------
    found : xarray.Dataset
        What ``bu.calibrate`` returned.
    show : sequence of str
        Columns: ``"ranks"``, ``"coverage"``.
    names : sequence of str, optional
        Parameters, a row each; all of them when left out.
    ax : matplotlib Axes, optional
        Allowed when there is one panel: one parameter and one of ``show``.

    Returns
    -------
    Figure, or the Axes given. Ranks: their share in ten bins over the share expected, with two standard errors across
    images in grey (a hill in the middle: intervals too wide; high ends: too narrow; a slope: shifted). Coverage: what
    intervals cover beyond their level, with two standard errors.

    Raises
    ------
    ValueError
        When ``show`` or ``names`` hold what there is not, or ``ax`` is given for several panels.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    known = [str(name) for name in found["name"].values]
    names = known if names is None else list(names)
    for what, asked, there in (("names", names, known), ("show", show, list(_DRAW))):
        if not asked or not set(asked) <= set(there):
            raise ValueError(f"{what}= may hold {there}, got {list(asked)}")
    with matplotlib.rc_context(RC):
        one_axes(ax, len(names) * len(show), "calibration")
        if ax is not None:
            _DRAW[show[0]](dress(ax), found, names[0])
            return ax
        size = (COLUMN / 25.4, (10 + 26 * len(names)) / 25.4)
        figure, axes = plt.subplots(
            len(names), len(show), figsize=size, squeeze=False, layout="constrained", sharex="col"
        )
        for row, name in zip(axes, names, strict=True):
            for panel, what in zip(row, show, strict=True):
                _DRAW[what](panel, found, name)
                if name != names[-1]:
                    panel.set_xlabel("")
        return figure


def _ranks(ax: Axes, found: xr.Dataset, name: str) -> None:
    ranks, draws = found["ranks"].values, int(found.attrs["draws"])
    fraction = (ranks + np.random.default_rng(0).uniform(size=ranks.shape)) / (draws + 1)
    edges = np.linspace(0, 1, _BINS + 1)
    own = fraction[:, found["parameter"].values == name]
    by_image = np.stack([np.histogram(row, edges)[0] for row in own]) / own.shape[1] * _BINS
    # Few ranks may all miss a bin: their error is not below that of independent ones.
    least = np.sqrt((_BINS - 1) / own.size)
    share, error = by_image.mean(0), 2 * np.maximum(by_image.std(0) / np.sqrt(max(len(ranks) - 1, 1)), least)
    ax.axhline(1, color=GREY, linewidth=0.6)
    ax.fill_between(edges, 1 - _closed(error), 1 + _closed(error), step="post", color=MASKED, linewidth=0)
    ax.stairs(share, edges, baseline=None, color=COLOURS[0], linewidth=1.0)
    low, high = min(0.5, float(share.min()) - 0.1), max(1.5, float(share.max()) + 0.1)
    ax.set(xlim=(0, 1), ylim=(max(0.0, low), high), ylabel="share / expected")
    ax.set_xlabel(f"rank among {draws} draws\n(fraction)")
    p = np.atleast_1d(np.asarray(found.attrs["uniform_p"]))[list(found["name"].values).index(name)]
    ax.set_title(plain(name.replace("_", " ")) + (f", p = {p:.2g}" if np.isfinite(p) else ""))


def _coverage(ax: Axes, found: xr.Dataset, name: str) -> None:
    level = found["level"].values
    beyond = found["coverage"].sel(name=name).values - level
    ax.axhline(0, color=GREY, linewidth=0.6)
    elements = int((found["parameter"].values == name).sum())
    least = np.sqrt(level * (1 - level) / (len(found["ranks"]) * elements))  # where all or none are covered
    error = 2 * np.fmax(found["coverage_se"].sel(name=name).values, least)
    ax.errorbar(level, beyond, yerr=error, fmt="o", markersize=3, color=COLOURS[0], elinewidth=0.9)
    reach = max(0.05, 1.2 * float((np.abs(beyond) + error).max()))
    ax.set(ylim=(-reach, reach), ylabel="coverage − level")
    ax.set_xlabel(f"level of the interval\n({len(found['ranks'])} images)")
    # A label that would touch the one before is left out, its tick stays.
    apart = np.diff(level, prepend=-1.0) > 0.08
    ax.set_xticks(level, [f"{value:g}" if far else "" for value, far in zip(level, apart, strict=True)])
    ax.margins(x=0.1)
    ax.set_title(plain(name.replace("_", " ")))


def _closed(values: np.ndarray) -> np.ndarray:
    """Steps with their last value once more, for the last edge."""
    return np.append(values, values[-1])


_DRAW = {"ranks": _ranks, "coverage": _coverage}
