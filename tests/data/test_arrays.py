"""Bare arrays: .npy, .npz, .mat (SciPy's and MATLAB 7.3's layout), netCDF."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from scipy.io import savemat

from bayesunmix.data import LoadError, info, load

DTYPES = ["<i2", ">i2", ">u4", "<u8", "<f2", ">f4", "<f8", "u1", "?", "<c8"]


class Trap:
    """Something that notices when it is unpickled."""

    sprung = False

    @staticmethod
    def spring() -> int:
        Trap.sprung = True
        return 0

    def __reduce__(self) -> tuple[Callable[[], int], tuple[()]]:
        return Trap.spring, ()


# ---------------------------------------------------------------- npy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path: Path, cube: np.ndarray, dtype: str, order: Any) -> None:
    data = np.asarray(np.abs(cube).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", data)
    image = load(tmp_path / "a.npy")
    assert image.dims == ("y", "x", "channel")
    assert image.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(image.values, data)


@pytest.mark.parametrize(
    ("ndim", "dims"),
    [
        (1, ("channel",)),
        (2, ("y", "x")),
        (3, ("y", "x", "channel")),
        (4, ("frame", "y", "x", "channel")),
        (5, ("axis_0", "frame", "y", "x", "channel")),
    ],
)
def test_dims_of_bare_arrays(tmp_path: Path, ndim: int, dims: tuple[str, ...]) -> None:
    np.save(tmp_path / "a.npy", np.ones((2,) * ndim))
    assert load(tmp_path / "a.npy").dims == dims


def test_npy_is_mapped_and_the_file_is_safe(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3, 4)))
    image = load(path)
    assert isinstance(image.data, np.memmap)
    image[0, 0, 0] = 9.0
    assert image.values[0, 0, 0] == 9
    assert np.load(path)[0, 0, 0] == 0


def test_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    array = np.empty(2, dtype=object)
    array[:] = Trap()
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", allow_pickle=True, array=array)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(LoadError, match="Python objects"):
            load(tmp_path / name)
    with pytest.raises(LoadError, match="found a Python pickle"):
        load(tmp_path / "b.npy")
    assert not Trap.sprung
    pickle.loads(pickle.dumps(Trap()))
    assert Trap.sprung, "the trap itself must work"


def test_real_pickled_coordinates_are_refused(real_data: Callable[[str], Path]) -> None:
    with pytest.raises(LoadError, match="Python objects"):
        load(real_data("graphene_stem/G-Si-2nm-coord.npy"))


def test_npy_of_text_and_without_values(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    with pytest.raises(LoadError, match="expected an array of numbers"):
        load(tmp_path / "text.npy")
    with pytest.raises(LoadError, match="holds no values"):
        load(tmp_path / "none.npy")


# ---------------------------------------------------------------- npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_lists_and_chooses(tmp_path: Path, cube: np.ndarray, save: Callable[..., None]) -> None:
    path = tmp_path / "a.npz"
    save(path, Y=cube.astype(">i4"), A=cube[..., :2], names=np.array(["a"]), scale=np.float64(2))
    with pytest.raises(LoadError) as caught:
        load(path)
    assert "'Y'  shape (3, 4, 5)" in str(caught.value)
    assert "'A'  shape (3, 4, 2)" in str(caught.value)
    image = load(path, dataset="Y")
    np.testing.assert_array_equal(image.values, cube)
    assert image.dtype == np.dtype(">i4")
    assert image.name == "Y"
    assert [entry.name for entry in info(path)] == ["Y", "A"]


def test_npz_with_one_cube_and_its_axis_is_not_ambiguous(tmp_path: Path, cube: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, energy=np.arange(5.0), spectra=cube, rate=3.0)
    assert load(path).name == "spectra"
    np.testing.assert_array_equal(load(path, dataset="energy"), np.arange(5.0))
    np.savez(path, energy=np.arange(5.0), rate=3.0)
    assert load(path).name == "energy"
    np.savez(path, energy=np.arange(5.0), counts=np.arange(5.0))
    with pytest.raises(LoadError, match="2 data sets"):
        load(path)


def test_npz_members_are_read_one_by_one(tmp_path: Path, cube: np.ndarray) -> None:
    """A damaged array does not keep the others from being read, and is reported itself."""
    path = tmp_path / "a.npz"
    np.savez(path, good=cube, bad=np.zeros((100, 200)))
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("bad.npy").header_offset
    raw = bytearray(path.read_bytes())
    raw[start + 100_000] ^= 255  # in the values, past what listing the arrays reads
    path.write_bytes(raw)
    np.testing.assert_array_equal(load(path, dataset="good").values, cube)
    with pytest.raises(LoadError, match="damaged"):
        load(path, dataset="bad")


def test_real_npz(real_data: Callable[[str], Path]) -> None:
    path = real_data("dlr_hysu/dlr_hysu.npz")
    with pytest.raises(LoadError, match="6 data sets"):
        load(path)
    image = load(path, dataset="Y")
    assert (image.shape, image.dtype) == ((86, 123, 135), np.int16)
    with np.load(path) as archive:
        np.testing.assert_array_equal(image.values, archive["Y"])
    assert load(real_data("samson/samson.npz"), dataset="Y").shape == (95, 95, 156)
    assert load(real_data("optical_trap/mol3_8_ext_16.npz")).shape == (200000,)


# ---------------------------------------------------------------- mat


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1"])
def test_mat(tmp_path: Path, cube: np.ndarray, version: Any, dtype: str) -> None:
    data = np.abs(cube).astype(dtype)
    if version == "4":  # knows matrices only
        data = data[0]
    path = tmp_path / "a.mat"
    savemat(path, {"Y": data, "wavelength": np.arange(5.0)}, format=version)
    image = load(path)
    assert image.name == "Y"
    assert image.dims == (("y", "x", "channel") if version == "5" else ("y", "x"))
    np.testing.assert_array_equal(image.values, data)
    assert load(path, dataset="wavelength").dims == ("channel",)
    if version == "5":
        assert image.dtype == np.dtype(dtype)


def test_mat_leaves_structures_and_text_alone(tmp_path: Path, cube: np.ndarray) -> None:
    content: dict[str, Any] = {
        "Y": cube,
        "note": "text",
        "parts": {"inner": cube},
        "cell": np.array([1, "a"], dtype=object),
    }
    savemat(tmp_path / "a.mat", content, do_compression=True)
    assert [entry.name for entry in info(tmp_path / "a.mat")] == ["Y"]
    np.testing.assert_array_equal(load(tmp_path / "a.mat").values, cube)
    savemat(tmp_path / "b.mat", {"note": "text"})
    with pytest.raises(LoadError, match="at least one array of numbers"):
        load(tmp_path / "b.mat")


def test_mat_with_doubles_stored_as_bytes(tmp_path: Path) -> None:
    """MATLAB stores whole numbers in the smallest type; the type of the variable counts."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    flags, shape, name = struct.pack("<II", 6, 0), struct.pack("<II", 2, 3), b"Y"
    values = element(2, bytes([1, 2, 3, 4, 5, 255]))  # miUINT8, column by column
    matrix = element(6, flags) + element(5, shape) + element(1, name) + values
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "a.mat").write_bytes(header + element(14, matrix))
    image = load(tmp_path / "a.mat")
    assert image.dtype == np.float64
    assert image.values.tolist() == [[1, 3, 5], [2, 4, 255]]


def write_mat73(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """As MATLAB does: a 512-byte user block, axes in reverse, the class as an attribute, junk in #refs#."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            dataset = file.create_dataset(name, data=array.transpose(), chunks=True, compression="gzip")
            dataset.attrs["MATLAB_class"] = np.bytes_({"f8": "double", "i2": "int16"}[array.dtype.str[1:]])
        text = file.create_dataset("note", data=np.array([[97], [98]], dtype="u2"))
        text.attrs["MATLAB_class"] = np.bytes_("char")
        empty = file.create_dataset("nothing", data=np.array([0, 0], dtype="u8"))
        empty.attrs["MATLAB_class"] = np.bytes_("double")
        empty.attrs["MATLAB_empty"] = np.uint8(1)
        junk = file.create_dataset("#refs#/a", data=np.eye(3))
        junk.attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file".ljust(116) + b" " * 8 + b"\x00\x02IM")
    return path


@pytest.mark.parametrize("name", ["a.mat", "a.h5"])
def test_mat73(tmp_path: Path, cube: np.ndarray, name: str) -> None:
    path = write_mat73(tmp_path / name, {"Y": cube, "s/inner": cube[0] * 2.0, "axis": np.arange(5.0)[None]})
    listed = {entry.name: entry.shape for entry in info(path)}
    assert listed == {"Y": (3, 4, 5), "s/inner": (4, 5), "axis": (5,)}
    image = load(path, dataset="Y")
    assert image.dims == ("y", "x", "channel")
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_array_equal(load(path, dataset="inner").values, cube[0] * 2.0)
    np.testing.assert_array_equal(load(path, dataset="axis").values, np.arange(5.0))


# ---------------------------------------------------------------- netCDF


@pytest.mark.parametrize("engine", ["h5netcdf", "scipy"])
def test_netcdf_round_trip(tmp_path: Path, cube: np.ndarray, engine: Any) -> None:
    energy = xr.DataArray([1.0, 2, 4, 8, 16], dims="energy", attrs={"units": "eV"})
    saved = xr.DataArray(
        cube, dims=("y", "x", "energy"), coords={"energy": energy}, name="counts", attrs={"units": "e"}
    )
    saved.coords["time"] = ("y", [0, 1, 2], {"units": "seconds since 2020-01-01"})
    saved.to_netcdf(tmp_path / "a.nc", engine=engine)
    image = load(tmp_path / "a.nc")
    assert image.name == "counts"
    xr.testing.assert_equal(image, saved)
    assert image["energy"].attrs["units"] == "eV"
    assert image.attrs == {"units": "e", "dataset": "counts", "source": "a.nc"}
    (entry,) = info(tmp_path / "a.nc")
    assert (entry.units, entry.value_units) == ({"energy": "eV"}, "e")


def test_netcdf_with_damage_in_its_values(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    values = np.random.default_rng(0).normal(size=(50, 50))
    xr.DataArray(values, name="a").to_netcdf(path, engine="h5netcdf", encoding={"a": {"fletcher32": True}})
    with h5py.File(path, "r") as file:
        offset = file["a"].id.get_chunk_info(0).byte_offset
    raw = bytearray(path.read_bytes())
    raw[offset + 10] ^= 255
    path.write_bytes(raw)
    with pytest.raises(LoadError, match=r"expected a netCDF file.*Copy the file again"):
        load(path)


def test_netcdf_with_several_variables(tmp_path: Path, cube: np.ndarray) -> None:
    variables = {
        "a": (("y", "x", "channel"), cube),
        "b": (("y", "x"), cube[..., 0]),
        "note": ("y", ["p", "q", "r"]),
        "c": ("channel", np.arange(5.0)),
    }
    xr.Dataset(variables).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with pytest.raises(LoadError, match="3 data sets"):
        load(tmp_path / "a.nc")
    np.testing.assert_array_equal(load(tmp_path / "a.nc", dataset="b").values, cube[..., 0])
    xr.Dataset({"a": variables["a"], "c": variables["c"]}).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert load(tmp_path / "b.nc").name == "a"
    xr.Dataset(attrs={"title": "nothing"}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(LoadError, match="variables with numbers"):
        load(tmp_path / "c.nc")
