"""Normal numbers by the million, for samplers that spend their time on them."""

from __future__ import annotations

import numpy as np

_TURN = np.float32(2.0 * np.pi)


def normals(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers in single precision, two of each pair of uniform ones (Box and Muller 1958).

    NumPy's own take their branches number by number; this is the same few functions of whole arrays, in half the time.
    Uniform numbers come in steps of 2**-24, so that none is beyond 5.8: of a hundred million one should be.
    """
    size = int(np.prod(shape))
    radius, angle = rng.random((2, -(-size // 2)), dtype=np.float32)
    np.log(np.subtract(1.0, radius, out=radius), out=radius)
    np.sqrt(np.multiply(radius, np.float32(-2.0), out=radius), out=radius)
    np.multiply(angle, _TURN, out=angle)
    found = np.empty((2, len(radius)), np.float32)
    np.cos(angle, out=found[0])
    np.sin(angle, out=found[1])
    found *= radius
    return found.reshape(-1)[:size].reshape(shape)
