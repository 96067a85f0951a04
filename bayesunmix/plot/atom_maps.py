"""Maps drawn on the atoms: positions, classes, what is uncertain about them, and displacements, with error ellipses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from bayesunmix.descriptors import off_centring

from .style import COLOURS, COLUMN, GREY, MASKED, RC, axis_label, canvas, colour, dress, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayesunmix.fit import Fit

_NINETY = 4.605  # 90 % quantile of chi-square with 2 degrees of freedom
_MARK = (0.5, 1.2, 5.5)  # diameter of an atom's mark: share of the way to the next atom, least and most points


def atoms(
    table: xr.Dataset,
    *,
    values: xr.DataArray | None = None,
    scale: float | None = None,
    image: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Positions of atoms with 90 % ellipses of their errors, over the image where there is one.

    Parameters
    ----------
    table : xarray.Dataset
        With ``position (atom, axis)`` and perhaps ``position_cov``, as of ``bu.descriptors.find_atoms`` and
        ``bu.atoms``; the atoms of one frame.
    values : xarray.DataArray, optional
        A number for every atom, as the colour of its mark; its ``attrs["units"]`` are told at the colour bar.
    scale : float, optional
        How many times too large the ellipses are drawn; chosen when left out, so that the median one is a third of
        the way to the next atom across.
    image : xarray.DataArray, optional
        Drawn underneath, on the coordinates of the positions.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    position = table["position"].transpose("atom", "axis").values
    with _rc():
        ax = _frame(table, image, ax)
        size = _mark(ax, position)
        if values is None:
            ax.scatter(position[:, 1], position[:, 0], s=0.3 * size, color=COLOURS[1], linewidths=0)
        else:
            drawn = ax.scatter(position[:, 1], position[:, 0], s=size, c=values.values, cmap="viridis", linewidths=0)
            ax.figure.colorbar(drawn, ax=ax, label=axis_label(values), shrink=0.8)
        if "position_cov" in table:
            covariance = table["position_cov"].values
            if scale is None:
                radius = np.sqrt(_NINETY * np.median(np.linalg.eigvalsh(covariance)[:, 1]))
                scale = float(max(1.0, np.round(_spacing(position) / (6.0 * max(radius, 1e-12)))))
            _ellipses(ax, position, covariance, scale, over_image=image is not None)
            ax.set_title("90 % ellipses" if scale == 1 else f"90 % ellipses, {scale:g} × enlarged")
    return ax


def classes(fit: Fit, vectors: xr.Dataset, *, image: xr.DataArray | None = None, ax: Axes | None = None) -> Axes:
    """Most probable class of every atom; the fainter the mark, the less sure.

    Parameters
    ----------
    fit : Fit
        Of a mixture, to ``vectors``.
    vectors : xarray.Dataset
        What was fitted, with the positions of the atoms.
    image : xarray.DataArray, optional
        Drawn underneath, on the coordinates of the positions.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    ValueError
        When ``vectors`` are not those of the fit.
    """
    from matplotlib.colors import to_rgb

    share = _shares(fit, vectors)
    position = vectors["position"].values
    with _rc():
        ax = _frame(vectors, image, ax)
        label = share.argmax(axis=1)
        sure = share.max(axis=1)
        least = 1.0 / share.shape[1]
        size = _mark(ax, position)
        for k in range(share.shape[1]):
            here = (label == k) & np.isfinite(sure)
            faint = 0.15 + 0.85 * (sure[here] - least) / max(1.0 - least, 1e-9)
            shade = np.column_stack([np.tile(to_rgb(colour(k)), (here.sum(), 1)), faint])
            ax.scatter(position[here, 1], position[here, 0], s=size, c=shade, linewidths=0)
            ax.scatter([], [], s=12, color=colour(k), label=f"class {k} ({_percent(np.nanmean(share[:, k]))})")
        missing = ~np.isfinite(sure)
        if missing.any():
            x, y = position[missing, 1], position[missing, 0]
            edge = GREY if image is None else "white"
            ax.scatter(x, y, s=0.4 * size, facecolors="none", edgecolors=edge, linewidths=0.5)
            ax.scatter([], [], s=6, facecolors="none", edgecolors=GREY, linewidths=0.5, label="incomplete")
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        ax.set_title("most probable class")
    return ax


def membership_entropy(
    fit: Fit, vectors: xr.Dataset, *, part: str = "entropy", image: xr.DataArray | None = None, ax: Axes | None = None
) -> Axes:
    """Entropy of every atom's class, or one of its parts, in nats.

    Parameters are those of :func:`classes`, and ``part``: "entropy" for all of it, "entropy_noise" for what a better
    position would settle, "mutual_information" for what more atoms would settle.

    Returns
    -------
    matplotlib Axes
    """
    found = _latent(fit, vectors)
    if part not in ("entropy", "entropy_noise", "mutual_information"):
        raise ValueError(f'part: expected "entropy", "entropy_noise" or "mutual_information", got {part!r}')
    values, position = found[part].values, vectors["position"].values
    with _rc():
        ax = _frame(vectors, image, ax)
        # At least a tenth of complete ignorance: what is next to nothing shall not look like something.
        most = max(float(np.nanmax(values, initial=0.0)), 0.1 * float(np.log(found.sizes["component"])), 1e-3)
        x, y = position[:, 1], position[:, 0]
        size = _mark(ax, position)
        drawn = ax.scatter(x, y, c=values, s=size, cmap="viridis", vmin=0.0, vmax=most, linewidths=0)
        ax.figure.colorbar(drawn, ax=ax, label=f"{part.replace('_', ' ')} (nats)", shrink=0.8)
    return ax


def displacements(
    fit: Fit,
    vectors: xr.Dataset,
    *,
    scale: float | None = None,
    image: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Off-centring of every atom as an arrow in the colour of its class, a 90 % ellipse of its error at the tip.

    Parameters are those of :func:`classes`, and ``scale``: how many times too long the arrows and ellipses are drawn;
    chosen when left out, so that nine arrows in ten end before the next atom.

    Returns
    -------
    matplotlib Axes
    """
    share, moved = _shares(fit, vectors), off_centring(vectors)
    start, step = vectors["position"].values, moved["displacement"].values
    whole = np.isfinite(step).all(axis=1) & np.isfinite(share).all(axis=1)
    start, step, label = start[whole], step[whole], share[whole].argmax(axis=1)
    spacing = _spacing(start)
    if scale is None:
        length = np.quantile(np.linalg.norm(step, axis=1), 0.9) if len(step) else 1.0
        scale = float(max(1.0, np.round(spacing / max(length, 1e-12), 1)))
    colours = np.array([colour(k) for k in range(share.shape[1])])[label]
    with _rc():
        ax = _frame(vectors, image, ax)
        arrow: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "headwidth": 3.5}
        arrow |= {"units": "xy", "width": 0.14 * spacing, "minlength": 0.5}
        if image is not None:
            arrow |= {"edgecolor": "white", "linewidth": 0.3}
        if "displacement_cov" in moved:
            cov = moved["displacement_cov"].values[whole]
            _ellipses(ax, start + scale * step, cov, scale, over_image=image is not None)
        ax.quiver(start[:, 1], start[:, 0], scale * step[:, 1], scale * step[:, 0], facecolor=colours, **arrow)
        ax.set_title(f"displacement × {scale:g}, 90 % ellipses")
    return ax


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.005 else "< 1 %"


def _mark(ax: Axes, position: np.ndarray) -> float:
    """Area of a mark in square points that keeps atoms apart."""
    ends = np.stack([position.min(0), position.max(0)])
    box = np.asarray(ax.get_window_extent().size) * 72.0 / ax.figure.dpi
    shown = [np.ptp(ax.get_ylim()), np.ptp(ax.get_xlim())] if ax.images else np.ptp(ends, axis=0) * 1.1
    point = float(np.min(box[::-1] / np.maximum(shown, 1e-9)))
    share, least, most = _MARK
    return float(np.clip(share * _spacing(position) * point, least, most)) ** 2


def _ellipses(ax: Axes, centre: np.ndarray, covariance: np.ndarray, scale: float, *, over_image: bool) -> None:
    """90 % ellipses of (y, x) errors around ``centre`` (atom, 2): dark, and with a bright core over an image."""
    from matplotlib import patheffects
    from matplotlib.collections import EllipseCollection

    values, axes = np.linalg.eigh(covariance)
    size = 2.0 * scale * np.sqrt(_NINETY * np.maximum(values, 0.0))
    ellipses = EllipseCollection(
        size[:, 1],
        size[:, 0],
        np.degrees(np.arctan2(axes[:, 0, 1], axes[:, 1, 1])),
        units="xy",
        offsets=centre[:, ::-1],
        offset_transform=ax.transData,
        facecolors="none",
        edgecolors="white" if over_image else MASKED,
        linewidths=0.5 if over_image else 0.4,
        path_effects=[patheffects.withStroke(linewidth=1.1, foreground="black")] if over_image else None,
    )
    ax.add_collection(ellipses)


def _latent(fit: Fit, vectors: xr.Dataset) -> xr.Dataset:
    found = fit.latent()
    if "entropy" not in found or "atom" not in found.dims:
        raise ValueError("expected the fit of a mixture to neighbour vectors")
    if found.sizes["atom"] != vectors.sizes["atom"]:
        raise ValueError(f"vectors: expected the {found.sizes['atom']} atoms of the fit, got {vectors.sizes['atom']}")
    return found


def _shares(fit: Fit, vectors: xr.Dataset) -> np.ndarray:
    found = _latent(fit, vectors)
    return found[fit.model.latent].sel(statistic="mean").transpose("atom", ...).values


def _spacing(position: np.ndarray) -> float:
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(position).query(position, k=2)[0][:, 1])) if len(position) > 1 else 1.0


def _frame(vectors: xr.Dataset, image: xr.DataArray | None, ax: Axes | None) -> Axes:
    """Axes with y downwards and equal steps, over the image where there is one."""
    position = vectors["position"].values
    if ax is None:
        height, width = np.ptp(position, axis=0) + 1e-9
        _, (ax,) = canvas(COLUMN, float(np.clip(COLUMN * 0.75 * height / width, 30.0, 120.0)))
    dress(ax)
    units = str(vectors["position"].attrs.get("units", "px"))
    if image is not None:
        low, high = np.quantile(image.values, [0.005, 0.995])
        ax.imshow(image.values, cmap="gray", vmin=low, vmax=high, extent=_extent(image), zorder=0)
    else:
        ax.invert_yaxis()
    ax.set_aspect("equal")
    ax.set_xlabel(plain(f"x ({units})"))
    ax.set_ylabel(plain(f"y ({units})"))
    return ax


def _extent(image: xr.DataArray) -> tuple[float, float, float, float]:
    """left, right, bottom, top of an image whose first row is on top."""
    ends = []
    for dim in image.dims[-2:]:
        at = image.coords[dim].values if dim in image.coords else np.arange(image.sizes[dim])
        half = 0.5 * float(at[-1] - at[0]) / max(len(at) - 1, 1)
        ends.append((float(at[0]) - half, float(at[-1]) + half))
    (top, bottom), (left, right) = ends
    return left, right, bottom, top


def _rc() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(RC)
