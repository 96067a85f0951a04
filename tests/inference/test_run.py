"""What becomes of a guide: doubted by its model, or replaced by sampling for as long as that is allowed."""

from __future__ import annotations

import sys
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayesunmix as bu
from bayesunmix.inference.guide_check import RATIO_LIMITS
from bayesunmix.inference.mode import MC_SHIFT_LIMIT
from bayesunmix.inference.run import infer

SVI = bu.SVI(draws=200, steps=20)


def run(data: Any, model: Any, method: Any = SVI) -> bu.Fit:
    return bu.fit(model, data, method, progress=False)


class Doubting:
    """Normal numbers of unknown mean; knows a reason against any guide of it."""

    def __call__(self, y=None, *, n_units: int) -> None:
        mean = numpyro.sample("mean", dist.Normal(jax.numpy.zeros(2), 1.0).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    def doubts(self, values: dict[str, np.ndarray]) -> list[str]:
        return ["the mean is above zero"] if values["mean"].mean() > 0 else []


def test_a_guide_that_its_model_doubts_is_not_usable() -> None:
    """Though the guide is right, and passes every check of its own."""
    white = np.random.default_rng(0).normal(size=(200, 2))
    above, below = (run(white + shift, Doubting()) for shift in (0.3, -0.3))
    assert below.converged and not above.converged
    assert above.diagnostics.attrs["verdict"] == "Do not use this fit as it is: the mean is above zero."


def few(y: Any = None, *, n_units: int) -> None:
    """A gamma variable, of which the data say nothing: draws of its guide are weighted."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(0.0 * rate, 1.0).expand([2]).to_event(1), obs=y)


def test_weights_do_not_outvote_the_model() -> None:
    """They keep what the guide has, and its model knows better than they what it has not."""

    class Knowing(Doubting):
        __call__ = staticmethod(few)

        def doubts(self, values: dict[str, np.ndarray]) -> list[str]:
            return ["something is hidden"]

    y = np.random.default_rng(0).normal(size=(3, 2))
    assert "weighted" in run(y, few, bu.SVI(draws=200)).diagnostics.attrs["verdict"]
    found = run(y, Knowing(), bu.SVI(draws=200))
    assert not found.converged and "something is hidden" in found.diagnostics.attrs["verdict"]


def test_weights_are_not_taken_where_rules_do_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's own draws are, and the verdict says why not to use them."""
    module = sys.modules[infer.__module__]
    monkeypatch.setattr(module.rules_check, "off_by", lambda *_: 25.0)
    y = np.random.default_rng(0).normal(size=(3, 2))
    found = run(y, few, bu.SVI(draws=200, sample_if_needed=False))
    assert not found.converged and "off by 25.0 nats" in found.diagnostics.attrs["verdict"]
    assert "pareto_k" not in found.diagnostics


def normal(y: Any = None, *, n_units: int) -> None:
    place = numpyro.sample("place", dist.Normal(0.0, 10.0))
    with numpyro.plate("unit", n_units):
        numpyro.sample("y", dist.Normal(place, 1.0).expand([2]).to_event(1), obs=y)


@pytest.mark.parametrize("most", [10, 10**6])
def test_sampling_in_place_of_a_guide_is_bounded(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guide that is said to fail, and that no weights mend: sampled as long as that is allowed, else returned and not
    called usable."""
    module = sys.modules[infer.__module__]
    own = module.reshaped_guide
    monkeypatch.setattr(module, "reshaped_guide", lambda *parts: own(*parts)._replace(faults=["the guide is wrong"]))
    monkeypatch.setattr(module.importance, "directions", lambda *_: None)
    monkeypatch.setattr(module, "_MOST_GRADIENTS", most)
    y = np.random.default_rng(0).normal(size=(20, 2))
    found = run(y, normal, bu.SVI(draws=200))
    verdict = found.diagnostics.attrs["verdict"]
    assert "the guide is wrong" in verdict
    if most == 10:
        assert not found.converged and "NUTS was given up after 10 gradients" in verdict
        assert found.posterior.sizes == {"chain": 1, "draw": 200}
    else:
        assert "sampled with NUTS" in verdict and found.posterior.sizes == {"chain": 2, "draw": 100}
        assert run(y, normal, bu.SVI(draws=5)).posterior.sizes == {"chain": 2, "draw": 4}  # the fewest of a chain


@pytest.mark.parametrize("limits", [(8, 0), (2, 0), (2, 250)], ids=["all units", "the sample", "a larger sample"])
def test_what_is_done_where_another_sample_is_at_odds(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All units, unless there are too many of them: the posterior is then that of a fit without samples. Otherwise a
    larger sample; and one that may be no larger ends in words, not in a chain on it."""
    module = sys.modules[infer.__module__]
    own, samples = module.judged_guide, []

    def at_odds(program, mode, leapt, settings, judge, *rest):
        best = own(program, mode, leapt, settings, judge, *rest)
        if judge is mode.data:
            return best
        parts = [judge, *(other for other, _ in judge.others)]
        samples.append(sum(len(part.y) for part in parts if float(part.weight) > 1.0))
        return best._replace(faults=["off by another sample"])

    rng = np.random.default_rng(0)
    y = rng.dirichlet(np.ones(2), 500) @ rng.uniform(1.0, 4.0, (2, 6)) + 0.1 * rng.normal(size=(500, 6))
    every = run(y, bu.models.LinearUnmixing(2))
    for name, value in zip(("_MOST_PARTS", "_MOST_UNITS"), limits, strict=True):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "_LARGER", 2)
    monkeypatch.setattr(module, "judged_guide", at_odds)
    monkeypatch.setattr(module, "reshaped_guide", lambda program, mode, best, *rest: best)
    found = run(y, bu.models.LinearUnmixing(2), bu.SVI(draws=1000, batch=100))
    assert every.converged and samples == [100, 200][: 1 + (limits == (2, 250))]
    if limits != (8, 0):
        verdict = found.diagnostics.attrs["verdict"]
        assert not found.converged and "off by another sample" in verdict and f"of {samples[-1]} units" in verdict
        assert found.posterior.sizes["chain"] == 1
        return
    assert found.converged
    one, other = (fit.posterior["endmembers"].values.reshape(-1, 12) for fit in (every, found))
    assert (np.abs(one.mean(0) - other.mean(0)) / one.std(0)).max() < MC_SHIFT_LIMIT
    ratios = other.std(0) / one.std(0)
    assert RATIO_LIMITS[0] < ratios.min() <= ratios.max() < RATIO_LIMITS[1]
