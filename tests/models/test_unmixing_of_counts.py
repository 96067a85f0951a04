"""LinearUnmixing of counts, camera signals and pixels of unequal brightness, fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from numpyro import handlers

import bayesunmix as bu
from bayesunmix.data.counts import factorised_counts, smoothed_counts
from bayesunmix.models import LinearUnmixing

SIDE, CHANNELS = 12, 20
SVI = bu.SVI(draws=200, steps=40)


@pytest.fixture(scope="module")
def template() -> xr.DataArray:
    energy = ("energy", np.linspace(0.2, 10.0, CHANNELS), {"units": "keV"})
    return xr.DataArray(np.zeros((SIDE, SIDE, CHANNELS)), {"energy": energy}, ("y", "x", "energy"))


@pytest.fixture(scope="module")
def bright_counts(template: xr.DataArray) -> tuple[bu.Fit, xr.Dataset]:
    """About 160 counts a pixel, of unequal brightness, and what made them."""
    model = LinearUnmixing(2, likelihood="poisson", brightness=True).bind(template.values)
    model = replace(model, endmember_scale=np.full(CHANNELS, 10.0))
    image, truth = bu.simulate(model, like=template, seed=1)
    return bu.fit(model, image, SVI, progress=False), truth


def test_counts_of_unequal_brightness_are_recovered(bright_counts: tuple[bu.Fit, xr.Dataset]) -> None:
    fit, truth = bright_counts
    assert fit.converged, fit.diagnostics.attrs["verdict"]
    latent = fit.latent()
    assert latent["abundance"].dims == ("y", "x", "endmember", "statistic")
    assert latent["brightness"].dims == ("y", "x", "statistic")
    # Pixels share the globals: between 16 simulated sets the coverage varied by .03 and .07.
    for name, spread in (("abundance", 0.03), ("brightness", 0.07)):
        found, true = latent[name], truth[name].values
        if name == "abundance":
            orders = ([0, 1], [1, 0])
            error = [float(((found.sel(statistic="mean").values - true[..., o]) ** 2).mean()) for o in orders]
            true = true[..., orders[int(np.argmin(error))]]
        covered = (found.sel(statistic="lower").values <= true) & (true <= found.sel(statistic="upper").values)
        assert 0.9 - 4 * spread < float(covered.mean()) <= 1.0


def test_brightness_is_kept_in_a_file(bright_counts: tuple[bu.Fit, xr.Dataset], tmp_path: Path) -> None:
    fit, _ = bright_counts
    fit.save(tmp_path / "fit.nc")
    back = bu.load_fit(tmp_path / "fit.nc")
    xr.testing.assert_identical(back.latent(), fit.latent())
    assert back.model.describe() == fit.model.describe()
    assert "independence" in fit.model.describe()


def test_joint_draws_of_latents_are_split_too(bright_counts: tuple[bu.Fit, xr.Dataset]) -> None:
    fit, _ = bright_counts
    drawn = fit.sample_latent(5)
    assert drawn["abundance"].dims == ("draw", "y", "x", "endmember")
    assert drawn["brightness"].dims == ("draw", "y", "x")
    np.testing.assert_allclose(drawn["abundance"].sum("endmember"), 1.0, atol=1e-5)
    assert float(drawn["brightness"].min()) > 0


def test_counts_are_predicted_as_counts(bright_counts: tuple[bu.Fit, xr.Dataset]) -> None:
    fit, _ = bright_counts
    again = bu.posterior_predictive(fit, draws=3)
    assert np.all(again == np.round(again)) and float(again.min()) >= 0
    parts = bu.uncertainty(fit)
    # The noise of a count is its mean.
    np.testing.assert_allclose(parts["aleatoric"] ** 2, parts["mean"], rtol=0.05)
    assert np.isfinite(bu.waic(fit).elpd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"likelihood": "poisson", "endmember_support": "real"}, "cannot produce"),
        ({"likelihood": "poisson", "noise": "diagonal"}, 'belongs to likelihood="normal"'),
        ({"concentration": "free"}, 'a positive number or "learned"'),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearUnmixing(2, **options)


@pytest.mark.parametrize("wrong", [-1.0, 0.5])
def test_what_is_not_a_count_is_refused_with_advice(wrong: float) -> None:
    image = np.ones((4, 4, 6))
    image[1, 2, 3] = wrong
    with pytest.raises(ValueError, match="count"):
        bu.fit(LinearUnmixing(2, likelihood="poisson"), image, progress=False)


MODELS = {
    "counts": LinearUnmixing(2, likelihood="poisson", concentration="learned"),
    "bright counts": LinearUnmixing(2, likelihood="poisson", brightness=True),
    "camera": LinearUnmixing(2, likelihood="scaled-poisson"),
    "bright": LinearUnmixing(2, brightness=True, concentration=0.5),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_joint_and_marginal_are_one_model(name: str, template: xr.DataArray) -> None:
    """Averaged over latents from their prior, the joint density is the marginal one."""
    model = MODELS[name].bind(template.values[..., :3])
    # Noise as large as the signal, or few draws from the prior would hit the data.
    level = np.array([0.5, 1.0]) if model.likelihood == "scaled-poisson" else 1.0
    model = replace(model, endmember_scale=np.full(3, 4.0), noise_level=level)
    with jax.enable_x64(True), handlers.seed(rng_seed=2):
        drawn = {n: s["value"] for n, s in handlers.trace(model).get_trace(n_units=1).items()}
        y = np.asarray(drawn["y"], dtype=np.float64)
        values = {n: v for n, v in drawn.items() if n != "y"}

        def of_the_data(form, own):
            trace = handlers.trace(handlers.substitute(form, data=own)).get_trace(y, n_units=1)
            return trace["y"]["fn"].log_prob(y).sum()

        marginal = jax.jit(lambda own: of_the_data(model, own))(values)
        known = model.concentration if isinstance(model.concentration, float) else 1.0
        parts = values.get("concentration", jnp.full(2, known))
        rng = np.random.default_rng(0)
        latents = {"abundance": jnp.asarray(rng.dirichlet(np.asarray(parts), (20000, 1)))}
        if model.brightness:
            shape = float(values["brightness_shape"])
            latents["brightness"] = jnp.asarray(rng.gamma(shape, 1 / shape, (20000, 1)))

        each = jax.jit(jax.vmap(lambda own: of_the_data(model.joint, {**values, **own})))(latents)
        density = np.exp(np.asarray(each))
    expected, error = density.mean(), density.std() / np.sqrt(len(density))
    assert abs(np.exp(float(marginal)) - expected) < 4.5 * error + 0.05 * expected


def test_a_first_factorisation_of_counts_finds_the_spectra() -> None:
    rng = np.random.default_rng(4)
    spectra = rng.gamma(0.5, 20.0, (3, 40))
    values = rng.poisson(rng.dirichlet(np.full(3, 0.3), 800) @ spectra)
    found = factorised_counts(values, 3, brightness=False, least=1e-3)
    cosine = found @ spectra.T / np.linalg.norm(found, axis=1)[:, None] / np.linalg.norm(spectra, axis=1)
    assert sorted(cosine.argmax(1)) == [0, 1, 2] and cosine.max(1).min() > 0.98
    smooth = smoothed_counts(values, 2)
    assert smooth.shape == values.shape and smooth.min() >= 0
