"""Probabilistic PCA: its moments, most likely values against scikit-learn, and its sampler against NUTS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import bayesunmix as bu
from bayesunmix.data.moments import moments, rounding
from bayesunmix.distributions.factors import NormalFactors
from bayesunmix.models import ProbabilisticPCA
from bayesunmix.models._principal_axes import most_likely


def _data(n_units: int, n_channels: int, n_components: int, noise: Any = 0.5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    components = rng.normal(size=(n_components, n_channels))
    return 2 + rng.normal(size=(n_units, n_components)) @ components + noise * rng.normal(size=(n_units, n_channels))


# ---------------------------------------------------------------------- most likely values


def test_moments_in_chunks_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayesunmix.data.moments._CHUNK_BYTES", 8 * 7 * 10)
    values = 1e6 + _data(101, 7, 2).astype(np.float32)
    values[3, 2] = np.nan
    found, complete = moments(values), np.delete(values, 3, axis=0).astype(np.float64)
    assert found.count == 100
    np.testing.assert_allclose(found.mean, complete.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(complete.T, ddof=0), rtol=1e-9, atol=1e-9)


def test_moments_are_kept_until_the_last_who_asks() -> None:
    values = _data(20, 4, 1)
    values.flags.writeable = False
    kept = moments(values)
    assert moments(values) is kept and moments(values, last=True) is kept
    assert moments(values, last=True) is not kept


@pytest.mark.parametrize("strength", [0.5, 100.0])
def test_products_are_single_only_where_that_is_harmless(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against double precision, along every direction in units of its posterior standard deviation."""
    rng = np.random.default_rng(1)
    n_units, n_channels = 20000, 64
    loadings = strength * rng.normal(size=(3, n_channels))
    values = rng.standard_normal((n_units, n_channels), dtype=np.float32)
    values += (rng.normal(size=(n_units, 3)) @ loadings).astype(np.float32)
    double = moments(values)
    monkeypatch.setattr("bayesunmix.data.moments._MANY_PRODUCTS", 0)
    found = moments(values)
    if strength > 1:
        np.testing.assert_array_equal(found.covariance, double.covariance)
        return
    white = double.eigenvectors / np.sqrt(double.eigenvalues)
    shifts = np.sqrt(n_units / 2) * np.linalg.eigvalsh(white.T @ (found.covariance - double.covariance) @ white)
    # Not double, and the bound is no more than needed.
    assert 0.1 * rounding(found) < np.abs(shifts).max() < rounding(found) < 1e-2
    # The common level of the noise moves by far less than a thousandth of its standard deviation.
    assert abs(shifts.sum()) / np.sqrt(n_channels) < 1e-3


def test_most_likely_isotropic_is_pca() -> None:
    from sklearn.decomposition import PCA

    y = _data(200, 12, 3)
    found, theirs = most_likely(moments(y), 3), PCA(3).fit(y)
    # scikit-learn divides the covariance by n - 1, maximum likelihood by n.
    widen = np.sqrt(200 / 199)
    with jax.enable_x64(True):
        fn = NormalFactors(widen * found["components"], found["mean"], widen * found["noise_scale"])
        np.testing.assert_allclose(fn.log_prob(y), theirs.score_samples(y), rtol=1e-8)


def test_most_likely_diagonal_is_factor_analysis() -> None:
    from sklearn.decomposition import FactorAnalysis

    y = _data(400, 10, 2, noise=np.linspace(0.3, 1.0, 10))
    theirs = FactorAnalysis(2, tol=1e-10, max_iter=5000).fit(y)
    found = most_likely(moments(y), 2, diagonal=True)
    with jax.enable_x64(True):
        ours = NormalFactors(found["components"], found["mean"], found["noise_scale"]).log_prob(y)
    np.testing.assert_allclose(ours, theirs.score_samples(y), rtol=1e-4)
    np.testing.assert_allclose(found["noise_scale"] ** 2, theirs.noise_variance_, rtol=1e-3)


def test_posterior_of_many_pixels_is_the_most_likely_value() -> None:
    """With 20000 pixels explained variances have a standard error of 1 %, and priors no weight."""
    y = _data(20000, 12, 2)
    fit = bu.fit(ProbabilisticPCA(2), y, progress=False)
    best = most_likely(moments(y), 2)
    expected = (best["components"] ** 2).sum(1)
    found = fit.posterior["explained_variance"]
    error = np.sqrt(2 / 20000) * (expected + best["noise_scale"] ** 2)
    np.testing.assert_allclose(found.std(("chain", "draw")), error, rtol=0.15)
    assert (np.abs(found.mean(("chain", "draw")).values - expected) < 0.3 * error).all()
    assert float(fit.posterior["noise_scale"].mean()) == pytest.approx(best["noise_scale"], rel=1e-3)


# ---------------------------------------------------------------------- the sampler


def _statistics(values: dict[str, np.ndarray]) -> np.ndarray:
    """What no rotation changes: (..., statistic)."""
    components, noise = values["components"], values["noise_scale"]
    gram = np.einsum("...kp,...kq->...pq", components, components)
    noise = noise.reshape(*gram.shape[:-2], -1)[..., :2]
    parts = [
        np.log(np.trace(gram, axis1=-2, axis2=-1))[..., None],
        gram[..., 0, :2],
        np.log(noise),
        values["mean"][..., :2],
    ]
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("case", ["isotropic", "diagonal", "two-way", "missing"])
def test_the_sampler_agrees_with_nuts_on_the_program(case: str) -> None:
    """Both sample the same posterior: few pixels, so that priors weigh; means agree within Monte Carlo error."""
    noise: Any = "isotropic" if case == "missing" else case
    y = np.abs(_data(12, 3, 1, seed=4))
    if case == "missing":
        y[0, 1] = y[5, 0] = y[6, 2] = np.nan
    model = ProbabilisticPCA(1, noise=noise, component_floor=1.0).bind(y)
    covariates = {"row_factor": np.linspace(0.3, 2.0, 12)} if case == "two-way" else {}
    sampler, rng = model.gibbs(y, covariates), np.random.default_rng(0)
    state, kept = sampler.start(rng, 20), []
    for sweep in range(2200):
        state = sampler.sweep(state, rng)
        if sweep >= 200:
            kept.append(_statistics(sampler.finished(sampler.values(state))))
    ours = np.stack(kept, axis=1)
    with jax.enable_x64(True):
        mcmc = MCMC(
            NUTS(model, target_accept_prob=0.95),
            num_warmup=400,
            num_samples=4000,
            num_chains=2,
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.run(jax.random.key(0), y, n_units=12, **covariates)
        theirs = _statistics({name: np.asarray(v) for name, v in mcmc.get_samples(group_by_chain=True).items()})
    _assert_same_means(ours, theirs)
    # The heavy tail of an explained variance makes spreads of the gram uncertain; that of log and mean is not.
    ours, theirs = (draws[..., [0, 3, -1]] for draws in (ours, theirs))
    centre = theirs.mean((0, 1))
    _assert_same_means((ours - centre) ** 2, (theirs - centre) ** 2)


def _assert_same_means(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Of draws (chain, draw, statistic), within four standard errors."""
    errors = [draws.std((0, 1)) / np.sqrt(effective_sample_size(draws)) for draws in (ours, theirs)]
    apart = ours.mean((0, 1)) - theirs.mean((0, 1))
    assert (np.abs(apart) < 4 * np.hypot(*errors)).all(), apart / np.hypot(*errors)


@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_averages_of_means_vary_less_than_those_of_independent_draws(noise: Any) -> None:
    """Along strong components too, where what scores and mean shift together is nearly all that a mean varies."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=(500, 2)) @ (3 * rng.normal(size=(2, 20))) + rng.normal(size=(500, 20))
    sampler = ProbabilisticPCA(2, noise=noise).bind(y).gibbs(y, {})
    state, kept = sampler.start(rng, 4), []
    for _ in range(350):
        state = sampler.sweep(state, rng)
        kept.append(sampler.values(state))
    last = {name: np.stack([one[name] for one in kept[100:]], axis=1) for name in kept[0]}
    assert effective_sample_size(sampler.finished(last)["mean"]).min() > 1.3 * 1000  # 1000 draws


def test_few_pixels_and_many_channels_are_sampled_alike_pixel_by_pixel_or_compressed() -> None:
    y = _data(6, 9, 1)
    model = ProbabilisticPCA(1, component_floor=1.0).bind(y)
    draws = []
    for one in (model, replace(model, missing=True)):
        sampler, rng = one.gibbs(y, {}), np.random.default_rng(1)
        state, kept = sampler.start(rng, 20), []
        for sweep in range(800):
            state = sampler.sweep(state, rng)
            if sweep >= 200:
                kept.append(_statistics(sampler.finished(sampler.values(state))))
        draws.append(np.stack(kept, axis=1))
    errors = [d.std((0, 1)) / np.sqrt(effective_sample_size(d)) for d in draws]
    assert (np.abs(draws[0].mean((0, 1)) - draws[1].mean((0, 1))) < 4 * np.hypot(*errors)).all()


@pytest.mark.slow
def test_marginal_and_textbook_program_have_one_posterior() -> None:
    y = _data(10, 3, 1, seed=2)
    model = ProbabilisticPCA(1, component_floor=1.0).bind(y)
    with jax.enable_x64(True):
        found = []
        for program in (model, model.joint):
            mcmc = MCMC(
                NUTS(program),
                num_warmup=400,
                num_samples=1000,
                num_chains=2,
                chain_method="vectorized",
                progress_bar=False,
            )
            mcmc.run(jax.random.key(3), y, n_units=10)
            found.append(_statistics({n: np.asarray(v) for n, v in mcmc.get_samples(group_by_chain=True).items()}))
    errors = [d.std((0, 1)) / np.sqrt(effective_sample_size(d)) for d in found]
    assert (np.abs(found[0].mean((0, 1)) - found[1].mean((0, 1))) < 4 * np.hypot(*errors)).all()
