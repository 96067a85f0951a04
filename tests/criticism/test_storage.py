"""One file per fit: the same numbers, model and provenance come back, and nothing else is taken for a fit."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))


@pytest.fixture(scope="module")
def saved(svi_fit, tmp_path_factory):
    path = tmp_path_factory.mktemp("fits") / "fit.nc"
    svi_fit.save(path)
    return path


def same_model(one: object, other: object) -> None:
    assert type(one) is type(other)
    for field in dataclasses.fields(one):  # type: ignore[arg-type]
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        assert type(ours) is type(theirs), field.name
        np.testing.assert_array_equal(ours, theirs)


def test_everything_comes_back(svi_fit, saved) -> None:
    back = bu.load_fit(saved)
    xr.testing.assert_identical(back.posterior, svi_fit.posterior)
    xr.testing.assert_identical(back.diagnostics, svi_fit.diagnostics)
    xr.testing.assert_identical(back.data, svi_fit.data)
    same_model(back.model, svi_fit.model)
    assert back.model.bound
    assert back.method == svi_fit.method
    assert back.provenance == svi_fit.provenance
    assert (back.finished, back.converged) == (svi_fit.finished, svi_fit.converged)
    assert back.covariates == {} and back.truth is None
    for name in ("values", "index"):
        ours, theirs = getattr(svi_fit.units, name), getattr(back.units, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    assert not back.units.values.flags.writeable
    assert list(saved.parent.iterdir()) == [saved]


def test_answers_are_the_same_to_the_bit(svi_fit, saved) -> None:
    back = bu.load_fit(saved)
    xr.testing.assert_identical(back.latent(draws=10), svi_fit.latent(draws=10))


def test_other_programs_can_read_the_arrays(saved) -> None:
    posterior = xr.open_dataset(saved, group="posterior", engine="h5netcdf")
    assert posterior["endmembers"].dims == ("chain", "draw", "endmember", "energy")
    assert posterior["energy"].attrs["units"] == "eV"


def test_awkward_axes_attributes_and_masks(make_fit, tmp_path) -> None:
    """Names that clash with the file's own, units that look like times, texts and dates as coordinates."""
    values = np.random.default_rng(0).normal(1, 0.1, (3, 4, 16)).astype(np.float32)
    image = xr.DataArray(
        values,
        {
            "values": ("values", np.array(["a", "bb", "c"])),
            "pixel": ("pixel", np.array(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"], "M8[ns]")),
            "index": ("index", np.arange(16.0), {"units": "seconds", "scale_factor": 2.0}),
        },
        ("values", "pixel", "index"),
        attrs={"nested": {"a/b": [1, None, np.float64(0.5)]}, "long": "x" * 200_000, "_FillValue": 3, "yes": True},
    )
    fit = make_fit(
        LinearUnmixing(2, endmembers=SPECTRA),
        image,
        mask=np.arange(12).reshape(3, 4) != 5,
        noise_scale=((), np.full((2, 3), 0.1)),
    )
    fit = dataclasses.replace(fit, truth=xr.Dataset({"good": ("values", [True, False, True])}, attrs={"seed": 3}))
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    xr.testing.assert_equal(back.data, fit.data)
    assert back.data.dtype == np.float32
    for dim in image.dims:
        assert back.data[dim].dtype == image[dim].dtype
        assert back.data[dim].attrs == image[dim].attrs
    assert back.data.attrs == json.loads(json.dumps(image.attrs))
    assert back.truth is not None
    xr.testing.assert_identical(back.truth, fit.truth)
    same_model(back.model, fit.model)


def own(y=None, *, n_units, dose):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal((level * dose)[:, None] * np.ones(16), 0.3).to_event(1), obs=y)


def another(y=None, *, n_units, dose):
    height = numpyro.sample("height", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal((height * dose)[:, None] * np.ones(16), 0.3).to_event(1), obs=y)


def test_a_model_of_ones_own_is_asked_for(make_fit, image, tmp_path) -> None:
    dose = np.linspace(1, 2, 64)
    fit = make_fit(own, image, covariates={"dose": dose, "label": "a"}, level=((), np.ones((1, 3))))
    path = tmp_path / "own.nc"
    fit = dataclasses.replace(fit, covariates={"dose": dose})
    fit.save(path)
    with pytest.raises(ValueError, match=r"'own'.*load_fit\(path, model=\.\.\.\)"):
        bu.load_fit(path)
    back = bu.load_fit(path, model=own)
    np.testing.assert_array_equal(back.covariates["dose"], dose)
    xr.testing.assert_identical(bu.log_likelihood(back), bu.log_likelihood(fit))
    with pytest.raises(ValueError, match="height"):
        bu.load_fit(path, model=another)


def test_what_cannot_be_saved_is_said_and_leaves_no_file(make_fit, image, tmp_path) -> None:
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, noise_scale=((), np.full((1, 2), 0.05)))
    fit = dataclasses.replace(fit, covariates={"key": object()})
    with pytest.raises(TypeError, match="cannot save key="):
        fit.save(tmp_path / "fit.nc")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_file_that_was_there(svi_fit, saved, tmp_path, monkeypatch) -> None:
    path = tmp_path / "fit.nc"
    shutil.copy(saved, path)
    before = path.read_bytes()

    def full(*args: object, **kwargs: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="no space"):
        svi_fit.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_foreign_and_damaged_files(saved, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        bu.load_fit(tmp_path / "absent.nc")
    text = tmp_path / "text.nc"
    text.write_text("not netCDF")
    foreign = tmp_path / "foreign.nc"
    xr.Dataset({"a": ("x", [1.0])}).to_netcdf(foreign, engine="h5netcdf")
    empty = tmp_path / "empty.nc"
    empty.touch()
    cut = tmp_path / "cut.nc"
    cut.write_bytes(saved.read_bytes()[:3000])
    for path in (text, foreign, empty, cut):
        with pytest.raises(ValueError, match=r"not a fit that fit\.save wrote"):
            bu.load_fit(path)


def test_a_file_that_lost_a_group_or_comes_from_the_future(saved, tmp_path) -> None:
    import h5py

    path = tmp_path / "lost.nc"
    shutil.copy(saved, path)
    with h5py.File(path, "a") as file:
        del file["posterior"]
    with pytest.raises(ValueError, match="damaged"):
        bu.load_fit(path)
    shutil.copy(saved, path)
    with h5py.File(path, "a") as file:
        about = json.loads(file["description"][()])
        file["description"][()] = json.dumps({**about, "version": 2})
    with pytest.raises(ValueError, match="later bayesunmix"):
        bu.load_fit(path)


def test_a_number_or_a_word_that_changed_is_noticed(saved, tmp_path) -> None:
    """Each array of the file, and its description, changed in one place."""
    import h5py

    path = tmp_path / "changed.nc"
    changed = 0
    for group in ("posterior", "diagnostics", "units", "model", "coords/energy"):
        for name in xr.open_dataset(saved, group=group, engine="h5netcdf", decode_cf=False).variables:
            shutil.copy(saved, path)
            with h5py.File(path, "a") as file:
                stored = file[group][name]
                flat = stored[...].reshape(-1)
                flat[-1] = 0.5 if np.isnan(flat[-1]) else flat[-1] + 1
                stored[...] = flat.reshape(stored.shape)
            with pytest.raises(ValueError, match="damaged"):
                bu.load_fit(path)
            changed += 1
    assert changed > 10
    shutil.copy(saved, path)
    with h5py.File(path, "a") as file:
        text = file["description"][()].decode()
        file["description"][()] = text.replace('"finished": true', '"finished": false')
    with pytest.raises(ValueError, match="checksum"):
        bu.load_fit(path)


def test_a_model_of_another_size_is_refused(saved) -> None:
    with pytest.raises(ValueError, match=r"'endmembers' has shape \(3, .*pass the model that was fitted"):
        bu.load_fit(saved, model=LinearUnmixing(3))
    with pytest.raises(TypeError, match="model: expected the model that was fitted, got 3"):
        bu.load_fit(saved, model=3)


def test_paths_that_are_none(svi_fit, saved, tmp_path) -> None:
    for path in (None, 3, ""):
        with pytest.raises(TypeError, match="path: expected the name of a file"):
            bu.load_fit(path)
    with pytest.raises(IsADirectoryError, match=r"try .*fit\.nc"):
        bu.load_fit(saved.parent)
    with pytest.raises(IsADirectoryError, match="got a folder"):
        svi_fit.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="make it first"):
        svi_fit.save(tmp_path / "absent" / "fit.nc")
