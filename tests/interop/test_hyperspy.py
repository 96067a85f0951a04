"""Against the real HyperSpy and eXSpy: axes, units, masks, lazy signals, decompositions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from two_lines import LINES, SHARES, bare, imported, mixture

import bayesunmix as bu

hs = imported("hyperspy.api")


@pytest.fixture
def signal(image: xr.DataArray) -> Any:
    """The image as a user would build it in HyperSpy."""
    axes = [
        {"name": "y", "scale": 0.5, "offset": 5.0, "units": "nm", "size": 6},
        {"name": "x", "scale": 2.0, "units": "nm", "size": 8},
        {"name": "Energy loss", "scale": 0.25, "offset": 100.0, "units": "eV", "size": 12},
    ]
    made = hs.signals.Signal1D(mixture(), axes=axes)
    made.metadata.General.title = "lines"
    made.metadata.set_item("Signal.quantity", "intensity (counts)")
    return made


def test_a_signal_is_what_its_file_is(signal: Any, image: xr.DataArray, tmp_path: Path) -> None:
    converted = bu.from_hyperspy(signal)
    xr.testing.assert_identical(bare(converted), bare(image))
    assert converted.attrs == {"units": "counts", "long_name": "intensity", "dataset": "lines"}
    signal.save(tmp_path / "lines.hspy")
    read = bu.load(tmp_path / "lines.hspy").load()
    del read.attrs["source"]
    xr.testing.assert_identical(converted, read)


def test_values_are_shared(signal: Any) -> None:
    assert np.shares_memory(bu.from_hyperspy(signal).values, signal.data)


def test_a_lazy_signal_stays_lazy(signal: Any, image: xr.DataArray) -> None:
    lazy = signal.as_lazy()
    converted = bu.from_hyperspy(lazy)
    assert converted.chunks is not None
    np.testing.assert_array_equal(converted, image)
    back = bu.to_hyperspy(converted)
    assert back._lazy
    np.testing.assert_array_equal(back.data.compute(), image)


def test_exspy_signals_keep_their_type(image: xr.DataArray) -> None:
    exspy = imported("exspy")
    eds = exspy.signals.EDSTEMSpectrum(np.random.default_rng(0).poisson(5, (3, 4, 10)))
    eds.axes_manager[-1].units = "keV"
    counts = bu.from_hyperspy(eds)
    assert counts.dims == ("y", "x", "energy") or counts.dims == ("y", "x", "channel")
    assert counts.dtype.kind == "i"
    assert counts.attrs["signal_type"] == "EDS_TEM"
    assert type(bu.to_hyperspy(counts)) is exspy.signals.EDSTEMSpectrum
    assert type(bu.to_hyperspy(image)) is exspy.signals.EELSSpectrum


def test_there_and_back(signal: Any) -> None:
    back = bu.to_hyperspy(bu.from_hyperspy(signal))
    assert back.axes_manager.as_dictionary() == signal.axes_manager.as_dictionary()
    assert back.metadata.Signal.quantity == "intensity (counts)"
    np.testing.assert_array_equal(back.data, signal.data)


def test_uneven_axes_keep_their_values(image: xr.DataArray) -> None:
    energy = np.sort(np.random.default_rng(0).uniform(100, 200, 12))
    uneven = image.assign_coords(energy=image["energy"].copy(data=energy))
    back = bu.to_hyperspy(uneven)
    assert not back.axes_manager.signal_axes[0].is_uniform
    np.testing.assert_array_equal(bu.from_hyperspy(back)["energy"], energy)


def test_masks_are_turned_round(signal: Any) -> None:
    """HyperSpy's own decomposition leaves out the pixels that bu.fit leaves out."""
    dark = signal.isig[:6].sum(-1) < 1.0
    assert 0 < dark.data.sum() < dark.data.size
    keep = bu.from_hyperspy(dark)
    assert keep.dims == ("y", "x")
    np.testing.assert_array_equal(keep, ~dark.data)
    np.testing.assert_array_equal(bu.to_hyperspy(keep).data, dark.data)
    signal.decomposition(navigation_mask=bu.to_hyperspy(keep), print_info=False, output_dimension=2)
    left_out = np.isnan(signal.learning_results.loadings[:, 0]).reshape(6, 8)
    fit = bu.fit(bu.models.ProbabilisticPCA(1), bu.from_hyperspy(signal), mask=keep, progress=False)
    np.testing.assert_array_equal(np.isnan(fit.data[..., 0]), left_out)


def test_a_fit_holds_its_decomposition(fitted: Any, image: xr.DataArray) -> None:
    made = bu.to_hyperspy(fitted)
    loadings = made.get_decomposition_loadings()
    assert [a.units for a in loadings.axes_manager.signal_axes] == ["nm", "nm"]
    maps = fitted.latent()["score"].sel(statistic="mean")[..., 0]
    np.testing.assert_array_equal(loadings.data[0], maps)
    factors = made.get_decomposition_factors()
    np.testing.assert_allclose(factors.data[0], fitted.posterior["components"].mean(("chain", "draw"))[0])
    np.testing.assert_allclose(factors.data[1], fitted.posterior["mean"].mean(("chain", "draw")))
    assert made.learning_results.navigation_mask.sum() == 2
    error = (made.get_decomposition_model().data - image.values)[fitted.units.keep]
    # Of 46 spectra of 12 channels; mean, one component and its scores take 69 degrees of freedom less one.
    left = 1 - 68 / error.size
    assert error.size == 46 * 12
    spread = 4 / np.sqrt(2 * left * error.size)
    assert error.std() == pytest.approx(0.01 * np.sqrt(left), rel=spread), "the mean is part of the model"
    sd = fitted.latent()["score"].sel(statistic="sd")
    np.testing.assert_array_equal(made.learning_results.loadings_sd[:, 0], sd.values.ravel())
    shown = bu.to_hyperspy(sd, signal_dims=("y", "x"))
    assert shown.axes_manager.signal_shape == (8, 6)
    made.plot_decomposition_loadings()


def test_standard_deviations_are_saved_with_the_signal(fitted: Any, tmp_path: Path) -> None:
    made = bu.to_hyperspy(fitted)
    made.save(tmp_path / "fit.hspy")
    read = hs.load(tmp_path / "fit.hspy")
    for name in ("factors", "factors_sd", "loadings", "loadings_sd", "navigation_mask"):
        np.testing.assert_array_equal(getattr(read.learning_results, name), getattr(made.learning_results, name))


NEW = tuple(map(int, hs.__version__.split(".")[:2])) >= (2, 5)


@pytest.mark.parametrize(
    "lazy",
    [False, pytest.param(True, marks=pytest.mark.skipif(not NEW, reason="lazy estimators came with HyperSpy 2.5"))],
)
def test_the_estimator_decomposes_a_signal(signal: Any, lazy: bool) -> None:
    """Chunks of a lazy signal arrive block by block: maps must come out in the order of pixels all the same."""
    before = signal.data.copy()
    chosen = signal.as_lazy() if lazy else signal
    if lazy:
        chosen.rechunk(nav_chunks=(3, 4))
    estimator = bu.Estimator(bu.models.ProbabilisticPCA(2), append_mean=True, progress=False)
    chosen.decomposition(algorithm=estimator, print_info=False)
    np.testing.assert_array_equal(signal.data, before)
    model = chosen.get_decomposition_model()
    data = model.data.compute() if lazy else model.data
    assert np.abs(data - before).max() < 0.05, "five standard deviations of the noise"
    score = chosen.get_decomposition_loadings().data[0]
    assert abs(np.corrcoef(score.ravel(), SHARES.ravel())[0, 1]) > 0.99


def test_masked_decomposition_unmixes_what_is_left(signal: Any) -> None:
    """Unmixing through HyperSpy, with HyperSpy's masks of pixels and of channels."""
    pixels = np.zeros((6, 8), bool)
    pixels[:, :2] = True
    channels = np.arange(12) > 10
    estimator = bu.Estimator(bu.models.LinearUnmixing(n_endmembers=2), progress=False)
    signal.decomposition(
        algorithm=estimator, navigation_mask=hs.signals.Signal2D(pixels).T, signal_mask=channels, print_info=False
    )
    assert estimator.fit_.units.values.shape == (36, 11)
    maps, spectra = signal.get_decomposition_loadings().data, signal.get_decomposition_factors().data
    assert np.isnan(maps[:, pixels]).all()
    assert np.isnan(spectra[:, channels]).all()
    first = int(np.argmax([np.corrcoef(m[~pixels], SHARES[~pixels])[0, 1] for m in maps]))
    error = maps[first][~pixels] - SHARES[~pixels]
    assert np.abs(error).max() < 0.1
    np.testing.assert_allclose(spectra[first][~channels], LINES[0][~channels], atol=0.1)
    np.testing.assert_allclose(np.nansum(maps, axis=0)[~pixels], 1, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), "lines.hspy", None])
def test_what_is_no_signal_says_so(wrong: Any) -> None:
    with pytest.raises(TypeError, match="expected a HyperSpy signal, got"):
        bu.from_hyperspy(wrong)
    with pytest.raises(TypeError, match=r"expected a Fit or an xarray\.DataArray, got"):
        bu.to_hyperspy(wrong)


def test_dims_that_do_not_exist_are_named(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"signal_dims: expected some of \('y', 'x', 'energy'\), got \('kx',\)"):
        bu.to_hyperspy(image, signal_dims=("kx",))


def test_a_measured_map_is_what_its_file_is(real_data: Callable[[str], Path]) -> None:
    path = real_data("eels_cuzn/CuZn_EELS_mapping_tutorial.hspy")
    imported("exspy")
    converted, read = bu.from_hyperspy(hs.load(path, lazy=True)), bu.load(path)
    assert converted.chunks is not None
    assert (converted.dims, converted.shape, converted.dtype) == (read.dims, read.shape, read.dtype)
    for dim in read.dims:
        xr.testing.assert_identical(converted[dim], read[dim])
    assert converted.attrs["signal_type"] == read.attrs["signal_type"] == "EELS"
    np.testing.assert_array_equal(converted[2, 3], read[2, 3])
