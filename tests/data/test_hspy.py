"""HyperSpy files, against files written by hand and against RosettaSciIO."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bayesunmix.data import LoadError, info, load

Write = Callable[..., Path]


def test_values_dims_coords_and_units(
    tmp_path: Path, write_hspy: Write, cube: np.ndarray, scan_axes: list[dict[str, Any]]
) -> None:
    metadata = {
        "General/title": "A scan",
        "General/original_filename": "raw.dm4",
        "Signal/signal_type": "EELS",
        "Signal/quantity": "Intensity (Counts)",
    }
    path = write_hspy(tmp_path / "scan.hspy", {"first": (cube, scan_axes, metadata)})
    image = load(path)
    assert image.dims == ("y", "x", "energy")
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_allclose(image["y"], [0, 0.5, 1])
    np.testing.assert_allclose(image["x"], [1, 1.25, 1.5, 1.75])
    np.testing.assert_allclose(image["energy"], 700 + 8 * np.arange(5))
    assert [image[dim].attrs["units"] for dim in image.dims] == ["nm", "nm", "eV"]
    assert image["energy"].attrs["long_name"] == "Energy loss"
    assert image.name == "A scan"
    assert image.attrs == {
        "units": "Counts",
        "long_name": "Intensity",
        "signal_type": "EELS",
        "original_filename": "raw.dm4",
        "dataset": "first",
        "source": "scan.hspy",
    }


def test_unnamed_axes_and_absent_units(tmp_path: Path, write_hspy: Write, cube: np.ndarray) -> None:
    said = {"name": "_None_", "units": "<undefined>", "scale": 1.0, "offset": 0.0}
    axes = [{**said, "navigate": navigate} for navigate in (True, True, False)]
    image = load(write_hspy(tmp_path / "a.hspy", {"a": (cube, axes, {})}))
    assert image.dims == ("y", "x", "channel")
    assert all("units" not in image[dim].attrs for dim in image.dims)
    assert "units" not in image.attrs


def test_spectral_axis_is_put_last(tmp_path: Path, write_hspy: Write, cube: np.ndarray) -> None:
    names = [("Energy", False), ("y", True), ("x", True)]
    axes = [{"name": n, "navigate": v, "scale": 1.0, "offset": 0.0, "units": ""} for n, v in names]
    image = load(write_hspy(tmp_path / "a.hspy", {"a": (cube, axes, {})}))
    assert image.dims == ("y", "x", "energy")
    np.testing.assert_array_equal(image.values, cube.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("navigate", "dims"),
    [
        ((False, False), ("y", "x")),
        ((True, False), ("x", "channel")),
        ((False,), ("channel",)),
        ((True, False, False), ("frame", "y", "x")),
        ((True, True, False, False), ("y", "x", "ky", "kx")),
        ((True, True, True, False), ("z", "y", "x", "channel")),
    ],
)
def test_names_of_unnamed_axes(
    tmp_path: Path, write_hspy: Write, navigate: tuple[bool, ...], dims: tuple[str, ...]
) -> None:
    data = np.arange(2.0 ** len(navigate)).reshape((2,) * len(navigate))
    axes = [{"name": "", "navigate": flag, "scale": 1.0, "offset": 0.0, "units": ""} for flag in navigate]
    image = load(write_hspy(tmp_path / "a.hspy", {"a": (data, axes, {})}))
    assert image.dims == dims
    np.testing.assert_array_equal(image.values, data)


def test_axis_given_point_by_point(tmp_path: Path, write_hspy: Write) -> None:
    points = np.array([1.0, 2.0, 4.0, 8.0])
    axes = [
        {"name": "x", "navigate": True, "scale": 1.0, "offset": 0.0, "units": "nm"},
        {"name": "Wavelength", "navigate": False, "units": "nm", "axis": points},
    ]
    image = load(write_hspy(tmp_path / "a.hspy", {"a": (np.eye(3, 4), axes, {})}))
    assert image.dims == ("x", "wavelength")
    np.testing.assert_array_equal(image["wavelength"], points)


@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<u4", ">u8", "<f8", "u1", "<f2"])
def test_types_and_byte_orders(tmp_path: Path, write_hspy: Write, dtype: str) -> None:
    data = np.array([[1, 2, 3], [40, 50, 60]]).astype(dtype)
    axes = [{"name": n, "navigate": n == "x", "scale": 1.0, "offset": 0.0, "units": ""} for n in ("x", "e")]
    image = load(write_hspy(tmp_path / "a.hspy", {"a": (data, axes, {})}))
    assert image.dtype == np.dtype(dtype)
    assert image.values.tolist() == [[1, 2, 3], [40, 50, 60]]


def test_several_experiments_are_listed_and_chosen(
    tmp_path: Path, write_hspy: Write, cube: np.ndarray, scan_axes: list[dict[str, Any]]
) -> None:
    spectrum = cube[0, 0].astype("f4")
    path = write_hspy(tmp_path / "two.hspy", {"low": (cube, scan_axes, {}), "core": (spectrum, scan_axes[2:], {})})
    with pytest.raises(LoadError, match=r"2 data sets.*dataset=") as caught:
        load(path)
    assert "'low'  shape (3, 4, 5)  int16" in str(caught.value)
    assert "'core'  shape (5,)  float32" in str(caught.value)
    np.testing.assert_array_equal(load(path, dataset="core"), spectrum)
    with pytest.raises(LoadError, match="no data set called 'high'"):
        load(path, dataset="high")
    listed = {entry.name: entry for entry in info(path)}
    assert listed["low"].shape == (3, 4, 5)
    assert listed["low"].dims == ("y", "x", "energy")
    assert listed["low"].units == {"y": "nm", "x": "nm", "energy": "eV"}
    assert listed["core"].dtype == "float32"


def test_info_reads_no_values(
    tmp_path: Path, write_hspy: Write, monkeypatch: pytest.MonkeyPatch, scan_axes: list[dict[str, Any]]
) -> None:
    path = write_hspy(tmp_path / "a.hspy", {"a": (np.zeros((3, 4, 5)), scan_axes, {})})
    monkeypatch.setattr("bayesunmix.data.lazy._fetch_hdf5", lambda *_: pytest.fail("values were read"))
    assert info(path)[0].shape == (3, 4, 5)


def _without_axis(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["Experiments/a/axis-1"]


def _with_wrong_size(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["Experiments/a/axis-1"].attrs["size"] = 9


def _with_formula(path: Path) -> None:
    with h5py.File(path, "a") as file:
        attrs = file["Experiments/a/axis-2"].attrs
        del attrs["scale"]
        attrs["expression"] = "a * x + b"


def _without_data(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["Experiments/a/data"]


def _without_experiments(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["Experiments/a"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_axis, "'axis-1'"),
        (_with_wrong_size, "axis 1 has 9 points, the data 4"),
        (_with_formula, "convert_to_non_uniform_axis"),
        (_without_data, "expected an array 'data'"),
        (_without_experiments, "holds no experiment"),
    ],
)
def test_incomplete_files(
    tmp_path: Path,
    write_hspy: Write,
    cube: np.ndarray,
    scan_axes: list[dict[str, Any]],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    path = write_hspy(tmp_path / "a.hspy", {"a": (cube, scan_axes, {})})
    damage(path)
    with pytest.raises(LoadError, match=message):
        load(path)


def test_ragged_signal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ragged.hspy"
    with h5py.File(path, "w") as file:
        file.attrs["file_format"] = "HyperSpy"
        group = file.create_group("Experiments/a")
        group.create_dataset("data", shape=(2,), dtype=h5py.vlen_dtype(np.float64))
    with pytest.raises(LoadError, match="ragged"):
        load(path)


def test_agrees_with_rosettasciio(tmp_path: Path, cube: np.ndarray) -> None:
    """A file written by RosettaSciIO is read here; a real one is read by both."""
    hspy = pytest.importorskip("rsciio.hspy", reason="RosettaSciIO is not installed")
    axis = {"_type": "UniformDataAxis", "is_binned": False}
    said = [("y", "nm", 0.5, True), (None, None, 1.0, True), ("Energy", "keV", 0.02, False)]
    signal = {
        "data": cube.astype(">i2"),
        "axes": [
            {
                **axis,
                "name": n,
                "units": u,
                "scale": s,
                "offset": 0.1,
                "size": k,
                "navigate": v,
                "index_in_array": i,
            }
            for i, ((n, u, s, v), k) in enumerate(zip(said, cube.shape, strict=True))
        ],
        "metadata": {"General": {"title": "map/1"}, "Signal": {"signal_type": "EDS_TEM"}},
        "original_metadata": {},
        "learning_results": {},
        "package_info": {"package": "hyperspy", "package_version": "2"},
        "attributes": {"_lazy": False, "ragged": False},
        "models": {},
        "tmp_parameters": {},
    }
    path = tmp_path / "written.hspy"
    hspy.file_writer(str(path), signal)
    image = load(path)
    np.testing.assert_array_equal(image.values, cube)
    assert image.dims == ("y", "x", "energy")
    assert image.attrs["signal_type"] == "EDS_TEM"
    assert image.name == "map_1"
    np.testing.assert_allclose(image["energy"], 0.1 + 0.02 * np.arange(5))


@pytest.mark.parametrize(
    "name",
    ["eels_cuzn/CuZn_EELS_mapping_tutorial.hspy", "eds_fept/core_shell.hspy", "eels_cuzn/CuZn_HAADF.hspy"],
)
def test_real_files_agree_with_rosettasciio(real_data: Callable[[str], Path], name: str) -> None:
    hspy = pytest.importorskip("rsciio.hspy", reason="RosettaSciIO is not installed")
    path = real_data(name)
    (expected,) = hspy.file_reader(str(path))
    image = load(path)
    np.testing.assert_array_equal(image.values, expected["data"])
    for dim, axis in zip(image.dims, expected["axes"], strict=True):
        np.testing.assert_allclose(image[dim], axis["offset"] + axis["scale"] * np.arange(axis["size"]))
        assert image[dim].attrs == {"units": axis["units"], "long_name": axis["name"]}


def _write_zspy(path: Path, data: np.ndarray, separator: str = "/", filters: Any = None) -> Path:
    """The files of a Zarr 2 folder as HyperSpy leaves it, with one uncompressed chunk."""

    def node(name: str, **files: dict[str, Any]) -> Path:
        folder = path / name
        folder.mkdir(parents=True)
        for kind, content in files.items():
            (folder / f".{kind}").write_text(json.dumps(content))
        return folder

    group = {"zarr_format": 2}
    node(".", zgroup=group, zattrs={"file_format": "HyperSpy", "file_format_version": "3.3"})
    for name in ("Experiments", "Experiments/a", "Experiments/a/metadata"):
        node(name, zgroup=group)
    for i, (name, units) in enumerate((("y", "nm"), ("x", "nm"), ("Energy loss", "eV"))):
        axis = {"name": name, "units": units, "scale": 2.0, "offset": 1.0, "navigate": i < 2}
        node(f"Experiments/a/axis-{i}", zgroup=group, zattrs={**axis, "size": data.shape[i]})
    node("Experiments/a/metadata/General", zgroup=group, zattrs={"title": "zipped"})
    header = {
        "zarr_format": 2,
        "shape": data.shape,
        "chunks": data.shape,
        "dtype": data.dtype.str,
        "compressor": None,
        "fill_value": 0,
        "order": "C",
        "filters": filters,
        "dimension_separator": separator,
    }
    chunk = node("Experiments/a/data", zarray=header) / separator.join("000")
    chunk.parent.mkdir(parents=True, exist_ok=True)
    chunk.write_bytes(pickle.dumps(data) if filters else data.tobytes())
    return path


@pytest.mark.parametrize("dtype", ["<i2", ">f4"])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_zspy(tmp_path: Path, cube: np.ndarray, dtype: str, separator: str, kind: str) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    path = _write_zspy(tmp_path / "a.zspy", cube.astype(dtype), separator)
    if kind == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "zipped"), "zip", path)).rename(tmp_path / "b.zspy")
    image = load(path)
    assert image.dims == ("y", "x", "energy")
    np.testing.assert_array_equal(image.values, cube)
    np.testing.assert_allclose(image["energy"], 1 + 2 * np.arange(5))
    assert image["energy"].attrs["units"] == "eV"
    assert image.name == "zipped"


def test_zspy_with_a_pickle_codec_is_refused(tmp_path: Path, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    path = _write_zspy(tmp_path / "a.zspy", cube, filters=[{"id": "pickle", "protocol": 5}])
    monkeypatch.setattr("numcodecs.pickles.pickle.loads", lambda *_: pytest.fail("a pickle was read"))
    with pytest.raises(LoadError, match="pickle"):
        load(path)


def test_zspy_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("zarr", reason="zarr is not installed")
    (tmp_path / "empty.zspy").mkdir()
    (tmp_path / "text.zspy").write_text("no zarr")
    for name in ("empty.zspy", "text.zspy"):
        with pytest.raises(LoadError, match="expected a Zarr group"):
            load(tmp_path / name)


def test_zspy_without_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    (tmp_path / "a.zspy").mkdir()
    with pytest.raises(LoadError, match=r"bayesunmix\[io\]"):
        load(tmp_path / "a.zspy")
