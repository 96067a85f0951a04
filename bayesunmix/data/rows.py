"""The kept pixels of an image that is larger than what should be held, read from their file when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayesunmix._memory import hand_back

BLOCK_BYTES = 2**26  # read at a time; the last block is kept for what follows it


class Rows:
    """``(unit, channel)`` like an array: slices and index arrays give arrays, ``np.asarray`` reads everything.

    Parameters
    ----------
    image : xarray.DataArray
        Spectral axis last; its values in a file, or of dask.
    index : numpy.ndarray
        (unit,), flat positions of the units in the pixel grid.
    dtype : numpy.dtype
        Of what is returned.
    gaps : bool
        Whether values that are not finite become NaN.
    """

    ndim = 2

    def __init__(self, image: xr.DataArray, index: np.ndarray, dtype: Any, *, gaps: bool = False):
        self._image, self._index, self._gaps = image, index, gaps
        self.dtype = np.dtype(dtype)
        self.shape = (len(index), image.shape[-1])
        self._a_row = max(1, int(np.prod(image.shape[1:-1])))  # pixels to an entry of the first dim
        entry = self._a_row * image.shape[-1] * image.dtype.itemsize
        self._step = max(1, BLOCK_BYTES // entry)
        self._kept: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Number of values."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Of all values, once they are read."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> np.ndarray:
        if isinstance(key, int | np.integer):
            return self._read(self._index[[int(key)]])[0]
        return self._read(self._index[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def _read(self, positions: np.ndarray) -> np.ndarray:
        hand_back()  # what was read before, and worked on
        found = np.empty((len(positions), self.shape[1]), self.dtype)
        block_of = positions // self._a_row // self._step
        for number in np.unique(block_of):
            here = block_of == number
            found[here] = self._block(int(number))[positions[here] - number * self._step * self._a_row]
        if self._gaps:
            found[~np.isfinite(found)] = np.nan
        return found

    def _block(self, number: int) -> np.ndarray:
        kept = self._kept
        if kept is None or kept[0] != number:
            self._kept = kept = None  # before there is another one
            part = self._image[number * self._step : (number + 1) * self._step]
            kept = (number, _values(part).reshape(-1, self.shape[1]))
            self._kept = kept
            hand_back()  # what the chunks were unpacked from
        return kept[1]


def let_go(values: Any) -> None:
    """Of the block that :class:`Rows` keep, which is read again when it is asked for: what follows needs the room."""
    if isinstance(values, Rows):
        values._kept = None
        hand_back()


def _values(part: xr.DataArray) -> np.ndarray:
    if part.chunks is None:
        return np.asarray(part.values)
    # Chunk by chunk, one at a time: put together at the end all are held, and then twice. Others work meanwhile.
    found = np.empty(part.shape, part.dtype)
    part.data.store(found, lock=False, scheduler="single-threaded")
    return found
