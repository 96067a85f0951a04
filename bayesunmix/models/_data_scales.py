"""Prior scales of endmembers and noise from the data, for each likelihood of mixed spectra.

``values`` (unit, channel) may be some of the ``n_units`` units.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bayesunmix.data.counts import smoothed_counts
from bayesunmix.data.purest import principal_plane


def _normal_scales(values: np.ndarray, n_units: int, n_endmembers: int, rank: int, noise: str) -> dict[str, Any]:
    n_channels = values.shape[1]
    if np.ptp(values) == 0:
        scale, level = np.ones(n_channels), np.full(n_channels, 0.05)
    else:
        scale = np.quantile(np.abs(values), 0.999, axis=0, overwrite_input=True)
        scale = np.maximum(scale, 1e-3 * scale.max())
        _, _, left = principal_plane(values, rank)
        level = np.maximum(np.sqrt(left), 1e-4 * scale.max())
    isotropic = float(np.sqrt(np.mean(level**2)))
    # A posterior's width: noise over the square root of what Dirichlet-spread abundances of all pixels tell.
    resolution = 0.6 * isotropic * np.sqrt(n_endmembers * (n_endmembers + 1) / n_units)
    return {
        "endmember_scale": scale,
        "noise_level": level if noise == "diagonal" else isotropic,
        "endmember_resolution": float(resolution),
    }


def _poisson_scales(values: np.ndarray, n_units: int, n_endmembers: int, rank: int, noise: str) -> dict[str, Any]:
    scale = np.ones(values.shape[1])
    if np.ptp(values) > 0:
        scale = np.maximum(np.quantile(smoothed_counts(values, rank), 0.999, axis=0), 1.5 * values.mean(0))
        scale = np.maximum(scale, 1e-3 * scale.max())
    # The value of an endmember that gives about one count in the whole image.
    return {"endmember_scale": scale, "endmember_resolution": n_endmembers / n_units}


def _camera_scales(values: np.ndarray, n_units: int, n_endmembers: int, rank: int, noise: str) -> dict[str, Any]:
    from scipy.optimize import nnls

    found = _normal_scales(values, n_units, n_endmembers, rank, "isotropic")
    level = found["noise_level"]
    gain, read = level**2 / max(float(np.mean(found["endmember_scale"])), 1e-300), level
    if np.ptp(values) > 0:
        _, _, left = principal_plane(values, rank)
        design = np.stack([np.maximum(values.mean(0), 0.0), np.ones(values.shape[1])], axis=1)
        weight = 1.0 / np.maximum(left, 1e-12 * left.max() + 1e-300)
        (gain_fit, square), _ = nnls(design * weight[:, None], left * weight)
        gain = max(gain_fit, 0.02 * gain)
        read = max(float(np.sqrt(square)), 0.05 * read)
    return {**found, "noise_level": np.array([gain, read])}


def level_beside(endmembers: np.ndarray, values: np.ndarray) -> float:
    """Noise level by what known spectra, fewer than channels, leave of few units, whose own plane follows it."""
    spectra = np.asarray(endmembers, dtype=np.float64)
    left = values - values @ np.linalg.pinv(spectra) @ spectra
    free = values.shape[1] - len(spectra)
    return max(float(np.sqrt((left**2).sum() / (len(values) * free))), 1e-4 * float(np.abs(values).max()))


SCALES = {"normal": _normal_scales, "poisson": _poisson_scales, "scaled-poisson": _camera_scales}
