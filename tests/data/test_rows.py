"""Images that stay in their file are an array to everyone who asks for some of their pixels."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.data import as_units, data_hash, load, units
from bayesunmix.data.rows import Rows


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image counts as large, and is read two rows at a time."""
    monkeypatch.setattr(units, "_IN_FILE_BYTES", 0)
    monkeypatch.setattr("bayesunmix.data.rows.BLOCK_BYTES", 2 * 6 * 4 * 4)


def image(values: np.ndarray | None = None) -> xr.DataArray:
    values = np.random.default_rng(0).normal(size=(7, 6, 4)).astype(np.float32) if values is None else values
    return xr.DataArray(da.from_array(values, chunks=(3, *values.shape[1:])), dims=("y", "x", "energy"))


def test_rows_are_those_of_the_array() -> None:
    lazy = image()
    keep = np.random.default_rng(1).random((7, 6)) < 0.7
    found, whole = as_units(lazy, mask=keep).values, lazy.values[keep]
    assert isinstance(found, Rows)
    assert (found.shape, found.ndim, found.dtype, found.size) == (whole.shape, 2, np.float32, whole.size)
    assert (len(found), found.nbytes) == (len(whole), whole.nbytes)
    some = np.array([20, 3, 3, 11])
    for key in (slice(None), slice(2, 9), slice(1, None, 5), slice(4, 4), some, 5, -1):
        np.testing.assert_array_equal(found[key], whole[key])
    np.testing.assert_array_equal(np.asarray(found), whole)


def test_the_hash_is_that_of_the_array_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = image()
    in_file = data_hash(as_units(lazy))
    monkeypatch.setattr(units, "_IN_FILE_BYTES", 2**27)
    assert data_hash(as_units(lazy)) == in_file


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, np.float32), (np.int64, np.float64), (np.float16, np.float32)]
)
def test_numbers_keep_their_precision(dtype: type, expected: type) -> None:
    values = (np.arange(7 * 6 * 4) % 200).reshape(7, 6, 4).astype(dtype)
    if dtype is np.int64:
        values[3, 2, 1] = 2**40
    found = as_units(image(values)).values
    assert found.dtype == expected
    np.testing.assert_array_equal(found[:], values.reshape(-1, 4).astype(expected))


def test_what_cannot_be_fitted_is_found_wherever_it_is() -> None:
    good = image().values
    for place, value, likelihood, words in (
        ((6, 5, 3), np.nan, "normal", "1 NaN.*y=6, x=5"),
        ((5, 0, 0), np.inf, "normal", "infinite values.*y=5, x=0"),
        ((4, 1, 2), -1.0, "poisson", "negative values.*y=4, x=1"),
        ((4, 1, 2), 0.5, "poisson", "fractions.*y=4, x=1"),
    ):
        bad = np.abs(good).round() if likelihood == "poisson" else good.copy()
        bad[place] = value
        with pytest.raises(ValueError, match=words):
            as_units(image(bad), likelihood=likelihood)
    with pytest.raises(ValueError, match="constant image"):
        as_units(image(np.ones((7, 6, 4), np.float32)))
    empty = good.copy()
    empty[2, 3] = empty[6, 0] = 0.0
    with pytest.warns(UserWarning, match="2 of 42 kept pixels"):
        as_units(image(empty))


def test_gaps_are_left_out_or_kept() -> None:
    holed = image().values
    holed[1, 1, 2] = np.inf
    assert as_units(image(holed), mask="finite").n_units == 41
    kept = as_units(image(holed), mask="finite", entries=True).values
    np.testing.assert_array_equal(np.argwhere(np.isnan(kept[:])), [[7, 2]])


@pytest.mark.parametrize("where", ["hdf5", "zarr"])
def test_a_file_is_fitted_where_it_lies(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws as from the array in memory, and maps of every pixel; zarr by way of dask."""
    monkeypatch.setattr("bayesunmix.data.files.EAGER_BYTES", 0)
    rng = np.random.default_rng(0)
    spectra = np.array([[1.0, 0.6, 0.3, 0.2], [0.2, 0.3, 0.8, 1.0]])
    values = rng.dirichlet(np.ones(2), (16, 16)) @ spectra + 0.05 * rng.normal(size=(16, 16, 4))
    scan = xr.DataArray(values.astype(np.float32), dims=("y", "x", "energy"), name="scan")
    if where == "hdf5":
        scan.to_netcdf(tmp_path / "scan.nc", engine="h5netcdf")
        lazy = load(tmp_path / "scan.nc")
    else:
        pytest.importorskip("zarr")
        # Not by xarray, whose oldest version knows no released zarr 3.
        da.from_array(scan.values, chunks=(8, 16, 4)).to_zarr(tmp_path / "scan.zarr")
        lazy = scan.copy(data=da.from_zarr(tmp_path / "scan.zarr"))
        assert lazy.chunks is not None
    settings = bu.SVI(batch=64, draws=50)
    fits = [bu.fit(bu.models.LinearUnmixing(2), each, settings, progress=False) for each in (scan, lazy)]
    xr.testing.assert_equal(fits[0].posterior, fits[1].posterior)
    maps = [fit.latent(draws=10)["abundance"] for fit in fits]
    np.testing.assert_array_equal(maps[0], maps[1])
    drawn = [fit.sample_latent(5, path=tmp_path / f"{name}.nc") for fit, name in zip(fits, "ab", strict=True)]
    xr.testing.assert_identical(drawn[0].load(), drawn[1].load())


def test_nothing_asks_for_all_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit, maps and draws of an image of 36 MiB, checked and read some at a time."""
    monkeypatch.setattr("bayesunmix.data.rows.BLOCK_BYTES", 2**20)
    monkeypatch.setattr(units, "_SLAB_BYTES", 2**24)
    rng = np.random.default_rng(0)
    spectra = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 256) * np.array([[1.0], [2.3]])))
    values = rng.dirichlet(np.ones(2), (192, 192)) @ spectra + 0.05 * rng.normal(size=(192, 192, 256))
    lazy = image(values.astype(np.float32))
    asked: list[int] = []
    read = Rows._read
    monkeypatch.setattr(Rows, "_read", lambda self, positions: asked.append(len(positions)) or read(self, positions))
    fit = bu.fit(bu.models.LinearUnmixing(2), lazy, bu.SVI(batch=2048, draws=50), progress=False)
    fit.latent()
    fit.sample_latent(5, path=tmp_path / "draws.nc").close()
    assert sum(asked) > 3 * 192**2
    assert max(asked) < 192**2, asked
