"""Simulation from the prior, predictions from the posterior, and densities of fresh data."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import kstest

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))


def test_simulated_data_are_their_truth_plus_noise(image) -> None:
    data, truth = bu.simulate(LinearUnmixing(3), like=image, seed=1)
    assert data.dims == image.dims and data.attrs == image.attrs
    xr.testing.assert_identical(data.coords.to_dataset(), image.coords.to_dataset())
    assert truth["endmembers"].dims == ("endmember", "energy")
    assert truth["abundance"].dims == ("y", "x", "endmember")
    xr.testing.assert_identical(truth["energy"], image["energy"])
    np.testing.assert_allclose(truth["abundance"].sum("endmember"), 1)
    left = data - xr.dot(truth["abundance"], truth["endmembers"], dim="endmember")
    assert kstest(left.values.ravel() / float(truth["noise_scale"]), "norm").pvalue > 1e-3
    mean = truth["abundance"].mean(("y", "x")).values
    assert (np.diff(mean) <= 0).all()  # canonical order


def test_the_seed_decides(image) -> None:
    first, again, other = (bu.simulate(LinearUnmixing(2), like=image, seed=s)[0] for s in (1, 1, 2))
    xr.testing.assert_identical(first, again)
    assert float(np.abs(first - other).max()) > 0


def test_priors_are_bound_once(image) -> None:
    """An unbound model takes the scale of the template, a bound one keeps its own."""
    bound = LinearUnmixing(2).bind(image.values)
    small, kept, large = (
        float(bu.simulate(model, like=like, seed=3)[1]["endmembers"].max())
        for model, like in ((bound, image), (bound, 100 * image), (LinearUnmixing(2), 100 * image))
    )
    assert kept == small
    assert large == pytest.approx(100 * small, rel=1e-6)


@pytest.mark.parametrize("template", [np.zeros((4, 5, 16)), np.full((4, 5, 16), np.nan), np.zeros((20, 16))])
def test_an_empty_template_serves(template: np.ndarray) -> None:
    data, truth = bu.simulate(LinearUnmixing(2), like=template)
    assert data.shape == template.shape
    assert np.isfinite(data).all()
    assert 0.1 < float(truth["endmembers"].max()) < 10


def test_prior_predictive_spreads_as_the_prior_says() -> None:
    """One known spectrum of 1: every value is 1 plus noise of the drawn scale."""
    model = LinearUnmixing(1, endmembers=np.ones((1, 4)))
    found = bu.prior_predictive(model, like=np.zeros((10, 10, 4)), draws=200, seed=4)
    assert found.dims == ("draw", "y", "x", "channel")
    logs = np.log((found - 1).std(("y", "x", "channel")).values / 0.05)
    assert abs(np.median(logs)) < 0.3
    assert 0.2 < logs.std() < 2
    with pytest.raises(MemoryError, match="max_bytes"):
        bu.prior_predictive(model, like=np.zeros((10, 10, 4)), draws=200, max_bytes=1000)


def test_posterior_predictive_agrees_with_the_split_of_uncertainty(svi_fit, image) -> None:
    seen = bu.posterior_predictive(svi_fit, draws=200, seed=5)
    assert seen.dims == ("draw", *image.dims)
    split = bu.uncertainty(svi_fit)
    standard = (seen.mean("draw") - split["mean"]) / split["total"]
    assert float(np.abs(standard).max()) < 5 * np.sqrt(2 / 200)
    assert float((seen.var("draw") / split["total"] ** 2).mean()) == pytest.approx(1, abs=0.02)


def test_masked_pixels_are_nan_and_memory_is_guarded(make_fit, image) -> None:
    mask = np.arange(64).reshape(8, 8) % 3 > 0
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, mask=mask, noise_scale=((), np.full((1, 4), 0.05)))
    for unit in ("same", "new"):
        found = bu.posterior_predictive(fit, draws=3, unit=unit)
        assert found.sizes["draw"] == 3
        np.testing.assert_array_equal(found.notnull().all(("draw", "energy")), mask)
    with pytest.raises(MemoryError, match="max_bytes"):
        bu.posterior_predictive(fit, max_bytes=1000)
    with pytest.raises(MemoryError, match="max_bytes"):
        bu.log_likelihood(fit, max_bytes=1000)


def test_fresh_data_have_a_density_of_their_own(make_fit, image) -> None:
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, noise_scale=((), np.full((1, 4), 0.05)))
    same = bu.log_likelihood(fit)
    xr.testing.assert_identical(bu.log_likelihood(fit, data=image), same)
    part = bu.log_likelihood(fit, data=image[:2])
    np.testing.assert_allclose(part, same[:, :, :2], atol=2e-3)
    assert float(bu.log_likelihood(fit, data=image + 1.0).max()) < float(same.min())
    with pytest.raises(ValueError, match="16 channels"):
        bu.log_likelihood(fit, data=image[..., :8])
    with pytest.raises(ValueError, match="energy axis"):
        bu.log_likelihood(fit, data=image.assign_coords(energy=image["energy"] + 1.0))


def joint_model(y=None, *, n_units):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.1))
    with numpyro.plate("unit", n_units):
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        numpyro.deterministic("twice", 2.0 * height)
        numpyro.sample("y", dist.Normal(height[:, None] * np.ones(16), 0.1 * scale).to_event(1), obs=y)


def test_latents_that_are_sample_sites(make_fit, image) -> None:
    data, truth = bu.simulate(joint_model, like=image, seed=6)
    assert truth["height"].dims == ("y", "x")
    assert truth["scale"].dims == ()
    assert float(np.abs(data.mean("energy") - truth["height"]).max()) < 0.1 * 5
    heights = np.random.default_rng(7).normal(0, 0.01, (1, 40, 64)) + 5.0
    fit = make_fit(
        joint_model,
        image,
        height=(("pixel",), heights),
        twice=(("pixel",), 2 * heights),
        scale=((), np.ones((1, 40))),
    )
    assert float(bu.posterior_predictive(fit, unit="same").mean()) == pytest.approx(5, abs=0.05)
    # Another pixel's height comes from its prior.
    new = bu.posterior_predictive(fit, unit="new", draws=40).mean("energy")
    assert float(new.mean()) == pytest.approx(0, abs=5 / np.sqrt(40 * 64))
    assert bu.log_likelihood(fit).attrs["conditional"] == 1


def test_bad_arguments(svi_fit) -> None:
    with pytest.raises(ValueError, match="like: expected an image"):
        bu.simulate(LinearUnmixing(2), like=np.zeros(16))
    with pytest.raises(ValueError, match='expected "same"'):
        bu.posterior_predictive(svi_fit, unit="other")
