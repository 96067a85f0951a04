"""The purest pixels of an image: vertices of the largest simplex among the data."""

from __future__ import annotations

import numpy as np
import scipy.linalg

_ROWS = 1024  # of the data worked on together
_RESTARTS = 8


def principal_plane(values: np.ndarray, dimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (channel,), axes (dimension, channel) of the best affine plane, and squared distances per channel.

    The last array is the variance per channel that the plane leaves, shape (channel,).
    """
    values = np.asarray(values, dtype=np.float64)
    mean = values.mean(0)
    # Some at a time: another array of the data's size is not made.
    centred = (values[start : start + _ROWS] - mean for start in range(0, len(values), _ROWS))
    covariance = sum((part.T @ part for part in centred), np.zeros((mean.size, mean.size))) / len(values)
    found = min(dimension, mean.size)
    if found == 0:
        return mean, np.zeros((0, mean.size)), np.diag(covariance)
    variances, vectors = scipy.linalg.eigh(covariance, subset_by_index=(mean.size - found, mean.size - 1))
    left = np.diag(covariance) - vectors**2 @ variances
    return mean, vectors[:, ::-1].T, np.maximum(left, 0.0)


def purest_pixels(values: np.ndarray, n_endmembers: int, *, seed: int = 0) -> np.ndarray:
    """Endmember estimates (n_endmembers, channel): pixels that span the largest simplex (N-FINDR).

    The search runs in the principal plane of ``n_endmembers - 1`` dimensions, and the vertices come back
    projected on it, so that a pixel's own noise is not taken for its spectrum.

    References
    ----------
    Winter, "N-FINDR: an algorithm for fast autonomous spectral end-member determination in hyperspectral data",
    Proc. SPIE 3753, 266 (1999).
    """
    mean, axes, _ = principal_plane(values, n_endmembers - 1)
    if n_endmembers == 1:
        return mean[None]
    scores = np.asarray(values, dtype=np.float64) @ axes.T - mean @ axes.T
    # Of unit size, so that the search, its random starts included, is the same in any units of the data.
    lifted = np.vstack([np.ones(len(scores)), scores.T / (np.abs(scores).max() or 1.0)])
    rng = np.random.default_rng(seed)
    found = [_grow(lifted, rng) for _ in range(_RESTARTS)]
    best = max(found, key=lambda vertices: abs(float(np.linalg.det(lifted[:, vertices]))))
    return mean + scores[best] @ axes


def _grow(lifted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Swap vertices, each for the pixel that enlarges the simplex most, until none does."""
    size, n_units = lifted.shape
    # A start in general position: the extremes along random directions, each orthogonal to those found.
    vertices: list[int] = []
    basis = np.zeros((size, 0))
    for _ in range(size):
        direction = rng.standard_normal((size,))
        direction -= basis @ (basis.T @ direction)
        vertices.append(int(np.argmax(np.abs(direction @ lifted))))
        basis, _ = np.linalg.qr(lifted[:, vertices])
    chosen = np.array(vertices)
    for _ in range(50 * size):
        if abs(np.linalg.det(lifted[:, chosen])) < 1e-300:
            chosen = rng.permutation(max(n_units, size))[:size] % n_units
            continue
        # Replacing vertex k by pixel n multiplies the volume by |barycentric coordinate k of pixel n|.
        gain = np.abs(np.linalg.solve(lifted[:, chosen], lifted))
        k, n = np.unravel_index(np.argmax(gain), gain.shape)
        if gain[k, n] < 1.0 + 1e-9:
            break
        chosen[k] = n
    return chosen
