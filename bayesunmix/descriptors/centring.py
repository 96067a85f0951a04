"""How far an atom sits from the middle of its neighbours: the polar displacement of a cage's centre."""

from __future__ import annotations

import numpy as np
import xarray as xr


def off_centring(vectors: xr.Dataset) -> xr.Dataset:
    """Displacement of every atom from the mean of its neighbours, with its covariance.

    Parameters
    ----------
    vectors : xarray.Dataset
        From :func:`neighbour_vectors`.

    Returns
    -------
    xarray.Dataset
        ``displacement (atom, axis)``, NaN where a neighbour is missing, in the unit of the positions, and where known
        ``displacement_cov (atom, axis, other_axis)``; ``position``, ``complete`` and ``index`` as they were.
    """
    values = vectors["vector"].values
    count = values.shape[1] // 2
    # Minus the mean of the vectors: both axes of every neighbour with equal weight.
    middle = -np.tile(np.eye(2), (1, count)) / count
    units = vectors["vector"].attrs.get("units", "px")
    found = vectors[[name for name in ("position", "complete", "index") if name in vectors]]
    found = found.assign(displacement=(("atom", "axis"), values @ middle.T, {"units": units}))
    if "vector_cov" in vectors:
        cov = middle @ vectors["vector_cov"].values @ middle.T
        found = found.assign(displacement_cov=(("atom", "axis", "other_axis"), cov, {"units": f"{units}²"}))
    return found.assign_coords(axis=["y", "x"])
