"""ENVI: a text header (``.hdr``) beside a flat binary file.

Fields as in "ENVI header files", https://www.nv5geospatialsoftware.com/docs/enviheaderfiles.html
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from bayesunmix.data.axes import Axis, assemble, uniform
from bayesunmix.data.entry import Entry, LoadError, content, not_a

_TYPES = {
    1: "u1",
    2: "i2",
    3: "i4",
    4: "f4",
    5: "f8",
    6: "c8",
    9: "c16",
    12: "u2",
    13: "u4",
    14: "i8",
    15: "u8",
}
# Where (lines, samples, bands) stand in the binary file.
_ORDERS = {"bip": (0, 1, 2), "bil": (0, 2, 1), "bsq": (2, 0, 1)}
_BINARY_SUFFIXES = ("", ".img", ".dat", ".raw", ".bin", ".bsq", ".bil", ".bip", ".sli", ".lib")
_SPELLED = {"micrometers": "µm", "micrometer": "µm", "nanometers": "nm", "nanometer": "nm", "meters": "m"}


def header_of(path: Path) -> Path | None:
    """The ENVI header for a header or binary file, or None where there is none."""
    if path.suffix.lower() == ".hdr":
        return path
    if path.suffix.lower() not in _BINARY_SUFFIXES:
        return None
    for suffix in (".hdr", ".HDR"):
        for header in (path.with_name(path.name + suffix), path.with_suffix(suffix)):
            if header.is_file():
                with header.open("rb") as file:
                    if file.read(4) == b"ENVI":
                        return header
    return None


def read(path: Path) -> list[Entry]:
    """The image of an ENVI header or its binary file, memory-mapped.

    Dims are ``(y, x, wavelength)``, or ``channel`` where the header gives no wavelengths, ``(y, x)`` for a
    single band, and ``(spectrum, wavelength)`` for a spectral library. Scale factors and ignored values are
    not applied; they are in ``attrs``. Positions count from the first pixel in the unit of ``pixel size`` or
    ``map info``.
    """
    header = header_of(path)
    if header is None:
        raise not_a(path, "an ENVI header or the binary file beside one")
    fields = _fields(header)
    binary = path if path != header else _binary_of(header)
    cube = _mapped(binary, header, fields)
    library = "library" in str(fields.get("file type", "")).lower()
    data, axes = _library(cube, fields) if library else _image(cube, fields)
    attrs = {
        "units": _word(fields, "data units"),
        "description": _word(fields, "description"),
        "reflectance_scale_factor": _word(fields, "reflectance scale factor"),
        "data_ignore_value": _word(fields, "data ignore value"),
        "bad_band_multipliers": _word(fields, "bbl"),
        "map_info": _word(fields, "map info"),
        "dataset": binary.name,
    }
    return [Entry(binary.name, assemble(data, axes, name=header.stem, attrs=attrs))]


def _fields(header: Path) -> dict[str, str]:
    """Keywords in lower case and their text, without the braces of lists."""
    text = header.read_text(encoding="utf-8", errors="replace")
    if not text.startswith("ENVI"):
        raise not_a(header, "an ENVI header, whose first line is ENVI")
    lines = [line for line in text.splitlines()[1:] if not line.lstrip().startswith(";")]
    found = re.findall(r"^[ \t]*([^={}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n{]*)", "\n".join(lines), re.MULTILINE)
    return {" ".join(key.lower().split()): value.strip().strip("{}").strip() for key, value in found}


def _word(fields: dict[str, str], key: str) -> str:
    return " ".join(fields.get(key, "").split())


def _list(fields: dict[str, str], key: str) -> list[str]:
    return [word.strip() for word in fields.get(key, "").split(",") if word.strip()]


def _integer(header: Path, fields: dict[str, str], key: str, default: int | None = None) -> int:
    value = fields.get(key, "" if default is None else str(default))
    try:
        return int(value)
    except ValueError:
        raise LoadError(f"{header}: expected '{key} = <integer>' in the header, found {value!r}.") from None


def _binary_of(header: Path) -> Path:
    """``scan.hdr`` goes with ``scan``, ``scan.img``, ...; ``scan.img.hdr`` with ``scan.img``."""
    stem = header.with_suffix("")
    candidates = [stem.with_name(stem.name + suffix) for suffix in _BINARY_SUFFIXES]
    candidates += [stem.with_name(stem.name + suffix.upper()) for suffix in _BINARY_SUFFIXES[1:]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise LoadError(
        f"{header}: expected the ENVI binary file beside its header, found none of "
        f"{', '.join(dict.fromkeys(c.name for c in candidates))}. Put it there, or load it by its own name."
    )


def _mapped(binary: Path, header: Path, fields: dict[str, str]) -> np.ndarray:
    """The file as ``(lines, samples, bands)``; changing the array does not change the file."""
    sizes = [_integer(header, fields, key) for key in ("lines", "samples", "bands")]
    code = _integer(header, fields, "data type")
    interleave = fields.get("interleave", "bsq").lower()
    offset = _integer(header, fields, "header offset", 0)
    if code not in _TYPES:
        raise LoadError(f"{header}: expected an ENVI data type among {sorted(_TYPES)}, found {code}.")
    if interleave not in _ORDERS:
        raise LoadError(f"{header}: expected interleave bsq, bil or bip, found {interleave!r}.")
    if _integer(header, fields, "file compression", 0):
        raise LoadError(f"{header}: the data are compressed; unpack them (gunzip), set 'file compression = 0'.")
    if min(sizes) < 1 or offset < 0:
        raise LoadError(f"{header}: wrong lines, samples, bands {sizes} or header offset {offset}.")
    dtype = np.dtype(_TYPES[code]).newbyteorder(">" if _integer(header, fields, "byte order", 0) else "<")
    order = _ORDERS[interleave]
    shape = tuple(sizes[i] for i in order)
    expected = offset + math.prod(shape) * dtype.itemsize
    found = binary.stat().st_size
    if found < expected:
        raise LoadError(
            f"{binary}: expected {expected} bytes ({shape} of {dtype} in {interleave} order after {offset}), "
            f"found {content(binary)}, {found} bytes. It is cut short, or the header is another file's."
        )
    values = np.memmap(binary, dtype=dtype, mode="c", offset=offset, shape=shape)
    return values.transpose(np.argsort(order))


def _wavelengths(fields: dict[str, str], size: int) -> Axis:
    try:
        values = np.array([float(word) for word in _list(fields, "wavelength")])
    except ValueError:
        values = np.array([])
    if len(values) != size:
        return Axis("channel", None, pixel=False)
    units = _word(fields, "wavelength units")
    known = units.lower() not in ("", "unknown", "index")
    return Axis("wavelength", values, _SPELLED.get(units.lower(), units) if known else "", pixel=False)


def _image(cube: np.ndarray, fields: dict[str, str]) -> tuple[np.ndarray, list[Axis]]:
    lines, samples, bands = cube.shape
    steps = _list(fields, "pixel size") or _list(fields, "map info")[5:7]
    said = f"{_word(fields, 'pixel size')} {_word(fields, 'map info')}"
    units = re.search(r"units\s*=\s*(\w+)", said, re.IGNORECASE)
    try:
        step_x, step_y = (float(word) for word in steps[:2])
    except ValueError:
        axes = [Axis("y"), Axis("x")]
    else:
        unit = _SPELLED.get(units[1].lower(), units[1]) if units else ""
        axes = [Axis("y", uniform(lines, step_y), unit), Axis("x", uniform(samples, step_x), unit)]
    if bands == 1:
        return cube[:, :, 0], axes
    return cube, [*axes, _wavelengths(fields, bands)]


def _library(cube: np.ndarray, fields: dict[str, str]) -> tuple[np.ndarray, list[Axis]]:
    """A spectral library has a spectrum a line and a wavelength a sample."""
    names = _list(fields, "spectra names")
    spectra = Axis("spectrum", np.array(names) if len(names) == cube.shape[0] else None)
    return cube[:, :, 0], [spectra, _wavelengths(fields, cube.shape[1])]
