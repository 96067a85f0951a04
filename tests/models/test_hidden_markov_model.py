"""The hidden Markov model against its textbook program, Stan's reference draws, and itself by another method."""

from __future__ import annotations

import itertools
import json
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from numpyro import handlers
from numpyro.diagnostics import effective_sample_size
from numpyro.infer.util import log_density
from scipy import stats

import bayesunmix as bu
from bayesunmix.models import HiddenMarkovModel


@pytest.mark.parametrize("kind", ["normal", "list", "soft"])
def test_the_textbook_program_summed_over_paths_is_the_marginal(kind: str) -> None:
    rng = np.random.default_rng(0)
    y, emission = rng.normal(size=(1, 4)), ["poisson", "categorical"]
    if kind == "list":
        y = rng.integers(0, 3, (1, 4, 2)).astype(float)
    elif kind == "soft":
        y = np.concatenate([rng.integers(0, 3, (1, 4, 1)), rng.dirichlet(np.ones(3), (1, 4))], axis=-1)
    settings = {"normal": {}, "list": {"emission": emission}, "soft": {"emission": emission, "soft": True}}[kind]
    model = HiddenMarkovModel(2, **settings).bind(y)
    with jax.enable_x64(True):
        sites = handlers.trace(handlers.seed(model, 3)).get_trace(y, n_units=1)
        drawn = {n: s["value"] for n, s in sites.items() if s["type"] == "sample" and n != "y"}
        keywords = {"n_units": 1}
        marginal = jax.jit(lambda v: log_density(model, (jnp.asarray(y),), keywords, v)[0])(drawn)

        @jax.jit
        @jax.vmap
        def along(states):
            path = {f"state_{t}": states[t, None] for t in range(4)}
            return log_density(model.joint, (jnp.asarray(y),), keywords, {**drawn, **path})[0]

        terms = along(jnp.array(list(itertools.product(range(2), repeat=4))))
        assert float(jax.nn.logsumexp(terms)) == pytest.approx(float(marginal), abs=1e-9)


def drive(real_data, event: int):
    """Data of posteriordb's hmm_drive, the model of its Stan program, and the reference draws by our names."""
    data = real_data(f"hmm_bball/bball_drive_event_{event}.json.zip")
    given = json.loads(zipfile.ZipFile(data).read(f"bball_drive_event_{event}.json"))
    archive = zipfile.ZipFile(real_data(f"hmm_bball/ref_draws_hmm_drive_{event}.json.zip"))
    chains = json.loads(archive.read(archive.namelist()[0]))
    prior = dist.Normal(np.array([0.0, 3.0]), 1.0)
    name = "means" if event else "rates"
    # Without a log-prior for its state the first step weighs all states alike: the same as a uniform one.
    fixed = {"initial": [0.5, 0.5]} | ({"scales_0": given["tau"], "scales_1": given["rho"]} if event else {})
    model = HiddenMarkovModel(
        2,
        ["normal" if event else "exponential"] * 2,
        transition_concentration=given["alpha"],
        fixed=fixed,
        priors={f"{name}_0": prior, f"{name}_1": prior},
        ordered=(f"{name}_0", f"{name}_1"),
    )
    stan = {"phi": f"{name}_0", "lambda": f"{name}_1"}
    reference = {
        **{(ours, k): [c[f"{n}[{k + 1}]"] for c in chains] for n, ours in stan.items() for k in range(2)},
        **{("transition", k, j): [c[f"theta{k + 1}[{j + 1}]"] for c in chains] for k in range(2) for j in range(2)},
    }
    return np.stack([given["u"], given["v"]], axis=-1)[None], model, reference


@pytest.mark.parametrize("event", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_stan_s_reference_draws_are_reproduced(event: int, real_data) -> None:
    y, model, reference = drive(real_data, event)
    fit = bu.fit(model, y, bu.Gibbs(draws=2000, warmup=200, chains=4), progress=False)
    assert fit.converged
    for (name, *where), chains in reference.items():
        ours, theirs = fit.posterior[name].values[(..., *where)], np.array(chains)
        sd = theirs.std()
        error = sd * np.sqrt(1 / effective_sample_size(ours) + 1 / effective_sample_size(theirs))
        assert abs(ours.mean() - theirs.mean()) < 0.1 * sd + 3 * error, (name, where)
        assert ours.std() / sd == pytest.approx(1.0, abs=0.1), (name, where)


@pytest.mark.slow
@pytest.mark.parametrize("event", [0, 1])
@pytest.mark.parametrize("method", [bu.NUTS(draws=1500, warmup=500), bu.SVI(draws=4000)])
def test_the_other_methods_agree_with_stan_too(event: int, method, real_data) -> None:
    y, model, reference = drive(real_data, event)
    fit = bu.fit(model, y, method, progress=False)
    assert fit.converged
    for (name, *where), chains in reference.items():
        ours, theirs = fit.posterior[name].values[(..., *where)], np.array(chains)
        # A guide that passes its check may be off by a quarter of an sd, and by a quarter in width.
        share, width = (0.25, 0.25) if isinstance(method, bu.SVI) else (0.1, 0.1)
        assert abs(ours.mean() - theirs.mean()) < (share + 0.1) * theirs.std(), (name, where)
        assert ours.std() / theirs.std() == pytest.approx(1.0, abs=width), (name, where)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_states": 0}, "at least 1"),
        ({"emission": "gauss"}, "emission"),
        ({"emission": []}, "at least one family"),
        ({"priors": {"rates": dist.Gamma(1.0, 1.0)}}, "no \\['rates'\\]"),
        ({"priors": {"means": {"kind": "Normall", "loc": 0.0}}}, "no distribution"),
        ({"priors": {"means": {"kind": "Normal", "wide": 0.0}}}, "Normal with"),
        ({"fixed": {"mean": 0.0}}, "no \\['mean'\\]"),
        ({"transition_concentration": 0.0}, "positive"),
        ({"transition_concentration": [1.0, 2.0, 3.0]}, "transition_concentration"),
        ({"absorbing": [5]}, "states below 2"),
        ({"forbidden": [(0, 0), (0, 1)]}, "way out"),
        ({"soft": True}, "soft"),
    ],
)
def test_settings_out_of_range_are_refused(wrong, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HiddenMarkovModel(**{"n_states": 2, **wrong})


@pytest.mark.parametrize(
    ("emission", "y", "match"),
    [
        ("poisson", [[0.5, 1.0]], "whole numbers"),
        ("categorical", [[-1.0, 1.0]], "whole numbers"),
        ("exponential", [[-1.0, 1.0]], "positive"),
        (["normal", "poisson"], [[1.0, 2.0]], "expected 2 features"),
        (["normal", "categorical"], [[1.0, 2.0]], "expected 2 features"),
        ("normal", [[np.inf, 1.0]], "infinite"),
        ("normal", [[np.nan, np.nan]], "no value"),
    ],
)
def test_data_that_cannot_be_are_refused(emission, y, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        bu.fit(HiddenMarkovModel(2, emission), np.array(y), progress=False)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"fixed": {"transition": [[0.5, 0.1], [0.2, 0.8]]}}, "add to one"),
        ({"fixed": {"initial": [1.5, -0.5]}}, "add to one"),
        ({"fixed": {"scales": -1.0}}, "positive"),
        ({"fixed": {"means": [1.0, 2.0, 3.0]}}, "expected shape \\(2,\\)"),
        ({"fixed": {"means": np.nan}}, "finite"),
        ({"priors": {"means": dist.Normal(np.zeros(3), 1.0)}}, "priors: means"),
        ({"emission": "categorical", "fixed": {"probabilities": [[0.5, 0.1], [0.2, 0.8]]}}, "add to one"),
    ],
)
def test_values_that_no_chain_has_are_refused(settings, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        HiddenMarkovModel(2, **settings).bind(np.zeros((1, 5)))


def test_symbols_that_the_data_lack_are_known_from_the_settings() -> None:
    y = np.zeros((1, 5))
    assert HiddenMarkovModel(3, "categorical", fixed={"probabilities": np.eye(3)}).bind(y).n_symbols == 3
    prior = {"probabilities": dist.Dirichlet(np.ones(4))}
    assert HiddenMarkovModel(2, "categorical", priors=prior).bind(y).n_symbols == 4


@pytest.mark.parametrize(("noise", "match"), [(np.ones(3), "expected shape"), (-np.ones((2, 5)), "negative variances")])
def test_a_measurement_covariance_that_does_not_fit_is_refused(noise, match: str) -> None:
    y = np.arange(10.0).reshape(2, 5)
    with pytest.raises(ValueError, match=match):
        bu.fit(HiddenMarkovModel(2), y, progress=False, measurement_cov=noise)


def test_every_sequence_has_measurement_covariances_of_its_own() -> None:
    """Frames measured ten times worse say less of the state."""
    rng = np.random.default_rng(4)
    state = np.repeat([[0, 1, 0, 1]], 10, axis=1).repeat(3, axis=0)
    noise = np.full(state.shape, 0.01)
    noise[1] = 4.0
    y = 2.0 * state + 0.2 * rng.normal(size=state.shape) + np.sqrt(noise) * rng.normal(size=state.shape)
    model = HiddenMarkovModel(2)
    fit = bu.fit(model, y, bu.Gibbs(draws=50, warmup=50, chains=2), progress=False, measurement_cov=noise)
    sure = np.abs(fit.latent()["state"].sel(statistic="mean").values - 0.5).mean((1, 2))
    assert sure[1] < 0.4 < min(sure[0], sure[2])


def test_soft_symbols_stand_beside_other_features() -> None:
    """A column of counts and three of a classifier: sizes, priors and a start from the right columns."""
    rng = np.random.default_rng(6)
    state = np.repeat([0, 1, 0], 20)
    share = np.where(state[:, None] == 1, [0.05, 0.05, 0.9], [0.8, 0.1, 0.1])
    y = np.concatenate([rng.poisson(np.where(state == 1, 20, 2))[:, None], share], axis=1)[None]
    model = HiddenMarkovModel(2, ["poisson", "categorical"], soft=True).bind(y)
    assert (model.n_symbols, model.n_features) == (3, 4)
    found = model.initial(y)
    np.testing.assert_allclose(found["rates_0"], [y[0, state == k, 0].mean() for k in range(2)])
    sums = np.stack([share[state == k].sum(0) + 1.0 for k in range(2)])
    np.testing.assert_allclose(found["probabilities_1"], sums / sums.sum(1, keepdims=True))
    for wrong, match in (
        (y[..., :2], "a column for every symbol"),
        (np.concatenate([y, y[..., 1:2]], 2), "add to one"),
    ):
        with pytest.raises(ValueError, match=match):
            HiddenMarkovModel(2, ["poisson", "categorical"], soft=True).bind(wrong)


def test_sequences_come_in_the_forms_of_the_peers() -> None:
    from bayesunmix.data.sequences import as_sequences

    parts = [np.arange(4.0), np.arange(2.0)]
    padded = np.array([[0.0, 1, 2, 3], [0, 1, np.nan, np.nan]])
    forms = (
        parts,
        (np.concatenate(parts), [4, 2]),
        (np.concatenate(parts)[:, None], [4, 2]),
        xr.DataArray([[0, 1, 2, 3], [0, 1, 7, 7]], {"length": ("sequence", [4, 2])}, ("sequence", "time")),
    )
    for form in forms:
        units = as_sequences(form)
        np.testing.assert_array_equal(units.values, padded)
        np.testing.assert_array_equal(units.lengths, [4, 2])
    assert as_sequences(np.arange(5.0)).values.shape == (1, 5)
    alone = as_sequences(forms[3].isel(sequence=1))
    np.testing.assert_array_equal(alone.values, padded[1:])
    with pytest.raises(ValueError, match="lengths"):
        as_sequences((np.arange(5.0), [4, 2]))
    for lengths in ([2.5, 2.5], [5, 0], [6, -1]):
        with pytest.raises(ValueError, match="lengths: expected whole numbers from 1"):
            as_sequences((np.arange(5.0), lengths))
    hidden = np.ma.masked_equal(np.arange(5), 3)
    for form in (hidden, [hidden], (hidden, [2, 3])):
        assert (
            np.isnan(as_sequences(form).values.reshape(-1)[[3, 4]]).any() and np.nanmax(as_sequences(form).values) == 4
        )


def test_one_sequence_is_compared_by_blocks_given_their_past() -> None:
    rng = np.random.default_rng(3)
    state = np.cumsum(rng.random(300) < 0.1) % 2
    y = 2.5 * state + 0.5 * rng.normal(size=300)
    settings = bu.Gibbs(draws=100, warmup=50, chains=2, most_thin=4)
    one, two = (bu.fit(HiddenMarkovModel(k), y, settings, progress=False) for k in (1, 2))
    with pytest.raises(ValueError, match="n_blocks"):
        bu.waic(two)
    with pytest.raises(ValueError, match="at least 10"):
        bu.waic(two, n_blocks=5)
    found = bu.waic(two, n_blocks=15)
    assert found.unit == "block given its past" and found.pointwise.dims == ("sequence", "block")
    assert bu.compare({"one": one, "two": two}, n_blocks=15).attrs["preferred"] == "two"


def test_a_simulated_path_is_part_of_the_truth() -> None:
    """Two exchangeable states, far apart and almost without noise: in canonical order every frame tells its state."""
    priors = {"means": dist.Normal(0.0, 1e3), "scales": dist.LogNormal(-3.0, 0.1)}
    for seed in range(4):
        data, truth = bu.simulate(HiddenMarkovModel(2, priors=priors), like=np.zeros((3, 40)), seed=seed)
        assert truth["path"].dims == data.dims
        away = data.values - truth["means"].values[truth["path"].values]
        assert np.abs(away).max() < 6 * truth["scales"].values.max()


def noisy(kind: str) -> tuple:
    """A model with a part that Gibbs has a step of its own for, its data and covariates."""
    rng = np.random.default_rng(5)
    state = np.cumsum(rng.random((4, 40)) < 0.15, axis=1) % 2
    if kind == "soft":
        true = np.where(rng.random(state.shape) < 0.9, state, 1 - state)
        sure = rng.uniform(0.8, 0.98, state.shape)
        share = np.where(true == 1, sure, 1 - sure)
        return HiddenMarkovModel(2, "categorical", soft=True), np.stack([1 - share, share], axis=-1), {}
    root = rng.normal(size=(4, 40, 2, 2)) * 0.7
    noise = root @ np.swapaxes(root, -1, -2) + 0.05 * np.eye(2)
    y = 2.0 * state[..., None] * np.array([1.0, -0.5]) + 0.3 * rng.normal(size=(4, 40, 2))
    y = y + np.einsum("...ij,...j->...i", np.linalg.cholesky(noise), rng.normal(size=y.shape))
    y[0, 3], y[1, 5:9, 0], y[2, 30:] = np.nan, np.nan, np.nan
    covariance = "diagonal" if kind == "diagonal" else "full"
    return HiddenMarkovModel(2, covariance=covariance), y, {"measurement_cov": noise}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "diagonal", "soft"])
def test_gibbs_and_nuts_agree(kind: str) -> None:
    model, y, covariates = noisy(kind)
    gibbs = bu.fit(model, y, bu.Gibbs(draws=1000, warmup=200, chains=4), progress=False, **covariates)
    nuts = bu.fit(model, y, bu.NUTS(draws=600, warmup=400), progress=False, **covariates)
    for name, ours in gibbs.posterior.data_vars.items():
        theirs = nuts.posterior[name]
        share = [1 / effective_sample_size(v.values) for v in (ours, theirs)]
        sd = theirs.std(("chain", "draw")).values
        moved = (ours.mean(("chain", "draw")) - theirs.mean(("chain", "draw"))).values / sd
        assert np.all(np.abs(moved) < 4.0 * np.sqrt(share[0] + share[1])), (name, moved)
        np.testing.assert_allclose(ours.std(("chain", "draw")).values / sd, 1.0, atol=0.2)


# ---------------------------------------------------------------------- what would be wrong without a word


def test_an_impossible_hop_stays_impossible_whatever_the_data() -> None:
    """Zeros in a fixed matrix: an outlier does not open a way, and the density is that of the one path there is."""
    means = {"kind": "Normal", "loc": [0.0, 20.0], "scale": 1e-4}
    fixed = {"initial": [1.0, 0.0], "transition": [[1.0, 0.0], [0.5, 0.5]], "scales": 1.0}
    y = np.array([[0.0, 0.0, 20.0, 0.0]])
    model = bu.models.HiddenMarkovModel(2, fixed=fixed, priors={"means": means})
    assert model.log_form and not bu.models.HiddenMarkovModel(2).log_form
    fit = bu.fit(model, y, bu.Gibbs(draws=20, chains=2), progress=False)
    states = fit.latent()["state"].sel(statistic="mean").values.reshape(4, 2)
    np.testing.assert_array_equal(states, [[1.0, 0.0]] * 4)
    expected = stats.norm.logpdf(y[0]).sum()
    # Means known to 1e-4 move 20 deviations by 2e-3.
    np.testing.assert_allclose(bu.log_likelihood(fit), expected, atol=0.02)


@pytest.mark.parametrize(
    ("options", "data", "covariates", "message"),
    [
        ({}, np.zeros((20, 1)) + np.arange(20)[:, None], {}, r"20 of one frame each.*\(X, \[len\(X\)\]\)"),
        ({"absorbing": (1,), "fixed": {"transition": np.full((2, 2), 0.5)}}, None, {}, "that absorbing or forbidden"),
        (
            {"emission": "poisson"},
            None,
            {"measurement_cov": np.ones((1, 8))},
            "belongs to normal emissions, got p",
        ),
        (
            {"emission": ["normal", "normal"]},
            np.arange(16.0).reshape(1, 8, 2),
            {"measurement_cov": np.broadcast_to([[1.0, 0.5], [0.5, 1.0]], (1, 8, 2, 2))},
            "no covariance between features",
        ),
        (
            {"fixed": {"initial": [0.5, 0.5], "transition": np.full((2, 2), 0.5), "means": [0.0, 5.0], "scales": 1.0}},
            None,
            {},
            "everything is known",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(options: Any, data: Any, covariates: Any, message: str) -> None:
    y = np.arange(8.0)[None] if data is None else data
    with pytest.raises(ValueError, match=message):
        bu.fit(bu.models.HiddenMarkovModel(2, **options), y, bu.Gibbs(draws=5, chains=2), progress=False, **covariates)


def test_features_taken_for_frames_are_warned_of() -> None:
    from bayesunmix.data.sequences import as_sequences

    with pytest.warns(UserWarning, match="read as 40 sequences of 2 frames"):
        as_sequences(np.zeros((40, 2)) + np.arange(2))


def test_chains_of_other_lags_are_not_compared() -> None:
    states = np.random.default_rng(0).integers(0, 2, (6, 30)).astype(float)
    fits = {f"lag {k}": bu.fit(bu.models.MarkovChain(2, lag=k), states, progress=False) for k in (1, 3)}
    with pytest.raises(ValueError, match="other lags"):
        bu.compare(fits)
