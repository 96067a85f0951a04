"""First looks at counts: their smooth part, and a factorisation to start from."""

from __future__ import annotations

import numpy as np

from bayesunmix.data.purest import principal_plane, purest_pixels

_SWEEPS = 150


def smoothed_counts(values: np.ndarray, rank: int) -> np.ndarray:
    """What ``rank`` principal components of counts (unit, channel) say of every value, of the same shape.

    Channels are scaled by the root of their mean, so that Poisson noise is as large in all of them.

    References
    ----------
    Keenan & Kotula, "Accounting for Poisson noise in the multivariate analysis of ToF-SIMS spectrum images", Surf.
    Interface Anal. 36, 203 (2004).
    """
    values = np.asarray(values, dtype=np.float64)
    scale = np.sqrt(np.maximum(values.mean(0), 1.0 / len(values)))
    white = values / scale
    mean, axes, _ = principal_plane(white, min(rank, white.shape[1] - 1, len(white) - 1))
    return np.maximum(mean + (white - mean) @ axes.T @ axes, 0.0) * scale


def factorised_counts(values: np.ndarray, n_endmembers: int, *, brightness: bool, least: float) -> np.ndarray:
    """Endmembers (n_endmembers, channel) of counts, none below ``least``.

    Purest pixels of the smoothed counts, improved by multiplicative steps on the Poisson likelihood.

    References
    ----------
    Lee & Seung, "Algorithms for non-negative matrix factorization", NIPS 13 (2000).
    """
    values = np.asarray(values, dtype=np.float64)
    smooth = smoothed_counts(values, n_endmembers if brightness else n_endmembers - 1)
    level = smooth.sum(1, keepdims=True)
    shapes = smooth * (level.mean() / np.maximum(level, 0.05 * level.mean())) if brightness else smooth
    spectra = np.maximum(purest_pixels(shapes, n_endmembers), least)
    parts = np.full((len(values), n_endmembers), 1.0 / n_endmembers)
    if brightness:
        parts = parts * level / level.mean()
    for _ in range(_SWEEPS):
        ratio = values / np.maximum(parts @ spectra, np.finfo(float).tiny)
        parts = parts * (ratio @ spectra.T) / spectra.sum(1)
        parts = np.maximum(parts, 1e-9)
        if not brightness:
            parts /= parts.sum(1, keepdims=True)
        ratio = values / np.maximum(parts @ spectra, np.finfo(float).tiny)
        spectra = np.maximum(spectra * (parts.T @ ratio) / parts.sum(0)[:, None], least)
    if brightness:
        spectra = np.maximum(spectra * parts.sum(1).mean(), least)
    return spectra
