"""First looks at counts and at pixels that differ in brightness: their smooth part, and spectra to start from."""

from __future__ import annotations

import numpy as np

from bayesunmix.data.purest import principal_plane, purest_pixels

_SWEEPS = 150
_PURITY = 4  # power of the share that weighs a unit
_TINY = np.finfo(np.float32).tiny


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
    values, spectra, parts = _start(values, n_endmembers, brightness, least)
    for _ in range(_SWEEPS):
        parts = _parts(values, spectra, parts, 1, brightness)
        ratio = values / np.maximum(parts @ spectra, _TINY)
        spectra = np.maximum(spectra * (parts.T @ ratio) / parts.sum(0)[:, None], least)
    scale = _even_scales(parts, spectra)[:, None] if brightness else 1.0
    return np.maximum(spectra.astype(np.float64) * scale, least)


def purest_shapes(values: np.ndarray, n_endmembers: int, *, least: float) -> np.ndarray:
    """Endmembers (n_endmembers, channel), none below ``least``, of pixels (unit, channel) that differ in brightness.

    The pixels of purest shape, in the scales that make brightness and composition independent.
    """
    values, spectra, parts = _start(values, n_endmembers, True, least)
    parts = _parts(values, spectra, parts, _SWEEPS, True)
    return np.maximum(spectra.astype(np.float64) * _even_scales(parts, spectra)[:, None], least)


def _start(values, n_endmembers: int, brightness: bool, least: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The values, purest pixels of their smooth part (taken to one level if ``brightness``), and parts to start from.

    In single precision, which is enough for a start and takes half the time.
    """
    smooth = smoothed_counts(values, n_endmembers if brightness else n_endmembers - 1)
    level = smooth.sum(1, keepdims=True)
    shapes = smooth * (level.mean() / np.maximum(level, 0.05 * level.mean())) if brightness else smooth
    spectra = np.maximum(purest_pixels(shapes, n_endmembers), least)
    parts = np.full((len(smooth), n_endmembers), 1.0 / n_endmembers)
    parts = parts * level / level.mean() if brightness else parts
    return np.asarray(values, np.float32), spectra.astype(np.float32), parts.astype(np.float32)


def _parts(values, spectra, parts, sweeps: int, brightness: bool) -> np.ndarray:
    """Multiplicative steps of the parts (unit, n_endmembers) on the Poisson likelihood."""
    for _ in range(sweeps):
        ratio = values / np.maximum(parts @ spectra, _TINY)
        parts = np.maximum(parts * (ratio @ spectra.T) / spectra.sum(1), 1e-9)
        if not brightness:
            parts /= parts.sum(1, keepdims=True)
    return parts


def _even_scales(parts: np.ndarray, spectra: np.ndarray) -> np.ndarray:
    """Factors (n_endmembers,) of spectra that give each the mean signal of its purest units.

    Only the assumption that brightness and composition are independent tells the scales of spectra apart.
    """
    signal = parts * spectra.sum(1)
    total = signal.sum(1)
    weight = (signal / total[:, None]) ** _PURITY
    return (total @ weight) / weight.sum(0) / spectra.sum(1)
