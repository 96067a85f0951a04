"""The estimator where scikit-learn uses one: cloned, searched, in a pipeline."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from two_lines import imported, mixture

import bayesunmix as bu

sklearn = imported("sklearn")
from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402

X = mixture().reshape(-1, 12)


@pytest.fixture(scope="module")
def pca() -> Any:
    return bu.Estimator(bu.models.ProbabilisticPCA(1), progress=False).fit(X)


@pytest.fixture(scope="module")
def classes() -> Any:
    """Two classes of points four standard deviations apart."""
    points = np.random.default_rng(0).normal(size=(80, 2)) + 6.0 * (np.arange(80) % 2)[:, None]
    estimator = bu.Estimator(bu.models.GaussianMixture(2, covariance="spherical"), progress=False)
    return points, estimator, estimator.fit_transform(points)


def test_scores_times_components_is_the_data_without_the_mean(pca: Any) -> None:
    scores = pca.transform(X)
    assert scores.shape == (48, 1)
    assert pca.components_.shape == (1, 12)
    assert (X - pca.mean_spectrum_ - scores @ pca.components_).std() == pytest.approx(pca.noise_scale_, rel=0.05)
    assert not hasattr(pca, "mean_"), "HyperSpy adds mean_ to the data of its user"
    np.testing.assert_array_equal(scores, pca.fit_.latent()["score"].sel(statistic="mean").values)


def test_a_sample_is_transformed_alone_as_among_others(pca: Any) -> None:
    np.testing.assert_allclose(pca.transform(X[5:6]), pca.transform(X)[5:6], rtol=1e-4)


def test_scores_of_samples_are_predictive_densities(pca: Any) -> None:
    from scipy.stats import multivariate_normal

    draws = pca.fit_.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    covariance = np.einsum("skp,skq->spq", draws["components"], draws["components"])
    covariance += draws["noise_scale"].values[:, None, None] ** 2 * np.eye(12)
    each = [multivariate_normal(m, c).logpdf(X[3]) for m, c in zip(draws["mean"].values, covariance, strict=True)]
    assert pca.score_samples(X)[3] == pytest.approx(np.log(np.mean(np.exp(np.asarray(each) - 30))) + 30, abs=1e-3)
    assert pca.score(X) == pytest.approx(pca.score_samples(X).mean())


def test_the_mixture_gives_memberships(classes: Any) -> None:
    points, estimator, shares = classes
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    assert len({tuple(shares[i::2].argmax(1)) for i in (0, 1)}) == 2
    assert (shares.max(1) > 0.5).all()
    np.testing.assert_allclose(estimator.components_, estimator.means_)
    assert sorted(estimator.means_[:, 0].round()) == [0, 6]
    assert estimator.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(estimator.transform(points), shares, atol=1e-3)


def test_clones_are_equal_and_not_fitted(pca: Any) -> None:
    other = clone(pca)
    assert repr(other) == repr(pca)
    with pytest.raises(AttributeError, match="not fitted yet"):
        other.transform(X)


def test_hyperparameters_are_parameters() -> None:
    estimator = bu.Estimator(bu.models.LinearUnmixing(n_endmembers=3), bu.NUTS(draws=10), seed=4)
    assert estimator.get_params()["model__n_endmembers"] == 3
    assert set(estimator.get_params(deep=False)) == {"model", "method", "seed", "append_mean", "progress"}
    given = estimator.model
    estimator.set_params(model__n_endmembers=2, method__draws=20, seed=5)
    assert (estimator.model.n_endmembers, estimator.method.draws, estimator.seed) == (2, 20, 5)
    assert given.n_endmembers == 3, "the model of the caller is not changed"
    estimator.set_params(model__noise="diagonal", model=bu.models.ProbabilisticPCA(1))
    assert estimator.model == bu.models.ProbabilisticPCA(1, noise="diagonal") or estimator.model.noise == "diagonal"
    with pytest.raises(ValueError, match=r"unknown parameters \['model__colour'\]"):
        estimator.set_params(model__colour=1)


def test_cross_validation_chooses_the_number_of_components() -> None:
    bright = X * np.random.default_rng(0).uniform(0.5, 1.5, (len(X), 1))
    estimator = bu.Estimator(bu.models.ProbabilisticPCA(1), progress=False)
    search = GridSearchCV(estimator, {"model__n_components": [1, 2]}, cv=2, error_score="raise").fit(bright)
    assert search.best_params_ == {"model__n_components": 2}


def test_in_a_pipeline(pca: Any) -> None:
    line = make_pipeline(FunctionTransformer(lambda x: x - X.mean(0)), clone(pca))
    np.testing.assert_allclose(np.abs(line.fit_transform(X)), np.abs(pca.transform(X)), atol=0.1)
    assert line[-1].n_features_in_ == 12


def test_scikit_learn_knows_that_it_is_not_fitted() -> None:
    from sklearn.utils.validation import check_is_fitted

    with pytest.raises(NotFittedError):
        check_is_fitted(bu.Estimator(bu.models.ProbabilisticPCA(1)))


def test_a_fit_that_fails_its_diagnostics_warns() -> None:
    estimator = bu.Estimator(bu.models.ProbabilisticPCA(1), bu.Gibbs(draws=4, warmup=1, chains=2), progress=False)
    with pytest.warns(UserWarning):
        estimator.fit(X)


def test_images_are_not_taken_for_samples() -> None:
    with pytest.raises(ValueError, match=r"expected \(sample, feature\).*got shape \(6, 8, 12\)"):
        bu.Estimator(bu.models.ProbabilisticPCA(1)).fit(mixture())


def test_importing_bayesunmix_imports_none_of_them() -> None:
    code = (
        "import sys, bayesunmix as bu; bu.from_hyperspy, bu.to_hyperspy, bu.from_sidpy, bu.to_sidpy, bu.Estimator;"
        "sys.exit(str({'hyperspy', 'exspy', 'sidpy', 'sklearn', 'dask'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) in ((0, ""), (1, "")), done.stderr
