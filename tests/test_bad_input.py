"""What goes wrong in practice: each is a clear error or a right answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SVI = bu.SVI(draws=200, steps=20)


def mixed(height: int = 8) -> tuple[xr.DataArray, np.ndarray]:
    """An image and its abundances, the endmember that is the more abundant one first."""
    rng = np.random.default_rng(0)
    spectra = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))
    abundance = rng.dirichlet([1.3, 0.7], (height, 8))
    values = abundance @ spectra + 0.05 * rng.normal(size=(height, 8, 16))
    return xr.DataArray(values, dims=("y", "x", "energy")), abundance


@pytest.fixture
def image() -> xr.DataArray:
    return mixed()[0]


def run(data: Any, model: Any = None, **options: Any) -> bu.Fit:
    return bu.fit(model or LinearUnmixing(2), data, SVI, progress=False, **options)


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite values"), (-np.inf, "infinite values")]
)
def test_values_that_are_no_numbers(image: xr.DataArray, value: float, word: str) -> None:
    image[3, 4, 5] = value
    with pytest.raises(ValueError, match=rf"1 {word} in 1 of 64 kept pixels, at \(y=3, x=4\).*mask='finite'"):
        run(image)


def test_a_channel_without_any_value(image: xr.DataArray) -> None:
    image[..., 7] = np.nan
    with pytest.raises(ValueError, match=r"1 of 16 channels have no value in any pixel.*position 7.*dropna"):
        run(image, LinearUnmixing(2, missing=True), mask="finite")


def test_a_misspelt_argument(image: xr.DataArray) -> None:
    with pytest.raises(TypeError, match="LinearUnmixing takes no covariate 'sed', and"):
        run(image, sed=3)


def test_complex_values(image: xr.DataArray) -> None:
    with pytest.raises(TypeError, match="expected real values, got complex"):
        run(image + 0j)


def test_a_constant_image(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"every kept value is 3\.0: a constant image"):
        run(xr.full_like(image, 3.0))


def test_an_empty_mask(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="the mask keeps none of the 64 pixels"):
        run(image, mask=np.zeros((8, 8), bool))


def test_a_mask_that_is_not_boolean(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="expected a boolean mask"):
        run(image, mask=np.ones((8, 8)))


def test_more_endmembers_than_channels(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="n_endmembers=17 exceeds the 16 channels"):
        run(image, LinearUnmixing(17))


def test_known_endmembers_on_other_channels(image: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="endmembers have 5 channels, the data 16"):
        run(image, LinearUnmixing(2, endmembers=np.ones((2, 5))))


@pytest.mark.parametrize("data", ["scan.hspy", None, np.zeros(4), [["a", "b"]]], ids=repr)
def test_what_is_no_image(data: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="expected"):
        run(data)


def test_an_unknown_argument(image: xr.DataArray) -> None:
    with pytest.raises(TypeError, match="n_steps"):
        run(image, n_steps=5)


@pytest.mark.parametrize("model", [LinearUnmixing, "linear-unmixing", None], ids=repr)
def test_what_is_no_model(image: xr.DataArray, model: Any) -> None:
    with pytest.raises(TypeError, match="model: expected"):
        bu.fit(model, image, SVI, progress=False)


# ---------------------------------------------------------------------- right answers

ZEROS = pytest.mark.filterwarnings("ignore:every channel is zero in:UserWarning")


@pytest.fixture(scope="module")
def reference() -> bu.Fit:
    return run(np.round(1000 * mixed()[0].values))


@pytest.mark.parametrize("dtype", [">f8", ">f4", "<f4", ">i2", "i4", "u2", ">u4", "i8"])
def test_every_type_of_number_gives_the_same_answer(reference: bu.Fit, dtype: str) -> None:
    values = reference.data.values
    if np.dtype(dtype).kind == "u":
        assert values.min() >= 0
    same = run(values.astype(dtype))
    np.testing.assert_array_equal(same.posterior["endmembers"], reference.posterior["endmembers"])


def test_half_precision_is_fitted_as_the_numbers_it_holds(reference: bu.Fit) -> None:
    half = reference.data.values.astype(np.float16)
    fitted = run(half)
    np.testing.assert_array_equal(fitted.data, half.astype(np.float64))
    assert fitted.converged


@pytest.mark.parametrize("kind", ["fortran", "strided", "read-only"])
def test_every_memory_layout_gives_the_same_answer(reference: bu.Fit, kind: str) -> None:
    values = reference.data.values.copy()
    if kind == "fortran":
        values = np.asfortranarray(values)
    elif kind == "strided":
        values = np.repeat(values, 2, axis=1)[:, ::2]
    else:
        values.flags.writeable = False
    same = run(values)
    np.testing.assert_array_equal(same.posterior["endmembers"], reference.posterior["endmembers"])


def test_the_data_are_not_changed(image: xr.DataArray) -> None:
    before = image.copy(deep=True)
    run(image)
    xr.testing.assert_identical(image, before)


def test_nonfinite_pixels_are_left_out_on_request() -> None:
    """Eight bad pixels of 72: the shape that the other tests have compiled."""
    image, _ = mixed(9)
    image[3, :7, 5] = np.nan
    image[0, 0] = np.inf
    fitted = run(image, mask="finite")
    assert fitted.units.n_units == 64
    mean = fitted.latent()["abundance"].sel(statistic="mean")
    bad = np.isnan(mean.values).all(-1)
    np.testing.assert_array_equal(bad, ~np.isfinite(image.values).all(-1))


def test_pixels_with_missing_entries_stay_on_request() -> None:
    image, abundance = mixed(9)
    image[3, :7, 5] = np.nan
    image[0, 0] = np.inf
    fitted = run(image, LinearUnmixing(2, missing=True), mask="finite")
    assert fitted.units.n_units == 71
    found = fitted.latent()["abundance"]
    away = (found.sel(statistic="mean").values - abundance) / found.sel(statistic="sd").values
    # 14 of the 15 entries of a spectrum say nearly as much as all: four standard deviations in 7 pixels, 1 in 2000.
    assert np.abs(away[3, :7]).max() < 4
    assert np.isnan(away[0, 0]).all()


def test_empty_pixels_are_announced(image: xr.DataArray) -> None:
    image[2, 3] = 0.0
    with pytest.warns(UserWarning, match=r"every channel is zero in 1 of 64 kept pixels, at \(y=2, x=3\)"):
        run(image)


@ZEROS
@pytest.mark.parametrize("noise", ["isotropic", pytest.param("diagonal", marks=pytest.mark.slow)])
def test_empty_pixels_give_finite_numbers(image: xr.DataArray, noise: Any) -> None:
    image[2, 3] = 0.0
    fitted = run(image, LinearUnmixing(2, noise=noise))
    assert all(np.isfinite(v.values).all() for v in fitted.posterior.data_vars.values())
    assert np.isfinite(fitted.latent()["abundance"].values).all()


@pytest.mark.parametrize("noise", ["isotropic", pytest.param("diagonal", marks=pytest.mark.slow)])
def test_a_dead_channel_is_learned_to_be_dead(noise: Any) -> None:
    """A channel of zeros: endmembers near zero there, and abundances that are right all the same."""
    image, truth = mixed()
    image[..., 7] = 0.0
    fitted = run(image, LinearUnmixing(2, noise=noise))
    endmembers = fitted.posterior["endmembers"]
    assert np.isfinite(endmembers.values).all()
    assert float(endmembers.isel(energy=7).mean()) < 0.05
    latent = fitted.latent()["abundance"]
    z = (latent.sel(statistic="mean") - truth) / latent.sel(statistic="sd")
    assert 0.6 < float(np.sqrt((z**2).mean())) < 1.5


# ---------------------------------------------------------------------- a user's own program


def scatter_of_channels(y: Any = None, *, n_units: int) -> None:
    """Every channel a normal with its own mean; one sd for all."""
    mean = numpyro.sample("mean", dist.Normal(jnp.zeros(16), 10.0).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(mean, sd).to_event(1), obs=y)


@dataclass(frozen=True)
class Scatter:
    """The same with its prior as a setting."""

    width: float = 10.0

    def __call__(self, y: Any = None, *, n_units: int) -> None:
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(16), self.width).to_event(1))
        sd = numpyro.sample("sd", dist.HalfNormal(1.0))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(mean, sd).to_event(1), obs=y)


@pytest.mark.parametrize("model", [scatter_of_channels, Scatter()], ids=["function", "frozen dataclass"])
def test_a_program_of_ones_own_is_fitted(image: xr.DataArray, model: Any) -> None:
    fitted = run(image, model)
    assert fitted.converged, fitted.diagnostics.attrs["verdict"]
    y = image.values.reshape(64, 16)
    mean = fitted.posterior["mean"].mean(("chain", "draw")).values
    error = float(fitted.posterior["sd"].mean()) / 8  # of 64 pixels
    # Flat prior: the posterior is about the sample mean, to 4.5 Monte Carlo errors of 200 draws.
    assert np.abs(mean - y.mean(0)).max() < 4.5 * error / np.sqrt(200)
    assert float(fitted.posterior["mean"].std(("chain", "draw")).mean()) == pytest.approx(error, rel=0.1)
    with pytest.raises(TypeError, match="no latent that its likelihood integrates out"):
        fitted.latent()


def with_factor(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.factor("y", dist.Normal(mean, 1.0).log_prob(y).sum(-1))


def without_y(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("data", dist.Normal(mean * jnp.ones(16), 1.0).to_event(1), obs=y)


def with_a_class(y: Any = None, *, n_units: int) -> None:
    kind = numpyro.sample("kind", dist.Bernoulli(0.5))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(kind * jnp.ones(16), 1.0).to_event(1), obs=y)


def without_globals(y: Any = None, *, n_units: int) -> None:
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(jnp.zeros(16), 1.0).to_event(1), obs=y)


def without_a_plate(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0).expand([n_units, 16]).to_event(2), obs=y)


def with_channels_in_a_plate(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("channel", 16, dim=-1), numpyro.plate("unit", n_units, dim=-2):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def with_two_of_a_unit(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(mean * jnp.ones(16), 1.0).to_event(1), obs=y)
        numpyro.sample("z", dist.Normal(mean, 1.0), obs=jnp.zeros(n_units))


def with_half_the_weight(y: Any = None, *, n_units: int) -> None:
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units), numpyro.handlers.scale(scale=0.5):
        numpyro.sample("y", dist.Normal(mean * jnp.ones(16), 1.0).to_event(1), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (without_a_plate, r'in the plate "unit" alone, got plates \[\]'),
        (with_channels_in_a_plate, r"got plates \['channel', 'unit'\]|got plates \['unit', 'channel'\]"),
        (with_two_of_a_unit, "got 'z' beside \"y\""),
        (with_half_the_weight, "is scaled"),
        (with_factor, r"numpyro\.factor.*observed site"),
        (without_y, r'expected an observed site named "y".*got observed sites \[\'data\'\]'),
        (with_a_class, "the latent site 'kind' is discrete"),
        (without_globals, "nothing to infer"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_program_that_cannot_be_fitted_is_refused(image: xr.DataArray, model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(image, model)
