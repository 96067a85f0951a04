"""Files that are missing, empty, cut short or of another type: one clear error each."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

from bayesunmix.data import LoadError, info, load
from bayesunmix.data.axes import dim_name, quantity_and_units

OWN = [".hspy", ".nc", ".npy", ".npz", ".mat", ".hdr", ".h5", ".hf5", ".hdf5"]


def write_any(path: Path) -> Path:
    """A good file of any type that is read without an extra."""
    data = np.random.default_rng(0).normal(size=(16, 16, 32))
    match path.suffix:
        case ".npy":
            np.save(path, data)
        case ".npz":
            np.savez_compressed(path, data=data)
        case ".mat":
            savemat(path, {"data": data}, do_compression=True)
        case ".nc":
            xr.DataArray(data, name="data").to_netcdf(path, engine="h5netcdf")
        case ".hdr":
            header = "ENVI\nsamples = 16\nlines = 16\nbands = 32\ndata type = 5\ninterleave = bip\n"
            path.write_text(header)
            path.with_suffix(".img").write_bytes(data.tobytes())
        case _:
            with h5py.File(path, "w") as file:
                group = file.create_group("Experiments/a")
                group["data"] = data
                for i in range(3):
                    axis = {"name": "", "units": "", "scale": 1.0, "offset": 0.0, "navigate": i < 2}
                    group.create_group(f"axis-{i}").attrs.update(axis)
    return path


@pytest.mark.parametrize("suffix", OWN)
def test_the_good_file_is_read(tmp_path: Path, suffix: str) -> None:
    image = load(str(write_any(tmp_path / f"a{suffix}")))
    assert image.shape == (16, 16, 32)
    assert float(image.values[0, 0, 0]) == np.random.default_rng(0).normal()


@pytest.mark.parametrize("suffix", [*OWN, ".dm4", ""])
def test_missing_file(tmp_path: Path, suffix: str) -> None:
    for read in (load, info):
        with pytest.raises(LoadError, match="no such file"):
            read(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [*OWN, ".dm4", ""])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    for read in (load, info):
        with pytest.raises(LoadError, match=r"empty file \(0 bytes\)"):
            read(tmp_path / f"a{suffix}")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="found a folder"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", OWN)
@pytest.mark.parametrize(
    "content",
    [
        b"PNG? no: only text that says so, long enough to be a header of something",
        b"\x89PNG\r\n\x1a\n",
        b"\x07",
    ],
)
def test_foreign_content(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=rf"expected .*found .*, {len(content)} bytes") as caught:
        load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", OWN)
@pytest.mark.parametrize("keep", [0.999, 0.9, 0.5, 0.05])
def test_truncated_file(tmp_path: Path, suffix: str, keep: float) -> None:
    path = write_any(tmp_path / f"a{suffix}")
    binary = path.with_suffix(".img") if suffix == ".hdr" else path
    raw = binary.read_bytes()
    binary.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(LoadError):
        load(path)


# h5netcdf's destructor stumbles over a file object whose constructor did not get to its end.
@pytest.mark.filterwarnings(r"ignore:Exception ignored in. <function File\.close")
@pytest.mark.parametrize("suffix", OWN)
def test_damaged_bytes_never_escape_as_another_error(tmp_path: Path, suffix: str) -> None:
    """Forty files with random damage near their start: read, or refused with the one error."""
    path = write_any(tmp_path / f"a{suffix}")
    raw = path.read_bytes()
    rng = random.Random(0)
    for _ in range(40):
        damaged = bytearray(raw)
        for _ in range(3):
            damaged[rng.randrange(min(len(raw), 2500))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            image = load(path)
        except LoadError:
            continue
        assert isinstance(image, xr.DataArray)


@pytest.mark.parametrize("path", [None, 3, b"scan.npy", ""])
def test_what_is_no_path(path: object) -> None:
    with pytest.raises(TypeError, match="path: expected the name of a file"):
        load(path)  # type: ignore[arg-type]


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(LoadError, match="no name of a file"):
        load("a" * 5000 + ".npy")


def test_load_error_is_caught_as_either_builtin() -> None:
    assert issubclass(LoadError, OSError)
    assert issubclass(LoadError, ValueError)


def test_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_any(tmp_path / "a.npy")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(LoadError, match="Permission denied"):
        load(path)


def test_several_matches_of_a_last_part(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one/scan"] = np.eye(3)
        file["two/scan"] = np.eye(4)
    with pytest.raises(LoadError, match="several data sets called 'scan'"):
        load(tmp_path / "a.h5", dataset="scan")
    assert load(tmp_path / "a.h5", dataset="two/scan").shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("Energy loss", "energy"),
        ("Energy (eV)", "energy"),
        ("Wavelength", "wavelength"),
        ("Raman shift", "raman_shift"),
        ("X", "x"),
        ("$\\sqrt E$", "sqrt_e"),
        ("  Scan-X [µm] ", "scan_x_µm"),
        ("", ""),
    ],
)
def test_dim_name(name: str, dim: str) -> None:
    assert dim_name(name) == dim
    assert dim_name(dim) == dim


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("Intensity (Counts)", ("Intensity", "Counts")),
        ("Current [nA]", ("Current", "nA")),
        ("Intensity", ("Intensity", "")),
        ("", ("", "")),
        ("log(J)", ("log", "J")),
    ],
)
def test_quantity_and_units(label: str, parts: tuple[str, str]) -> None:
    assert quantity_and_units(label) == parts


@pytest.mark.parametrize(
    ("name", "dims", "shape", "units"),
    [
        (
            "eels_cuzn/CuZn_EELS_mapping_tutorial.hspy",
            ("y", "x", "energy"),
            (50, 40, 162),
            ("nm", "nm", "eV"),
        ),
        ("eels_cuzn/CuZn_HAADF.hspy", ("y", "x"), (50, 40), ("nm", "nm")),
        ("eds_fept/core_shell.hspy", ("y", "x", "energy"), (64, 64, 992), ("nm", "nm", "keV")),
        ("eels_lsmo_sto/LSMO_STO_linescan.hspy", ("x", "energy"), (10, 512), ("nm", "eV")),
        ("eels_lsmo_sto/LSMO_STO_linescan_low_loss.hspy", ("x", "energy"), (10, 512), ("nm", "eV")),
        ("eels_lsmo_sto/LSMO_linescan.hspy", ("x", "energy"), (40, 586), ("µm", "eV")),
        ("eels_lsmo_sto/LSMO_linescan_low_loss.hspy", ("x", "energy"), (40, 1024), ("µm", "eV")),
        ("graphene_stem/G-Si-2nm.npy", ("y", "x"), (256, 256), ("", "")),
    ],
)
def test_real_files(
    real_data: Callable[[str], Path],
    name: str,
    dims: tuple[str, ...],
    shape: tuple[int, ...],
    units: tuple[str, ...],
) -> None:
    image = load(real_data(name))
    assert (image.dims, image.shape) == (dims, shape)
    assert tuple(image[dim].attrs.get("units", "") for dim in dims) == units
    (entry,) = info(real_data(name))
    assert (entry.dims, entry.shape, entry.dtype) == (dims, shape, str(image.dtype))


def test_real_calibration(real_data: Callable[[str], Path]) -> None:
    image = load(real_data("eels_cuzn/CuZn_EELS_mapping_tutorial.hspy"))
    assert image.dtype == np.int16
    np.testing.assert_allclose(image["energy"][[0, -1]], [700, 700 + 161 * 8])
    assert image["energy"].attrs["long_name"] == "Energy loss"
    assert image.attrs["units"] == "Counts"
    energy = load(real_data("eds_fept/core_shell.hspy"))["energy"]
    np.testing.assert_allclose(energy, 0.16 + 0.02 * np.arange(992))
