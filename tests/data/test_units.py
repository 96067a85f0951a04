"""The door of a fit: what is taken, what is refused, and the way back to the image."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr

from bayesunmix.data import Units, as_units, data_hash, lazy, load


@pytest.fixture
def image() -> xr.DataArray:
    """A calibrated image ``(y 3, x 4, energy 5)``, float64, nowhere zero."""
    energy = xr.DataArray(np.linspace(100, 140, 5), dims="energy", attrs={"units": "eV"})
    coords = {"y": ("y", [0.0, 0.5, 1.0], {"units": "nm"}), "energy": energy, "note": "a scalar"}
    values = np.arange(1, 61, dtype=float).reshape(3, 4, 5)
    return xr.DataArray(values, dims=("y", "x", "energy"), coords=coords, name="scan", attrs={"units": "counts"})


def with_values(image: xr.DataArray, *changes: tuple[tuple[int, ...], float]) -> xr.DataArray:
    """A copy with other values at some places."""
    changed = image.copy(deep=True)
    for place, value in changes:
        changed.values[place] = value
    return changed


# ---------------------------------------------------------------- what comes out


def test_values_index_and_names(image: xr.DataArray) -> None:
    units = as_units(image)
    np.testing.assert_array_equal(units.values, image.values.reshape(12, 5))
    assert units.index.tolist() == list(range(12))
    assert (units.n_units, units.n_channels) == (12, 5)
    assert (units.pixel_dims, units.pixel_shape, units.channel_dim) == (("y", "x"), (3, 4), "energy")
    assert (units.name, units.attrs) == ("scan", {"units": "counts"})
    assert sorted(units.coords) == ["energy", "y"]
    assert units.coords["energy"].attrs["units"] == "eV"
    assert set(units.coords["energy"].coords) == {"energy"}
    assert bool(units.keep.all())


def test_mask_keeps_what_is_true(image: xr.DataArray) -> None:
    keep = np.zeros((3, 4), dtype=bool)
    keep[0, 1] = keep[2, 0] = keep[2, 3] = True
    for mask in (
        keep,
        keep.tolist(),
        xr.DataArray(keep, dims=("y", "x")),
        xr.DataArray(keep.T, dims=("x", "y")),
        xr.DataArray(keep, dims=("y", "x"), coords={"y": image["y"]}),
    ):
        units = as_units(image, mask=mask)
        assert units.index.tolist() == [1, 8, 11]
        np.testing.assert_array_equal(units.values, image.values[keep])
        xr.testing.assert_equal(units.keep, xr.DataArray(keep, dims=("y", "x"), coords={"y": image["y"]}))


def test_a_large_image_is_shared_and_still_read_only(image: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesunmix.data.units._SHARED_BYTES", 0)
    units = as_units(image)
    assert np.shares_memory(units.values, image.values)
    assert image.values.flags.writeable and not units.values.flags.writeable
    part = as_units(image, mask=np.arange(12).reshape(3, 4) > 0)
    assert not np.shares_memory(part.values, image.values)


def test_a_shared_image_that_was_changed_is_told(image: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    own = as_units(image)
    monkeypatch.setattr("bayesunmix.data.units._SHARED_BYTES", 0)
    shared = as_units(image)
    shared.unchanged()
    image.values[1, 2] *= 2.0
    with pytest.raises(ValueError, match=r"changed in place since.*image\.copy\(\)"):
        shared.unchanged()
    own.unchanged()


def test_input_is_not_changed_and_output_is_its_own(image: xr.DataArray) -> None:
    before = image.copy(deep=True)
    units = as_units(image)
    xr.testing.assert_identical(image, before)
    image.values[:] = 0
    image["energy"].attrs["units"] = "keV"
    image.attrs["units"] = "e"
    assert units.values[0, 0] == 1
    assert units.coords["energy"].attrs["units"] == "eV"
    assert units.attrs["units"] == "counts"
    with pytest.raises(ValueError, match="read-only"):
        units.values[0, 0] = 3


@pytest.mark.parametrize(
    ("given", "largest", "expected"),
    [
        ("float64", 9, "float64"),
        ("float32", 9, "float32"),
        ("float16", 9, "float32"),
        (">f8", 9, "float64"),
        (">f4", 9, "float32"),
        ("uint8", 255, "float32"),
        (">i2", 32767, "float32"),
        ("int32", 2**24, "float32"),
        ("int32", 2**24 + 1, "float64"),
        ("uint32", 2**32 - 1, "float64"),
        ("int64", -(2**24) - 1, "float64"),
        (">u8", 2**53, "float64"),
    ],
)
def test_types(given: str, largest: int, expected: str) -> None:
    data = np.array([[1, 2, 3], [4, 5, largest]], dtype=given)
    units = as_units(data)
    assert units.values.dtype == np.dtype(expected)
    assert units.values.dtype.isnative
    assert units.values.tolist() == data.tolist()


def test_integers_that_no_float_holds() -> None:
    with pytest.raises(ValueError, match="do not fit into double precision"):
        as_units(np.array([[1, 2**53 + 1], [3, 4]]))


@pytest.mark.parametrize(("ndim", "pixel_dims"), [(2, ("pixel",)), (3, ("y", "x")), (4, ("frame", "y", "x"))])
def test_bare_arrays(ndim: int, pixel_dims: tuple[str, ...]) -> None:
    units = as_units(np.arange(1.0, 1 + 2**ndim).reshape((2,) * ndim))
    assert (units.pixel_dims, units.channel_dim, units.coords) == (pixel_dims, "channel", {})


def test_other_arrays(image: xr.DataArray) -> None:
    """Nested lists and arrays of JAX give the same as NumPy's."""
    jnp = pytest.importorskip("jax.numpy")
    expected = as_units(image.values.astype("f4"))
    for data in (image.values.tolist(), jnp.asarray(image.values, dtype="float32")):
        np.testing.assert_array_equal(as_units(data).values, expected.values)


@pytest.mark.parametrize("mask", [None, "finite"])
def test_dask(image: xr.DataArray, mask: Any) -> None:
    pytest.importorskip("dask.array")
    image = with_values(image, ((1, 2, 3), np.nan)) if mask else image
    for chunks in ({"y": 2, "x": 3, "energy": 2}, {"y": -1}, {"y": 1}):
        chunked = image.chunk(chunks)
        units = as_units(chunked, mask=mask)
        np.testing.assert_array_equal(units.values, as_units(image, mask=mask).values)
        assert chunked.chunks is not None
    np.testing.assert_array_equal(as_units(image.fillna(7).chunk().data).values, image.fillna(7).values.reshape(12, 5))


def test_data_in_a_file_are_read_a_slab_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).normal(size=(7, 4, 5))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan"] = data
    monkeypatch.setattr("bayesunmix.data.files.EAGER_BYTES", 0)
    monkeypatch.setattr("bayesunmix.data.units._SLAB_BYTES", 2 * 4 * 5 * 8)
    shapes = []
    original = lazy._fetch_hdf5

    def fetch(*args: Any) -> np.ndarray:
        block = original(*args)
        shapes.append(block.shape)
        return block

    monkeypatch.setattr(lazy, "_fetch_hdf5", fetch)
    units = as_units(load(tmp_path / "a.h5"))
    np.testing.assert_array_equal(units.values, data.reshape(28, 5))
    assert shapes == [(2, 4, 5), (2, 4, 5), (2, 4, 5), (1, 4, 5)]


def test_one_and_three_pixel_dims(image: xr.DataArray) -> None:
    assert as_units(image[0]).pixel_shape == (4,)
    movie = xr.concat([image, image + 1], dim="time")
    units = as_units(movie)
    assert (units.pixel_dims, units.pixel_shape) == (("time", "y", "x"), (2, 3, 4))
    np.testing.assert_array_equal(units.to_map(units.values, ("energy",)).values, movie.values)


def test_stacked_pixels(image: xr.DataArray) -> None:
    """A multi-index of pixels is accepted; its tuples are no coordinate."""
    units = as_units(image.stack(place=("y", "x")).transpose("place", "energy"))
    assert units.pixel_dims == ("place",)
    assert sorted(units.coords) == ["energy"]


@pytest.mark.parametrize(
    "name",
    [
        "eels_cuzn/CuZn_EELS_mapping_tutorial.hspy",
        "cafm_bfo_iv/bfo_iv_final.hf5",
        "eels_lsmo_sto/LSMO_linescan.hspy",
    ],
)
def test_real_images(real_data: Callable[[str], Path], name: str) -> None:
    image = load(real_data(name))
    units = as_units(image)
    assert units.n_units == int(np.prod(image.shape[:-1]))
    back = units.to_map(units.values, (units.channel_dim,))
    xr.testing.assert_allclose(back, image.astype(units.values.dtype))


def test_real_counts(real_data: Callable[[str], Path]) -> None:
    """EDS counts, 32-bit integers, pass as counts in single precision."""
    image = load(real_data("eds_fept/core_shell.hspy"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        units = as_units(image, likelihood="poisson")
    assert units.values.dtype == np.float32
    np.testing.assert_array_equal(units.values, image.values.reshape(-1, 992))
    empty = int((image.values.sum(axis=-1) == 0).sum())
    assert len(caught) == int(empty > 0)


# ---------------------------------------------------------------- back to the image


def test_to_map(image: xr.DataArray) -> None:
    keep = image.values[..., 0] > 20
    units = as_units(image, mask=keep)
    back = units.to_map(units.values, ("energy",))
    assert back.dims == ("y", "x", "energy")
    xr.testing.assert_equal(back, image.drop_vars("note").where(xr.DataArray(keep, dims=("y", "x"))))
    assert back["energy"].attrs["units"] == "eV"
    draws = np.arange(2.0 * 3 * units.n_units).reshape(2, 3, units.n_units)
    mapped = units.to_map(draws, ("chain", "draw"), coords={"draw": [10, 20, 30]}, axis=-1)
    assert mapped.dims == ("y", "x", "chain", "draw")
    assert mapped["draw"].values.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(mapped.values[keep], np.moveaxis(draws, -1, 0))
    assert bool(np.isnan(mapped.values[~keep]).all())


@pytest.mark.parametrize(
    ("dtype", "fill", "expected"),
    [
        ("float32", np.nan, "float32"),
        ("int64", np.nan, "float64"),
        ("bool", np.nan, "float64"),
        ("int32", -1, "int32"),
        ("bool", False, "bool"),
    ],
)
def test_to_map_types_and_fill(image: xr.DataArray, dtype: str, fill: Any, expected: str) -> None:
    keep = np.ones((3, 4), dtype=bool)
    keep[1, 1] = False
    units = as_units(image, mask=keep)
    mapped = units.to_map(np.ones(11, dtype=dtype), fill=fill)
    assert mapped.dtype == np.dtype(expected)
    np.testing.assert_array_equal(mapped.values[1, 1], fill)
    assert bool((mapped.values[keep] == 1).all())


def test_to_map_of_wrong_shape(image: xr.DataArray) -> None:
    units = as_units(image)
    for values, dims in ((np.ones(11), ()), (np.ones((12, 2)), ()), (np.ones(12), ("draw",))):
        with pytest.raises(ValueError, match="expected 12 units followed by axes"):
            units.to_map(values, dims)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((3, 4, 5), dtype=complex), "got complex ones"),
        (np.ones((3, 4, 5), dtype=bool), "got type bool"),
        (np.full((3, 4, 5), "a"), "expected numbers"),
        (np.empty((3, 4, 5), dtype=object), "expected numbers"),
        (np.zeros((3, 4, 5), dtype="datetime64[ns]"), "expected numbers"),
        (np.ma.masked_less(np.arange(60.0).reshape(3, 4, 5), 3), r"mask=~data\.mask"),
        (xr.Dataset({"a": ("x", [1.0])}), "choose one of"),
    ],
)
def test_wrong_types(data: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        as_units(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.arange(5.0), "a single spectrum"),
        (np.float64(3), "a single spectrum"),
        (np.ones((3, 4, 1)), "two or more channels"),
        (np.ones((0, 4, 5)), "at least one pixel"),
        (np.ones((3, 4, 0)), "at least one pixel"),
        (xr.DataArray(np.ones((3, 4)), dims=("y", "x")), "an image without spectra"),
        (xr.DataArray(np.ones((5, 3, 4)), dims=("energy", "y", "x")), r"data\.transpose"),
        (xr.DataArray(np.ones((3, 4, 5)), dims=("y", "unit", "energy")), "meaning of their own"),
        (np.ones((3, 4, 5)), "every kept value is 1.0: a constant image"),
        (np.zeros((3, 4, 5), dtype=int), "every kept value is 0"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], "rows of different lengths"),
        pytest.param(
            np.longdouble(10) ** np.longdouble(1000) * np.arange(60).reshape(3, 4, 5),
            "do not fit into double precision",
            marks=pytest.mark.skipif(np.finfo(np.longdouble).maxexp < 2000, reason="long double is double here"),
        ),
    ],
)
def test_wrong_shapes_and_constant_images(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_units(data)


def test_only_pixels_that_are_zero_in_every_channel_are_announced() -> None:
    values = np.ones((5, 40))
    values[:3] = 0.0
    values[1, -1] = 1.0
    with pytest.warns(UserWarning, match=r"in 2 of 5 kept pixels, at \(pixel=0\), \(pixel=2\)"):
        as_units(values)


def test_dask_of_unknown_size(image: xr.DataArray) -> None:
    array = pytest.importorskip("dask.array").from_array(image.values.reshape(-1, image.shape[-1]), chunks=3)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):
        as_units(array[array[:, 0] >= 0])


def test_nan(image: xr.DataArray) -> None:
    nan = np.nan
    broken = with_values(image, ((0, 2, 1), nan), ((0, 2, 3), nan), ((2, 1, 0), nan))
    with pytest.raises(ValueError, match="hold 3 NaN in 2 of 12 kept pixels") as caught:
        as_units(broken)
    assert "(y=0, x=2), (y=2, x=1)" in str(caught.value)
    assert "mask='finite'" in str(caught.value)
    units = as_units(broken, mask="finite")
    assert units.index.tolist() == [i for i in range(12) if i not in (2, 9)]
    keep = np.ones((3, 4), dtype=bool)
    keep[0, 2] = False
    with pytest.raises(ValueError, match=r"1 NaN in 1 of 11 kept pixels, at \(y=2, x=1\);"):
        as_units(broken, mask=keep)
    keep[2, 1] = False
    np.testing.assert_array_equal(as_units(broken, mask=keep).values, units.values)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinity(image: xr.DataArray, value: float) -> None:
    broken = with_values(image, ((1, 1, 1), value))
    with pytest.raises(ValueError, match=r"1 infinite values in 1 of 12 kept pixels, at \(y=1, x=1\)"):
        as_units(broken)
    assert as_units(broken, mask="finite").n_units == 11
    with pytest.raises(ValueError, match="NaN"):
        as_units(with_values(broken, ((0, 0, 0), np.nan)))
    with pytest.raises(ValueError, match="2 infinite"):
        as_units(with_values(broken, ((0, 0, 0), -value)))


def test_huge_finite_values_are_no_infinity(image: xr.DataArray) -> None:
    units = as_units(with_values(image, ((1, 1, 1), 1.5e308), ((1, 1, 2), 1.5e308)))
    assert units.n_units == 12


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 4), dtype=bool), "keeps none of the 12 pixels.*pass ~mask"),
        (np.ones((3, 4)), r"boolean mask \(True = keep\), got float64; pass mask\.astype\(bool\)"),
        (np.ones((3, 4), dtype=int), r"mask\.astype\(bool\)"),
        (np.ones((4, 3), dtype=bool), r"shape \(3, 4\).*got \(4, 3\)"),
        (np.ones((3, 4, 5), dtype=bool), r"got \(3, 4, 5\)"),
        (np.ones(12, dtype=bool), r"got \(12,\)"),
        ("infinite", "mask='finite', got mask='infinite'"),
        (xr.DataArray(np.ones((3, 4), dtype=bool), dims=("y", "z")), r"pixel dims \('y', 'x'\), got dims"),
        (xr.DataArray(np.ones((3, 4, 5), dtype=bool), dims=("y", "x", "energy")), "got dims"),
        (xr.DataArray(np.ones((3, 4), dtype=bool), dims=("x", "y")), r"got \(4, 3\)"),
        (
            xr.DataArray(np.ones((3, 4), dtype=bool), dims=("y", "x"), coords={"y": [7.0, 8, 9]}),
            "other coordinates along 'y'",
        ),
    ],
)
def test_wrong_masks(image: xr.DataArray, mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_units(image, mask=mask)


def test_nothing_finite(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="every pixel holds NaN or infinity"):
        as_units(image * np.nan, mask="finite")


def test_counts(image: xr.DataArray) -> None:
    assert as_units(image, likelihood="poisson").n_units == 12
    assert as_units(image.astype("u2"), likelihood="poisson").n_units == 12
    negative = with_values(image, ((0, 3, 2), -1.0))
    with pytest.raises(ValueError, match=r"negative values in 1 of 12 kept pixels, at \(y=0, x=3\)"):
        as_units(negative, likelihood="poisson")
    with pytest.raises(ValueError, match="negative values"):
        as_units(negative.astype(int), likelihood="poisson")
    with pytest.raises(ValueError, match=r"fractions in 1 of 12 kept pixels, at \(y=2, x=0\)"):
        as_units(with_values(image, ((2, 0, 4), 1.5)), likelihood="poisson")
    assert as_units(negative).n_units == 12
    mask = negative.values.min(axis=-1) >= 0
    assert as_units(negative, likelihood="poisson", mask=mask).n_units == 11


def test_empty_pixels_are_announced_once(image: xr.DataArray) -> None:
    dark = image.copy(deep=True)
    dark[0] = 0
    dark[2, 3] = 0
    with pytest.warns(UserWarning, match="zero in 5 of 12 kept pixels") as caught:
        units = as_units(dark)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "(y=0, x=0), (y=0, x=1), (y=0, x=2), ..." in message
    assert units.n_units == 12
    advice = re.search(r"mask=(.*)$", message)
    assert advice is not None
    mask = eval(advice[1], {"data": dark})
    assert as_units(dark, mask=mask).n_units == 7


def test_empty_channels_are_accepted(image: xr.DataArray) -> None:
    dark = image.copy(deep=True)
    dark[..., 2] = 0
    assert as_units(dark).n_units == 12


# ---------------------------------------------------------------- provenance


def test_hash_is_what_it_says() -> None:
    for values, dtype in (([[1, 2], [3, 4]], "<f4"), ([[1, 2], [3, 4.1]], "<f8")):
        digest = hashlib.sha256(b"((2,), 2)")
        digest.update(np.array([0, 1], dtype="<i8").tobytes())
        digest.update(np.array(values, dtype=dtype).tobytes())
        assert data_hash(as_units(np.array(values))) == digest.hexdigest()


def test_hash_depends_on_numbers_alone(image: xr.DataArray, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = data_hash(as_units(image))
    for same in (image.astype("f4"), image.astype(">i2"), image.rename("b"), image.values):
        assert data_hash(as_units(same)) == reference
    monkeypatch.setattr("bayesunmix.data.units._SLAB_BYTES", 100)
    assert data_hash(as_units(image)) == reference


def test_hash_tells_data_apart(image: xr.DataArray) -> None:
    keep = np.ones((3, 4), dtype=bool)
    keep[0, 0] = False
    moved = np.ones((3, 4), dtype=bool)
    moved[0, 1] = False
    same_values = with_values(image, *(((0, 1, i), image.values[0, 0, i]) for i in range(5)))
    different = [
        as_units(image),
        as_units(with_values(image, ((0, 0, 0), 1 + 1e-12))),
        as_units(image, mask=keep),
        as_units(same_values, mask=moved),
        as_units(same_values, mask=keep),
        as_units(image.values.reshape(4, 3, 5)),
        as_units(image.values.reshape(12, 5)),
        as_units(image.values.reshape(3, 5, 4)),
    ]
    assert len({data_hash(units) for units in different}) == len(different)


# ---------------------------------------------------------------- properties


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_random_images(seed: int) -> None:
    """Any shape, type, axis order in memory and mask: units and maps are inverse to each other."""
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 6, size=rng.integers(1, 4)), rng.integers(2, 7))
    dtype = rng.choice(["f8", ">f4", "i2", ">u4"])
    values = rng.integers(1, 1000, size=shape).astype(dtype)
    values.flat[0] = 1001  # not constant, if the first pixel is kept
    order = rng.permutation(len(shape))
    laid_out = np.ascontiguousarray(values.transpose(order)).transpose(np.argsort(order))
    names = [f"p{i}" for i in range(len(shape) - 1)]
    image = xr.DataArray(laid_out, dims=(*names, "channel"))
    keep = rng.random(shape[:-1]) < 0.7
    keep.flat[0] = True
    units = as_units(image, mask=xr.DataArray(keep, dims=names).transpose(*names[::-1]))
    assert isinstance(units, Units)
    assert units.n_units == keep.sum()
    xr.testing.assert_equal(units.keep, xr.DataArray(keep, dims=names))
    back = units.to_map(units.values, ("channel",), fill=-1.0)
    np.testing.assert_array_equal(back.values, np.where(keep[..., None], values.astype(float), -1))
