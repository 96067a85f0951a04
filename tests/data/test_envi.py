"""ENVI headers and flat binaries, written byte by byte."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from bayesunmix.data import LoadError, info, load

TYPES = {
    "u1": 1,
    "i2": 2,
    "i4": 3,
    "f4": 4,
    "f8": 5,
    "c8": 6,
    "c16": 9,
    "u2": 12,
    "u4": 13,
    "i8": 14,
    "u8": 15,
}
WAVELENGTHS = "wavelength units = Nanometers\nwavelength = {\n 400.5, 410,\n 420 , 430, 440}\n"


def write_envi(
    path: Path,
    cube: np.ndarray,
    *,
    interleave: str = "bsq",
    dtype: str = "<i2",
    offset: int = 0,
    header: Path | None = None,
    extra: str = WAVELENGTHS,
) -> Path:
    """``cube`` is (lines, samples, bands); ``path`` the binary file."""
    lines, samples, bands = cube.shape
    orders = {"bsq": (2, 0, 1), "bil": (0, 2, 1), "bip": (0, 1, 2)}
    values = cube.transpose(orders[interleave.lower()]).astype(dtype)
    path.write_bytes(b"\xff" * offset + values.tobytes())
    text = (
        "ENVI\ndescription = {\n  a scan, made by hand }\n; lines = 99\n"
        f"samples = {samples}\nLines   = {lines}\nbands ={bands}\nheader offset = {offset}\n"
        f"file type = ENVI Standard\ndata type = {TYPES[dtype[-2:].lstrip('<>=|')]}\n"
        f"interleave = {interleave}\nbyte order = {int(dtype.startswith('>'))}\n{extra}"
    )
    (header or path.with_suffix(".hdr")).write_text(text)
    return path


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip", "BIL"])
@pytest.mark.parametrize("offset", [0, 33])
def test_interleave_and_offset(tmp_path: Path, cube: np.ndarray, interleave: str, offset: int) -> None:
    write_envi(tmp_path / "scan.img", cube, interleave=interleave, offset=offset)
    image = load(tmp_path / "scan.hdr")
    assert image.dims == ("y", "x", "wavelength")
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_allclose(image["wavelength"], [400.5, 410, 420, 430, 440])
    assert image["wavelength"].attrs["units"] == "nm"
    assert image.attrs["description"] == "a scan, made by hand"


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8", "c8", "u2", "u4", "i8", "u8"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_data_types(tmp_path: Path, cube: np.ndarray, kind: str, byte_order: str) -> None:
    dtype = byte_order + kind
    data = np.abs(cube) * (1 if kind == "u1" else 100)
    image = load(write_envi(tmp_path / "scan.dat", data, dtype=dtype, interleave="bil"))
    assert image.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.values, data.astype(dtype))


@pytest.mark.parametrize("name", ["scan", "scan.img", "scan.dat", "scan.raw", "scan.bsq", "scan.IMG"])
@pytest.mark.parametrize("ask", ["binary", "header"])
@pytest.mark.parametrize("appended", [False, True])
def test_header_beside_binary(tmp_path: Path, cube: np.ndarray, name: str, ask: str, appended: bool) -> None:
    binary = tmp_path / name
    header = tmp_path / (name + ".hdr" if appended else binary.stem + ".hdr")
    write_envi(binary, cube, header=header)
    image = load(binary if ask == "binary" else header)
    np.testing.assert_array_equal(image.values, cube)
    assert info(header)[0].name == name


def test_values_are_mapped_and_the_file_is_safe(tmp_path: Path, cube: np.ndarray) -> None:
    path = write_envi(tmp_path / "scan.img", cube)
    before = path.read_bytes()
    image = load(path)
    assert isinstance(image.data, np.memmap)
    image[0, 0, 0] = 99
    assert path.read_bytes() == before


def test_pixel_size_and_what_is_not_applied(tmp_path: Path, cube: np.ndarray) -> None:
    extra = (
        "pixel size = {0.5, 2.0, units=Meters}\nreflectance scale factor = 10000\ndata ignore value = -7\n"
        "bbl = {1, 1, 0, 1, 1}\ndata units = reflectance\n"
    )
    image = load(write_envi(tmp_path / "scan.img", cube, extra=extra))
    assert image.dims == ("y", "x", "channel")
    np.testing.assert_allclose(image["x"], 0.5 * np.arange(4))
    np.testing.assert_allclose(image["y"], 2.0 * np.arange(3))
    assert image["x"].attrs["units"] == "m"
    np.testing.assert_array_equal(image.values, cube)
    assert image.attrs["reflectance_scale_factor"] == "10000"
    assert image.attrs["data_ignore_value"] == "-7"
    assert image.attrs["bad_band_multipliers"] == "1, 1, 0, 1, 1"
    assert image.attrs["units"] == "reflectance"


def test_map_info_gives_the_pixel_size(tmp_path: Path, cube: np.ndarray) -> None:
    extra = "map info = {UTM, 1, 1, 500000, 5000000, 0.7, 0.8, 32, North, WGS-84, units=Meters}\n"
    image = load(write_envi(tmp_path / "scan.img", cube, extra=extra))
    np.testing.assert_allclose(image["x"], 0.7 * np.arange(4))
    np.testing.assert_allclose(image["y"], 0.8 * np.arange(3))
    assert image.attrs["map_info"].startswith("UTM")


def test_single_band_is_an_image(tmp_path: Path, cube: np.ndarray) -> None:
    image = load(write_envi(tmp_path / "scan.img", cube[..., :1], extra=""))
    assert image.dims == ("y", "x")
    np.testing.assert_array_equal(image.values, cube[..., 0])


def test_spectral_library(tmp_path: Path, cube: np.ndarray) -> None:
    spectra = cube[0][:, :, None].astype("f4")  # 4 spectra of 5 samples
    extra = f"file type = ENVI Spectral Library\nspectra names = {{tin, lead, iron, gold}}\n{WAVELENGTHS}"
    library = load(write_envi(tmp_path / "library.sli", spectra, dtype="<f4", extra=extra))
    assert library.dims == ("spectrum", "wavelength")
    assert library["spectrum"].values.tolist() == ["tin", "lead", "iron", "gold"]
    np.testing.assert_array_equal(library.sel(spectrum="iron"), cube[0, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("data type = 2", "data type = 7"), "data type among"),
        (("data type = 2\n", ""), "'data type = <integer>'"),
        (("Lines   = 3", "lines = three"), "'lines = <integer>'"),
        (("Lines   = 3", "lines = 0"), "wrong lines"),
        (("interleave = bsq", "interleave = bxq"), "bsq, bil or bip"),
        (("byte order = 0", "byte order = 0\nfile compression = 1"), "compressed"),
        (("bands =5", "bands = 50"), "expected 1200 bytes.*found .* 120 bytes"),
        (("ENVI\n", "ERDAS\n"), "first line is ENVI"),
    ],
)
def test_wrong_headers(tmp_path: Path, cube: np.ndarray, change: tuple[str, str], message: str) -> None:
    write_envi(tmp_path / "scan.img", cube)
    header = tmp_path / "scan.hdr"
    text = header.read_text()
    assert change[0] in text
    header.write_text(text.replace(*change))
    with pytest.raises(LoadError, match=message):
        load(header)


def test_truncated_binary(tmp_path: Path, cube: np.ndarray) -> None:
    path = write_envi(tmp_path / "scan.img", cube)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoadError, match=r"expected 120 bytes.*found .* 119 bytes"):
        load(path)


def test_header_without_binary(tmp_path: Path, cube: np.ndarray) -> None:
    write_envi(tmp_path / "scan.img", cube).rename(tmp_path / "scan.tif")
    with pytest.raises(LoadError, match=r"found none of scan, scan\.img"):
        load(tmp_path / "scan.hdr")


def test_img_without_header_is_not_envi(tmp_path: Path, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    write_envi(tmp_path / "scan.img", cube)
    (tmp_path / "scan.hdr").write_text("another program's header")
    monkeypatch.setitem(sys.modules, "rsciio", None)
    with pytest.raises(LoadError, match=r"bayesunmix\[io\]"):
        load(tmp_path / "scan.img")
