"""Chains of observed states, and what follows from a transition matrix, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayesunmix as bu
from bayesunmix.models import HiddenMarkovModel, MarkovChain

TRANSITION = np.array([[0.9, 0.08, 0.02], [0.05, 0.85, 0.1], [0.2, 0.1, 0.7]])


def walk(rng: np.random.Generator, sequences: int, steps: int, transition=TRANSITION) -> np.ndarray:
    path = np.zeros((sequences, steps))
    state = rng.integers(0, len(transition), sequences)
    for t in range(steps):
        path[:, t] = state
        state = (rng.random((sequences, 1)) > transition[state].cumsum(1)).sum(1)
    return path


@pytest.fixture(scope="module")
def path() -> xr.DataArray:
    values = walk(np.random.default_rng(0), 8, 200)
    values[3, 50:] = np.nan
    time = ("time", 0.1 * np.arange(200), {"units": "s"})
    lengths = ("sequence", [200, 200, 200, 50, 200, 200, 200, 200])
    return xr.DataArray(values, {"time": time, "length": lengths}, ("sequence", "time"))


@pytest.fixture(scope="module")
def fit(path: xr.DataArray) -> bu.Fit:
    return bu.fit(MarkovChain(3), path, bu.Gibbs(draws=500, warmup=1), progress=False)


def pooled(path: np.ndarray, lag: int = 1) -> np.ndarray:
    counts = np.zeros((3, 3))
    for row in path:
        kept = row[np.isfinite(row)][::lag].astype(int)
        np.add.at(counts, (kept[:-1], kept[1:]), 1)
    return counts


def test_the_posterior_is_the_dirichlet_of_pooled_counts(fit: bu.Fit, path: xr.DataArray) -> None:
    draws = fit.posterior["transition"].values.reshape(-1, 3, 3)
    weights = pooled(path.values) + 1.0
    for k in range(3):
        for j in range(3):
            exact = stats.beta(weights[k, j], weights[k].sum() - weights[k, j])
            assert stats.kstest(draws[:, k, j], exact.cdf).pvalue > 1e-4
    assert fit.converged


def test_only_frames_a_lag_apart_enter_at_a_lag(path: xr.DataArray) -> None:
    fit = bu.fit(MarkovChain(3, lag=4), path, bu.Gibbs(draws=500, warmup=1), progress=False)
    weights = pooled(path.values, 4) + 1.0
    expected = weights / weights.sum(1, keepdims=True)
    sd = np.sqrt(expected * (1 - expected) / (weights.sum(1, keepdims=True) + 1))
    error = fit.posterior["transition"].mean(("chain", "draw")).values - expected
    assert np.abs(error / (sd / np.sqrt(2000))).max() < 4.5
    assert float(bu.dwell_times(fit).sel(state=0, statistic="mean")) > 0.4  # seconds: a step is four frames


@pytest.mark.slow
def test_detailed_balance_is_kept(path: xr.DataArray) -> None:
    fit = bu.fit(MarkovChain(3, reversible=True), path, bu.NUTS(draws=150, warmup=150), progress=False)
    matrix = fit.posterior["transition"].values
    values, vectors = np.linalg.eig(np.swapaxes(matrix, -1, -2))
    first = np.argmax(values.real, axis=-1)
    share = np.take_along_axis(vectors.real, first[..., None, None], axis=-1)[..., 0]
    flow = share[..., None] * matrix
    np.testing.assert_allclose(flow, np.swapaxes(flow, -1, -2), atol=1e-9)
    # The flow between two states is what a reversible chain is free to have: near that of the pooled counts.
    counts = pooled(path.values)
    expected = (counts + counts.T) / (counts + counts.T).sum(1, keepdims=True)
    np.testing.assert_allclose(matrix.mean((0, 1)), expected, atol=0.04)


def test_answers_follow_from_every_draw(fit: bu.Fit) -> None:
    draws = fit.posterior["transition"].values.reshape(-1, 3, 3)
    mean = {"transition": draws.mean(0)}
    np.testing.assert_allclose(bu.transition_matrix(fit).sel(statistic="mean"), mean["transition"])
    dwell = bu.dwell_times(fit)
    np.testing.assert_allclose(dwell.sel(statistic="mean"), (0.1 / (1 - draws[:, range(3), range(3)])).mean(0))
    assert dwell.attrs["units"] == "s"
    share = bu.stationary_distribution(fit).sel(statistic="mean").values
    far = np.stack([np.linalg.matrix_power(matrix, 2000)[0] for matrix in draws])
    np.testing.assert_allclose(share, far.mean(0), rtol=1e-6)
    slowest = [np.sort(np.abs(np.linalg.eigvals(m)))[::-1][1] for m in draws]
    found = bu.implied_timescales(fit).isel(mode=0).sel(statistic="mean")
    assert float(found) == pytest.approx(np.mean(-0.1 / np.log(slowest)))
    # First passage to state 2: one step, and from there on if it has not led to it.
    passage = bu.mean_first_passage_times(fit, prob=0.5).sel(target=2)
    for start in (0, 1):
        simple = []
        for m in draws:
            a, b, c, d = 1 - m[0, 0], -m[0, 1], -m[1, 0], 1 - m[1, 1]
            simple.append(((d - b) if start == 0 else (a - c)) / (a * d - b * c) * 0.1)
        assert float(passage.sel(state=start, statistic="mean")) == pytest.approx(np.mean(simple))
        assert float(passage.sel(state=start, statistic="upper")) == pytest.approx(np.quantile(simple, 0.75))
    assert float(passage.sel(state=2, statistic="mean")) == 0.0


def test_one_step_memory_passes_and_longer_memory_fails(fit: bu.Fit, path: xr.DataArray) -> None:
    good = bu.chapman_kolmogorov(fit, lags=(1, 3, 6))
    assert good["observed"].dims == ("lag", "state", "next_state")
    assert good.attrs["outside"] <= 0.2
    # Two states that look alike but are left at different rates: what one step says is wrong over several.
    inner = np.array([[0.98, 0.0, 0.02], [0.0, 0.5, 0.5], [0.1, 0.4, 0.5]])
    lumped = np.where(walk(np.random.default_rng(1), 8, 200, inner) == 2, 1.0, 0.0)
    bad = bu.chapman_kolmogorov(bu.fit(MarkovChain(2), lumped, bu.Gibbs(draws=100, warmup=1), progress=False), (2, 8))
    assert bad.attrs["outside"] > 0.4
    assert float(bad["p_value"].min()) < 0.05


def test_paths_that_miss_a_state_are_left_out_of_its_hops() -> None:
    """Two frames in 30 in the rare state: many simulated paths never see it, and half of its rows have no share."""
    y = np.zeros((1, 30))
    y[0, 10:12] = 1.0
    rare = bu.fit(MarkovChain(2, concentration=[[20.0, 1.0], [1.0, 1.0]]), y, bu.Gibbs(draws=200, warmup=1),
                  progress=False)  # fmt: skip
    found = bu.chapman_kolmogorov(rare, lags=(1, 2, 40), draws=200)
    entry = found.sel(lag=1, state=1, next_state=1)
    assert float(entry["observed"]) == 0.5
    assert 0.0 <= float(entry["predicted"].sel(statistic="lower")) < float(entry["predicted"].sel(statistic="upper"))
    assert np.isnan(found.sel(lag=40)["observed"]).all() and np.isnan(found.sel(lag=40)["p_value"]).all()


def test_hidden_chains_answer_the_same_questions(hidden_chain, path: xr.DataArray) -> None:
    fit, states = hidden_chain
    best = bu.viterbi(fit)
    assert best.dims == ("sequence", "time")
    seen = np.isfinite(fit.data.values)
    # Levels lie six standard deviations apart: a frame in 700 is nearer to the wrong one.
    assert (best.values == states)[seen].mean() > 0.97
    found = bu.chapman_kolmogorov(fit, lags=(1, 2), draws=50)
    assert np.isfinite(found["observed"].values).all()
    with pytest.raises(TypeError, match="hidden"):
        bu.viterbi(bu.fit(MarkovChain(3), path, bu.Gibbs(draws=20, warmup=1), progress=False))


def test_states_never_left_and_gaps_are_handled(path: xr.DataArray) -> None:
    y = np.array([[0.0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    known = {"transition": [[0.5, 0.5], [0.0, 1.0]], "probabilities": np.eye(2)}
    model = HiddenMarkovModel(2, "categorical", absorbing=[1], fixed=known)
    fit = bu.fit(model, y, bu.Gibbs(draws=20, warmup=1, chains=2, most_thin=1), progress=False)
    assert np.isinf(bu.dwell_times(fit).sel(state=1, statistic="mean"))
    passage = bu.mean_first_passage_times(fit).sel(statistic="mean").values
    np.testing.assert_allclose(passage, [[0.0, 2.0], [np.inf, 0.0]])
    gappy = path.copy()
    gappy[0, 5] = np.nan
    with pytest.raises(ValueError, match="inside a sequence"):
        bu.fit(MarkovChain(3), gappy, progress=False)
    with pytest.raises(ValueError, match="states 0 to 1"):
        bu.fit(MarkovChain(2), path, progress=False)
    with pytest.raises(ValueError, match="no hop"):
        bu.fit(MarkovChain(3, lag=300), path, progress=False)


# ---------------------------------------------------------------------- chains of which everything is known


def known_chain(transition: list[list[float]], **coords: Any) -> bu.Fit:
    """A fit whose transition matrix is exact: only the emission means are inferred."""
    matrix = np.array(transition)
    states = len(matrix)
    means = np.arange(states) * 5.0
    data = xr.DataArray(np.repeat(means, 3)[None] + 0.1, dims=("sequence", "time"), coords=coords)
    model = bu.models.HiddenMarkovModel(states, fixed={"transition": matrix, "scales": 1.0})
    return bu.fit(model, data, bu.Gibbs(draws=10, warmup=5, chains=2), progress=False)


def test_first_passages_of_slow_hops_and_beside_an_absorbing_state() -> None:
    rate = 1e-4
    slow = known_chain((np.full((5, 5), rate / 4) + (1 - 5 * rate / 4) * np.eye(5)).tolist())
    times = bu.mean_first_passage_times(slow).sel(statistic="mean").values
    # From any state the target is one of four equally likely ways out.
    np.testing.assert_allclose(times, 4 / rate * (1 - np.eye(5)), rtol=1e-9)
    trap = known_chain([[0.8, 0.1, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    times = bu.mean_first_passage_times(trap).sel(statistic="mean").values
    # 1 to 0 cannot end elsewhere; 0 to 1 can; every state ends in 2.
    assert times[1, 0] == pytest.approx(2.0) and np.isinf(times[0, 1]) and np.isinf(times[2, :2]).all()
    to_trap = np.linalg.solve(np.eye(2) - np.array([[0.8, 0.1], [0.5, 0.5]]), np.ones(2))
    np.testing.assert_allclose(times[:2, 2], to_trap)


def test_a_chain_with_two_traps_has_no_long_run_of_its_own() -> None:
    one = known_chain([[0.8, 0.1, 0.1], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    np.testing.assert_allclose(bu.stationary_distribution(one).sel(statistic="mean"), [0, 0, 1], atol=1e-12)
    two = known_chain([[0.8, 0.1, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert bu.stationary_distribution(two).isnull().all()
    assert float(bu.implied_timescales(two).sel(statistic="mean")[0]) == np.inf


def test_units_of_time_are_those_of_the_axis() -> None:
    fair = [[0.5, 0.5], [0.5, 0.5]]
    steps = np.arange(6.0)
    named = bu.dwell_times(known_chain(fair, time=("time", 0.5 * steps)))
    assert named.attrs["units"] == "unit of time"
    np.testing.assert_allclose(named.sel(statistic="mean"), 1.0)
    uneven = ("time", np.cumsum([1e-9, 3e-9, 1e-9, 3e-9, 1e-9, 3e-9]), {"units": "s"})
    counted = bu.dwell_times(known_chain(fair, time=uneven))
    assert counted.attrs["units"] == "frame"
    np.testing.assert_allclose(counted.sel(statistic="mean"), 2.0)
