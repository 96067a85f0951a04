"""Images of mixed spectra with their truth, and how well an answer agrees with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

TAILS = (0.05, 0.95)


class Cube(NamedTuple):
    """An image and what made it."""

    image: xr.DataArray  # (y, x, energy), float32
    endmembers: np.ndarray  # (endmember, energy)
    abundance: np.ndarray  # (y, x, endmember)
    noise: float

    @property
    def pixels(self) -> np.ndarray:
        """(pixel, energy)."""
        return self.image.values.reshape(-1, self.image.shape[-1])


def cube(seed: int, side: int, channels: int, n_endmembers: int, snr: float = 25.0) -> Cube:
    """Smooth spectra, two peaks each on a common background, at places that depend on the seed; uniform abundances.

    ``snr`` in decibels: noise beside the standard deviation of the signal.
    """
    rng = np.random.default_rng([seed, 1])
    energy = np.linspace(0.0, 1.0, channels)
    centres = np.linspace(0.15, 0.85, n_endmembers) + rng.uniform(-0.03, 0.03, n_endmembers)
    peak = lambda centre, width: np.exp(-0.5 * ((energy - centre) / width) ** 2)  # noqa: E731
    spectra = np.stack([0.3 + peak(c, 0.08) + 0.5 * peak((c + 0.37) % 1.0, 0.04) for c in centres])
    shares = rng.dirichlet(np.ones(n_endmembers), (side, side))
    noise = float((shares @ spectra).std() * 10 ** (-snr / 20))
    values = np.empty((side, side, channels), np.float32)
    for row, mix in zip(values, shares, strict=True):  # a row at a time, for large images
        row[:] = mix @ spectra + noise * rng.normal(size=(side, channels))
    return Cube(xr.DataArray(values, dims=("y", "x", "energy")), spectra, shares, noise)


def loaded(side: int, channels: int, n_components: int, seed: int = 0) -> tuple[xr.DataArray, np.ndarray]:
    """An image in float32 with noise of 1, and its loadings (component, channel)."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_components, channels)) * np.linspace(1, 0.3, n_components)[:, None]
    values = np.empty((side, side, channels), np.float32)
    for row in values:
        row[:] = rng.normal(size=(side, n_components)) @ loadings + rng.standard_normal((side, channels))
    return xr.DataArray(values, dims=("y", "x", "energy")), loadings


def random_spectra(n_endmembers: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth spectra of a few peaks on a background, (endmember, channel), at most about 1."""
    x = np.linspace(0, 1, channels)
    centre, width = rng.uniform(0.05, 0.95, (2, n_endmembers, 4)), rng.uniform(0.02, 0.08, (n_endmembers, 4))
    height = rng.uniform(0.2, 0.8, (n_endmembers, 4))
    peaks = height[..., None] * np.exp(-0.5 * ((x - centre[0][..., None]) / width[..., None]) ** 2)
    return 0.1 + 0.2 * np.exp(-3 * x) + peaks.sum(1)


def mixtures(n_endmembers: int, side: int, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free image (y, x, channel) of uniform mixtures, and its spectra."""
    members = random_spectra(n_endmembers, channels, rng)
    return rng.dirichlet(np.ones(n_endmembers), (side, side)) @ members, members


def noise_for(clean: np.ndarray, decibel: float) -> float:
    """Standard deviation of noise at a signal-to-noise ratio."""
    return float(np.sqrt(np.mean(clean**2)) * 10 ** (-decibel / 20))


def matched(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Index of the true spectrum that each found one is."""
    return linear_sum_assignment(((found[:, None] - true[None]) ** 2).sum(-1))[1]


def held(draws: np.ndarray, true: np.ndarray) -> float:
    """Share of true values in 90 % intervals of draws (draw, ...)."""
    low, high = np.quantile(draws, TAILS, axis=0)
    return float(np.mean((low <= true) & (true <= high)))


def errors(problem: Cube, endmembers: np.ndarray, abundance: np.ndarray) -> dict[str, float]:
    """Root mean square error of the abundances, and the largest angle to a true spectrum in degrees."""
    match = matched(endmembers, problem.endmembers)
    true = problem.endmembers[match]
    lengths = np.linalg.norm(endmembers, axis=1) * np.linalg.norm(true, axis=1)
    angle = np.degrees(np.arccos(np.clip((endmembers * true).sum(1) / lengths, -1, 1)))
    away = abundance.reshape(-1, len(true)) - problem.abundance.reshape(-1, len(true))[:, match]
    return {"abundance rmse": float(np.sqrt(np.mean(away**2))), "angle, °": float(angle.max())}


def scored_fit(problem: Cube, fit: Any, maps: xr.Dataset) -> dict[str, float]:
    """Errors, share of true values in 90 % intervals, and whether the fit says that it can be used."""
    spectra = fit.posterior["endmembers"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    match = matched(spectra.mean(0), problem.endmembers)
    low, high = (maps["abundance"].sel(statistic=s).values for s in ("lower", "upper"))
    shares = problem.abundance[..., match]
    return {
        **errors(problem, spectra.mean(0), maps["abundance"].sel(statistic="mean").values),
        "endmembers in 90 %": held(spectra, problem.endmembers[match]),
        "abundances in 90 %": float(np.mean((low <= shares) & (shares <= high))),
        "noise in 90 %": held(fit.posterior["noise_scale"].values.ravel(), problem.noise),
        "converged": float(fit.converged),
    }
