"""The plane that components span, whatever their rotation."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.fit import Fit


def subspace_angle(fit: Fit, reference: Any, n_components: int | None = None) -> xr.DataArray:
    """Angles between the plane of the components and a reference, at every draw.

    Parameters
    ----------
    fit : Fit
        With ``direction`` in its posterior, as of :class:`bayesunmix.models.ProbabilisticPCA`.
    reference : array (direction, channel)
        Vectors that span the reference: spectra, loadings of another method, or a truth. They need be neither
        orthogonal nor normalised.
    n_components : int, optional
        Take only the strongest components.

    Returns
    -------
    xarray.DataArray
        Principal angles in radians, dims (chain, draw, angle), the smallest first: as many as the smaller of
        the two planes has dimensions. All are 0 where one plane holds the other.

    Raises
    ------
    TypeError
        When the fit has no components.
    ValueError
        When the reference has other channels or is not finite, or for a number of components that the fit
        does not have.

    References
    ----------
    Bjorck and Golub, "Numerical methods for computing angles between linear subspaces", Math. Comp. 27, 579 (1973).
    """
    if "direction" not in fit.posterior:
        raise TypeError(f"expected a fit with components, such as of ProbabilisticPCA, got {fit!r}")
    found = fit.posterior["direction"].transpose("chain", "draw", "component", ...)
    size = found.sizes["component"]
    n_components = size if n_components is None else n_components
    if not 1 <= n_components <= size:
        raise ValueError(f"n_components: expected 1 to {size}, got {n_components}")
    vectors = np.atleast_2d(np.asarray(reference, dtype=np.float64))
    if vectors.ndim != 2 or vectors.shape[1] != found.shape[-1] or not np.isfinite(vectors).all():
        raise ValueError(
            f"reference: expected finite vectors of {found.shape[-1]} channels, one a row, got shape {vectors.shape}"
        )
    plane = np.linalg.svd(vectors, full_matrices=False)
    length, smallest = plane.S, 1e-12 * plane.S[0]
    basis = plane.Vh[length > smallest]
    ours = found.values[:, :, :n_components]
    inside = ours @ basis.T
    cosine = np.linalg.svd(inside, compute_uv=False)[..., : min(n_components, len(basis))]
    # The arc cosine loses small angles; the part of the smaller plane outside the other has their sines.
    across = np.swapaxes(inside, -1, -2)
    outside = basis - across @ ours if len(basis) <= n_components else ours - inside @ basis
    sine = np.linalg.svd(outside, compute_uv=False)[..., : cosine.shape[-1]][..., ::-1]
    angles = np.arctan2(sine, cosine)
    coords = {d: found[d] for d in ("chain", "draw")}
    return xr.DataArray(angles, coords, ("chain", "draw", "angle"), name="subspace_angle", attrs={"units": "rad"})
