"""How every figure looks: journal widths, type sizes, colours that survive colour blindness."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 89.0  # mm, one column of a journal page
PAGE = 183.0  # mm, both columns

# Okabe and Ito's palette, its pale yellow left out because it vanishes on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000")
GREY = "#8a8a8a"
MASKED = "#d9d9d9"

RC: dict[Any, Any] = {
    "font.size": 7.0,
    "axes.titlesize": 7.0,
    "figure.titlesize": 7.0,
    "figure.labelsize": 7.0,
    "axes.labelsize": 7.0,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "lines.linewidth": 1.0,
    "patch.linewidth": 0.6,
    "image.interpolation": "nearest",
    "axes.formatter.limits": (-3, 4),
    "axes.formatter.use_mathtext": True,
    "savefig.dpi": 300,
    "figure.dpi": 150,
}


def colour(position: int) -> str:
    return COLOURS[position % len(COLOURS)]


def canvas(width: float, height: float, rows: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A new figure of the given size in mm, and its axes from top to bottom."""
    import matplotlib.pyplot as plt

    size = (width / 25.4, height / 25.4)
    figure, axes = plt.subplots(rows, 1, figsize=size, squeeze=False, layout="constrained", **subplots)
    return figure, list(axes[:, 0])


def dress(ax: Axes) -> Axes:
    """Give an axes that the caller made the sizes of all others, whatever the defaults of its figure are."""
    ax.tick_params(labelsize=RC["xtick.labelsize"], width=RC["xtick.major.width"], length=RC["xtick.major.size"])
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(RC["axes.labelsize"])
    for side, spine in ax.spines.items():
        spine.set_linewidth(RC["axes.linewidth"])
        if side in ("top", "right"):
            spine.set_visible(False)
    return ax


def one_axes(ax: Axes | None, panels: int, what: str) -> None:
    """Complain when one axes is to hold several panels."""
    if ax is not None and panels != 1:
        raise ValueError(f"ax= holds one panel but {what} asks for {panels}: ask for one, or leave ax out")


def axis_label(values: xr.DataArray, name: str | None = None) -> str:
    """``long name (units)`` of a coordinate or a variable."""
    text = str(values.attrs.get("long_name") or name or values.name or "value").replace("_", " ")
    units = values.attrs.get("units")
    return plain(f"{text} ({units})" if units not in (None, "", "1") else text)


_LONGEST = 60  # letters of a label


def plain(text: object) -> str:
    """Text for matplotlib: formulae that it can set stay (``$A/m^2$``), a stray dollar sign is shown as one.

    What is longer than a figure is wide is cut.
    """
    from matplotlib.mathtext import MathTextParser

    text = str(text)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    if text.count("$") and text.count("$") % 2 == 0:
        text = re.sub(r"\\sqrt\s+(\w)", r"\\sqrt{\1}", text)  # LaTeX takes both, matplotlib this one
        with contextlib.suppress(ValueError):
            MathTextParser("path").parse(text)
            return text
    return text.replace("$", r"\$")


def member_names(values: Sequence[object], truth: xr.DataArray | xr.Dataset | None = None) -> list[str]:
    """``endmember 1`` for numbered ones, the name itself for named ones; the truth's name in brackets."""
    names = [plain(v) if isinstance(v, str) else f"endmember {v}" for v in values]
    if truth is None:
        return names
    return [f"{name} ({plain(true)})" for name, true in zip(names, truth["endmember"].values, strict=True)]
