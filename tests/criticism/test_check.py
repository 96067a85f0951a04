"""Residuals in closed form, and p-values that are uniform when, and only when, the model is right."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.stats import chi2, kstest

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))
LEVEL = 1e-3  # of every test of uniformity here; the seeds are fixed


def known(make_fit, data, noise=0.05, **kwargs):
    """A fit whose globals are exact: known spectra, known noise."""
    return make_fit(LinearUnmixing(2, endmembers=SPECTRA), data, noise_scale=((), np.full((1, 50), noise)), **kwargs)


@pytest.fixture(scope="module")
def large():
    """1024 pixels from the model."""
    rng = np.random.default_rng(6)
    clean = rng.dirichlet(np.ones(2), (32, 32)) @ SPECTRA
    return xr.DataArray(clean + rng.normal(0, 0.05, clean.shape), dims=("y", "x", "energy"))


def test_residual_and_chi2_without_a_free_latent(make_fit, image) -> None:
    rng = np.random.default_rng(7)
    spectra, noise = SPECTRA[0] + rng.normal(0, 0.03, (1, 40, 1, 16)), np.full((1, 40), 0.05)
    fit = make_fit(LinearUnmixing(1), image, endmembers=(("endmember", "energy"), spectra), noise_scale=((), noise))
    found = bu.check(fit, draws=40)
    total = np.sqrt(spectra[0, :, 0].var(0, ddof=1) + 0.05**2)
    np.testing.assert_allclose(found["residual"], (image - spectra[0, :, 0].mean(0)) / total, rtol=1e-10)
    # Every pixel's chi-square is that of one of the draws.
    possible = ((image.values[..., None, :] - spectra[0, :, 0]) ** 2 / 0.05**2).sum(-1)
    assert np.abs(possible / found["chi2"].values[..., None] - 1).min(-1).max() < 1e-10


def test_p_values_agree_with_the_chi_square_distribution(make_fit, image) -> None:
    """Given mean and variance, chi-square of a normal has as many degrees as channels: nothing is simulated."""
    spectra = np.broadcast_to(SPECTRA.mean(0), (1, 5, 1, 16))
    fit = make_fit(
        LinearUnmixing(1),
        image,
        endmembers=(("endmember", "energy"), spectra),
        noise_scale=((), np.full((1, 5), 0.3)),
    )
    found = bu.check(fit, replicates=1)
    expected = chi2.sf(found["chi2"], 16)
    np.testing.assert_allclose(found["p_value"], expected, rtol=1e-9)
    np.testing.assert_allclose(found["p_mean"], expected, rtol=1e-9)  # all draws are alike


def as_counts(y=None, *, n_units):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Poisson(rate * (1.0 + jnp.arange(16.0))).to_event(1), obs=y)


def test_replicates_of_counts_are_uniform_and_find_what_is_odd(make_fit) -> None:
    """Of counts no law is known: every statistic of a unit against replicates of itself."""
    data = np.random.default_rng(12).poisson(0.7 * (1.0 + np.arange(16.0)), (1024, 16)).astype(float)
    found = bu.check(make_fit(as_counts, data, rate=((), np.full((1, 40), 0.7))))
    for name in ("p_value", "p_autocorrelation", "p_largest"):
        assert kstest(found[name].values, "uniform").pvalue > LEVEL
        assert float(found[name].min()) < 0.01  # ranks among 99 reach this far and no further
    assert found.attrs["passed"]
    odd = data.copy()
    odd[::100, 4] += 40.0
    found = bu.check(make_fit(as_counts, odd, rate=((), np.full((1, 40), 0.7))))
    assert float(found["test_p"].sel(test="largest")) < LEVEL
    assert float(found["p_largest"].values[::100].max()) < 0.05


def test_p_values_are_uniform_for_a_right_model(make_fit, large) -> None:
    fit = known(make_fit, large)
    p_values = [bu.check(fit, seed=seed)["p_value"].values.ravel() for seed in (0, 1)]
    assert kstest(p_values[0], "uniform").pvalue > LEVEL
    assert kstest(p_values[1], "uniform").pvalue > LEVEL
    found = bu.check(fit)
    assert found.attrs["ks_p"] == pytest.approx(kstest(p_values[0], "uniform").pvalue)
    assert found.attrs["reduced_chi2"] == pytest.approx(1, abs=5 * np.sqrt(2 / 16 / 1024))
    assert found.attrs["small_p_share"] < 0.01 + 4 * np.sqrt(0.01 / 1024)
    assert found.attrs["verdict"].startswith("The model accounts for the data")
    # The usual average over draws is narrower than uniform.
    assert float(found["p_mean"].std()) < float(found["p_value"].std())


def test_few_replicates_are_uniform_too(make_fit, large) -> None:
    p = bu.check(known(make_fit, large), replicates=1)["p_value"].values.ravel()
    assert kstest(p, "uniform").pvalue > LEVEL


def counts(y=None, *, n_units):
    rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Poisson(rate * np.ones(2)).to_event(1), obs=y)


def test_ties_of_a_discrete_discrepancy_are_broken_at_random(make_fit) -> None:
    """Two channels of about .3 counts: chi-square has a handful of values."""
    data = np.random.default_rng(8).poisson(0.3, (1500, 2)).astype(float)
    with pytest.warns(UserWarning, match="every channel is zero"):
        fit = make_fit(counts, data, rate=((), np.full((1, 40), 0.3)))
    assert kstest(bu.check(fit)["p_value"].values, "uniform").pvalue > LEVEL


def test_an_unmodelled_phase_is_found_where_it_is(make_fit, large) -> None:
    odd = large.copy(deep=True)
    odd[:6, :6] += 0.25 * np.exp(-0.5 * (np.arange(16) - 9.0) ** 2)
    found = bu.check(known(make_fit, odd))
    small = found["p_value"] < 0.02
    assert float(small[:6, :6].mean()) > 0.9
    assert float(small[6:, 6:].mean()) < 0.05
    assert found.attrs["verdict"].startswith("The model misses part of the data")


@pytest.mark.parametrize(("claimed", "words"), [(0.06, "scatter less"), (0.047, "scatter more|misses part")])
def test_a_wrong_noise_level_is_found(make_fit, large, claimed: float, words: str) -> None:
    found = bu.check(known(make_fit, large, claimed))
    assert found.attrs["ks_p"] < LEVEL
    assert any(word in found.attrs["verdict"] for word in words.split("|"))


def test_masked_pixels_are_nan_and_do_not_count(make_fit, large) -> None:
    mask = np.ones((32, 32), bool)
    mask[:, ::2] = False
    found = bu.check(known(make_fit, large, mask=mask))
    for name in ("chi2", "p_value", "p_mean"):
        np.testing.assert_array_equal(np.isfinite(found[name]), mask)
    assert "of 512 pixels" in found.attrs["verdict"]


def scaled(y=None, *, n_units, dose):
    level = numpyro.sample("level", dist.HalfNormal(1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal((level * dose)[:, None] * np.ones(16), 0.1).to_event(1), obs=y)


def test_covariates_of_a_pixel_stay_with_it(make_fit) -> None:
    rng = np.random.default_rng(9)
    dose = rng.uniform(1, 3, 600)
    data = dose[:, None] + rng.normal(0, 0.1, (600, 16))
    fit = make_fit(scaled, data, covariates={"dose": dose}, level=((), np.full((1, 30), 1.0)))
    assert kstest(bu.check(fit)["p_value"].values, "uniform").pvalue > LEVEL


# ---------------------------------------------------------------------- what a sum of squares does not see


FAILURES = {
    # name: what is done to the image, the test that must see it
    "a phase in one corner": (
        "neighbours",
        lambda y, rng: y.__setitem__((slice(6), slice(6)), y[:6, :6] + 0.25 * BUMP),
    ),
    "a shift of the energy axis": (
        "autocorrelation",
        lambda y, rng: y.__setitem__(..., 0.7 * y + 0.3 * np.roll(y, 1, -1)),
    ),
    "a doubled gain": ("dispersion", lambda y, rng: y.__setitem__(..., y + rng.normal(0, 0.05, y.shape))),
    "spikes in one value of a thousand": (
        "largest",
        lambda y, rng: y.__setitem__(rng.uniform(size=y.shape) < 1e-3, 1.5),
    ),
    "a dead channel": ("channels", lambda y, rng: y.__setitem__((..., 5), y[..., 5].mean())),
}
BUMP = np.exp(-0.5 * (np.arange(16) - 9.0) ** 2)


@pytest.mark.parametrize("name", FAILURES)
def test_a_planted_failure_is_seen_by_its_test(make_fit, large, name: str) -> None:
    test, plant = FAILURES[name]
    odd = large.copy(deep=True)
    plant(odd.values, np.random.default_rng(10))
    found = bu.check(known(make_fit, odd), draws=50)
    assert float(found["test_p"].sel(test=test)) < LEVEL
    assert not found.attrs["passed"]
    assert not found.attrs["verdict"].startswith("The model accounts for the data:")


def test_failures_are_found_where_they_are(make_fit, large) -> None:
    odd = large.copy(deep=True)
    odd[:6, :6] += 0.25 * BUMP
    odd[20, 25, 3] = 1.5
    odd[:, :, 5] = 0.0
    found = bu.check(known(make_fit, odd), draws=50)
    corner = found["p_neighbours"] < 0.05
    assert float(corner[:6, :6].mean()) > 0.5 > 5 * float(corner[8:, 8:].mean())
    assert float(found["p_largest"][20, 25]) < 0.02
    assert int(found["p_channel"].argmin("energy")) == 5


def test_a_right_model_is_not_accused(make_fit, large) -> None:
    found = [bu.check(known(make_fit, large), draws=50, seed=seed) for seed in (2, 3)]
    for one in found:
        assert one.attrs["passed"]
        for name in ("p_autocorrelation", "p_largest", "p_neighbours", "p_channel"):
            # Pixels of one colour of a chessboard share no neighbour relation.
            values = one[name].values[::2, ::2].ravel() if name == "p_neighbours" else one[name].values.ravel()
            assert kstest(values, "uniform").pvalue > LEVEL
        assert float(one["test_p"].min()) > LEVEL
        assert set(one["test"].values) == {name for name, _ in FAILURES.values()} | {"discrepancy"}
        assert "as far as" not in one.attrs["verdict"]


def asymmetry(y, emission):
    away = (y - emission.mean) / jnp.sqrt(emission.variance)
    return jnp.abs((away**3).sum(-1))


def test_a_discrepancy_of_ones_own(make_fit, large) -> None:
    """Skewed noise of the right size is no matter of chi-square."""
    rng = np.random.default_rng(11)
    skewed = rng.dirichlet(np.ones(2), (32, 32)) @ SPECTRA + 0.05 * (rng.exponential(size=(32, 32, 16)) - 1)
    fits = {name: known(make_fit, data) for name, data in (("right", large), ("skewed", large.copy(data=skewed)))}
    found = {name: bu.check(fit, draws=50, discrepancy=asymmetry) for name, fit in fits.items()}
    assert kstest(found["right"]["p_value"].values.ravel(), "uniform").pvalue > LEVEL
    assert float(found["skewed"]["test_p"].sel(test="discrepancy")) < LEVEL
    assert found["right"]["discrepancy"].dims == ("y", "x")
    # Told in words of its own, and with its own size.
    wrong = found["skewed"].sel(test="discrepancy")
    assert "that was asked for" in str(wrong["test_meaning"].values)
    assert float(wrong["test_size"]) == pytest.approx(float(found["skewed"]["discrepancy"].mean()))
    assert "chi-square" not in found["skewed"].attrs["verdict"]
    with pytest.raises(TypeError, match="one number a unit"):
        bu.check(fits["right"], draws=2, discrepancy=lambda y, emission: y - emission.mean)
    with pytest.raises(TypeError, match="expected a function"):
        bu.check(fits["right"], discrepancy="skewness")


def test_bad_arguments(svi_fit) -> None:
    with pytest.raises(ValueError, match="at least"):
        bu.check(svi_fit, draws=1)
    with pytest.raises(TypeError, match="integer"):
        bu.check(svi_fit, draws=2.5)
