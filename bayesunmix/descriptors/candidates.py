"""Where atom columns may be: bright spots at least a part of their usual distance apart."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

_SMOOTHING = 0.6  # of the spots' width
_RING = 0.05  # of the autocorrelation one pixel from its centre: the least height of a ring of neighbours
_APART = 0.4  # of the usual separation: the closest two candidates


def usual_separation(image: np.ndarray) -> float:
    """Distance of the nearest neighbours in pixels, from the first ring of the autocorrelation.

    Raises
    ------
    ValueError
        When the autocorrelation has no ring: no regular arrangement of atoms.
    """
    flat = image - gaussian_filter(image, min(image.shape) / 8)
    power = np.abs(np.fft.rfft2(flat, s=[2 * n for n in flat.shape])) ** 2
    found = np.fft.irfft2(power)
    most = max(4, min(image.shape) // 3)
    window = np.roll(found, (most, most), (0, 1))[: 2 * most + 1, : 2 * most + 1]
    y, x = np.indices(window.shape) - most
    ring = np.round(np.hypot(y, x)).astype(int)
    # The highest point of a ring, not its mean: a lattice has few spots on it.
    top = np.array([window[ring == r].max() for r in range(most)])
    top = gaussian_filter(top, 0.7)
    fallen = int(np.argmax(np.diff(top) > 0))
    peak = fallen + int(np.argmax(top[fallen:]))
    rising = [r for r in range(fallen + 1, most - 1) if top[r] >= top[r - 1] and top[r] > top[r + 1]]
    rising = [r for r in rising if top[r] > max(0.5 * top[peak], _RING * top[1])]
    if not rising or fallen == 0:
        raise ValueError("no usual distance between atoms found in the autocorrelation: pass separation=... in pixels")
    return float(rising[0])


def candidates(image: np.ndarray, separation: float, width: float, threshold: float) -> np.ndarray:
    """Local maxima (atom, 2) of the smoothed image, brightest first.

    ``threshold`` is the least half height over the deepest point within a separation, in standard deviations of the
    noise that smoothing leaves.
    """
    smooth = gaussian_filter(image, _SMOOTHING * width)
    noise = noise_level(image) / (2 * np.sqrt(np.pi) * _SMOOTHING * width)
    reach = max(1, round(_APART * separation))
    y, x = np.indices((2 * reach + 1,) * 2) - reach
    disc = np.hypot(y, x) <= _APART * separation
    # Half of the depth of the valleys around: the local mean is too high where atoms stand close.
    y, x = np.indices((2 * round(separation) + 1,) * 2) - round(separation)
    valley = minimum_filter(smooth, footprint=np.hypot(y, x) <= separation)
    peak = (smooth == maximum_filter(smooth, footprint=disc)) & (0.5 * (smooth - valley) > threshold * noise)
    found = np.argwhere(peak)
    return found[np.argsort(-smooth[peak], kind="stable")].astype(float)


def noise_level(image: np.ndarray) -> float:
    """Standard deviation of the noise from second differences, which spots broader than a pixel hardly enter."""
    kernel = image[:-2, :-2] - 2 * image[1:-1, :-2] + image[2:, :-2]
    kernel = kernel - 2 * (image[:-2, 1:-1] - 2 * image[1:-1, 1:-1] + image[2:, 1:-1])
    kernel = kernel + image[:-2, 2:] - 2 * image[1:-1, 2:] + image[2:, 2:]
    return float(np.median(np.abs(kernel)) / 0.6745 / 6.0)
