"""USID, NSID and plain HDF5 files, written by hand in the layouts of real ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bayesunmix.data import LoadError, info, lazy, load

Write = Callable[..., Path]

X = ("um", np.array([0.0, 0.5, 1.0, 1.5]))
Y = ("um", np.array([10.0, 20.0, 30.0]))
BIAS = ("V", np.array([-1.0, 0.0, 2.0, 5.0, 9.0]))


# ---------------------------------------------------------------- USID


@pytest.mark.parametrize("fastest", ["X", "Y"])
@pytest.mark.parametrize("suffix", [".h5", ".hf5", ".hdf5"])
def test_usid(tmp_path: Path, write_usid: Write, cube: np.ndarray, fastest: str, suffix: str) -> None:
    """The slowest position dim comes first, whichever it is; values and axes stay together."""
    positions = {"X": X, "Y": Y} if fastest == "X" else {"Y": Y, "X": X}
    by_pixel = cube if fastest == "X" else cube.transpose(1, 0, 2)  # C order: slowest, fastest, bias
    path = write_usid(tmp_path / f"scan{suffix}", by_pixel.reshape(12, 5), positions, {"Bias": BIAS})
    image = load(path)
    assert image.dims == (("y", "x", "bias") if fastest == "X" else ("x", "y", "bias"))
    np.testing.assert_array_equal(image.transpose("y", "x", "bias").values, cube)
    for dim, (unit, values) in (("x", X), ("y", Y), ("bias", BIAS)):
        np.testing.assert_allclose(image[dim], values)
        assert image[dim].attrs["units"] == unit
    assert image.attrs["units"] == "nA"
    assert image.attrs["long_name"] == "Current"
    assert image.attrs["dataset"] == "Measurement_000/Channel_000/Raw_Data"
    (entry,) = info(path)
    assert entry.shape == image.shape
    assert entry.units == {"x": "um", "y": "um", "bias": "V"}


def test_usid_axes_of_length_one_are_left_out(tmp_path: Path, write_usid: Write, cube: np.ndarray) -> None:
    row = {"X": X, "Y": ("um", np.array([7.0]))}
    path = write_usid(tmp_path / "a.h5", cube[0], row, {"Bias": BIAS, "Cycle": ("", np.array([0.0]))})
    image = load(path)
    assert image.dims == ("x", "bias")
    np.testing.assert_array_equal(image.values, cube[0])


def test_usid_with_two_spectroscopic_dims(tmp_path: Path, write_usid: Write) -> None:
    data = np.arange(4 * 15.0).reshape(4, 3, 5)  # x, cycle, bias
    spectra = {"Bias": BIAS, "Cycle": ("", np.array([0.0, 1.0, 2.0]))}
    image = load(write_usid(tmp_path / "a.h5", data.reshape(4, 15), {"X": X}, spectra))
    assert image.dims == ("x", "cycle", "bias")
    np.testing.assert_array_equal(image.values, data)


def test_usid_scan_that_was_stopped(tmp_path: Path, write_usid: Write, cube: np.ndarray) -> None:
    """Ten of the twelve pixels of a grid were measured."""
    path = write_usid(tmp_path / "a.h5", cube.reshape(12, 5), {"X": X, "Y": Y}, {"Bias": BIAS}, keep=slice(10))
    image = load(path)
    assert image.dims == ("position", "bias")
    np.testing.assert_array_equal(image.values, cube.reshape(12, 5)[:10])


def test_usid_damaged_and_compound(tmp_path: Path, write_usid: Write, cube: np.ndarray) -> None:
    path = write_usid(tmp_path / "a.h5", cube.reshape(12, 5), {"X": X, "Y": Y}, {"Bias": BIAS})
    with h5py.File(path, "a") as file:
        channel = file["Measurement_000/Channel_000"]
        attrs = dict(channel["Raw_Data"].attrs)
        del channel["Raw_Data"]
        channel.create_dataset("Raw_Data", data=np.zeros((12, 6))).attrs.update(attrs)
    with pytest.raises(LoadError, match="6 entries along its spectroscopic axis"):
        load(path)
    with h5py.File(path, "a") as file:
        channel = file["Measurement_000/Channel_000"]
        del channel["Raw_Data"]
        pairs = np.zeros((12, 5), dtype=[("amplitude", "f4"), ("phase", "f4")])
        channel.create_dataset("Raw_Data", data=pairs).attrs.update(attrs)
    with pytest.raises(LoadError, match="compound"):
        load(path)


# ---------------------------------------------------------------- NSID


def test_nsid(tmp_path: Path, write_nsid: Write, cube: np.ndarray) -> None:
    field = np.array([1.0, 4.0, 9.0, 16.0, 25.0])
    dims = [
        ("x", "m", "SPATIAL", np.arange(3) * 1e-9),
        ("y", "m", "SPATIAL", np.arange(4) * 1e-9),
        ("$\\sqrt E$", "$(V/m)^{0.5}$", "SPECTRAL", field),
    ]
    attrs = {"quantity": "log J", "units": "A", "data_type": "SPECTRAL_IMAGE", "modality": "C-AFM"}
    path = write_nsid(tmp_path / "a.hf5", cube, dims, attrs)
    image = load(path)
    assert [entry.name for entry in info(path)] == ["Measurement_000/Channel_000/Map/Map"]
    assert image.dims == ("x", "y", "sqrt_e")
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_allclose(image["y"], np.arange(4) * 1e-9)
    np.testing.assert_allclose(image["sqrt_e"], field)
    assert image["sqrt_e"].attrs == {"units": "$(V/m)^{0.5}$", "long_name": "$\\sqrt E$"}
    assert image.name == "Map"
    assert image.attrs["units"] == "A"
    assert image.attrs["long_name"] == "log J"


def test_nsid_spectral_axis_is_put_last(tmp_path: Path, write_nsid: Write, cube: np.ndarray) -> None:
    dims = [
        ("Energy Loss", "eV", "SPECTRAL", np.arange(3.0)),
        ("y", "nm", "SPATIAL", np.arange(4.0)),
        ("x", "nm", "SPATIAL", np.arange(5.0)),
    ]
    image = load(write_nsid(tmp_path / "a.hf5", cube, dims, {}))
    assert image.dims == ("y", "x", "energy")
    np.testing.assert_array_equal(image.values, cube.transpose(1, 2, 0))


def test_real_nsid(real_data: Callable[[str], Path]) -> None:
    path = real_data("cafm_bfo_iv/bfo_iv_final.hf5")
    image = load(path)
    assert (image.shape, image.dtype, image.dims) == ((50, 50, 53), np.float64, ("x", "y", "sqrt_e"))
    with h5py.File(path, "r") as file:
        group = file["Measurement_000/Channel_000/IV_BFO"]
        np.testing.assert_array_equal(image.values, group["IV_BFO"][...])
        np.testing.assert_array_equal(image["sqrt_e"].values, group["$\\sqrt E$"][...])
    assert image.attrs["units"] == "$A/m^2$"
    assert image["x"].attrs["units"] == "m"


# ---------------------------------------------------------------- others


def test_plain_hdf5(tmp_path: Path, cube: np.ndarray) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["deep/scan"] = cube
        file["energy"] = np.arange(5.0)
        file["note"] = "text"
        file["alias"] = h5py.SoftLink("/deep/scan")
        file["elsewhere"] = h5py.ExternalLink("missing.h5", "/data")
    image = load(path)
    assert image.dims == ("y", "x", "channel")
    np.testing.assert_array_equal(image.values, cube)
    assert image.attrs["dataset"] == "deep/scan"
    assert [entry.name for entry in info(path)] == ["deep/scan", "energy"]
    with h5py.File(path, "a") as file:
        file["deep/map"] = cube[..., 0]
    with pytest.raises(LoadError, match="3 data sets"):
        load(path)
    np.testing.assert_array_equal(load(path, dataset="deep/map").values, cube[..., 0])


def test_hyperspy_layout_in_an_hdf5_file(
    tmp_path: Path, write_hspy: Write, cube: np.ndarray, scan_axes: list[dict[str, Any]]
) -> None:
    image = load(write_hspy(tmp_path / "a.hdf5", {"a": (cube, scan_axes, {})}))
    assert image.dims == ("y", "x", "energy")


def test_hdf5_without_numbers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["note"] = "text"
    with pytest.raises(LoadError, match="data sets with numbers"):
        load(tmp_path / "a.h5")


@pytest.mark.parametrize("maker", ["tofwerk", "delmic"])
def test_files_of_makers_go_to_rosettasciio(
    tmp_path: Path, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch, maker: str
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Acquisition0/ImageData/Image"] = cube
        if maker == "delmic":
            file.create_group("Acquisition0/PhysicalData")
        else:
            file.attrs["TofDAQ Version"] = 1.99
    monkeypatch.setitem(sys.modules, "rsciio", None)
    with pytest.raises(LoadError, match=r"bayesunmix\[io\]"):
        load(tmp_path / "a.h5")


def test_large_data_stay_in_the_file(tmp_path: Path, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Selecting and transposing read no more than what is asked for, and reading twice reads once."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("scan", data=cube, chunks=(1, 4, 5), compression="gzip")
    monkeypatch.setattr("bayesunmix.data.files.EAGER_BYTES", 0)
    fetched: list[tuple[int, ...]] = []
    original = lazy._fetch_hdf5

    def fetch(where: Path, location: str, key: tuple[int | slice, ...]) -> np.ndarray:
        block = original(where, location, key)
        fetched.append(block.shape)
        return block

    monkeypatch.setattr(lazy, "_fetch_hdf5", fetch)
    image = load(path)
    turned = image.transpose("channel", "x", "y")
    row = image[1]
    assert not fetched
    np.testing.assert_array_equal(row.values, cube[1])
    assert fetched == [(4, 5)]
    np.testing.assert_array_equal(turned.values, cube.transpose(2, 1, 0))
    np.testing.assert_array_equal(image[::-1, [3, 0], 2].values, cube[::-1][:, [3, 0], 2])
    fetched.clear()
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_array_equal(image.values, cube)
    assert len(fetched) == 1


def test_damage_that_shows_when_values_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "scan", data=np.random.default_rng(0).normal(size=(40, 40, 9)), chunks=True, fletcher32=True
        )
        offset = file["scan"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 10] ^= 255
    path.write_bytes(raw)
    with pytest.raises(LoadError, match="Copy the file again"):
        load(path)
    monkeypatch.setattr("bayesunmix.data.files.EAGER_BYTES", 0)
    image = load(path)
    with pytest.raises(LoadError, match="Copy the file again"):
        _ = image.values
