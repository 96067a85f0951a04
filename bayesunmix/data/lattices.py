"""Simulated crystals seen from above: atoms on a lattice with domains, and the image taken of them."""

from __future__ import annotations

from typing import Literal

import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter

_DIAGONALS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) / np.sqrt(2.0)
_CAGE = np.array([[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]])


def off_centred_lattice(
    shape: tuple[int, int] = (20, 20),
    domains: Literal["two-phase", "four-variant"] = "four-variant",
    *,
    spacing: float = 16.0,
    displacement: float = 1.5,
    scatter: float = 0.25,
    position_error: float = 0.25,
    seed: int = 0,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Square cages of one species with an off-centred atom of another: a projected perovskite.

    Every position is drawn on its own, so two neighbour vectors that share an atom share its scatter and its error, as
    in a measurement.

    Parameters
    ----------
    shape : (int, int)
        Cells along y and x.
    domains : "two-phase" or "four-variant"
        "two-phase": centred cells, and cells off-centred along one diagonal. "four-variant": off-centred along any of
        the four diagonals.
    spacing, displacement, scatter, position_error : float
        Lattice spacing, length of the off-centring, standard deviation of every atom's own static displacement (per
        axis), and of the measurement (per axis, on average: single atoms differ by up to a factor of 2, and the axes of
        an atom's error ellipse by 1.5), in pixels.
    seed : int

    Returns
    -------
    atoms : xarray.Dataset
        Like :func:`bayesunmix.atoms` makes it, with ``species`` "cage" and "centre".
    truth : xarray.Dataset
        ``label (atom)`` of the centred atoms in the order they have in ``atoms`` (-1 for the cage), ``position``
        without error, and the neighbour vectors' class ``means (component, feature)``, ``covariances`` and ``weights``,
        the cage's corners in the order of increasing angle from the axis of y.
    """
    rng = np.random.default_rng(seed)
    rows, columns = shape
    corner = np.stack(np.meshgrid(np.arange(rows + 1.0), np.arange(columns + 1.0), indexing="ij"), -1).reshape(-1, 2)
    centre = np.stack(np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij"), -1).reshape(-1, 2)
    label = _domains(shape, domains, rng).ravel()
    shifts = displacement * (np.stack([[0.0, 0.0], _DIAGONALS[0]]) if domains == "two-phase" else _DIAGONALS)
    ideal = spacing * np.concatenate([corner, centre]) + spacing
    ideal[len(corner) :] += shifts[label]
    true = ideal + scatter * rng.normal(size=ideal.shape)
    cov = _error_ellipses(position_error, len(true), rng)
    measured = true + np.einsum("nij,nj->ni", np.linalg.cholesky(cov), rng.normal(size=true.shape))
    axis = {"axis": ["y", "x"], "other_axis": ["y", "x"]}
    species = np.repeat(["cage", "centre"], [len(corner), len(centre)])
    atoms = xr.Dataset(
        {
            "position": (("atom", "axis"), measured, {"units": "px"}),
            "position_cov": (("atom", "axis", "other_axis"), cov, {"units": "px²"}),
            "frame": ("atom", np.zeros(len(true), dtype=int)),
            "species": ("atom", species),
        },
        axis,
    )
    own = np.kron(np.ones((4, 4)), np.eye(2)) + np.eye(8)
    cage = spacing * _CAGE[np.argsort(np.arctan2(_CAGE[:, 1], _CAGE[:, 0]) % (2 * np.pi))]
    means = (cage[None] - shifts[:, None]).reshape(len(shifts), 8)
    truth = xr.Dataset(
        {
            "position": (("atom", "axis"), true, {"units": "px"}),
            "label": ("atom", np.concatenate([np.full(len(corner), -1), label])),
            "means": (("component", "feature"), means, {"units": "px"}),
            "covariances": (
                ("component", "feature", "other_feature"),
                np.broadcast_to(scatter**2 * own, (len(shifts), 8, 8)).copy(),
            ),
            "weights": ("component", np.bincount(label, minlength=len(shifts)) / label.size),
        },
        axis,
        {"simulator": "off_centred_lattice", "seed": seed, "domains": domains},
    )
    return atoms, truth


def atom_image(
    positions: np.ndarray,
    shape: tuple[int, int],
    *,
    amplitude: float | np.ndarray = 1.0,
    width: float | np.ndarray = 3.0,
    background: float = 0.3,
    dose: float | None = 100.0,
    noise_scale: float = 0.0,
    seed: int = 0,
) -> xr.DataArray:
    """Image of atom columns, each a round Gaussian spot sampled at the pixel centres.

    Parameters
    ----------
    positions : (atom, 2)
        y and x in pixels; pixel (0, 0) is centred on the origin.
    shape : (int, int)
    amplitude, width : float or (atom,)
        Height of the spots and their standard deviation in pixels.
    background : float
        In the units of the amplitude.
    dose : float or None
        Counts per pixel for an intensity of 1, drawn from Poisson's law; None gives the intensity itself.
    noise_scale : float
        Standard deviation of normal noise, added in the end.
    seed : int

    Returns
    -------
    xarray.DataArray
        Dims (y, x).
    """
    rng = np.random.default_rng(seed)
    positions = np.asarray(positions, dtype=float)
    height = np.broadcast_to(np.asarray(amplitude, dtype=float), len(positions))
    sigma = np.broadcast_to(np.asarray(width, dtype=float), len(positions))
    y, x = (np.arange(n, dtype=float) for n in shape)
    along_y = np.exp(-0.5 * ((y[None] - positions[:, :1]) / sigma[:, None]) ** 2)
    along_x = np.exp(-0.5 * ((x[None] - positions[:, 1:]) / sigma[:, None]) ** 2)
    image = background + (height[:, None] * along_y).T @ along_x
    if dose is not None:
        image = rng.poisson(dose * image).astype(float)
    if noise_scale:
        image = image + rng.normal(0.0, noise_scale, shape)
    coords = {"y": ("y", y, {"units": "px"}), "x": ("x", x, {"units": "px"})}
    units = "counts" if dose is not None else "1"
    return xr.DataArray(image, coords, ("y", "x"), "atoms", {"units": units})


def _domains(shape: tuple[int, int], domains: str, rng: np.random.Generator) -> np.ndarray:
    """Labels (y, x) of smooth domains, each phase or variant with a share of its own."""

    def split(share: float) -> np.ndarray:
        field = gaussian_filter(rng.normal(size=shape), max(1.0, min(shape) / 8), mode="wrap")
        return (field > np.quantile(field, share)).astype(int)

    if domains == "two-phase":
        return split(0.4)
    if domains == "four-variant":
        return 2 * split(0.55) + split(0.45)
    raise ValueError(f'domains: expected "two-phase" or "four-variant", got {domains!r}')


def _error_ellipses(position_error: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Covariances (atom, 2, 2) of unequal size, shape and direction, their mean variance ``position_error**2``."""
    size = np.exp(rng.uniform(-np.log(2.0), np.log(2.0), count) / 2)
    stretch = np.exp(rng.uniform(-np.log(1.5), np.log(1.5), count) / 2)
    angle = rng.uniform(0, np.pi, count)
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(-1, 2, 2)
    half = turn * np.stack([size * stretch, size / stretch], -1)[:, None, :]
    cov = half @ half.transpose(0, 2, 1)
    mean = np.trace(cov, axis1=1, axis2=2).mean() / 2 if count else 1.0
    return position_error**2 * cov / mean
