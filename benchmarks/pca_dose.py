"""Low dose: do intervals of probabilistic PCA cover the true spectra where truncated PCA is sure of the wrong ones?"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import xarray as xr
from pca_tables import Kept, image_of, table, write

import bayesunmix as bu
from bayesunmix.models import ProbabilisticPCA


def truncated(flat: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction by the first components, and the standard error that least squares on fixed axes gives it."""
    centre = flat.mean(0)
    u, s, v = np.linalg.svd(flat - centre, full_matrices=False)
    left = np.sqrt((s[size:] ** 2).sum() / (len(flat) - 1 - size) / (flat.shape[1] - size))
    leverage = 1 / len(flat) + (v[:size] ** 2).sum(0)
    return centre + (u[:, :size] * s[:size]) @ v[:size], left * np.sqrt(leverage)


DOSES = (1, 3, 10, 30)  # counts a pixel
FITS: dict[str, ProbabilisticPCA] = {
    '"diagonal"': ProbabilisticPCA(1, noise="diagonal"),
    '"diagonal", 4 components': ProbabilisticPCA(4, noise="diagonal"),
    "\"diagonal\", floor 'visible'": ProbabilisticPCA(1, noise="diagonal", component_floor="visible"),
    '"diagonal", floor 10.0': ProbabilisticPCA(1, noise="diagonal", component_floor=10.0),
    '"two-way"': ProbabilisticPCA(1, noise="two-way"),
    '"poisson"': ProbabilisticPCA(1, noise="poisson"),
}


def low_dose(counts: int, side: int, n_channels: int, seed: int) -> tuple[xr.DataArray, np.ndarray]:
    """Poisson counts of a boundary between two spectra, one component, and what was expected of them."""
    energy, y, x = np.linspace(0, 1, n_channels), *np.mgrid[:side, :side] / side
    spectra = np.stack([np.exp(-3 * energy), np.exp(-(((energy - 0.6) / 0.1) ** 2)) + 0.1])
    spectra /= spectra.sum(1, keepdims=True)
    share = 0.5 + 0.5 * np.tanh(8 * (x - 0.5 + 0.2 * np.sin(5 * y)))
    expected = counts * ((1 - share)[..., None] * spectra[0] + share[..., None] * spectra[1])
    return image_of(np.random.default_rng([counts, seed]).poisson(expected).astype(float)), expected


def by_truncated(image: xr.DataArray, expected: np.ndarray, size: int) -> list[float]:
    """Coverage and rms error of truncated PCA."""
    n_channels = image.shape[-1]
    found, error = truncated(image.values.reshape(-1, n_channels), size)
    away = found - expected.reshape(-1, n_channels)
    return [float(np.mean(np.abs(away) < 1.6449 * error)), float(np.sqrt(np.mean(away**2)))]


def by_fit(image: xr.DataArray, expected: np.ndarray, model: ProbabilisticPCA) -> list[float]:
    """The same of a fit, with its mean number of components above noise."""
    fit = bu.fit(model, image, progress=False)
    parts = bu.uncertainty(fit)
    away = parts["mean"] - expected
    print(fit.diagnostics.attrs["verdict"], flush=True)
    return [
        float((np.abs(away) < 1.6449 * parts["epistemic"]).mean()),
        float(np.sqrt((away**2).mean())),
        float(fit.posterior["n_above_noise"].mean()),
    ]


def dose(images: int, side: int = 32, n_channels: int = 40) -> None:
    """Counts at 1 to 30 a pixel: do intervals of the true spectra cover, and how far is truncated PCA?"""
    ways: dict[str, Any] = {f"truncated PCA, {size}": (by_truncated, size) for size in (1, 4)}
    ways |= {name: (by_fit, model) for name, model in FITS.items()}
    kept, rows = Kept("dose"), {}
    # The log-bilinear model comes last: it takes a hundred times as long.
    for (method, (way, *settings)), counts in itertools.product(ways.items(), DOSES):
        for seed in range(images):
            if f"{counts} {method} {seed}" not in kept.rows:
                kept.add(f"{counts} {method} {seed}", way(*low_dose(counts, side, n_channels, seed), *settings))
        found = np.array([kept.rows[f"{counts} {method} {seed}"] for seed in range(images)])
        covered, rms, *above = found.mean(0)
        error = found[:, 0].std(ddof=1) / np.sqrt(images)
        shown = [f"{n:.2f}" for n in above] or ["-"]
        rows[counts, method] = [images, f"{covered:.3f}", f"{error:.3f}", f"{rms / counts:.4f}", *shown]
        print(counts, method, *rows[counts, method], flush=True)
    head = ["counts a pixel", "method", "images", "90 % covers", "standard error", "rms error over counts"]
    write(
        "dose",
        f"dose --count {images}",
        [
            f"{side} x {side} pixels, {n_channels} channels, a boundary between two spectra (one component), Poisson "
            "counts. How often the 90 % interval of the expected counts (`mean` and `epistemic` of "
            "`bu.uncertainty`; for truncated PCA least squares on its axes with the residual variance) holds the "
            "truth, over all pixels and channels, with the standard error between images.",
            "",
            *table(
                [*head, "components above noise"],
                [[*key, *rows[key]] for key in itertools.product(DOSES, ways)],
            ),
        ],
    )
