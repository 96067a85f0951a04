"""Draws written a slice of units at a time, beside the same draws put on the grid at once."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix._latent_file import write_draws
from bayesunmix.data.sequences import as_sequences
from bayesunmix.data.units import as_units

fit_module = importlib.import_module("bayesunmix.fit")  # bayesunmix.fit is the function


def test_paths_end_where_their_sequences_end(tmp_path: Path) -> None:
    """The latent is called as the dim of its parts, which so has no labels of its own."""
    rng = np.random.default_rng(0)
    units = as_sequences([rng.normal(size=n) for n in (12, 9, 15)])
    draws = rng.normal(size=(3, 15, 2, 5)).astype(np.float32)  # sequence, time, state, draw
    own = (units.channel_dim, "state")
    slices = [slice(0, 2), slice(2, 3)]
    write_draws(tmp_path / "paths.nc", units, iter([(part, {"state": (draws[part], own)}) for part in slices])).close()
    expected = units.to_map(draws, (*own, "draw")).transpose("draw", ...)
    with xr.open_dataset(tmp_path / "paths.nc", engine="h5netcdf") as written:
        xr.testing.assert_equal(written["state"].reset_coords(drop=True).load(), expected)
        assert not set(written.coords) - {"state"}
    assert np.isnan(expected.values).any((0, 2, 3)).tolist() == [True, True, False]


LABELS = {
    "plain": (np.arange(4.0), {"units": "nm", "long_name": "distance"}),
    "hours": (np.arange(4.0), {"units": "hours since 2020-01-01"}),
    "scaled": (np.arange(4), {"scale_factor": 2.0, "missing_value": 0}),
    "times": (np.datetime64("2020-01-01", "ns") + np.arange(4), {}),
    "mixed": (np.array([1, "two", 3.0, None], dtype=object), {"nested": {"a": 1}}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_come_back_as_they_are(tmp_path: Path, kind: str) -> None:
    """Two latents on frames of 3 x 4 pixels, three of them masked; slices that end within a row."""
    rng = np.random.default_rng(0)
    coords = {"x": ("x", *LABELS[kind]), "y": ("y", 0.5 * np.arange(3), {"units": "um"})}
    image = xr.DataArray(rng.normal(size=(2, 3, 4, 5)), coords, ("frame", "y", "x", "energy"))
    keep = np.ones((2, 3, 4), bool)
    keep[0, 1, 2:] = keep[1, 0, 0] = False
    units = as_units(image, mask=keep)
    draws = {
        "abundance": (rng.random((units.n_units, 2, 6)).astype(np.float32), ("endmember",)),
        "brightness": (rng.random((units.n_units, 6)).astype(np.float32), ()),
    }
    parts = [slice(0, 5), slice(5, 14), slice(14, units.n_units)]
    written = write_draws(
        tmp_path / "draws.nc", units, ((p, {n: (v[p], own) for n, (v, own) in draws.items()}) for p in parts)
    )
    label = {"endmember": np.arange(2)}
    for name, (values, own) in draws.items():
        expected = units.to_map(values, (*own, "draw"), {dim: label[dim] for dim in own}).transpose("draw", ...)
        xr.testing.assert_identical(written[name].load(), expected.rename(name))
        assert written[name].dtype == np.float32
    written.close()


def test_a_name_that_netcdf_cannot_hold_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    units = as_units(xr.DataArray(np.random.default_rng(0).normal(size=(2, 3, 4)), dims=("y", "x/nm", "energy")))
    with pytest.raises(ValueError, match="hold no '/'"):
        write_draws(tmp_path / "draws.nc", units, iter([]))


# ---------------------------------------------------------------------- of a fit


@pytest.fixture(scope="module")
def fit() -> bu.Fit:
    """8 x 8 pixels of 16 channels, two endmembers."""
    rng, energy = np.random.default_rng(0), np.linspace(0.0, 1.0, 16)
    spectra = 0.2 + np.exp(-0.5 * ((energy - np.array([[0.25], [0.75]])) / 0.15) ** 2)
    clean = rng.dirichlet([0.7, 1.3], (8, 8)) @ spectra
    coords = {"x": 0.5 * np.arange(8), "energy": energy}
    image = xr.DataArray(clean + 0.05 * rng.normal(size=clean.shape), coords, ("y", "x", "energy"))
    return bu.fit(bu.models.LinearUnmixing(2), image, bu.SVI(draws=200, steps=20), progress=False)


@pytest.fixture
def holed(fit: bu.Fit) -> bu.Fit:
    """The fit without some of its pixels: a corner, one in the middle of a row, and a whole row."""
    shape = fit.units.pixel_shape
    keep = np.ones(shape, bool)
    keep[0, 0] = keep[1, 2] = False
    keep[3] = False
    index = np.flatnonzero(keep)
    return replace(fit, units=replace(fit.units, values=fit.units.values[index], index=index))


@pytest.mark.parametrize("units_a_chunk", [7, 10**6])
def test_draws_of_the_latent_are_written_as_they_would_be_held(
    holed: bu.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units_a_chunk: int
) -> None:
    monkeypatch.setattr("bayesunmix.inference.units._units_a_chunk", lambda *_: units_a_chunk)
    held = holed.sample_latent(6, seed=1)
    with holed.sample_latent(6, seed=1, path=tmp_path / "draws.nc", max_bytes=0) as written:
        assert written["abundance"].dims == held["abundance"].dims
        assert set(written.coords) == set(held.coords)
        xr.testing.assert_identical(written.load(), held)
    assert int(np.isnan(held["abundance"]).any(("draw", "endmember")).sum()) == 2 + held.sizes["x"]
    assert [path.name for path in tmp_path.iterdir()] == ["draws.nc"]


def test_a_file_of_draws_appears_whole_or_not_at_all(
    fit: bu.Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        fit.sample_latent(2, path=tmp_path / "nowhere" / "draws.nc")
    with pytest.raises(IsADirectoryError, match="got a folder"):
        fit.sample_latent(2, path=tmp_path)
    monkeypatch.setattr("bayesunmix.inference.units._units_a_chunk", lambda *_: 32)
    seen = iter([fit_module.draw_pass])

    def interrupted(*inputs: Any) -> Any:
        for first in seen:
            return first(*inputs)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module, "draw_pass", interrupted)
    older = tmp_path / "draws.nc"
    older.write_text("older")
    with pytest.raises(KeyboardInterrupt):
        fit.sample_latent(2, path=older)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]
