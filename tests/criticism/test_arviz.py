"""ArviZ reads a fit, and its WAIC is ours."""

from __future__ import annotations

import dataclasses

import arviz as az
import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))
old_arviz = pytest.mark.skipif(int(az.__version__.split(".")[0]) >= 1, reason="ArviZ 1 has no WAIC")


def test_groups_and_names(svi_fit, image) -> None:
    found = svi_fit.to_arviz()
    xr.testing.assert_equal(found["posterior"]["endmembers"], svi_fit.posterior["endmembers"])
    np.testing.assert_array_equal(found["observed_data"]["data"], image)
    assert not hasattr(found, "log_likelihood")
    table = az.summary(found, var_names=["noise_scale"])
    # The table is rounded to three decimals.
    assert float(table["mean"].iloc[0]) == pytest.approx(float(svi_fit.posterior["noise_scale"].mean()), abs=6e-4)


@old_arviz
@pytest.mark.parametrize("masked", [False, True])
def test_waic_is_that_of_arviz(make_fit, image, masked: bool) -> None:
    rng = np.random.default_rng(1)
    mask = np.arange(64).reshape(8, 8) % 5 > 0 if masked else None
    fit = make_fit(
        LinearUnmixing(2, endmembers=SPECTRA),
        image,
        mask=mask,
        noise_scale=((), rng.uniform(0.049, 0.051, (2, 30))),
    )
    theirs = az.waic(fit.to_arviz(log_likelihood=True), scale="log")
    ours = bu.waic(fit)
    assert theirs.elpd_waic == pytest.approx(ours.elpd, abs=1e-8)
    assert theirs.p_waic == pytest.approx(ours.p, abs=1e-8)
    assert theirs.se == pytest.approx(ours.se, abs=1e-8)


@pytest.fixture(scope="module")
def predicted(make_fit, image):
    """A small fit with everything in it; half of the pixels are masked."""
    rng = np.random.default_rng(1)
    mask = np.arange(64).reshape(8, 8) % 2 > 0
    fit = make_fit(
        LinearUnmixing(2, endmembers=SPECTRA),
        image,
        mask=mask,
        noise_scale=((), rng.uniform(0.049, 0.051, (2, 30))),
    )
    return fit, fit.to_arviz(log_likelihood=True, predictive=60)


def test_parts_of_the_uncertainty_can_be_summarised(predicted) -> None:
    fit, found = predicted
    group = found["posterior_predictive"]
    assert group["expected"].dims == ("chain", "draw", "pixel", "energy")
    split = bu.uncertainty(fit, draws=60)
    mask = np.isfinite(split["mean"].values[..., 0])
    epistemic = split["epistemic"].values[mask]
    # Both are standard deviations over 60 draws: each is off by 1 / sqrt(118) of itself.
    ratio = group["expected"].std(("chain", "draw"), ddof=1).values / epistemic
    assert np.abs(np.log(ratio)).mean() < 3 / np.sqrt(118)
    aleatoric = np.sqrt((group["noise"] ** 2).mean(("chain", "draw")).values)
    np.testing.assert_allclose(aleatoric, split["aleatoric"].values[mask], rtol=1e-9)
    table = az.summary(found, var_names=["expected"], group="posterior_predictive", kind="stats")
    assert len(table) == 32 * 16
    spread = table["sd"].astype(float).values
    np.testing.assert_allclose(
        spread, group["expected"].std(("chain", "draw"), ddof=1).values.ravel(), rtol=0.1, atol=2e-3
    )


def test_predictive_draws_that_are_too_many(predicted) -> None:
    from bayesunmix._groups import to_arviz

    with pytest.raises(MemoryError, match="ask for fewer"):
        to_arviz(predicted[0], predictive=60, max_bytes=1000)


@pytest.mark.filterwarnings("ignore")  # what ArviZ and matplotlib say about small samples is theirs
def test_figures_and_comparisons_of_arviz(predicted, one_level) -> None:
    import matplotlib.pyplot as plt

    fit, found = predicted
    other = one_level.to_arviz(log_likelihood=True)
    if int(az.__version__.split(".")[0]) >= 1:
        az.plot_trace(found, var_names=["noise_scale"])
        az.plot_forest(found, var_names=["noise_scale"])
        az.plot_ppc_dist(found, var_names=["data"], num_samples=5)
        # The mean effective sample size, which sets the length of the tail, is taken of other quantities there.
        assert az.loo(found).elpd == pytest.approx(bu.loo(fit).elpd, abs=0.05)
        assert len(az.compare({"two": found, "one": other})) == 2
    else:
        az.plot_trace(found, var_names=["noise_scale"])
        az.plot_forest(found, var_names=["noise_scale"])
        az.plot_ppc(found, var_names=["data"], num_pp_samples=5)
        assert list(az.compare({"two": found, "one": other}, ic="waic").index) == ["two", "one"]
        assert list(az.compare({"two": found, "one": other}, ic="loo").index) == ["two", "one"]
    plt.close("all")


@pytest.fixture(scope="module")
def one_level(make_fit, image):
    """A worse model of the same pixels."""
    mask = np.arange(64).reshape(8, 8) % 2 > 0
    noise = np.random.default_rng(2).uniform(0.25, 0.3, (2, 30))
    return make_fit(LinearUnmixing(1, endmembers=SPECTRA[:1]), image, mask=mask, noise_scale=((), noise))


def test_statistics_of_the_sampler(svi_fit) -> None:
    chain_draw = ("chain", "draw")
    diagnostics = svi_fit.diagnostics.assign(
        tree_steps=(chain_draw, np.full((1, 200), 7)), accept=(chain_draw, np.full((1, 200), 0.8))
    )
    found = dataclasses.replace(svi_fit, diagnostics=diagnostics).to_arviz()
    assert set(found["sample_stats"].data_vars) == {"n_steps", "acceptance_rate"}


def test_a_tree_where_arviz_is_newer(svi_fit, monkeypatch) -> None:
    monkeypatch.setattr(az, "__version__", "1.0.0")
    found = svi_fit.to_arviz(log_likelihood=True)
    assert isinstance(found, xr.DataTree)
    assert set(found.children) == {"posterior", "observed_data", "log_likelihood"}
    assert found["log_likelihood"]["data"].dims == ("chain", "draw", "y", "x")
