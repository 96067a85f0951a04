"""Numbers of the priors of normal factors, from the data."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesunmix.data.moments import Moments, moments
from bayesunmix.data.thinning import thinned
from bayesunmix.models._principal_axes import largest_positive, most_likely, principal_axes

_SMALLEST = 0.01  # share of the positive values below what is taken for one count


def normal_priors(values: np.ndarray, n_components: int, noise: str) -> dict[str, Any]:
    """Priors of mean and noise, column factor, and the axes that decide signs; ``values`` are (pixel, channel)."""
    n_units, n_channels = values.shape
    found, missing = complete_moments(values)
    variances = np.diag(found.covariance)
    if n_units <= n_components + 1:
        raise ValueError(
            f"expected at least {n_components + 2} pixels for n_components={n_components}, got {n_units}: a mean and "
            "as many components go through every pixel of fewer, and nothing is left to tell the noise from"
        )
    if not variances.any():
        return {
            "mean_location": found.mean,
            "mean_scale": 1.0,
            "noise_level": np.full(n_channels, 0.1) if noise == "diagonal" else 0.1,
            "n_pixels": float(n_units),
            "column_factor": np.ones(n_channels) if noise == "two-way" else None,
        }
    column = None
    if noise == "two-way":
        if np.nanmin(values) < 0:
            raise ValueError(
                'noise="two-way" expects counts or other data that are never negative, got '
                f"{np.nanmin(values):.4g}: use noise='diagonal'"
            )
        some = thinned(values)
        counts = some[some > 0]
        count = np.quantile(counts, _SMALLEST) if counts.size else np.nanmax(values)  # in any unit
        column = found.mean + 0.5 * count / n_units
        column = column / column.mean()
    width = np.sqrt(column) if column is not None else np.ones(n_channels)
    start = most_likely(scaled(found, width), n_components, diagonal=noise == "diagonal", tolerance=1e-2)
    floor = 1e-6 * np.sqrt(variances.max())
    level = start["noise_scale"]
    return {
        "missing": missing,
        "mean_location": found.mean,
        "mean_scale": float(np.sqrt(found.eigenvalues[0])),
        "noise_level": np.maximum(level, floor) if noise == "diagonal" else max(float(level), floor),
        "column_factor": column,
        "n_pixels": float(n_units),
        "reference": largest_positive(principal_axes(start["components"] * width)[0]),
    }


def complete_moments(values: np.ndarray) -> tuple[Moments, bool]:
    """Moments, and whether entries are missing; those are then filled with the mean of their channel."""
    found = moments(values)
    if found.count == len(values):
        return found, False
    centre = np.nan_to_num(np.nanmean(values, axis=0))
    return moments(np.where(np.isfinite(values), values, centre)), True


def scaled(found: Moments, width: np.ndarray) -> Moments:
    """Moments of channels divided by ``width``."""
    if np.all(width == 1.0):
        return found
    return Moments(found.count, found.mean / width, found.covariance / np.outer(width, width))


def row_factor(values: np.ndarray, column: np.ndarray, noise_level: float) -> np.ndarray:
    """Row factors of two-way noise, of mean 1: totals of pixels, drawn to their mean by what noise alone makes of them.

    The total of a pixel has a variance of ``noise_level**2 * column.sum()`` where its row factor is 1; only what totals
    vary beyond that are row factors, and each gets the share of its deviation that is (Buhlmann's credibility). Totals
    as they are would call a pixel bright that has a count by chance, and trust the empty ones most.
    """
    present = np.isfinite(values)
    share = present @ column / column.sum()
    total = np.where(present, values, 0.0).sum(1, dtype=np.float64) / share
    mean = total.mean()
    noise = noise_level**2 * column.sum() / share
    beyond = max(total.var() - noise.mean(), 0.0)
    return 1.0 + beyond / (beyond + noise) * (total / mean - 1.0)
