"""From an image to atoms: positions, heights and widths of its spots, with their errors."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.ndimage import gaussian_filter, minimum_filter
from scipy.spatial import cKDTree

from bayesunmix.descriptors.candidates import candidates, noise_level, usual_separation
from bayesunmix.descriptors.spots import Patches, Spots, fit_spots

_STEPS = (12, 40)  # most steps of the two rounds of fits; the second knows the neighbours from the first
_MOST_NEIGHBOURS = 12
_PATCH = 0.85  # radius of a patch in separations: what pins the neighbours down is in it
_WIDTH_SPREAD = 0.5  # of the prior of the log width
_SLACK = 2.0  # of a neighbour around its own fit, in standard deviations: its patch and this one share pixels
_FEWEST_ATOMS = 8  # whose median width and misfit are worth something


def find_atoms(
    image: Any,
    *,
    noise: Literal["normal", "poisson"] = "normal",
    separation: float | None = None,
    width: float | None = None,
    threshold: float = 4.0,
    reject: bool = True,
) -> xr.Dataset:
    """Find the atom columns of an image and measure them, each with its covariance.

    Candidates are local maxima. Around each, a patch of the image is explained by a round Gaussian per column, the
    neighbours included, on a sloping background; all patches are fitted in one compiled call. The covariance of a
    position is the inverse of the expected information, with everything else in the patch unknown too.

    Parameters
    ----------
    image : xarray.DataArray or array
        Dims (y, x), or (frame, y, x); bright atoms. Coordinates with equal steps give the unit of the positions.
    noise : "normal" or "poisson"
        "poisson" for counts. Normal noise has one level, estimated from the residuals of all patches.
    separation : float, optional
        Usual distance between neighbours in pixels; from the autocorrelation when not given.
    width : float, optional
        Expected standard deviation of the spots in pixels, the separation over 5 when not given; the fit starts there.
    threshold : float
        Least half height of a candidate over the deepest point within a separation, in standard deviations of the
        noise after smoothing.
    reject : bool
        Leave out what is no atom: height below 3 standard deviations, a width off the others' by a factor of 2.5, a
        residual far beyond the others', or a position that moved onto another atom.

    Returns
    -------
    xarray.Dataset
        ``position (atom, axis)``, ``position_cov (atom, axis, other_axis)``, ``amplitude``, ``amplitude_sd``,
        ``width`` and ``width_sd`` (standard deviation of the spot, in the unit of the positions), ``misfit`` (squared
        residuals over degrees of freedom), ``frame``. Attributes: ``rejected``, the number left out, ``separation`` in
        pixels, ``noise_scale``.

    Raises
    ------
    TypeError, ValueError
        For images that are not finite real numbers (y, x), negative counts, or without a candidate.

    References
    ----------
    Nord et al., "Atomap: a new software tool for the automated analysis of atomic resolution images using
    two-dimensional Gaussian fitting", Adv. Struct. Chem. Imaging 3, 9 (2017); de Backer et al., "StatSTEM",
    Ultramicroscopy 171, 104 (2016), who fit overlapping columns jointly.
    """
    image = _as_image(image, noise)
    if image.ndim == 3:
        parts = [
            _of_frame(image[i], noise, separation, width, threshold, reject).assign(frame=lambda d, i=i: d["frame"] + i)
            for i in range(len(image))
        ]
        attrs = parts[0].attrs | {"rejected": sum(part.attrs["rejected"] for part in parts)}
        return xr.concat(parts, "atom", data_vars="minimal", coords="minimal", compat="override").assign_attrs(attrs)
    return _of_frame(image, noise, separation, width, threshold, reject)


def _as_image(image: Any, noise: str) -> xr.DataArray:
    if noise not in ("normal", "poisson"):
        raise ValueError(f'noise: expected "normal" or "poisson", got {noise!r}')
    if not isinstance(image, xr.DataArray):
        image = np.asarray(image)
        image = xr.DataArray(image, dims=("frame", "y", "x")[3 - image.ndim :] if image.ndim in (2, 3) else None)
    if image.ndim not in (2, 3) or image.dtype.kind not in "fiub":
        raise TypeError(f"image: expected real numbers (y, x) or (frame, y, x), got {image.dims} of {image.dtype}")
    values = image.values
    if not np.isfinite(values).all():
        raise ValueError(f"image: {np.sum(~np.isfinite(values))} of {values.size} pixels are not finite")
    if min(values.shape[-2:]) < 8:
        raise ValueError(f"image: expected at least 8 x 8 pixels, got {values.shape[-2:]}")
    if noise == "poisson" and (values.min() < 0 or np.any(values != np.round(values))):
        raise ValueError('noise="poisson" expects counts: whole numbers that are not negative')
    return image


def _of_frame(image: xr.DataArray, noise: str, separation, width, threshold: float, reject: bool) -> xr.Dataset:
    values = np.asarray(image.values, dtype=np.float64)
    apart = usual_separation(values) if separation is None else float(separation)
    sigma = apart / 5.0 if width is None else float(width)
    if not (apart > 1 and sigma > 0):
        raise ValueError(f"expected a separation above 1 pixel and a positive width, got {separation}, {width}")
    found = candidates(values, apart, sigma, threshold)
    if not len(found):
        raise ValueError(f"no spot stands {threshold} standard deviations above its surroundings: lower threshold")
    poisson = noise == "poisson"
    level = max(1e-3 * values.mean(), 1e-6) if poisson else noise_level(values)
    atoms = _unmeasured(found, values, apart, sigma)
    known = np.full(atoms.shape, np.inf)
    rejected = 0
    with jax.enable_x64(True):
        for most_steps in _STEPS:
            sigma = float(np.median(np.exp(atoms[:, 3])))
            patches, origin = _patches(values, atoms, known, apart, sigma)
            fits = fit_spots(patches, jnp.asarray(level), poisson, most_steps)
            spots = Spots(*(np.asarray(part)[: len(atoms)] for part in fits))
            fitted = spots.parameters[:, 3:7] + np.pad(origin, ((0, 0), (1, 1)))
            if not poisson:
                # One noise level for all, from the patches' own residuals; half of them may be anything.
                off = float(np.median(spots.chi2 / spots.freedom))
                level *= np.sqrt(off)
                spots = spots._replace(covariance=spots.covariance * off, chi2=spots.chi2 / off)
            keep = _kept(fitted, spots, atoms[:, 1:3], apart, values.shape) if reject else np.ones(len(fitted), bool)
            rejected += int(np.sum(~keep))
            if not keep.any():
                raise ValueError("no candidate passed as an atom: check separation= and width=, or pass reject=False")
            atoms = fitted[keep]
            known = np.sqrt(np.diagonal(spots.covariance[keep], axis1=1, axis2=2))
    about = {"rejected": rejected, "separation": apart, "noise": noise, "noise_scale": float(level)}
    return _dataset(image, atoms, Spots(*(part[keep] for part in spots)), about)


def _unmeasured(found: np.ndarray, values: np.ndarray, apart: float, sigma: float) -> np.ndarray:
    """Rough amplitude, y, x and log width (atom, 4) of candidates."""
    low = gaussian_filter(minimum_filter(gaussian_filter(values, 0.5 * sigma), round(apart)), 0.5 * apart)
    at = tuple(found.astype(int).T)
    high = gaussian_filter(values, 0.5 * sigma)[at] - low[at]
    floor = max(1e-3 * float(np.ptp(values)), 1e-12)
    return np.column_stack([np.maximum(high, floor), found, np.full(len(found), np.log(sigma))])


def _patches(
    values: np.ndarray, atoms: np.ndarray, known: np.ndarray, apart: float, sigma: float
) -> tuple[Patches, np.ndarray]:
    """A round patch per atom with the neighbours that reach into it, and the pixel (atom, 2) at its middle.

    ``known`` are the standard deviations (atom, 4) of ``atoms``.
    """
    half = int(np.ceil(max(3.0 * sigma, _PATCH * apart)))
    side = 2 * half + 1
    origin = np.clip(np.round(atoms[:, 1:3]), 0, np.array(values.shape) - 1).astype(int)
    padded = np.pad(values, half, constant_values=np.nan)
    y, x = np.indices((side, side))
    rows, columns = origin[:, 0, None, None] + y, origin[:, 1, None, None] + x
    cut = padded[rows, columns]
    used = np.isfinite(cut) & (np.hypot(y - half, x - half) <= half + 0.5)
    reach = half + 3.5 * sigma
    count = min(_MOST_NEIGHBOURS, len(atoms) - 1) + 1
    distance, near = cKDTree(atoms[:, 1:3]).query(atoms[:, 1:3], k=count, distance_upper_bound=reach)
    distance, near = distance.reshape(len(atoms), count), near.reshape(len(atoms), count)
    # Few different shapes, so that images of a series share one compiled program.
    count = min(count, _rounded(int(np.isfinite(distance).sum(1).max())))
    # Two atoms in one place may come in either order.
    near[:, 0] = np.where((near == np.arange(len(atoms))[:, None]).any(1), near[:, 0], np.arange(len(atoms)))
    swap = np.argmax(near == np.arange(len(atoms))[:, None], axis=1)
    row = np.arange(len(atoms))
    near[row, swap], near[row, 0] = near[row, 0].copy(), row
    present = np.isfinite(distance[:, :count])
    near = np.where(present, near[:, :count], row[:, None])
    own = atoms[near]
    own[..., 1:3] -= origin[:, None]
    inside = np.where(used, cut, np.nan).reshape(len(atoms), -1)
    start = np.column_stack(
        [np.nanquantile(inside, 0.1, axis=1), np.zeros((len(atoms), 2)), own.reshape(len(atoms), -1)]
    )
    contrast = float(np.median(atoms[:, 0]))
    sds = np.empty_like(start)
    sds[:, :3] = 10 * contrast, contrast / side, contrast / side
    vague = np.array([2.0 * contrast, apart / 6, apart / 6, 0.6 * _WIDTH_SPREAD])
    # A neighbour is held near what its own patch told, which sees it whole.
    sds[:, 3:] = np.minimum(_SLACK * known, vague)[near].reshape(len(atoms), -1)
    sds[:, 3:7] = 10 * contrast, apart / 2, apart / 2, _WIDTH_SPREAD
    start[:, 6] = np.log(sigma)
    filled = np.where(used, cut, 0.0)
    more = np.arange(_rounded(len(atoms))) % len(atoms)
    patches = Patches(*(jnp.asarray(part[more]) for part in (filled, used, start, sds**-2.0, present)))
    return patches, origin


def _rounded(size: int) -> int:
    """The next number of two binary digits: at most half as large again."""
    digit = 1 << max(0, size.bit_length() - 2)
    return -(-size // digit) * digit


def _kept(fitted: np.ndarray, spots: Spots, start: np.ndarray, apart: float, shape: tuple[int, ...]) -> np.ndarray:
    """What looks like the other atoms and stands where it was sought."""
    position = fitted[:, 1:3]
    with np.errstate(invalid="ignore"):
        clear = fitted[:, 0] / np.sqrt(spots.covariance[:, 0, 0]) > 3.0
    keep = clear & np.isfinite(fitted).all(1) & (spots.freedom > 1)
    keep &= np.linalg.norm(position - start, axis=1) < 0.5 * apart
    keep &= ((position > -0.5) & (position < np.array(shape) - 0.5)).all(1)
    if keep.sum() >= _FEWEST_ATOMS:
        keep &= np.abs(fitted[:, 3] - np.median(fitted[keep, 3])) < np.log(2.5)
        misfit = np.log(np.maximum(spots.chi2 / np.maximum(spots.freedom, 1.0), 1e-12))
        middle = np.median(misfit[keep])
        spread = np.median(np.abs(misfit[keep] - middle)) / 0.6745
        keep &= misfit - middle < max(6.0 * spread, np.log(1.5))
    kept = np.flatnonzero(keep)
    for one, other in cKDTree(position[kept]).query_pairs(0.4 * apart):
        keep[kept[one] if fitted[kept[one], 0] < fitted[kept[other], 0] else kept[other]] = False
    return keep


def _dataset(image: xr.DataArray, atoms: np.ndarray, spots: Spots, about: dict[str, Any]) -> xr.Dataset:
    """Atoms from top to bottom, in the unit of the image's coordinates."""
    first, step, units = _calibration(image)
    rank = np.lexsort((atoms[:, 2], atoms[:, 1]))
    atoms, cov = atoms[rank], spots.covariance[rank]
    width = np.exp(atoms[:, 3]) * np.sqrt(abs(step[0] * step[1]))
    return xr.Dataset(
        {
            "position": (("atom", "axis"), first + step * atoms[:, 1:3], {"units": units}),
            "position_cov": (
                ("atom", "axis", "other_axis"),
                cov[:, 1:3, 1:3] * np.outer(step, step),
                {"units": f"{units}²"},
            ),
            "amplitude": ("atom", atoms[:, 0]),
            "amplitude_sd": ("atom", np.sqrt(cov[:, 0, 0])),
            "width": ("atom", width, {"units": units}),
            "width_sd": ("atom", width * np.sqrt(cov[:, 3, 3]), {"units": units}),
            "misfit": ("atom", (spots.chi2 / spots.freedom)[rank]),
            "frame": ("atom", np.zeros(len(atoms), dtype=int)),
        },
        {"axis": ["y", "x"], "other_axis": ["y", "x"]},
        about,
    )


def _calibration(image: xr.DataArray) -> tuple[np.ndarray, np.ndarray, str]:
    """Coordinate of the first pixel, step, and unit; pixels where an axis has no coordinate of equal steps."""
    first, step, units = np.zeros(2), np.ones(2), []
    for i, dim in enumerate(image.dims[-2:]):
        if dim not in image.coords or image.sizes[dim] < 2:
            continue
        values = np.asarray(image.coords[dim].values, dtype=np.float64)
        steps = np.diff(values)
        if steps[0] == 0 or not np.allclose(steps, steps[0], rtol=1e-3, atol=0):
            raise ValueError(f"image: the coordinate {dim!r} has unequal steps; resample it, or drop it to use pixels")
        first[i], step[i] = values[0], (values[-1] - values[0]) / (len(values) - 1)
        units.append(str(image.coords[dim].attrs.get("units", "px")))
    if len(set(units)) > 1:
        raise ValueError(f"image: the axes have different units, {units}: give both the same")
    return first, step, units[0] if units else "px"
