"""Answers of probabilistic PCA: identified, with their uncertainty, and whatever must not matter does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro
import pytest
import xarray as xr
from numpyro.diagnostics import effective_sample_size
from scipy.stats import f as f_law

import bayesunmix as bu
from bayesunmix.inference.gibbs import _judge
from bayesunmix.models import ProbabilisticPCA
from bayesunmix.models._principal_axes import principal_axes


def _noise(n_units: int, n_channels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(2.0, 1.0, (n_units, n_channels))


# ---------------------------------------------------------------------- identified answers


def test_draws_are_turned_to_principal_axes_and_take_scores_along() -> None:
    rng = np.random.default_rng(0)
    components, score = rng.normal(size=(5, 3, 8)), rng.normal(size=(5, 20, 3))
    turned, turn = principal_axes(components, reference=rng.normal(size=(3, 8)))
    np.testing.assert_allclose((score @ turn) @ turned, score @ components, atol=1e-12)
    gram = turned @ np.swapaxes(turned, -1, -2)
    np.testing.assert_allclose(gram, gram * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1)), np.linalg.svd(components)[1], rtol=1e-10)
    again, _ = principal_axes(np.linalg.qr(rng.normal(size=(3, 3)))[0] @ components, reference=turned[0])
    np.testing.assert_allclose(again[0], turned[0], atol=1e-10)


@pytest.fixture(scope="module")
def image() -> xr.DataArray:
    rng = np.random.default_rng(3)
    energy = np.linspace(0, 1, 24)
    loadings = np.stack([np.exp(-(((energy - c) / 0.08) ** 2)) for c in (0.25, 0.5, 0.8)]) * [[1.0], [0.6], [0.4]]
    values = 5 + rng.normal(size=(16, 16, 3)) @ loadings + 0.2 * rng.normal(size=(16, 16, 24))
    coords = {"energy": ("energy", energy, {"units": "eV"})}
    return xr.DataArray(values, coords, ("y", "x", "energy"), attrs={"units": "counts"})


@pytest.fixture(scope="module")
def fit(image: xr.DataArray) -> bu.Fit:
    return bu.fit(ProbabilisticPCA(4), image, progress=False)


def test_every_draw_may_have_a_reference_of_its_own() -> None:
    rng = np.random.default_rng(3)
    components, reference = rng.normal(size=(5, 4, 2, 6)), rng.normal(size=(5, 4, 2, 6))
    found, turn = principal_axes(components, reference)
    for at in np.ndindex(5, 4):
        one, own = principal_axes(components[at], reference[at])
        np.testing.assert_allclose(found[at], one, atol=1e-12)
        np.testing.assert_allclose(turn[at], own, atol=1e-12)
        assert ((one * reference[at]).sum(-1) > 0).all()


def test_answers_are_ordered_orthogonal_and_of_one_sign(fit: bu.Fit) -> None:
    assert fit.converged and isinstance(fit.method, bu.Gibbs)
    posterior = fit.posterior
    assert (posterior["explained_variance"].diff("component") <= 0).all()
    direction = posterior["direction"].transpose("chain", "draw", "component", "energy").values
    np.testing.assert_allclose(
        direction @ np.swapaxes(direction, -1, -2), np.broadcast_to(np.eye(4), (*direction.shape[:2], 4, 4)), atol=1e-9
    )
    mean = direction.mean((0, 1))[:3]
    assert (np.einsum("cdkp,kp->cdk", direction[:, :, :3], mean) > 0).all()
    length = np.sqrt(posterior["explained_variance"])
    xr.testing.assert_allclose(
        posterior["components"], (posterior["direction"] * length).transpose(*posterior["components"].dims)
    )


def test_directions_of_large_fits_wait_until_they_are_looked_at(
    fit: bu.Fit, image: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the same as those of a small fit, at any index, in arithmetic and from a file."""
    monkeypatch.setattr("bayesunmix._named._LAZY_BYTES", 0)
    later = bu.fit(ProbabilisticPCA(4), image, progress=False)
    expected = fit.posterior["direction"]
    assert not later.posterior["direction"].variable._in_memory
    for at in (
        {"chain": -1, "draw": 3},
        {"draw": slice(None, None, 7), "energy": slice(2, 5)},
        {"component": 1},
        {"draw": [4, 2]},
    ):
        xr.testing.assert_identical(later.posterior["direction"].isel(at), expected.isel(at))
    assert not later.posterior["direction"].variable._in_memory
    later.save(tmp_path / "fit.nc")
    xr.testing.assert_identical(bu.load_fit(tmp_path / "fit.nc").posterior["direction"], expected)
    xr.testing.assert_allclose(later.posterior["direction"].mean(("chain", "draw")), expected.mean(("chain", "draw")))


def test_angle_to_a_reference_plane(fit: bu.Fit) -> None:
    """Against scipy's at one draw; the true plane is within a few of its standard errors, another is not."""
    from scipy.linalg import subspace_angles

    energy = fit.posterior["energy"].values
    true = np.stack([np.exp(-(((energy - c) / 0.08) ** 2)) for c in (0.25, 0.5, 0.8)])
    found = bu.subspace_angle(fit, true[:2], n_components=3)
    assert found.dims == ("chain", "draw", "angle") and found.sizes["angle"] == 2
    direction = fit.posterior["direction"].transpose("chain", "draw", "component", "energy").values
    theirs = np.sort(subspace_angles(direction[1, 5, :3].T, true[:2].T))
    np.testing.assert_allclose(found[1, 5], theirs, atol=1e-9)
    same = bu.subspace_angle(fit, direction[0, 0] * 7.0)
    np.testing.assert_allclose(same[0, 0], 0.0, atol=1e-12)
    assert float(found.max()) < 0.3 < 1.5 < float(bu.subspace_angle(fit, np.eye(24)[:1], n_components=1).min())
    with pytest.raises(ValueError, match="24 channels"):
        bu.subspace_angle(fit, np.eye(3))
    with pytest.raises(ValueError, match="1 to 4"):
        bu.subspace_angle(fit, true, n_components=5)


def test_scree_shows_intervals_above_the_noise(fit: bu.Fit) -> None:
    import matplotlib.pyplot as plt

    figure = bu.plot.scree(fit)
    (ax,) = figure.axes
    assert len(ax.containers) == 4 and ax.get_ylabel() == "variance, (counts)²"
    middle = [float(c.lines[0].get_ydata()[0]) for c in ax.containers]
    np.testing.assert_allclose(middle, fit.posterior["explained_variance"].median(("chain", "draw")))
    filled = [c.lines[0].get_markerfacecolor() != "white" for c in ax.containers]
    assert filled == [True, True, True, False]
    assert "3 above noise" in ax.get_legend().get_title().get_text()
    figure.savefig("/dev/null", format="png")
    plt.close(figure)


def test_components_above_noise_are_counted(fit: bu.Fit) -> None:
    """Three are true; the fourth hides in the noise, whose largest eigenvalue it takes for its own in few draws."""
    share = float((fit.posterior["n_above_noise"] == 3).mean())
    assert share > 0.8
    assert float(fit.posterior["explained_variance"].sel(component=2).mean()) > 0.1


def test_what_cannot_be_seen_is_expected_small_or_just_hidden() -> None:
    """Noise alone: both floors leave what could hide among so many pixels, the usual one less."""
    y = np.random.default_rng(5).normal(size=(400, 16))
    hidden = np.sqrt(16 / 400)
    fits = [bu.fit(ProbabilisticPCA(1, component_floor=f), y, progress=False) for f in ("hidden", "visible")]
    np.testing.assert_allclose([fit.model.component_floor for fit in fits], [hidden / 3, hidden])
    assert "0.2 of it" in fits[1].model.describe()
    usual, visible = (float(fit.posterior["explained_variance"].median()) for fit in fits)
    assert 0.1 * hidden < usual < 0.5 * hidden < visible < 2.0 * hidden


@pytest.mark.parametrize(("noise", "floor"), [("isotropic", "hidden"), ("two-way", "visible")])
def test_the_floor_is_a_probability_that_a_component_shows(noise: Any, floor: Any) -> None:
    """A priori the variance of one component, in units of the noise, is the floor times an F of (channels, 1)."""
    y = np.random.default_rng(5).poisson(3.0, (1024, 40)).astype(float)
    model = ProbabilisticPCA(1, noise=noise, component_floor=floor).bind(y)

    def strength(key):
        program = numpyro.handlers.seed(model, key)
        drawn = numpyro.handlers.trace(program).get_trace(n_units=1)["components"]["value"]
        return ((drawn / model._width / model.noise_level) ** 2).sum()

    with jax.enable_x64(True):
        drawn = np.asarray(jax.jit(jax.vmap(strength))(jax.random.split(jax.random.key(0), 4000)))
    share = {"hidden": 1 / 3, "visible": 1.0}[floor]
    expected = f_law.sf(1 / share, 40, 1)
    assert expected == pytest.approx({"hidden": 0.44, "visible": 0.68}[floor], abs=0.01)  # as the documents say
    found = (drawn > model.visible_share).mean()
    assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)


def test_the_floor_does_not_matter_to_what_shows() -> None:
    """An eightieth of the noise expected or all that stays hidden: nothing where a component has ten times as much."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 1)) * rng.normal(size=16) * np.sqrt(10 * 0.2 / 16) + rng.normal(size=(400, 16))
    found = []
    for floor in (1 / 80, "hidden", "visible"):
        values = bu.fit(ProbabilisticPCA(1, component_floor=floor), y, progress=False).posterior["explained_variance"]
        found.append((float(values.mean()), float(values.std()), float(effective_sample_size(values.values)[0])))
    mean, sd, effective = np.transpose(found)
    # The density of a strength t is t^-3/2 exp(-floor / 2 t): from one floor to another the mean moves by half their
    # difference times (sd / t)^2, which is little beside sd.
    moved = 0.5 * (0.2 - 1 / 80) * (sd / mean).max() ** 2
    assert moved < 0.01 * sd.min()
    assert np.ptp(mean) < moved + 4 * np.sqrt((sd**2 / effective).sum())


def test_chains_that_disagree_say_on_what() -> None:
    values = {
        "noise_scale": np.random.default_rng(0).normal(size=(4, 50)),
        "explained_variance": np.random.default_rng(1).normal(size=(4, 50, 2)),
        "mean": np.random.default_rng(2).normal(size=(4, 50, 3)),
    }
    values["explained_variance"][0, :, 1] += 9.0
    model = ProbabilisticPCA(2).bind(_noise(50, 5))
    said = " ".join(_judge(model, values, 1).failures)
    assert "of explained_variance[1]" in said and "ask for fewer components" in said
    visible = replace(model, component_floor="visible").bind(_noise(50, 5))
    assert "ask for fewer" not in " ".join(_judge(visible, values, 1).failures)


def test_reconstruction_keeps_the_mean(fit: bu.Fit, image: xr.DataArray) -> None:
    predicted = bu.uncertainty(fit)["mean"]
    assert float(abs(predicted - image).mean()) < 0.25
    assert float(bu.check(fit).attrs["ks_p"]) > 1e-3


def test_units_of_the_data_do_not_matter(image: xr.DataArray, fit: bu.Fit) -> None:
    other = bu.fit(ProbabilisticPCA(4), 1000 * image, progress=False)
    np.testing.assert_allclose(other.posterior["noise_scale"], 1000 * fit.posterior["noise_scale"], rtol=1e-6)
    np.testing.assert_allclose(
        other.posterior["explained_variance"], 1e6 * fit.posterior["explained_variance"], rtol=1e-5
    )


def test_masked_entries_and_pixels(image: xr.DataArray) -> None:
    holes = image.copy(deep=True)
    rng = np.random.default_rng(1)
    gone = rng.random(image.shape) < 0.1
    holes.values[gone] = np.nan
    holes.values[3, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        bu.fit(ProbabilisticPCA(3), holes, progress=False)
    fit = bu.fit(ProbabilisticPCA(3), holes, bu.Gibbs(draws=150, warmup=100), mask="finite", progress=False)
    assert fit.model.missing and fit.units.n_units == 16 * 16 - 1
    assert int(fit.units.keep.sum()) == 255 and not bool(fit.units.keep[3, 4])
    # Entries that were not measured are predicted to within noise and uncertainty.
    parts = bu.uncertainty(fit)
    error = ((image - parts["mean"]) / parts["total"]).values[gone]
    error = error[np.isfinite(error)]
    assert abs(np.mean(error**2) - 1) < 4 * np.sqrt(2 / error.size) + 0.05
    assert np.isfinite(bu.waic(fit).elpd)
    checked = bu.check(fit)
    assert checked.attrs["ks_p"] > 1e-3 and abs(checked.attrs["reduced_chi2"] - 1) < 0.05


def test_information_is_the_divergence_from_a_signal_free_image() -> None:
    """Against the closed form for known covariance: half of P log(tr C / P) - log det C, for every pixel."""
    rng = np.random.default_rng(0)
    loading = np.array([[0.8, -0.5, 0.3, 0.0, 0.6, 0.2]])
    values = (rng.normal(size=(20, 20, 1)) @ loading + rng.normal(size=(20, 20, 6))).astype(np.float32)
    image = xr.DataArray(values, dims=("y", "x", "energy"))
    fit = bu.fit(ProbabilisticPCA(1), image, progress=False, mask=np.arange(400).reshape(20, 20) > 10)
    found = bu.relative_entropy(fit)
    covariance = loading.T @ loading + np.eye(6)
    expected = 0.5 * (6 * np.log(np.trace(covariance) / 6) - np.linalg.slogdet(covariance)[1]) * 389
    assert abs(found.attrs["total"] - expected) < 3 * found.attrs["se"]
    assert found["information"].dims == ("y", "x") and int(found["information"].isnull().sum()) == 11
    assert "per_count" not in found.attrs
    with pytest.raises(ValueError, match="other data"):
        bu.relative_entropy(fit, bu.fit(ProbabilisticPCA(0), image, progress=False))


def test_information_in_counts() -> None:
    rng = np.random.default_rng(0)
    share = rng.uniform(size=(12, 12, 1))
    counts = rng.poisson(share * np.linspace(1, 9, 8) + (1 - share) * np.linspace(9, 1, 8)).astype(float)
    image = xr.DataArray(counts, dims=("y", "x", "energy"))
    found = bu.relative_entropy(bu.fit(ProbabilisticPCA(1, noise="two-way"), image, progress=False))
    assert found.attrs["total"] > 3 * found.attrs["se"]
    assert found.attrs["per_count"] == pytest.approx(found.attrs["total"] / counts.sum())


@pytest.mark.filterwarnings("ignore:every channel is zero")
def test_two_way_noise_does_not_take_chance_for_brightness() -> None:
    """Totals of one count a pixel vary by chance alone: pixels are alike, and empty ones do not rule the mean."""
    rng = np.random.default_rng(0)
    y = rng.poisson(np.full((2000, 20), 0.05)).astype(float)
    model = ProbabilisticPCA(0, noise="two-way").bind(y)
    factor = model.unit_covariates(y)["row_factor"]
    assert factor.mean() == pytest.approx(1.0)
    # The variance of totals is known to sqrt(3 / 2000): three standard errors may pass for brightness.
    assert np.abs(factor - 1).max() < 3 * np.sqrt(3 / 2000) * (y.sum(1).max() - 1)
    fit = bu.fit(ProbabilisticPCA(0, noise="two-way"), y, progress=False)
    away = float(fit.posterior["mean"].mean(("chain", "draw")).sum()) - y.sum(1).mean()
    assert abs(away) < 4 * y.sum(1).std() / np.sqrt(2000)


def test_row_factors_are_those_of_bright_pixels_in_any_unit() -> None:
    rng = np.random.default_rng(0)
    thickness = rng.uniform(100, 1000, 400)
    y = rng.poisson(np.outer(thickness, np.full(20, 0.05))).astype(float)
    missing = np.where(rng.random(y.shape) < 0.2, np.nan, y)
    for values in (y, 7.0 * y, missing):
        factor = ProbabilisticPCA(1, noise="two-way").bind(values).unit_covariates(values)["row_factor"]
        # A total of at least 80 counts, 64 where entries are missing, is known to an eighth.
        assert np.sqrt(np.mean((factor / (thickness / thickness.mean()) - 1) ** 2)) < 1 / 8
        assert factor.min() > 0
    rare = rng.poisson(np.full((50, 20), 0.05)).astype(float)
    one, other = (ProbabilisticPCA(1, noise="two-way").bind(unit * rare) for unit in (1.0, 1e-6))
    np.testing.assert_allclose(one.column_factor, other.column_factor, rtol=1e-12)


def test_two_way_noise_finds_the_level_of_counts() -> None:
    rng = np.random.default_rng(0)
    thickness, shape = rng.uniform(30, 300, 400), np.exp(-np.linspace(0, 2, 20))
    y = rng.poisson(np.outer(thickness, shape))
    fit = bu.fit(ProbabilisticPCA(1, noise="two-way"), y.astype(float), bu.Gibbs(draws=150, warmup=100), progress=False)
    assert fit.converged
    # Variance of a count is its mean: sigma^2 g_n h_p, with g and h about 1.
    level = float((fit.posterior["noise_scale"] ** 2).mean())
    assert level == pytest.approx(y.mean(), rel=0.05)
    assert abs(bu.check(fit).attrs["reduced_chi2"] - 1) < 0.05


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_components": -1}, "at least 0"),
        ({"n_components": 2, "noise": "white"}, "isotropic"),
        ({"n_components": 2, "component_floor": 0.0}, "positive"),
        ({"n_components": 2, "component_floor": "seen"}, "'visible'"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbabilisticPCA(**arguments)


def test_wrong_data_are_refused() -> None:
    with pytest.raises(ValueError, match="fewer than the 4 channels"):
        ProbabilisticPCA(4).bind(_noise(20, 4))
    for few in (3, 1):
        with pytest.raises(ValueError, match=f"at least 4 pixels for n_components=2, got {few}"):
            ProbabilisticPCA(2).bind(_noise(few, 4))
    with pytest.raises(ValueError, match="never negative"):
        ProbabilisticPCA(1, noise="two-way").bind(_noise(20, 4) - 10)
    with pytest.raises(ValueError, match="bind"):
        numpyro.handlers.seed(ProbabilisticPCA(1), 0)(n_units=3)
    with pytest.raises(TypeError, match="no sampler of its own"):
        bu.fit(bu.models.LinearUnmixing(2), np.abs(_noise(20, 4)), bu.Gibbs(), progress=False)
