"""What a reader hands over: named data sets, and the one error of reading a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import xarray as xr

_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"MATLAB 5.0", "a MATLAB 5 file"),
    (b"MATLAB 7.3", "a MATLAB 7.3 file"),
    (b"CDF", "a classic netCDF file"),
    (b"ENVI", "an ENVI header"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x05", "a Python pickle"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x89PNG", "a PNG image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF", "a PDF document"),
)


class LoadError(OSError, ValueError):
    """A file could not be read; the message says what was expected, what was found and how to fix it."""


@dataclass(frozen=True)
class Entry:
    """A data set of a file.

    ``auxiliary`` data sets (a wavelength vector beside a cube) are listed, and read when they are asked for
    by name, but do not make the choice of a data set ambiguous.
    """

    name: str
    data: xr.DataArray
    auxiliary: bool = False


def without_ambiguity_of_vectors(entries: Iterable[Entry]) -> list[Entry]:
    """Mark the vectors of a file as auxiliary where it also holds an array with two or more dims.

    Used for containers of bare arrays, which have no other way to say what is an axis and what is data.
    """
    entries = list(entries)
    if not any(entry.data.ndim > 1 for entry in entries):
        return entries
    return [Entry(entry.name, entry.data, auxiliary=entry.data.ndim == 1) for entry in entries]


def content(path: Path) -> str:
    """Say in words what a file is, judged by its first bytes."""
    if path.is_dir():
        return "a folder"
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        return "an empty file (0 bytes)"
    for signature, words in _SIGNATURES:
        if head.startswith(signature):
            return words
    if h5py.is_hdf5(path):
        return "an HDF5 file"
    try:
        head.decode("ascii")
    except UnicodeDecodeError:
        return f"unknown binary content (first bytes {head[:8].hex(' ')})"
    return f"text or other content starting with {head.decode('ascii')!r}"


def not_a(path: Path, expected: str, hint: str = "") -> LoadError:
    """The error for a file that is not what its name says."""
    size = path.stat().st_size
    tail = f" {hint}" if hint else ""
    return LoadError(f"{path}: expected {expected}, found {content(path)}, {size} bytes.{tail}")
