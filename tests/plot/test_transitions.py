"""Figures of chains of states show the numbers of the fit."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix.models import HiddenMarkovModel


@pytest.fixture(scope="module")
def fit() -> bu.Fit:
    rng = np.random.default_rng(0)
    y = 3.0 * (np.cumsum(rng.random((2, 40)) < 0.15, axis=1) % 2) + 0.5 * rng.normal(size=(2, 40))
    y[1, 30:] = np.nan
    return bu.fit(HiddenMarkovModel(2), y, bu.Gibbs(draws=40, warmup=20, chains=2, most_thin=1), progress=False)


def test_a_bar_is_an_interval_of_the_transition_matrix(fit: bu.Fit) -> None:
    figure = bu.plot.transitions(fit)
    lines = figure.axes[0].lines
    table = bu.transition_matrix(fit)
    for row, (i, j) in enumerate(np.ndindex(2, 2)):
        bar, dot = lines[2 * row], lines[2 * row + 1]
        np.testing.assert_allclose(bar.get_xdata(), table.sel(state=i, next_state=j, statistic=["lower", "upper"]))
        assert dot.get_xdata()[0] == pytest.approx(float(table.sel(state=i, next_state=j, statistic="mean")))


def test_states_are_drawn_where_they_are_probable(fit: bu.Fit) -> None:
    upper, lower = bu.plot.states(fit, 1, draws=20).axes
    share = fit.latent(draws=20)["state"].sel(statistic="mean").values[1]
    for k in range(2):
        np.testing.assert_allclose(lower.lines[k].get_ydata(), share[:, k])
        shown = upper.lines[1 + k].get_ydata()
        np.testing.assert_allclose(shown, fit.data.values[1][(share[:, k] > 0.5) & np.isfinite(share[:, k])])


def test_the_memory_check_has_a_panel_per_pair(fit: bu.Fit) -> None:
    check = bu.chapman_kolmogorov(fit, lags=(1, 2), draws=20)
    figure = bu.plot.memory(check)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["0 → 0", "0 → 1", "1 → 0", "1 → 1"]
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), check["observed"].sel(state=0, next_state=1))
