"""Simulated spectrum images whose truth is known, made by code alone."""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

# Particles of the scene: centre (y, x), outer radius and core radius, as fractions of the shorter image side.
# The first is wider than the section is thick, which cuts through it; the others lie inside.
_PARTICLES = (
    (0.345, 0.345, 0.335, 0.24),
    (0.77, 0.745, 0.225, 0.15),
    (0.17, 0.83, 0.165, 0.09),
    (0.83, 0.22, 0.165, 0.14),
    (0.5, 0.9, 0.08, 0.0),
    (0.98, 0.46, 0.11, 0.08),
    (0.03, 0.6, 0.075, 0.0),
    (0.04, 0.04, 0.09, 0.06),
    (0.66, 0.02, 0.09, 0.0),
)
_THICKNESS = 0.30
_DISPERSED = 0.30  # share of the path through a fine dispersion of the phases
_PHASES = ("film", "shell", "core")


def core_shell(
    shape: tuple[int, int] = (48, 48),
    n_channels: int = 128,
    seed: int = 0,
    *,
    snr_db: float = 25.0,
    pixel_size: float = 1.5,
) -> tuple[xr.DataArray, xr.Dataset]:
    """Core-loss EELS of core-shell nanoparticles in a thin section, with the truth that made it.

    Iron cores in titanium oxide shells are embedded in a silicon nitride section of even thickness. A
    pixel's abundances are the fractions of the beam's path spent in each phase, so they sum to one. Part of
    the path goes through a fine dispersion of all three, whose composition wanders smoothly, and shells cover
    cores: no pixel is pure core. Each phase is a power-law background with its ionisation edges (N K 401,
    Ti L 456, O K 532, Fe L 708 eV), blurred to 4 eV. The noise is normal and the same everywhere. Edge
    heights are of a realistic size but are not computed from cross-sections.

    Parameters
    ----------
    shape : (int, int)
        Pixels along y and x.
    n_channels : int
        Energy channels between 360 and 868 eV.
    seed : int
        Seeds the noise; the scene itself is always the same.
    snr_db : float
        ``10 log10(mean square of the signal / noise variance)``.
    pixel_size : float
        Pixel side in nm.

    Returns
    -------
    image : xarray.DataArray
        Dims ``(y, x, energy)`` in nm and eV, values in thousands of counts.
    truth : xarray.Dataset
        ``endmembers (endmember, energy)``, ``abundance (y, x, endmember)`` and the scalar ``noise_scale``.

    Raises
    ------
    ValueError
        When a size is too small to hold the scene.
    """
    if len(shape) != 2 or min(shape) < 4:
        raise ValueError(f"shape must be two sizes of at least 4 pixels, got {shape}")
    if n_channels < 8:
        raise ValueError(f"n_channels must be at least 8 to show the edges, got {n_channels}")

    energy = np.linspace(360.0, 868.0, n_channels)
    spectra = _spectra(energy)
    abundance = _path_fractions(shape)
    signal = abundance @ spectra
    noise_scale = float(np.sqrt(np.mean(signal**2) * 10 ** (-snr_db / 10)))
    noise = np.random.default_rng(seed).normal(0.0, noise_scale, signal.shape)

    coords = {
        "y": ("y", np.arange(shape[0]) * pixel_size, {"units": "nm"}),
        "x": ("x", np.arange(shape[1]) * pixel_size, {"units": "nm"}),
        "energy": ("energy", energy, {"units": "eV", "long_name": "energy loss"}),
    }
    attrs = {"units": "10³ counts", "long_name": "intensity"}
    image = xr.DataArray(signal + noise, coords, ("y", "x", "energy"), "core-shell nanoparticles", attrs)
    truth = xr.Dataset(
        {
            "endmembers": (("endmember", "energy"), spectra, attrs),
            "abundance": (("y", "x", "endmember"), abundance),
            "noise_scale": ((), noise_scale, {"units": attrs["units"]}),
        },
        coords | {"endmember": list(_PHASES)},
        {"simulator": "core_shell", "seed": seed, "snr_db": snr_db},
    )
    return image, truth


def _path_fractions(shape: tuple[int, int], oversample: int = 4) -> np.ndarray:
    """Fractions of the path through the section, ``(y, x, phase)``, averaged over each pixel."""
    side = min(shape)
    fine = [(np.arange(n * oversample) + 0.5) / oversample / side - (n / side - 1) / 2 for n in shape]
    shell_or_core = np.zeros((fine[0].size, fine[1].size))
    core = np.zeros_like(shell_or_core)
    for centre_y, centre_x, outer, inner in _PARTICLES:
        distance2 = (fine[0][:, None] - centre_y) ** 2 + (fine[1][None, :] - centre_x) ** 2
        shell_or_core += _chord(distance2, outer)
        core += _chord(distance2, inner)
    fractions = np.stack([_THICKNESS - shell_or_core, shell_or_core - core, core], axis=-1) / _THICKNESS
    binned = fractions.reshape(shape[0], oversample, shape[1], oversample, len(_PHASES)).mean(axis=(1, 3))
    return (1 - _DISPERSED) * binned + _DISPERSED * _dispersion(shape)


def _dispersion(shape: tuple[int, int]) -> np.ndarray:
    """Smooth composition ``(y, x, phase)`` of the fine dispersion, every mixture as common as any other."""
    first, second = (_smooth_ranks(shape, seed) for seed in (5, 6))
    film = 1 - np.sqrt(1 - first)
    return np.stack([film, (1 - film) * second, (1 - film) * (1 - second)], axis=-1)


def _smooth_ranks(shape: tuple[int, int], seed: int, size: int = 96, correlation: float = 0.03) -> np.ndarray:
    """A smooth random field with values spread evenly over [0, 1], the same scene at every resolution."""
    noise = np.random.default_rng(seed).normal(size=(size, size))
    smooth = gaussian_filter(noise, correlation * size, mode="wrap")
    ranks = smooth.ravel().argsort().argsort().reshape(size, size) / (size**2 - 1)
    rows, columns = (((np.arange(n) + 0.5) / min(shape) * size).astype(int) % size for n in shape)
    return ranks[np.ix_(rows, columns)]


def _chord(distance2: np.ndarray, radius: float) -> np.ndarray:
    """Length of the beam's path inside a sphere centred in the section and cut by it."""
    return np.minimum(2 * np.sqrt(np.clip(radius**2 - distance2, 0, None)), _THICKNESS)


def _spectra(energy: np.ndarray) -> np.ndarray:
    """The three phases' spectra in thousands of counts, ``(phase, energy)``."""
    film = _background(energy, 6.0, 3.0) + _edge(energy, 401, 3.4) + 1.6 * _line(energy, 403.5, 4)
    shell = (
        _background(energy, 7.4, 2.7)
        + _edge(energy, 460, 1.4)
        + 4.2 * _line(energy, 458.5, 2.2)
        + 3.2 * _line(energy, 464.2, 2.4)
        + _edge(energy, 532, 1.5)
        + 1.5 * _line(energy, 533, 2.5)
        + 0.9 * _line(energy, 542, 4)
    )
    core = (
        _background(energy, 10.0, 2.4)
        + _edge(energy, 712, 1.2)
        + 3.2 * _line(energy, 709, 2.4)
        + 1.3 * _line(energy, 722, 2.8)
    )
    return np.stack([film, shell, core])


def _background(energy: np.ndarray, height: float, exponent: float) -> np.ndarray:
    return height * (energy / energy[0]) ** -exponent


def _edge(energy: np.ndarray, onset: float, height: float) -> np.ndarray:
    """A step blurred to the energy resolution, with the decay of a hydrogenic cross-section."""
    blurred = 1 / (1 + np.exp(-(energy - onset) / 1.8))
    return height * blurred * (np.maximum(energy, onset) / onset) ** -3.0


def _line(energy: np.ndarray, centre: float, width: float) -> np.ndarray:
    """A near-edge line: a Lorentzian of unit height, its half width widened by the resolution."""
    return 1 / (1 + ((energy - centre) / (width + 1.7)) ** 2)
