"""Counts as a log-bilinear model: where its priors sit, where a fit starts, and its principal axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesunmix.models._principal_axes import largest_positive, principal_axes

MEAN_SCALE = 2.0  # of the logarithm of the counts in a channel
_SHAPES = (0.3, 300.0)  # of the brightness, for a start


def column_masses(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Share of every channel in all counts, half a count more in each, and the mean counts of a pixel."""
    total = values.sum(0, dtype=np.float64) + 0.5
    return total / total.sum(), float(total.sum() / len(values))


def priors(values: np.ndarray, n_components: int) -> dict[str, Any]:
    """Numbers of the priors, and the axes that decide signs and rotation; ``values`` are (pixel, channel)."""
    n_pixels, n_channels = values.shape
    if not np.isfinite(values).all() or values.min() < 0:
        raise ValueError(
            'noise="poisson" expects complete pixels of counts that are never negative, got a smallest value of '
            f"{values.min():.4g}: mask the pixels, or use noise='diagonal'"
        )
    if not values.any():
        mean, scale, reference = np.full(n_channels, np.log(10.0)), 0.5, np.eye(n_components, n_channels)
    else:
        start = correspondence(values, n_components)
        mean, scale = start["mean"], MEAN_SCALE
        reference = largest_positive(count_axes(start, None)["components"])
    level = float(np.exp(mean).sum())
    return {
        "mean_location": mean,
        "mean_scale": scale,
        "noise_level": float(np.sqrt(n_channels / level)),
        "n_pixels": float(n_pixels),
        "reference": reference,
    }


def correspondence(values: np.ndarray, n_components: int) -> dict[str, np.ndarray]:
    """Correspondence analysis as a start: logarithm of the mean counts, loadings of it, shape of the brightness.

    Residuals from the product of row total and column mass, in units of their Poisson standard deviation; what they
    vary beyond chance is the principal inertia of the first axes.
    """
    mass, level = column_masses(values)
    total = values.sum(1, dtype=np.float64)
    weight = np.sqrt(np.maximum(total, 1e-3 * level))
    left = (values - total[:, None] * mass) / (weight[:, None] * np.sqrt(mass))
    inertia, axes = np.linalg.eigh(left.T @ left / len(values))
    inertia, axes = inertia[::-1][:n_components] - 1.0, axes[:, ::-1][:, :n_components]
    strength = np.sqrt(np.maximum(inertia, 0.05) / level)
    spread = max(float(total.var() / level**2 - 1.0 / level), 1e-6)
    return {
        "components": (axes * strength / np.sqrt(mass)[:, None]).T,
        "mean": np.log(mass * level),
        "brightness_shape": np.asarray(np.clip(1.0 / spread, *_SHAPES)),
    }


def count_axes(values: dict[str, Any], reference: np.ndarray | None) -> dict[str, Any]:
    """Draws turned to the principal axes of correspondence analysis, with what follows from them.

    Axes are orthogonal in the metric of the expected share of every channel, and orthogonal to the brightness: their
    ``explained_variance`` is a principal inertia, beside which ``noise_scale`` squared, one over the counts of a pixel,
    is what counting adds along any direction.
    """
    mean = np.asarray(values["mean"])
    level = np.exp(mean).sum(-1)
    mass = np.exp(mean) / level[..., None]
    found = {**values, "noise_scale": np.sqrt(1.0 / level)}
    if "components" not in values:
        return found
    components = np.asarray(values["components"])
    components = components - (components * mass[..., None, :]).sum(-1, keepdims=True)
    root = np.sqrt(mass)[..., None, :]
    scaled, turn = principal_axes(components * root, None if reference is None else reference * root)
    components = np.swapaxes(turn, -1, -2) @ components
    variance = (scaled**2).sum(-1)
    found["components"], found["explained_variance"] = components, variance
    if "score" in values:
        found["score"] = np.asarray(values["score"]) @ turn
    return found
