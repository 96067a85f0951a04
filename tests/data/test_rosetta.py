"""Formats of instrument makers, through RosettaSciIO."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayesunmix.data import LoadError, info, load

MSA = """#FORMAT      : EMSA/MAS Spectral Data File
#VERSION     : 1.0
#TITLE       : a spectrum
#DATE        : 01-JAN-2020
#TIME        : 12:00
#OWNER       : nobody
#NPOINTS     : 4
#NCOLUMNS    : 1
#XUNITS      : eV
#YUNITS      : counts
#DATATYPE    : Y
#XPERCHAN    : 0.5
#OFFSET      : 100.0
#SIGNALTYPE  : EDS
#SPECTRUM    : Spectral Data Starts Here
1.0,
2.0,
3.0,
5.0,
#ENDOFDATA   :
"""


@pytest.fixture
def rsciio() -> Any:
    """RosettaSciIO, or a skip."""
    return pytest.importorskip("rsciio", reason="RosettaSciIO is not installed")


def test_msa(tmp_path: Path, rsciio: Any) -> None:
    """A reader that is not lazy."""
    path = tmp_path / "a.msa"
    path.write_text(MSA)
    spectrum = load(path)
    assert spectrum.dims in (("energy",), ("channel",))
    np.testing.assert_array_equal(spectrum.values, [1, 2, 3, 5])
    np.testing.assert_allclose(spectrum[spectrum.dims[0]], [100, 100.5, 101, 101.5])
    assert spectrum[spectrum.dims[0]].attrs["units"] == "eV"
    assert spectrum.name == "a spectrum"


@pytest.mark.parametrize("name", ["CuO", "Cu2O", "Cu_Metal"])
def test_real_dm4(real_data: Callable[[str], Path], rsciio: Any, name: str) -> None:
    path = real_data(f"eels_cu_oxides/{name}_Deconvolved_Spectrum.dm4")
    from rsciio.digitalmicrograph import file_reader

    (expected,) = file_reader(str(path))
    spectrum = load(path)
    assert spectrum.dims == ("energy",)
    assert spectrum["energy"].attrs == {"units": "eV", "long_name": "Energy loss"}
    np.testing.assert_array_equal(spectrum.values, expected["data"])
    axis = expected["axes"][0]
    np.testing.assert_allclose(spectrum["energy"], axis["offset"] + axis["scale"] * np.arange(axis["size"]))
    assert info(path)[0].units == {"energy": "eV"}


def test_truncated_dm4(tmp_path: Path, real_data: Callable[[str], Path], rsciio: Any) -> None:
    raw = real_data("eels_cu_oxides/CuO_Deconvolved_Spectrum.dm4").read_bytes()
    (tmp_path / "cut.dm4").write_bytes(raw[:3000])
    with pytest.raises(LoadError, match="RosettaSciIO says: digitalmicrograph"):
        load(tmp_path / "cut.dm4")


def test_foreign_content(tmp_path: Path, rsciio: Any) -> None:
    (tmp_path / "a.dm3").write_text("this is no micrograph, whatever its name says")
    with pytest.raises(LoadError, match=r"found text .* RosettaSciIO says"):
        load(tmp_path / "a.dm3")


def _signal(title: str, data: Any) -> dict[str, Any]:
    names = ("", "", "Energy")[-data.ndim :]
    return {
        "data": data,
        "axes": [
            {"name": n, "units": "", "scale": 1.0, "offset": 0.0, "size": s, "navigate": n != "Energy"}
            for n, s in zip(names, data.shape, strict=True)
        ],
        "metadata": {"General": {"title": title}, "Signal": {"quantity": "X-rays (Counts)"}},
    }


def test_several_signals_of_one_title(
    tmp_path: Path, rsciio: Any, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [_signal("EDS", cube), _signal("HAADF", cube[..., 0]), _signal("EDS", 2 * cube)]
    monkeypatch.setattr("rsciio.emd.file_reader", lambda path, lazy: signals)
    path = tmp_path / "a.emd"
    path.write_bytes(b"anything")
    with pytest.raises(LoadError, match=r"3 data sets"):
        load(path)
    assert [entry.name for entry in info(path)] == ["EDS (1)", "HAADF", "EDS (2)"]
    image = load(path, dataset="EDS (2)")
    assert image.dims == ("y", "x", "energy")
    np.testing.assert_array_equal(image.values, 2 * cube)
    assert (image.name, image.attrs["units"]) == ("EDS", "Counts")


def test_large_signals_stay_lazy(
    tmp_path: Path, rsciio: Any, cube: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask_array = pytest.importorskip("dask.array")
    asked: list[bool] = []

    def reader(path: str, lazy: bool) -> list[dict[str, Any]]:
        asked.append(lazy)
        return [_signal("EDS", dask_array.from_array(cube, chunks=(1, 4, 5)))]

    monkeypatch.setattr("rsciio.emd.file_reader", reader)
    path = tmp_path / "a.emd"
    path.write_bytes(b"anything")
    assert load(path).chunks is None
    monkeypatch.setattr("bayesunmix.data.files.EAGER_BYTES", 0)
    image = load(path)
    assert image.chunks == ((1, 1, 1), (4,), (5,))
    np.testing.assert_array_equal(image.values, cube)
    assert asked == [True, True]


def test_damage_that_shows_when_values_are_read(tmp_path: Path, rsciio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dask_array = pytest.importorskip("dask.array")

    def broken(block: np.ndarray) -> np.ndarray:
        raise ArithmeticError("checksum")

    values = dask_array.ones((3, 4, 5), chunks=2).map_blocks(broken, dtype=float, meta=np.ones((0, 0, 0)))
    monkeypatch.setattr("rsciio.emd.file_reader", lambda path, lazy: [_signal("EDS", values)])
    path = tmp_path / "a.emd"
    path.write_bytes(b"anything")
    with pytest.raises(LoadError, match=r"ArithmeticError: checksum\. Copy the file again"):
        load(path)


def test_without_rosettasciio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rsciio", None)
    (tmp_path / "a.dm4").write_bytes(b"\x00\x00\x00\x04")
    with pytest.raises(LoadError, match=r"pip install 'bayesunmix\[io\]'"):
        load(tmp_path / "a.dm4")


def test_unknown_type(tmp_path: Path, rsciio: Any) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04")
    with pytest.raises(LoadError, match=r"no reader knows the file type '\.docx'; it is a zip archive"):
        load(tmp_path / "a.docx")
