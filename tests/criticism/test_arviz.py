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
