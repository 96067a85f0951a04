"""WAIC against the plain formula, and a comparison that says what it can and refuses what it cannot."""

from __future__ import annotations

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

import bayesunmix as bu
from bayesunmix.compare import _could_decide, _in_words, _n_globals, difference_error, stack
from bayesunmix.models import LinearUnmixing

SPECTRA = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))
COLUMNS = ["rank", "elpd", "p", "elpd_diff", "se", "dse", "weight", "warning", "diff_per_unit", "moran"]


def plain_waic(log_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Terms and variances from log densities (draws, units)."""
    variance = log_p.var(0)
    return logsumexp(log_p, axis=0) - np.log(len(log_p)) - variance, variance


@pytest.fixture(scope="module")
def one_endmember(make_fit, image):
    rng = np.random.default_rng(1)
    return make_fit(
        LinearUnmixing(1),
        image,
        endmembers=(("endmember", "energy"), SPECTRA[0] + rng.normal(0, 0.01, (2, 40, 1, 16))),
        noise_scale=((), rng.uniform(0.2, 0.25, (2, 40))),
    )


@pytest.mark.parametrize(("covariance", "count"), [("spherical", 7), ("diagonal", 12), ("full", 27)])
def test_globals_are_counted_once(covariance: str, count: int) -> None:
    """A class in six dimensions: a mean, and one width, six, or 21 entries of a covariance; nothing derived."""
    vectors = np.random.default_rng(0).normal(size=(60, 6))
    model = bu.models.GaussianMixture(1, covariance=covariance)
    assert _n_globals(bu.fit(model, vectors, bu.SVI(draws=10, steps=10), progress=False)) == count


def test_known_endmembers_are_no_globals(make_fit, image) -> None:
    draws = np.full((1, 3), 0.2)
    assert _n_globals(make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, noise_scale=((), draws))) == 1


def test_waic_without_a_free_latent_is_the_plain_formula(one_endmember, image) -> None:
    flat = one_endmember.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    spectra, noise = flat["endmembers"].values[:, 0], flat["noise_scale"].values
    log_p = norm.logpdf(image.values.reshape(1, 64, 16), spectra[:, None], noise[:, None, None]).sum(-1)
    terms, variance = plain_waic(log_p)
    found = bu.waic(one_endmember)
    assert found.elpd == pytest.approx(terms.sum(), rel=1e-12)
    assert found.p == pytest.approx(variance.sum(), rel=1e-9)
    assert found.se == pytest.approx(np.sqrt(64 * terms.var()), rel=1e-9)
    assert found.n_warn == np.sum(variance > 0.4)
    assert found.mcse == pytest.approx(0, abs=1e-10)
    assert found.unit == "pixel"
    assert found.pointwise.dims == ("y", "x")
    np.testing.assert_allclose(found.pointwise.values.ravel(), terms, rtol=1e-10)
    stored = bu.log_likelihood(one_endmember)
    assert stored.dims == ("chain", "draw", "y", "x")
    np.testing.assert_allclose(stored.values.reshape(80, 64), log_p, rtol=1e-10)


def test_waic_is_the_plain_formula_of_the_stored_log_likelihood(svi_fit) -> None:
    terms, variance = plain_waic(bu.log_likelihood(svi_fit).values.reshape(-1, 64))
    found = bu.waic(svi_fit)
    assert found.elpd == pytest.approx(terms.sum(), abs=1e-8)
    assert found.p == pytest.approx(variance.sum(), abs=1e-8)


def test_the_likelihood_integrates_the_abundance_out(make_fit, image) -> None:
    """Known spectra and noise: one uniform abundance, integrated on a grid."""
    fit = make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, noise_scale=((), np.full((1, 3), 0.05)))
    grid = (np.arange(20_000) + 0.5) / 20_000
    mixtures = grid[:, None] * SPECTRA[0] + (1 - grid)[:, None] * SPECTRA[1]
    pixels = image.values.reshape(64, 1, 16)
    expected = [logsumexp(norm.logpdf(y, mixtures, 0.05).sum(-1)) - np.log(len(grid)) for y in pixels]
    found = bu.log_likelihood(fit).values.reshape(3, 64)
    np.testing.assert_allclose(found, np.broadcast_to(expected, (3, 64)), atol=2e-3)


def test_mcse_is_the_spread_over_sets_of_points(make_fit, image) -> None:
    # Two parts with a uniform prior would be integrated exactly.
    model = LinearUnmixing(2, endmembers=SPECTRA, concentration=0.5)
    fit = make_fit(model, image, noise_scale=((), np.full((1, 2), 0.05)))
    found = [bu.waic(fit, seed=seed) for seed in range(24)]
    spread = np.std([one.elpd for one in found], ddof=1)
    claimed = np.sqrt(np.mean([one.mcse**2 for one in found]))
    # So many elpds tell their spread to 15 % (chi with 23 degrees); the claim is nearly exact.
    assert abs(spread / claimed - 1) < 0.5


def test_elpd_is_in_the_units_of_the_data(make_fit, image) -> None:
    """A change of units by 1000 changes every density by that factor, once a channel."""
    elpd = [
        bu.waic(
            make_fit(
                LinearUnmixing(2, endmembers=unit * SPECTRA),
                unit * image,
                noise_scale=((), unit * np.full((1, 4), 0.05)),
            )
        ).elpd
        for unit in (1.0, 1000.0)
    ]
    assert elpd[0] - elpd[1] == pytest.approx(64 * 16 * np.log(1000), rel=1e-6)


def test_masked_pixels_do_not_count(make_fit, image) -> None:
    mask = np.ones((8, 8), bool)
    mask[:2] = False
    fits = [
        make_fit(LinearUnmixing(2, endmembers=SPECTRA), image, mask=m, noise_scale=((), np.full((1, 4), 0.05)))
        for m in (None, mask)
    ]
    full, part = (bu.waic(fit) for fit in fits)
    np.testing.assert_array_equal(np.isfinite(part.pointwise), mask)
    # Other pixels stand at other places among the units, so they have other integration points.
    assert part.elpd == pytest.approx(full.pointwise.values[mask].sum(), abs=8 * np.hypot(full.mcse, part.mcse))


# ---------------------------------------------------------------------- compare


def flat_model(y=None, *, n_units):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level * np.ones(16), 0.3).to_event(1), obs=y)


def free_model(y=None, *, n_units):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0).expand([16]).to_event(1))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(level, 0.3).to_event(1), obs=y)


def joint_model(y=None, *, n_units):
    with numpyro.plate("unit", n_units):
        height = numpyro.sample("height", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(height[:, None] * np.ones(16), 0.3).to_event(1), obs=y)


def exact(make_fit, data, draws=400):
    """Both models with draws from their (nearly flat-prior) posteriors."""
    rng = np.random.default_rng(3)
    values = np.asarray(data).reshape(-1, 16)
    level = rng.normal(values.mean(), 0.3 / np.sqrt(values.size), (1, draws))
    levels = rng.normal(values.mean(0), 0.3 / np.sqrt(len(values)), (1, draws, 16))
    return {
        "free": make_fit(free_model, data, level=(("energy",), levels)),
        "flat": make_fit(flat_model, data, level=((), level)),
    }


@pytest.fixture(scope="module")
def flat_data() -> xr.DataArray:
    values = np.random.default_rng(4).normal(0.5, 0.3, (32, 32, 16))
    return xr.DataArray(values, dims=("y", "x", "energy"))


def test_a_tie_goes_to_the_smaller_model(make_fit, flat_data) -> None:
    fits = exact(make_fit, flat_data)
    table = bu.compare(fits)
    assert list(table.columns) == COLUMNS
    assert list(table["rank"]) == [0, 1]
    assert table["elpd"].is_monotonic_decreasing
    assert (table["elpd_diff"] >= 0).all()
    assert table["elpd_diff"].iloc[0] == table["dse"].iloc[0] == 0
    assert table["elpd_diff"].iloc[1] == pytest.approx(table["elpd"].iloc[0] - table["elpd"].iloc[1])
    assert table["weight"].sum() == pytest.approx(1)
    assert not table["warning"].any()
    assert table.attrs["preferred"] == "flat"
    assert "prefer flat" in table.attrs["verdict"]


def test_a_clear_difference_decides(make_fit, flat_data) -> None:
    sloped = flat_data + 0.1 * np.linspace(-1, 1, 16)
    table = bu.compare(exact(make_fit, sloped))
    assert table.attrs["preferred"] == table.index[0] == "free"
    assert table.loc["flat", "elpd_diff"] > 2 * table.loc["flat", "dse"] > 0
    assert table.loc["free", "weight"] > 0.9


def test_a_fit_that_failed_is_marked(make_fit, flat_data) -> None:
    fits = exact(make_fit, flat_data)
    assert bu.waic(fits["free"]).warning == ""
    fits["free"].diagnostics.attrs["converged"] = 0
    assert bu.waic(fits["free"]).warning == bu.loo(fits["free"]).warning == "made by hand"
    table = bu.compare(fits)
    assert bool(table.loc["free", "warning"])
    assert "Careful: free failed the diagnostics" in table.attrs["verdict"]


def test_pixels_whose_terms_cannot_be_trusted_are_counted_in_the_verdict(make_fit, flat_data) -> None:
    fits = exact(make_fit, flat_data)
    rough = np.random.default_rng(0).normal(0.5, 0.2, (1, 40, 16))
    fits["free"] = make_fit(free_model, flat_data, level=(("energy",), rough))
    n_warn = bu.waic(fits["free"]).n_warn
    table = bu.compare(fits)
    assert n_warn > 0 and list(table["warning"]) == [False, True]
    assert f'confirm with criterion="loo" ({n_warn} for free)' in table.attrs["verdict"]


def test_no_verdict_while_the_numerical_error_is_large(make_fit, flat_data, monkeypatch) -> None:
    import dataclasses
    import sys

    module = sys.modules["bayesunmix.compare"]
    noisy = lambda fit, **kw: dataclasses.replace(bu.waic(fit, **kw), mcse=10.0)  # noqa: E731
    monkeypatch.setitem(module._CRITERIA, "waic", noisy)
    table = bu.compare(exact(make_fit, flat_data))
    assert table.attrs["preferred"] is None
    assert table.attrs["verdict"].startswith("No verdict")


@pytest.mark.parametrize(
    ("larger", "behind", "preferred", "decides"),
    [
        (-1, 11.0, 0.0, False),  # a smaller model stays behind
        (-1, 9.0, 0.0, True),  # it could catch up
        (0, 3.0, 3.0, True),  # the preferred one, tied with the best, could fall back
        (1, 1.0, 0.0, True),  # a larger one that is tied could win clearly
        (1, 3.0, 0.0, False),  # from here it could not
        (1, 3.0, 2.0, True),  # but over a preferred one that is not the best
    ],
)
def test_only_errors_that_could_change_the_preference_forbid_it(larger, behind, preferred, decides) -> None:
    """Ties end at 4 nats; three numerical errors are 6."""
    assert _could_decide(behind, preferred, 6.0, 4.0, larger) is decides


def test_other_data_masks_sizes_and_units_are_refused(make_fit, flat_data) -> None:
    fits = exact(make_fit, flat_data)
    mask = np.ones((32, 32), bool)
    mask[0, 0] = False
    level = ((), np.full((1, 4), 0.5))
    others = {
        "other data": make_fit(flat_model, flat_data + 1e-6, level=level),
        "other masks": make_fit(flat_model, flat_data, mask=mask, level=level),
        "other sizes": make_fit(flat_model, flat_data[:16], level=level),
    }
    for words, other in others.items():
        with pytest.raises(ValueError, match=words):
            bu.compare({"a": fits["flat"], "b": other})
    heights = (("pixel",), np.full((1, 4, 1024), 0.5))
    with pytest.raises(ValueError, match="leave out other things"):
        bu.compare({"a": fits["flat"], "b": make_fit(joint_model, flat_data, height=heights)})
    with pytest.raises(ValueError, match="two or more"):
        bu.compare({"a": fits["flat"]})
    with pytest.raises(ValueError, match="criterion"):
        bu.compare(fits, criterion="aic")
    with pytest.raises(TypeError, match="fits: expected"):
        bu.compare(list(fits.values()))
    for criterion in (bu.waic, bu.loo, bu.check, bu.uncertainty):
        with pytest.raises(TypeError, match=r"expected what bu\.fit returns, got DataArray"):
            criterion(flat_data)
    heights = np.full((1, 12, 1), 0.5)
    with pytest.raises(ValueError, match="one pixel"):
        bu.waic(make_fit(joint_model, flat_data[:1, :1], height=(("pixel",), heights)), conditional=True)
    with pytest.raises(ValueError, match="many posterior draws"):
        bu.waic(make_fit(joint_model, flat_data, height=(("pixel",), np.full((1, 1, 1024), 0.5))), conditional=True)


def counted(y=None, *, n_units):
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Poisson(rate * np.ones(3)).to_event(1), obs=y)


def test_data_that_some_draws_exclude(make_fit) -> None:
    """Nothing is averaged away: minus infinity, counted, said, and last in every comparison."""
    data = xr.DataArray(np.random.default_rng(8).poisson(20.0, (6, 6, 3)) * 1.0, dims=("y", "x", "energy"))
    rates = np.random.default_rng(9).normal(20.0, 0.4, (1, 100))
    never = rates.copy()
    never[0, 3] = 0.0
    right, wrong = (make_fit(counted, data, rate=((), values)) for values in (rates, never))
    for criterion in (bu.waic, bu.loo):
        found = criterion(wrong)
        assert (found.elpd, found.n_warn, found.se, found.mcse) == (-np.inf, 36, np.inf, 0.0)
    table = bu.compare({"wrong": wrong, "right": right})
    assert list(table.index) == ["right", "wrong"]
    assert table.attrs["preferred"] == "right"
    assert table.loc["right", "weight"] == pytest.approx(1.0)
    assert "wrong: some posterior draws give density zero" in table.attrs["verdict"]
    assert bu.compare({"wrong": wrong, "again": wrong}).attrs["preferred"] is None
    never[0, 3] = -1.0
    with pytest.raises(FloatingPointError, match="36 units is not a number"):
        bu.waic(make_fit(counted, data, rate=((), never)))


def test_sampled_latents_need_a_word(make_fit, flat_data) -> None:
    heights = np.random.default_rng(5).normal(0.5, 0.05, (1, 6, 1024))
    fit = make_fit(joint_model, flat_data, height=(("pixel",), heights))
    with pytest.raises(ValueError, match="conditional=True"):
        bu.waic(fit)
    found = bu.waic(fit, conditional=True)
    assert found.unit == "pixel (conditional)"
    log_p = norm.logpdf(flat_data.values.reshape(1, 1024, 16), heights[0, :, :, None], 0.3).sum(-1)
    assert found.elpd == pytest.approx(plain_waic(log_p)[0].sum(), rel=1e-10)
    assert "conditional on the latents" in bu.compare({"a": fit, "b": fit}).attrs["verdict"]
    with pytest.warns(UserWarning, match="conditional on the latents"):
        fit.to_arviz(log_likelihood=True)


def test_blocks_see_differences_that_neighbours_share() -> None:
    rng = np.random.default_rng(6)
    alone = xr.DataArray(rng.normal(size=(64, 64)), dims=("y", "x"))
    single = np.sqrt(alone.size) * float(alone.std())
    # 64 blocks: their standard error has a relative sd of 9 %; the larger of the two is taken.
    assert 1 - 1e-12 < difference_error(alone) / single < 1.3
    values = alone[::8, ::8].values
    shared = xr.DataArray(values.repeat(8, axis=0).repeat(8, axis=1), dims=("y", "x"))
    # 64 independent values, each 64 times: sd of the sum is 64 sqrt(64) sd.
    assert difference_error(shared) == pytest.approx(64 * 8 * values.std(ddof=1), rel=1e-9)
    shared[:4] = np.nan
    assert difference_error(shared) > 5 * np.sqrt(60 * 64) * float(shared.std())


def test_stacking_finds_the_mixture() -> None:
    """Data from .7 N(-1, 1) + .3 N(1, 1), each part a model."""
    rng = np.random.default_rng(7)
    data = rng.normal(np.where(rng.uniform(size=20_000) < 0.7, -1.0, 1.0), 1.0)
    weights = stack([norm.logpdf(data, -1, 1), norm.logpdf(data, 1, 1), norm.logpdf(data, 0, 30)])
    np.testing.assert_allclose(weights, [0.7, 0.3, 0.0], atol=0.03)


def test_criteria_agree_and_differences_are_given_per_pixel(make_fit, flat_data) -> None:
    fits = exact(make_fit, flat_data + 0.1 * np.linspace(-1, 1, 16))
    tables = {criterion: bu.compare(fits, criterion) for criterion in ("waic", "loo")}
    waic, loo = tables["waic"], tables["loo"]
    assert list(waic.index) == list(loo.index)
    # Both estimate the same sum; they differ by terms of second order in the variances.
    assert loo.loc["flat", "elpd_diff"] == pytest.approx(waic.loc["flat", "elpd_diff"], abs=1.0)
    assert waic.loc["flat", "diff_per_unit"] == pytest.approx(waic.loc["flat", "elpd_diff"] / 1024)
    assert loo.attrs["criterion"] == "loo"


def test_a_difference_that_clusters_is_called_misfit(make_fit, flat_data) -> None:
    """The same slope everywhere is no matter of place; in one half of the image it is."""
    slope = 0.2 * np.linspace(-1, 1, 16)
    half = flat_data.copy(deep=True)
    half[:, :16] += slope
    assert "Moran" not in bu.compare(exact(make_fit, flat_data + slope)).attrs["verdict"]
    table = bu.compare(exact(make_fit, half))
    assert "misfit, not evidence for another phase" in table.attrs["verdict"]
    assert table.loc["flat", "moran"] > 0.1


def test_names_of_a_sweep_are_said_in_words() -> None:
    assert _in_words(["n_endmembers=3", "n_endmembers=4"]) == "3 and 4 endmembers"
    assert _in_words(["n_endmembers=3", "flat"]) == "n_endmembers=3 and flat"
    assert _in_words(["a", "b", "c"]) == "a, b and c"
