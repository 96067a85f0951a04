"""What the page needs to show the spectrum, the fit and its band of the pixel that a reader clicks."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.plot.fitted import band, first_feature, names, of_units, where
from bayesunmix.plot.images import centres, dim_label, flatten, same_units
from bayesunmix.plot.style import axis_label, member_names

from .facts import PROB, Facts

MOST_VALUES = 300_000  # of spectra in a page: 6 bytes each, a third more as text
MOST_CHANNELS = 512  # a screen shows no more
MOST_CELLS = 40_000  # of a map
MISSING = 65535


def explorer(facts: Facts) -> dict[str, Any] | None:
    """All of it as plain numbers, texts and base64; None where a unit has no spectrum to look at.

    Observed states have none: they are what the chain's own figures show.
    """
    units = facts.fit.units
    if facts.hops and ("state" not in facts.latent or not _has_levels(facts.fit.model)):
        return None
    shown = _slice(units)
    steps = _steps(units, shown)
    chosen = np.flatnonzero(shown & np.all([p % s == 0 for p, s in zip(_places(units), steps, strict=True)], axis=0))
    if chosen.size == 0:
        chosen = np.flatnonzero(shown)[:1]
    every = math.ceil(units.n_channels / MOST_CHANNELS)
    values, mean, sd = (
        first_feature(v, units)[chosen, ::every]
        for v in (units.values, *of_units(facts.split[["mean", "total"]], units))
    )
    low, high = band(mean, sd, PROB, getattr(facts.fit.model, "likelihood", "normal"))
    channel = facts.split["mean"].isel({d: 0 for d in units.pixel_dims})
    tests = of_units(facts.checked[["chi2", "p_value"]], units)
    return {
        "layout": _layout(facts, chosen),
        "maps": _maps(facts, chosen),
        "channel": _floats(centres(channel, units.channel_dim)[::every]),
        "channelNames": _entries(names(channel, units.channel_dim), every),
        "channelLabel": _text(dim_label(channel, units.channel_dim)),
        "valueLabel": _text(axis_label(xr.DataArray(0, attrs=units.attrs), "value")),
        "spectra": _packed(values, mean, low, high),
        "names": [where(units, int(k)) for k in chosen],
        "chi2": _floats(tests[0][chosen] / np.isfinite(units.values[chosen]).reshape(chosen.size, -1).sum(1)),
        "p": _floats(tests[1][chosen]),
        "latents": _latents(facts, chosen),
        "entry": facts.parts[1],
        "unit": facts.parts[0],
        "note": _note(facts, chosen.size, int(shown.sum()), every),
        "band": f"{100 * PROB:g}\u00a0%",
    }


def _entries(found: list[str] | None, every: int) -> list[str] | None:
    return None if found is None else [_text(name) for name in found[::every]]


def _has_levels(model: Any) -> bool:
    """Whether the frames of a sequence are numbers, whose mean and sd say something."""
    emission = getattr(model, "emission", "normal")
    first = emission if isinstance(emission, str) else emission[0]
    return "categorical" not in str(first)


def _places(units: Any) -> tuple[np.ndarray, ...]:
    """Position of every unit along each pixel dim."""
    return np.unravel_index(units.index, units.pixel_shape)


def _slice(units: Any) -> np.ndarray:
    """Units that lie in the middle of all pixel dims before the last two, as the maps do."""
    places = _places(units)
    shown = np.ones(units.n_units, bool)
    for place, size in zip(places[:-2], units.pixel_shape[:-2], strict=True):
        shown &= place == size // 2
    return shown


def _steps(units: Any, shown: np.ndarray) -> tuple[int, ...]:
    """Every how many-th pixel along each dim is kept, so that the page stays small."""
    most = max(1, min(MOST_CELLS, MOST_VALUES // min(units.n_channels, MOST_CHANNELS)))
    crowd = max(1.0, shown.sum() / most)
    inner = len(units.pixel_shape[-2:])
    step = math.ceil(crowd ** (1 / inner) - 1e-9)
    return (1,) * (len(units.pixel_shape) - inner) + (step,) * inner


def _layout(facts: Facts, chosen: np.ndarray) -> dict[str, Any]:
    """Where the units of the page lie: on a grid of pixels, or as points."""
    units = facts.fit.units
    if _in_a_plane(facts):
        points = first_feature(units.values, units)[chosen, :2]
        low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
        across, down = ((points - low) / np.where(high > low, high - low, 1)).T
        first, second = _features(units)[:2]
        label = f"{first} (across) and {second} (up)"
        return {"kind": "points", "across": _floats(across), "down": _floats(1 - down), "label": label, "aspect": 1.0}
    places = _places(units)
    rows, columns = (1, *units.pixel_shape[-2:])[-2:]
    down = places[-2][chosen] if len(places) > 1 else np.zeros(chosen.size)
    image = units.keep
    aspect = rows / columns
    if len(places) > 1 and same_units(image, *image.dims[-2:]):
        sides = [abs(np.ptp(centres(image, d))) * n / max(n - 1, 1)
                 for d, n in zip(image.dims[-2:], (rows, columns), strict=True)]  # fmt: skip
        aspect = float(sides[0] / sides[1]) if min(sides) > 0 else aspect
    return {
        "kind": "grid",
        "rows": rows,
        "columns": columns,
        "across": _floats((places[-1][chosen] + 0.5) / columns),
        "down": _floats((down + 0.5) / rows),
        "aspect": float(np.clip(aspect, 0.08, 2.5)),
        "label": _text(" and ".join(dim_label(image, d) for d in image.dims[-2:][::-1])),
    }


def _in_a_plane(facts: Facts) -> bool:
    """Whether the units are no image but vectors, which lie in the plane of their first two entries."""
    units = facts.fit.units
    return facts.classes and len(units.pixel_dims) == 1 and units.n_channels > 1


def _features(units: Any) -> list[Any]:
    coord = units.coords.get(units.channel_dim)
    return [f"{units.channel_dim} {k}" for k in range(units.n_channels)] if coord is None else list(coord.values)


def _fields(facts: Facts) -> list[tuple[str, xr.DataArray]]:
    """Names of the latents of a unit, with their statistics on the pixel dims."""
    latent = facts.latent
    if facts.mixes:
        called = member_names(facts.abundance.coords["endmember"].values, facts.truth)
        members = facts.abundance.transpose("endmember", ...)
        return [(f"abundance of {_text(name)}", one) for name, one in zip(called, members, strict=True)]
    if "score" in latent:
        return [(f"score of component {k}", one) for k, one in enumerate(latent["score"].transpose("component", ...))]
    if facts.classes:
        members = latent["membership"].transpose("component", ...)
        return [(f"probability of class {k}", one) for k, one in enumerate(members)]
    return []


def _latents(facts: Facts, chosen: np.ndarray) -> list[dict[str, str]]:
    found = []
    for name, one in _fields(facts):
        wanted = ["mean"] if facts.classes else ["mean", "lower", "upper"]
        parts = of_units(xr.Dataset({s: one.sel(statistic=s, drop=True) for s in wanted}), facts.fit.units)
        found.append({"name": name, **{s: _floats(p[chosen]) for s, p in zip(wanted, parts, strict=True)}})
    return found


def _maps(facts: Facts, chosen: np.ndarray) -> list[dict[str, Any]]:
    maps = [(name, one.sel(statistic="mean", drop=True)) for name, one in _fields(facts)]
    shares = (0.0, 1.0) if facts.classes else None
    found = [{"name": name, **_levels(_cells(facts, values, chosen), shares)} for name, values in maps]
    maps = [(f"chi-square per {facts.parts[1]}", facts.checked["chi2"] / max(1, facts.fit.units.values[0].size))]
    maps.append(("predictive p-value", facts.checked["p_value"]))
    return found + [{"name": name, **_levels(_cells(facts, values, chosen))} for name, values in maps]


def _cells(facts: Facts, values: xr.DataArray, chosen: np.ndarray) -> np.ndarray:
    """A map with no more cells than a screen shows, (row, column); of vectors in a plane one row, their colours."""
    units = facts.fit.units
    if _in_a_plane(facts):
        return of_units(xr.Dataset({"one": values}), units)[0][None, chosen]
    flat, _ = flatten(values.transpose(*units.pixel_dims))
    cells = np.atleast_2d(flat.values)
    crowd = max(1.0, cells.size / MOST_CELLS)
    step = math.ceil((crowd if len(cells) == 1 else math.sqrt(crowd)) - 1e-9)
    return cells[::step, ::step]


def _levels(cells: np.ndarray, ends: tuple[float, float] | None = None) -> dict[str, Any]:
    """255 levels between `ends`, or the extremes with a half per cent of stray cells aside; 255 where nothing was
    fitted.
    """
    finite = cells[np.isfinite(cells)]
    low, high = (float(v) for v in np.percentile(finite, [0.5, 99.5])) if finite.size else (0.0, 1.0)
    low, high = ends or (low, high)
    level = np.clip((cells - low) / ((high - low) or 1.0), 0, 1) * 254
    codes = np.where(np.isfinite(level), np.rint(np.nan_to_num(level)), 255).astype(np.uint8)
    return {"low": low, "high": high, "rows": cells.shape[0], "columns": cells.shape[1], "codes": _text64(codes)}


def _packed(values: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, str]:
    """Data and mean in 65535 levels of each channel's range, the widths of the band in 256 of each channel's widest."""
    both = np.concatenate([values, mean])
    with np.errstate(all="ignore"):
        least = np.nanmin(np.where(np.isfinite(both), both, np.inf), axis=0)
        most = np.nanmax(np.where(np.isfinite(both), both, -np.inf), axis=0)
    empty = ~(most >= least)
    least, most = np.where(empty, 0, least), np.where(empty, 0, most)
    step = np.where(most > least, (most - least) / (MISSING - 1), 1.0)
    code = lambda v: np.where(np.isfinite(v), np.rint(np.nan_to_num((v - least) / step)), MISSING).astype("<u2")  # noqa: E731
    widths = np.nan_to_num(np.stack([mean - low, high - mean]))
    widest = np.maximum(widths.max(axis=(0, 1)), 1e-300)
    below, above = np.clip(np.rint(widths / widest * 255), 0, 255).astype(np.uint8)
    return {
        "least": _doubles(least),
        "step": _doubles(step),
        "widest": _doubles(widest),
        "data": _text64(code(values)),
        "mean": _text64(code(mean)),
        "below": _text64(below),
        "above": _text64(above),
    }


def _note(facts: Facts, n_chosen: int, n_shown: int, every: int) -> str:
    units, name = facts.fit.units, facts.parts[0]
    _, cut = flatten(units.keep.transpose(*units.pixel_dims).astype(float))
    parts = [f"The images are those at {cut}."] if cut else []
    if n_chosen < n_shown:
        parts.append(f"To keep the page small it holds {n_chosen} of {n_shown} {name}s; a click finds the nearest.")
    if every > 1:
        parts.append(f"Of {units.n_channels} channels one in {every} is drawn.")
    if units.feature_dim:
        parts.append("Only the first feature is drawn.")
    return " ".join(parts)


def _text(label: str) -> str:
    """A label for a page instead of for matplotlib."""
    return label.replace(r"\$", "$")


def _text64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _floats(array: Any) -> str:
    return _text64(np.asarray(array, "<f4"))


def _doubles(array: Any) -> str:
    return _text64(np.asarray(array, "<f8"))
