"""Counts: probabilistic PCA with noise="poisson" against quadrature, enumeration and correspondence analysis."""

from __future__ import annotations

import itertools

import jax
import numpy as np
import pytest
import xarray as xr
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp
from scipy.stats import multinomial, nbinom

import bayesunmix as bu
from bayesunmix.models import ProbabilisticPCA
from bayesunmix.models._count_components import correspondence

MEAN, LOADING, SHAPE = np.log([4.0, 3.0, 2.0]), np.array([[0.9, 0.0, -0.9]]), 15.0


@pytest.fixture(scope="module")
def simulated() -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """20 x 20 pixels, 3 channels of about 9 counts, one component, brightness; with scores and brightness."""
    rng = np.random.default_rng(5)
    score, brightness = rng.normal(size=(20, 20, 1)), rng.gamma(SHAPE, 1 / SHAPE, (20, 20, 1))
    share = np.exp(MEAN + score @ LOADING)
    rate = brightness * 9 * share / share.sum(-1, keepdims=True)
    image = xr.DataArray(rng.poisson(rate).astype(float), dims=("y", "x", "energy"))
    return image, score[..., 0], brightness[..., 0]


@pytest.fixture(scope="module")
def fit(simulated) -> bu.Fit:
    return bu.fit(ProbabilisticPCA(1, noise="poisson"), simulated[0], bu.SVI(draws=200), progress=False)


def test_parameters_scores_and_brightness_are_found(fit: bu.Fit, simulated) -> None:
    _, score, brightness = simulated
    assert fit.converged and isinstance(fit.method, bu.SVI)
    posterior = fit.posterior
    # Inertia of the truth: variance of the logarithm, weighted by the shares, off their mean.
    mass = np.exp(MEAN) / 9
    loading = LOADING[0] - LOADING[0] @ mass
    true = {"explained_variance": (loading**2 @ mass)[None], "mean": MEAN, "brightness_shape": SHAPE}
    sign = np.sign(float(posterior["components"].mean(("chain", "draw"))[0, 0]))
    true["components"] = sign * loading[None]
    for name, value in true.items():
        found = posterior[name]
        away = (found.mean(("chain", "draw")) - value) / found.std(("chain", "draw"))
        assert float(np.abs(away).max()) < 3.5, name
    maps = fit.latent(draws=50)
    for name, value in (("score", sign * score[..., None]), ("brightness", brightness)):
        low, high = (maps[name].sel(statistic=s).values for s in ("lower", "upper"))
        covered = float(np.mean((low <= value) & (value <= high)))
        assert abs(covered - 0.9) < 3 * np.sqrt(0.09 / value.size) + 0.01, name
    assert maps["score"].dims == ("y", "x", "component", "statistic")
    assert maps["brightness"].dims == ("y", "x", "statistic")


def test_answers_are_principal_axes_of_correspondence_analysis(fit: bu.Fit) -> None:
    """Orthogonal to the mean in the metric of the shares, with the inertia as their length."""
    draws = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    mass = np.exp(draws["mean"].values)
    level = mass.sum(1)
    mass /= level[:, None]
    components = draws["components"].values
    np.testing.assert_allclose((components * mass[:, None]).sum(-1), 0.0, atol=1e-10)
    np.testing.assert_allclose((components**2 * mass[:, None]).sum(-1), draws["explained_variance"].values, rtol=1e-9)
    np.testing.assert_allclose(draws["noise_scale"].values, level**-0.5, rtol=1e-12)
    assert float(draws["n_above_noise"].mean()) == 1.0


def test_expected_counts_are_those_that_made_the_image(fit: bu.Fit, simulated) -> None:
    _, score, brightness = simulated
    share = np.exp(MEAN + score[..., None] @ LOADING)
    true = brightness[..., None] * 9 * share / share.sum(-1, keepdims=True)
    parts = bu.uncertainty(fit)
    covered = float((np.abs(parts["mean"] - true) < 1.6449 * parts["epistemic"]).mean())
    assert abs(covered - 0.9) < 0.05
    figure = bu.plot.scree(fit)
    assert figure.axes[0].get_ylabel() == "principal inertia"


def test_a_guide_is_doubted_where_a_component_is_hidden(fit: bu.Fit) -> None:
    """Of a quarter of the strength that shows among so many pixels; the one of the image shows."""
    values = {name: fit.posterior[name].values for name in ("components", "mean", "brightness_shape")}
    assert not fit.model.doubts(values) and "hidden" not in fit.diagnostics.attrs["verdict"]
    visible = fit.model.visible_share * fit.posterior["noise_scale"].values ** 2
    weaker = 0.5 * np.sqrt(visible / fit.posterior["explained_variance"].values[..., 0])
    (said,) = fit.model.doubts({**values, "components": values["components"] * weaker[..., None, None]})
    assert "hidden by the noise" in said


def _log_p(y: np.ndarray, size: int) -> np.ndarray:
    """Log density of all images of a pixel, by quadrature over its score."""
    z = np.linspace(-6, 6, 121)[:, None] if size else np.zeros((1, 1))
    logits = MEAN + z @ LOADING * size
    share = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    prior = -0.5 * z[:, 0] ** 2
    parts = multinomial.logpmf(y[:, None], y.sum(1)[:, None], share) + prior - logsumexp(prior)
    return logsumexp(parts, axis=1) + nbinom.logpmf(y.sum(1), SHAPE, SHAPE / (SHAPE + 9))


def test_relative_entropy_is_the_divergence_from_independence(fit: bu.Fit, simulated) -> None:
    """Against enumeration of every image that a pixel can show, from independence with the same shares on average."""
    y = np.array([one for one in itertools.product(range(36), repeat=3) if sum(one) <= 36])
    log_p = _log_p(y, 1)
    p = np.exp(log_p)
    assert p.sum() == pytest.approx(1.0, abs=1e-3)
    share = p @ y / (p @ y).sum()
    independent = multinomial.logpmf(y, y.sum(1), share) + nbinom.logpmf(y.sum(1), SHAPE, SHAPE / (SHAPE + 9))
    expected = 400 * p @ (log_p - independent)
    found = bu.relative_entropy(fit)
    assert abs(found.attrs["total"] - expected) < 3 * found.attrs["se"] < 0.6 * expected
    assert found.attrs["per_count"] == pytest.approx(found.attrs["total"] / float(simulated[0].sum()))
    assert found["information"].dims == ("y", "x")


def test_many_counts_and_a_weak_component_are_correspondence_analysis() -> None:
    """The start is textbook correspondence analysis less chance, and with many counts the posterior stays there."""
    rng = np.random.default_rng(0)
    loading = 0.05 * np.array([[1.0, 0.2, -1.0]])
    share = np.exp(rng.normal(size=(400, 1)) @ loading + np.log([0.5, 0.3, 0.2]))
    total = rng.poisson(4000, 400)
    y = np.stack([rng.multinomial(n, s / s.sum()) for n, s in zip(total, share, strict=True)]).astype(float)
    rows, mass = y.sum(1) / y.sum(), y.sum(0) / y.sum()
    standard = (y / y.sum() - np.outer(rows, mass)) / np.sqrt(np.outer(rows, mass))
    _, singular, axes = np.linalg.svd(standard, full_matrices=False)
    start = correspondence(y, 1)
    inertia = (start["components"] ** 2 @ np.exp(start["mean"])) / np.exp(start["mean"]).sum()
    expected = singular[0] ** 2 - 1 / 4000
    assert float(inertia[0]) == pytest.approx(expected, rel=2e-3)
    fit = bu.fit(ProbabilisticPCA(1, noise="poisson"), y, bu.SVI(draws=200), progress=False)
    found = fit.posterior["explained_variance"]
    assert abs(float(found.mean()) - expected) < 0.3 * float(found.std())
    direction = fit.posterior["components"].mean(("chain", "draw")).values[0] * np.sqrt(mass)
    assert abs(direction @ axes[0]) / np.linalg.norm(direction) > 0.999


@pytest.mark.slow
def test_marginal_and_textbook_program_have_one_posterior() -> None:
    """Few pixels and NUTS, on scores integrated numerically and on scores as latent variables."""
    rng = np.random.default_rng(1)
    y = rng.poisson(np.exp(MEAN + rng.normal(size=(12, 1)) @ LOADING)).astype(float)
    model = ProbabilisticPCA(1, noise="poisson", component_floor=1.0).bind(y)
    found = []
    with jax.enable_x64(True):
        for program in (model, model.joint):
            mcmc = MCMC(
                NUTS(program), num_warmup=400, num_samples=1000, num_chains=2, chain_method="vectorized",
                progress_bar=False,
            )  # fmt: skip
            mcmc.run(jax.random.key(3), y, n_units=12)
            draws = model.identified({n: np.asarray(v) for n, v in mcmc.get_samples(group_by_chain=True).items()})
            shown = [np.log(draws["explained_variance"]), draws["mean"], np.log(draws["brightness_shape"])[..., None]]
            found.append(np.concatenate(shown, axis=-1))
    errors = [d.std((0, 1)) / np.sqrt(effective_sample_size(d)) for d in found]
    assert (np.abs(found[0].mean((0, 1)) - found[1].mean((0, 1))) < 4 * np.hypot(*errors)).all()


def test_what_counts_cannot_be_is_refused() -> None:
    model = ProbabilisticPCA(1, noise="poisson")
    y = np.arange(18.0).reshape(6, 3)
    for bad in (y - 5, np.where(np.eye(6, 3) > 0, np.nan, y)):
        with pytest.raises(ValueError, match=r"counts|NaN|negative"):
            bu.fit(model, bad, progress=False)
        with pytest.raises(ValueError, match="counts that are never negative"):
            model.bind(bad)
    with pytest.raises(TypeError, match="no sampler of its own"):
        bu.fit(model, y, bu.Gibbs(), progress=False)
    with pytest.raises(ValueError, match="whole pixels"):
        ProbabilisticPCA(1, noise="poisson", missing=True)
    assert "brightness" in model.bind(y).describe()
