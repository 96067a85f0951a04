"""Hidden entries scored against the same on paper, and the ranking of models by them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

import bayesunmix as bu
from bayesunmix.heldout import _hide, _score
from bayesunmix.models import LinearUnmixing, ProbabilisticPCA

FEW = bu.Gibbs(draws=100, warmup=50, chains=2)


@pytest.fixture(scope="module")
def planes() -> xr.DataArray:
    """Two directions of variation in ten channels."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=(12, 12, 2)) @ rng.normal(size=(2, 10)) + rng.uniform(size=10)
    return xr.DataArray(clean + rng.normal(0, 0.5, clean.shape), dims=("y", "x", "energy"))


@pytest.fixture(scope="module")
def scores(planes) -> dict[int, bu.Elpd]:
    return {k: bu.heldout(ProbabilisticPCA(k), planes, 0.1, method=FEW, progress=False) for k in (1, 2)}


def test_the_right_size_predicts_hidden_entries_best(scores, planes) -> None:
    assert scores[2].elpd > scores[1].elpd + 4
    found = scores[2]
    assert found.unit == "hidden entries of a pixel"
    assert found.mcse == 0
    assert found.pointwise.dims == ("y", "x")
    # About 144 of 1440 entries, with a predictive sd near .6: 1 to 1.5 nats each.
    assert -1.6 < found.elpd / 144 < -0.7


def test_the_score_is_the_conditional_density(make_fit, planes) -> None:
    """One draw of the globals: a normal with known covariance."""
    rng = np.random.default_rng(1)
    components, mean = rng.normal(size=(2, 10)), rng.normal(size=10)
    hidden = _hide(np.ones((144, 10), bool), 0.2, jax.random.key(2))
    pixels = planes.values.reshape(144, 10)
    fit = make_fit(
        ProbabilisticPCA(2).bind(np.where(hidden, np.nan, pixels)),
        planes,
        components=(("component", "energy"), components[None, None]),
        mean=(("energy",), mean[None, None]),
        noise_scale=((), np.full((1, 1), 0.5)),
    )
    found = _score(fit, fit.units, hidden)
    covariance = components.T @ components + 0.25 * np.eye(10)
    for pixel in (0, 7, 100):
        seen = ~hidden[pixel]
        if seen.all():
            continue
        whole = multivariate_normal(mean, covariance).logpdf(pixels[pixel])
        part = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)]).logpdf(pixels[pixel][seen])
        assert found.pointwise.values.ravel()[pixel] == pytest.approx(whole - part, abs=1e-8)
    assert found.p == pytest.approx(0.0, abs=1e-12)


def test_every_pixel_keeps_an_entry() -> None:
    seen = np.random.default_rng(3).uniform(size=(200, 3)) < 0.8
    seen[:, 0] = True
    hidden = _hide(seen, 0.9, jax.random.key(0))
    assert ((seen & ~hidden).sum(1) >= 1).all()
    assert not (hidden & ~seen).any()
    few = _hide(np.ones((200, 50), bool), 0.1, jax.random.key(0))
    assert abs(few.mean() - 0.1) < 4 * np.sqrt(0.09 / few.size)


def test_unmixing_predicts_hidden_entries_with_the_right_number() -> None:
    """Hidden entries are missing in pixels that are otherwise there, under a likelihood of abundances."""
    template = xr.DataArray(np.zeros((12, 12, 24)), dims=("y", "x", "energy"))
    image, truth = bu.simulate(LinearUnmixing(2), like=template, seed=1)
    method = bu.SVI(sample_if_needed=False)
    one, two = (bu.heldout(LinearUnmixing(k), image, method=method, progress=False) for k in (1, 2))
    assert two.elpd > one.elpd + 4
    assert two.mcse < 0.1 * two.se
    # The hidden tenth of 3456 entries have the entropy of the noise, less what the unknown latent and globals cost: a
    # few parameters, each half a nat of their pixel's. Log densities of a normal scatter by root half.
    best = -np.log(float(truth["noise_scale"]) * np.sqrt(2 * np.pi * np.e))
    error = 4 * np.sqrt(0.5 / 346)
    assert best - 0.1 - error < two.elpd / 346 < best + error


def test_refusals(planes) -> None:
    with pytest.raises(TypeError, match="cannot leave single entries out"):
        bu.heldout(lambda y=None, *, n_units: None, planes)
    with pytest.raises(ValueError, match="fraction"):
        bu.heldout(ProbabilisticPCA(1), planes, 1.5)
    with pytest.raises(ValueError, match="hides none"):
        bu.heldout(ProbabilisticPCA(1), planes, 1e-9)
    with pytest.raises(TypeError, match="takes no covariate 'dose'"):
        bu.heldout(ProbabilisticPCA(1), planes, dose=1.0, progress=False)
