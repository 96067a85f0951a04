"""Ranks of a posterior known on paper: uniform when it is right, found out when it is 10 % or a fifth of an sd off."""

from __future__ import annotations

import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.calibrate import _identity, hotelling, matched

N_CHANNELS = 25
LIKE = np.zeros((4, N_CHANNELS))
LEVEL = 1e-3


def levels(y=None, *, n_units):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0).expand([N_CHANNELS]).to_event(1))
    numpyro.sample("offset", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level, 1.0).to_event(1), obs=y)


@pytest.fixture
def posterior(monkeypatch, make_fit):
    """Fits are not made: their draws come from the exact posterior, with its sd and mean changed on request."""
    change = {"sd": 1.0, "shift": 0.0, "stop_after": 10**6, "made": 0, "known": 0}

    def fit(model, data, method, *, mask, seed, progress):
        if change["made"] >= change["stop_after"]:
            raise KeyboardInterrupt
        change["made"] += 1
        values = np.asarray(data)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(seed)))
        sd = (1 + len(values)) ** -0.5
        mean = values.sum(0) * sd**2 + change["shift"] * sd
        level = mean + change["sd"] * sd * rng.normal(size=(1, 200, N_CHANNELS))
        level[..., : change["known"]] = 1.0
        return make_fit(model, data, level=(("level_dim_0",), level), offset=((), rng.normal(size=(1, 200))))

    monkeypatch.setattr(sys.modules["bayesunmix.calibrate"], "fit", fit)
    return change


def run(n=100, **settings) -> xr.Dataset:
    return bu.calibrate(levels, LIKE, n, progress=False, **settings)


def test_more_draws_than_a_fit_keeps_are_refused(posterior) -> None:
    with pytest.raises(ValueError, match=r"draws: expected at most the 200 that .* keeps, got 300"):
        run(1, draws=300)


def test_a_right_posterior_is_uniform(posterior) -> None:
    found = run()
    assert set(found.attrs["uniform_p"]) == {"level", "offset"}
    assert min(found.attrs["uniform_p"].values()) > LEVEL
    assert found.sizes == {"simulation": 100, "quantity": N_CHANNELS + 1, "name": 2, "level": 4}
    assert found["ranks"].min() >= 0
    assert found["ranks"].max() <= 99
    off = (found["coverage"] - found["level"]) / found["coverage_se"]
    assert float(np.abs(off).max()) < 4
    assert found.attrs["finished"] == 1
    assert found["converged"].all()
    assert np.isnan(found["mc_shift"]).all()


def test_a_calibration_goes_to_a_file_and_back(posterior, tmp_path) -> None:
    """The p-values, a dict by name, are an array in the order of the coordinate there, and can be plotted still."""
    found = run(4)
    found.to_netcdf(tmp_path / "found.nc")
    back = xr.load_dataset(tmp_path / "found.nc")
    xr.testing.assert_equal(back, found)
    assert dict(zip(back["name"].values, back.attrs["uniform_p"], strict=True)) == found.attrs["uniform_p"]
    titles = [[axes.get_title("left") for axes in bu.plot.calibration(one).axes] for one in (found, back)]
    assert titles[0] == titles[1]
    assert any("p = " in title for title in titles[0])


@pytest.mark.parametrize(
    ("change", "size"), [({"sd": 0.9}, "spread"), ({"sd": 1.1}, "spread"), ({"shift": 0.2}, "location")]
)
def test_a_wrong_posterior_is_found(posterior, change: dict, size: str) -> None:
    """A standard deviation that is 10 % off, and a mean that is off by a fifth of one."""
    posterior.update(change)
    found = run()
    assert found.attrs["uniform_p"]["level"] < LEVEL
    assert found.attrs["uniform_p"]["offset"] > LEVEL
    value = float(found[size].sel(name="level"))
    if size == "location":
        # The truth stands lower among draws that are shifted up.
        assert value < -0.03
    else:
        assert (value > 1) == (change["sd"] < 1)


def test_draws_that_never_vary_and_miss_the_truth_are_ranked(posterior) -> None:
    posterior.update(known=3)
    found = run(4)
    stuck = (found["parameter"] == "level") & (found["element"] < 3)
    assert set(np.unique(found["ranks"][:, stuck])) <= {0, 99}
    assert found.sizes["quantity"] == N_CHANNELS + 1


def test_a_run_goes_on_where_it_stopped(posterior, tmp_path) -> None:
    whole = run(8)
    posterior.update(made=0, stop_after=5)
    part = run(8, path=tmp_path / "ranks.npz")
    assert part.sizes["simulation"] == 5
    assert part.attrs["finished"] == 0
    posterior.update(stop_after=10**6)
    rest = run(8, path=tmp_path / "ranks.npz")
    assert posterior["made"] == 8
    np.testing.assert_array_equal(rest["ranks"], whole["ranks"])
    assert rest.attrs["finished"] == 1
    with pytest.raises(ValueError, match="another calibration"):
        run(8, seed=1, path=tmp_path / "ranks.npz")
    made = posterior["made"]
    with pytest.raises(FileNotFoundError, match="no folder"):
        run(8, path=tmp_path / "missing" / "ranks.npz")
    assert posterior["made"] == made


def test_settings_and_code_tell_models_apart() -> None:
    def high(y=None, *, n_units):
        numpyro.sample("mean", dist.Normal(1.0, 1.0))

    def low(y=None, *, n_units):
        numpyro.sample("mean", dist.Normal(0.0, 1.0))

    low.__qualname__ = high.__qualname__
    unmixing, mixture = bu.models.LinearUnmixing, bu.models.GaussianMixture
    models = [
        unmixing(2),
        unmixing(2, concentration=5.0),
        unmixing(2, brightness=True),
        mixture(2),
        mixture(3),
        high,
        low,
    ]
    told = {_identity(model, LIKE, 0, bu.SVI(), 99, {}) for model in models}
    assert len(told) == len(models)
    assert _identity(high, LIKE, 0, bu.SVI(), 99, {"t": np.ones(2)}) not in told
    assert _identity(unmixing(2), LIKE, 0, bu.SVI(), 99, {}) in told


def test_nothing_to_return_is_an_interruption(posterior) -> None:
    posterior.update(stop_after=0)
    with pytest.raises(KeyboardInterrupt):
        run(8)


def test_a_latent_is_ranked_too(monkeypatch, make_fit) -> None:
    """Known spectra; the noise, known to the fit, is the only global."""
    model = bu.models.LinearUnmixing(2, endmembers=np.array([[1.0, 0.2, 0.1], [0.1, 0.4, 1.0]]))

    def fit(model, data, method, *, mask, seed, progress):
        level = np.full((1, 99), float(truths[-1]["noise_scale"]))
        return make_fit(model, data, noise_scale=((), level))

    truths = []
    module = sys.modules["bayesunmix.calibrate"]
    monkeypatch.setattr(module, "fit", fit)
    real = bu.simulate

    def simulate(*args, **kwargs):
        image, truth = real(*args, **kwargs)
        truths.append(truth)
        return image, truth

    monkeypatch.setattr(module, "simulate", simulate)
    found = bu.calibrate(model, np.zeros((6, 6, 3)), 8, progress=False)
    assert found.attrs["uniform_p"]["abundance"] > LEVEL
    # What is known, here the noise and the spectra, is not ranked.
    assert set(found["parameter"].values) == {"abundance"}
    assert found.sizes["quantity"] == 72


def test_labels_of_the_truth_follow_the_fit(make_fit) -> None:
    spectra = np.random.default_rng(0).uniform(size=(3, 5))
    draws = spectra[None, None, [2, 0, 1]] + np.random.default_rng(1).normal(0, 0.01, (1, 30, 3, 5))
    data = np.random.default_rng(2).uniform(size=(9, 5))
    dims = ("endmember", "channel")
    fit = make_fit(bu.models.LinearUnmixing(3), data, endmembers=(dims, draws), noise_scale=((), np.ones((1, 30))))
    truth = xr.Dataset({"endmembers": (dims, spectra), "noise_scale": 1.0}, {"endmember": [0, 1, 2]})
    flat = fit.posterior.stack(sample=("chain", "draw"), create_index=False)
    moved = matched(fit, flat, truth)
    np.testing.assert_array_equal(moved["endmembers"], spectra[[2, 0, 1]])
    assert moved["endmember"].values.tolist() == [0, 1, 2]


def test_means_that_are_zero() -> None:
    rng = np.random.default_rng(3)
    p = np.array([hotelling(rng.normal(size=(30, 2))) for _ in range(400)])
    assert abs(np.mean(p < 0.1) - 0.1) < 4 * np.sqrt(0.09 / 400)
    assert hotelling(rng.normal(size=(100, 2)) + np.array([1.0, 0.0])) < LEVEL
    assert np.isnan(hotelling(rng.normal(size=(3, 2))))


def test_bad_arguments() -> None:
    for wrong in ({"n": 0}, {"draws": 3}, {"levels": (1.5,)}):
        with pytest.raises(ValueError, match="expected n >= 1"):
            bu.calibrate(levels, LIKE, progress=False, **wrong)


def test_the_figure(posterior) -> None:
    figure = bu.plot.calibration(run(12))
    assert len(figure.axes) == 4


def test_one_panel_of_the_figure(posterior) -> None:
    import matplotlib.pyplot as plt

    found = run(12)
    _, ax = plt.subplots()
    assert bu.plot.calibration(found, names=["offset"], show=["coverage"], ax=ax) is ax
    beyond = found["coverage"].sel(name="offset") - found["level"]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), beyond)
    with pytest.raises(ValueError, match="ax= holds one panel but calibration asks for 4"):
        bu.plot.calibration(found, ax=ax)
    with pytest.raises(ValueError, match=r"names= may hold \['level', 'offset'\], got \['noise'\]"):
        bu.plot.calibration(found, names=["noise"])
    plt.close("all")
