"""Whether neighbouring pixels are alike."""

from __future__ import annotations

import numpy as np
import xarray as xr


def neighbour_pairs(kept: np.ndarray) -> np.ndarray:
    """Pairs of pixels that touch along one of the last two axes, (pair, 2), as positions among the kept ones.

    ``kept`` is a boolean array over the pixel grid; a masked pixel has no neighbours.
    """
    number = np.full(kept.shape, -1)
    number[kept] = np.arange(kept.sum())
    pairs = []
    for axis in range(max(0, kept.ndim - 2), kept.ndim):
        first = np.moveaxis(number, axis, 0)[:-1].ravel()
        second = np.moveaxis(number, axis, 0)[1:].ravel()
        both = (first >= 0) & (second >= 0)
        pairs.append(np.stack([first[both], second[both]], axis=1))
    return np.concatenate(pairs)


def morans_i(values: xr.DataArray) -> tuple[float, float]:
    """Moran's I of a map, and the probability of a larger one if its values were dealt to the pixels at random.

    The correlation of a pixel with its neighbours along the last two dims; NaN marks masked pixels. The probability
    is that of a normal distribution with the moments over all permutations.

    References
    ----------
    Moran, "Notes on continuous stochastic phenomena", Biometrika 37, 17 (1950).
    """
    from scipy.stats import norm

    kept = np.isfinite(values.values)
    pairs = neighbour_pairs(kept)
    away = values.values[kept] - values.values[kept].mean()
    n_units, square = away.size, float(np.mean(away**2))
    if not len(pairs) or square == 0:
        return 0.0, 1.0
    found = float(np.mean(away[pairs[:, 0]] * away[pairs[:, 1]])) / square
    # Of two values dealt without replacement; pairs that share a pixel are correlated to 1 / n only.
    expected = -1.0 / (n_units - 1)
    return found, float(norm.sf((found - expected) * np.sqrt(len(pairs))))
