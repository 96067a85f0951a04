"""A grid of fits with names that ``compare`` understands."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix.models import LinearUnmixing, ProbabilisticPCA

FEW = bu.SVI(draws=20, steps=5)


@pytest.fixture
def calls(monkeypatch, svi_fit):
    """Fits that are not made: what ``sweep`` asked for."""
    made: list = []

    def fit(model, data, method=None, *, mask=None, seed=0, progress=True):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((model, method, seed, progress))
        return svi_fit

    monkeypatch.setattr(importlib.import_module("bayesunmix.sweep"), "fit", fit)
    return made


def test_every_combination_once_each_with_a_seed_of_its_own(calls, image) -> None:
    found = bu.sweep(LinearUnmixing(2), image, FEW, n_endmembers=[2, 3, 4], progress=False)
    assert list(found) == ["n_endmembers=2", "n_endmembers=3", "n_endmembers=4"]
    assert [model.n_endmembers for model, *_ in calls] == [2, 3, 4]
    assert all(method is FEW and not progress for _, method, _, progress in calls)
    assert (
        len({tuple(np.asarray(seed).ravel().tolist()) if np.ndim(seed) else str(seed) for _, _, seed, _ in calls}) == 3
    )


def test_without_a_method_nothing_is_sampled_that_no_sampler_of_its_own_serves(calls, image) -> None:
    bu.sweep(LinearUnmixing(2), image, n_endmembers=[2], progress=False)
    bu.sweep(ProbabilisticPCA(1), image, n_components=[1], progress=False)
    assert [method for _, method, *_ in calls] == [bu.SVI(sample_if_needed=False), None]


def test_what_is_complete_is_there_after_an_interruption(calls, image) -> None:
    found = bu.sweep(LinearUnmixing(2), image, n_endmembers=[2, 3], noise=["isotropic", "diagonal"], progress=False)
    assert list(found) == [
        "n_endmembers=2, noise=isotropic",
        "n_endmembers=2, noise=diagonal",
        "n_endmembers=3, noise=isotropic",
    ]


def test_a_sweep_is_compared_in_words(image) -> None:
    """Two spectra differ by one direction: one principal component is enough."""
    fits = bu.sweep(ProbabilisticPCA(1), image, bu.Gibbs(draws=100, warmup=50), n_components=[1, 2], progress=False)
    table = bu.compare(fits, "loo")
    assert table.attrs["preferred"] == "n_components=1"
    # Behind it single pixels may be said to have weights with a long tail.
    assert table.attrs["verdict"].split(" Terms of some pixels have a Pareto k above 0.7 ")[0] in (
        "1 and 2 components are indistinguishable: prefer 1, the smallest.",
        "Prefer 1 components: clearly better than every other.",
    )


def test_bad_grids(image) -> None:
    with pytest.raises(TypeError, match=r"no hyper-parameters \['n_components'\]"):
        bu.sweep(LinearUnmixing(2), image, n_components=[1])
    with pytest.raises(ValueError, match="at least one"):
        bu.sweep(LinearUnmixing(2), image)
    with pytest.raises(ValueError, match="at least one"):
        bu.sweep(LinearUnmixing(2), image, n_endmembers=[])
    with pytest.raises(TypeError, match="takes no covariate 'dose'"):
        bu.sweep(LinearUnmixing(2), image, n_endmembers=[2], covariates={"dose": 1.0}, progress=False)
