"""One map on one axes: calibrated pixels, a scale bar, masked pixels in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .style import COLOURS, COLUMN, MASKED, PAGE, axis_label, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

# Metres in each unit of length that files use.
_LENGTHS = {
    "m": 1.0,
    "cm": 1e-2,
    "mm": 1e-3,
    **dict.fromkeys(("um", "µm", "μm"), 1e-6),
    "nm": 1e-9,
    **dict.fromkeys(("Å", "A", "angstrom", "Angstrom"), 1e-10),
    "pm": 1e-12,
}


def flatten(values: xr.DataArray, at: dict[str, int] | None = None) -> tuple[xr.DataArray, str]:
    """The last two pixel dims of `values`, and a note that says where the others were cut.

    `at` gives positions along the leading dims; the middle is taken where it is silent.
    """
    at = at or {}
    unknown = set(at) - set(map(str, values.dims[:-2]))
    if unknown:
        known = list(values.dims[:-2])
        raise ValueError(f"at= may name {known} (the dims before the last two), got {sorted(unknown)}")
    notes = []
    for dim in values.dims[:-2]:
        position = at.get(str(dim), values.sizes[dim] // 2)
        if not -values.sizes[dim] <= position < values.sizes[dim]:
            raise ValueError(f"at= asks for position {position} of {dim!r}, which has {values.sizes[dim]}")
        values = values.isel({dim: position})
        notes.append(f"{dim} {position}")
        if dim in values.coords:
            where = values.coords[dim]
            notes[-1] = f"{dim} = {where.item()} {where.attrs.get('units', '')}".strip()
    return values, ", ".join(notes)


def map_canvas(
    values: xr.DataArray, rows: int, columns: int, below: Sequence[str] = (), *, titled: bool = False
) -> tuple[Figure, np.ndarray, dict[str, Axes]]:
    """A figure with a grid of map panels shaped like the last two pixel dims, and named axes below, a row each.

    Titled: above every row of maps there is place for titles of two lines.
    """
    import matplotlib.pyplot as plt

    aspect = 0.7
    if values.ndim > 1:
        down, across = [d for d in values.dims if d != "endmember"][-2:]
        if same_units(values, down, across):
            height, width = (abs(float(np.subtract(*extent(centres(values, d))))) for d in (down, across))
            aspect = float(np.clip(height / width, 0.3, 2.0))
    width = COLUMN if columns <= 3 else min(PAGE, 40.0 * columns)
    named = rows > 1 and not titled  # at the left of every row
    panel = (width - (11 if named else 5)) / columns - 1.5
    row, rest = panel * aspect + (5 if titled else 1.5), 14 if titled else 18 if columns > 2 else 13
    heights = [min(row * rows + rest, 120.0 if below else 225.0)]
    heights += [36.0] * len(below)
    figure = plt.figure(figsize=(width / 25.4, sum(heights) / 25.4), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
    panels = np.array(grid[0].subgridspec(rows, columns).subplots()).reshape(rows, columns)
    return figure, panels, {name: figure.add_subplot(grid[1 + row]) for row, name in enumerate(below)}


def draw(ax: Axes, image: xr.DataArray, *, bar: bool = True, outer: bool = True, **look: Any) -> ScalarMappable:
    """A 2-D map in calibrated pixels; lengths get a scale bar (if `bar`), other axes labels (if `outer`)."""
    down, across = image.dims
    rows, columns = centres(image, down), centres(image, across)
    look["cmap"] = _with_grey(look.get("cmap", "viridis"))
    mappable: ScalarMappable
    if _even(rows) and _even(columns):
        (top, bottom), (left, right) = extent(rows), extent(columns)
        mappable = ax.imshow(image.values, extent=(left, right, bottom, top), **look)
    else:
        mappable = ax.pcolormesh(columns, rows, np.ma.masked_invalid(image.values), shading="nearest", **look)
        ax.invert_yaxis()
        ax.set_facecolor(MASKED)
    alike = same_units(image, down, across)
    ax.set_aspect("equal" if alike else "auto")
    ax.spines[:].set_visible(False)
    if alike and _units(image, across) in _LENGTHS:
        ax.set(xticks=[], yticks=[])
        if bar:
            _scale_bar(ax, str(_units(image, across)))
    elif outer:
        ax.set(xlabel=dim_label(image, across), ylabel=dim_label(image, down))
    else:
        ax.tick_params(labelbottom=False, labelleft=False)
    return mappable


def profile(ax: Axes, values: xr.DataArray) -> None:
    """A 1-D `values` against its calibrated position; units without a position, such as sequences, are not joined."""
    look = ".-" if values.dims[0] in values.coords else "."
    ax.plot(centres(values, values.dims[0]), values, look, color=COLOURS[0], markersize=2.5, linewidth=0.7)
    ax.set_xlabel(dim_label(values, values.dims[0]))
    ax.margins(x=0.01)


def colour_bar(mappable: ScalarMappable, panels: np.ndarray, label: str, across: int = 1) -> None:
    """A thin horizontal colour bar below `panels`, which stand in `across` columns."""
    from matplotlib.ticker import MaxNLocator

    figure = panels.flat[0].figure
    bar = figure.colorbar(mappable, ax=panels, location="bottom", aspect=20 * across, shrink=0.9, pad=0.02)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4 if across * _width(panels.flat[0]) > 35 else 2)
    bar.update_ticks()
    bar.set_label(label, labelpad=2)


def _width(ax: Axes) -> float:
    """Width of an axes in mm, as far as it is known before the layout is."""
    figure: Any = ax.figure
    place = ax.get_subplotspec()
    columns = place.get_gridspec().ncols if place is not None else 1
    return 25.4 * float(figure.get_figwidth()) / columns


def spread(values: xr.DataArray, upper: float = 99.5) -> tuple[float, float]:
    """Colour limits that one stray pixel cannot stretch and that do not blow up an all but flat map."""
    finite = values.values[np.isfinite(values.values)]
    if finite.size == 0:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, [100 - upper, upper]))
    middle, half = (low + high) / 2, (high - low) / 2
    half = max(half, 0.05 * abs(middle)) or 0.5
    return middle - half, middle + half


def centres(values: xr.DataArray, dim: Any) -> np.ndarray:
    """Pixel centres along `dim`: its coordinate where it is a number, else the pixel's position."""
    numeric = dim in values.coords and np.issubdtype(values.coords[dim].dtype, np.number)
    return np.asarray(values.coords[dim].values if numeric else np.arange(values.sizes[dim]), float)


def dim_label(values: xr.DataArray, dim: Any) -> str:
    if dim in values.coords:
        return axis_label(values.coords[dim], str(dim))
    return {"sequence": "sequence", "atom": "atom", "feature": "feature", "time": "time (frames)"}.get(
        str(dim), plain(f"{dim} (pixels)")
    )


def same_units(values: xr.DataArray, down: Any, across: Any) -> bool:
    return _units(values, down) == _units(values, across)


def extent(centres: np.ndarray) -> tuple[float, float]:
    """Outer edges of evenly spaced pixels."""
    step = (centres[-1] - centres[0]) / (centres.size - 1) if centres.size > 1 else 1.0
    return float(centres[0] - step / 2), float(centres[-1] + step / 2)


def _units(values: xr.DataArray, dim: Any) -> Any:
    return values.coords[dim].attrs.get("units") if dim in values.coords else None


def _even(centres: np.ndarray) -> bool:
    return centres.size < 3 or np.allclose(np.diff(centres), np.mean(np.diff(centres)), rtol=1e-3)


def _with_grey(name: str) -> Any:
    import matplotlib

    return matplotlib.colormaps[name].with_extremes(bad=MASKED)


def _scale_bar(ax: Axes, units: str) -> None:
    """A bar of a round length, white with a dark rim so that it reads on any colour."""
    from matplotlib import patheffects
    from matplotlib.patches import Rectangle

    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    width, height = abs(right - left), abs(top - bottom)
    length = _round_length(0.3 * width)
    across, up = math.copysign(1, right - left), math.copysign(1, top - bottom)
    x = left + across * 0.06 * width
    y = bottom + up * 0.06 * height
    size = (across * length, up * 0.022 * height)
    ax.add_patch(Rectangle((x, y), *size, facecolor="white", edgecolor="black", linewidth=0.4))
    ax.text(
        x + across * length / 2,
        y + up * 0.04 * height,
        _length(length, units),
        ha="center",
        va="bottom",
        color="white",
        fontsize=6.5,
        path_effects=[patheffects.withStroke(linewidth=1.2, foreground="black")],
    )


def _round_length(most: float) -> float:
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def _length(value: float, units: str) -> str:
    """A length in the unit that it is usually told in: ``2e-06 m`` is ``2 µm``."""
    if not 0.1 <= value < 1000:
        metres = value * _LENGTHS[units]
        units = next((u for u in ("m", "mm", "µm", "nm") if metres >= 0.999 * _LENGTHS[u]), "pm")
        value = metres / _LENGTHS[units]
    symbol = {"um": "µm", "A": "Å", "angstrom": "Å", "Angstrom": "Å"}.get(units, units)
    return f"{value:g} {symbol}"
