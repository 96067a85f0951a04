"""The split of the predictive variance, against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))


@pytest.fixture(scope="module")
def one_endmember(make_fit, image):
    """One endmember: the latent is 1, so every moment is one of the posterior draws."""
    rng = np.random.default_rng(1)
    spectra = SPECTRA[0] + rng.normal(0, 0.03, (2, 40, 1, 16))
    noise = rng.uniform(0.04, 0.06, (2, 40))
    model = LinearUnmixing(1)
    return make_fit(model, image, endmembers=(("endmember", "energy"), spectra), noise_scale=((), noise))


@pytest.mark.parametrize("unit", ["same", "new"])
def test_without_a_free_latent_the_parts_are_moments_of_the_draws(one_endmember, unit: str) -> None:
    found = bu.uncertainty(one_endmember, unit=unit)
    flat = one_endmember.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    spectra, noise = flat["endmembers"].values[:, 0], flat["noise_scale"].values
    expected = {
        "mean": spectra.mean(0),
        "epistemic": spectra.std(0, ddof=1),
        "aleatoric": np.full(16, np.sqrt(np.mean(noise**2))),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].values, np.broadcast_to(value, found[name].shape), rtol=1e-12)
    np.testing.assert_allclose(found["total"] ** 2, found["epistemic"] ** 2 + found["aleatoric"] ** 2, rtol=1e-12)


def test_new_pixels_follow_the_mixture_of_the_marginals(make_fit, image) -> None:
    """Against the sample moments of simulated pixels."""
    rng = np.random.default_rng(2)
    model = LinearUnmixing(2, endmembers=SPECTRA)
    fit = make_fit(model, image, noise_scale=((), rng.uniform(0.04, 0.06, (1, 30))))
    found = bu.uncertainty(fit, unit="new")
    assert found["mean"].dims == ("energy",)
    seen = bu.posterior_predictive(fit, draws=30, unit="new", seed=3)
    spread = seen.std(("draw", "y", "x"))
    # 1920 pixels: relative standard error of a standard deviation below 1 / sqrt(2 * 1920).
    assert np.abs(spread / found["total"] - 1).max() < 4 / np.sqrt(2 * 1920)
    assert float(found["epistemic"].max()) < 1e-12  # the marginal mean depends on the known spectra alone


def test_same_pixels_agree_with_integration_over_the_abundance(make_fit, image) -> None:
    """Known spectra and noise: the posterior of the one free abundance is one-dimensional."""
    noise = 0.05
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, noise_scale=((), np.full((1, 4000), noise)))
    found = bu.uncertainty(fit, draws=4000)
    grid = (np.arange(4000) + 0.5) / 4000
    mixtures = grid[:, None] * SPECTRA[0] + (1 - grid)[:, None] * SPECTRA[1]
    for where in ({"y": 0, "x": 0}, {"y": 3, "x": 5}):
        log_weight = -0.5 * ((image.isel(where).values - mixtures) ** 2).sum(1) / noise**2
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        mean = weight @ mixtures
        sd = np.sqrt(weight @ (mixtures - mean) ** 2)
        here = found.isel(where)
        assert np.abs((here["mean"].values - mean) / sd).max() < 5 / np.sqrt(4000)
        # Beside the Monte Carlo error, 2 % for a rule of 64 points.
        assert np.abs(here["epistemic"].values / sd - 1).max() < 5 / np.sqrt(2 * 4000) + 0.02
        np.testing.assert_allclose(here["aleatoric"].values, noise, rtol=1e-12)


def test_it_stands_on_the_coordinates_of_the_data_in_their_units(svi_fit, image) -> None:
    found = bu.uncertainty(svi_fit, draws=20)
    assert list(found.data_vars) == ["mean", "epistemic", "aleatoric", "total"]
    for array in found.data_vars.values():
        xr.testing.assert_equal(array.coords.to_dataset(), image.coords.to_dataset())
        assert array.dims == image.dims
        assert array.attrs["units"] == "counts"
        assert array.attrs["long_name"].endswith(".") or "=" in array.attrs["long_name"]
    assert float(found["epistemic"].min()) > 0


def test_masked_pixels_are_nan(make_fit, image) -> None:
    mask = xr.ones_like(image.isel(energy=0, drop=True), dtype=bool)
    mask[2, 3] = False
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, mask=mask, noise_scale=((), np.full((1, 8), 0.05)))
    np.testing.assert_array_equal(bu.uncertainty(fit)["total"].notnull().all("energy"), mask)


def plain_model(y=None, *, n_units):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level * np.ones(16), scale).to_event(1), obs=y)


def joint_model(y=None, *, n_units):
    with numpyro.plate("unit", n_units):
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(height[:, None] * np.ones(16), 0.1).to_event(1), obs=y)


def test_a_program_of_ones_own(make_fit, image) -> None:
    rng = np.random.default_rng(4)
    level, scale = rng.normal(1, 0.1, (2, 25)), rng.uniform(0.2, 0.3, (2, 25))
    fit = make_fit(plain_model, image, level=((), level), scale=((), scale))
    for unit in ("same", "new"):
        found = bu.uncertainty(fit, unit=unit)
        np.testing.assert_allclose(found["epistemic"], level.std(ddof=1), rtol=1e-12)
        np.testing.assert_allclose(found["aleatoric"], np.sqrt(np.mean(scale**2)), rtol=1e-12)


def test_latents_that_are_sample_sites_belong_to_their_pixels(make_fit, image) -> None:
    heights = np.random.default_rng(5).normal(0, 1, (1, 30, 64))
    fit = make_fit(joint_model, image, height=(("pixel",), heights))
    found = bu.uncertainty(fit)
    expected = heights[0].std(0, ddof=1).reshape(8, 8, 1)
    np.testing.assert_allclose(found["epistemic"], np.broadcast_to(expected, (8, 8, 16)), rtol=1e-12)
    with pytest.raises(ValueError, match="integrated out"):
        bu.uncertainty(fit, unit="new")


def test_bad_arguments(svi_fit) -> None:
    with pytest.raises(ValueError, match='expected "same"'):
        bu.uncertainty(svi_fit, unit="old")
    with pytest.raises(ValueError, match="at least 2"):
        bu.uncertainty(svi_fit, draws=1)


def test_known_globals_leave_nothing_open(make_fit, image) -> None:
    """The points of the integral scatter the means by .065 of the noise part; what is left of it is below .04.

    An error estimated from 32 sets and 400 draws is off by .26 of itself: .065 * sqrt(.26 * .4) = .021 where clipped.
    """
    model = LinearUnmixing(2, endmembers=SPECTRA)
    latent = make_fit(model, image, noise_scale=((), np.full((1, 400), 0.05))).latent(draws=400)["abundance"]
    noise, shared = (latent.sel(statistic=s).values for s in ("sd_noise", "sd_model"))
    assert np.sqrt(np.mean(shared**2) / np.mean(noise**2)) < 0.04
