"""Figures of chains of states show the numbers of the fit."""

from __future__ import annotations

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import bayesunmix as bu


@pytest.fixture
def fit(hidden_chain) -> bu.Fit:
    return hidden_chain[0]


def test_a_cell_holds_a_probability_and_its_interval(fit: bu.Fit) -> None:
    ax = bu.plot.transition(fit).axes[0]
    table = bu.transition_matrix(fit)
    np.testing.assert_allclose(ax.images[0].get_array(), table.sel(statistic="mean"))
    for text, (i, j) in zip(ax.texts, np.ndindex(2, 2), strict=True):
        assert text.get_position() == (j, i), "rows are where a hop comes from"
        mean, interval = text.get_text().split("\n")
        shown = [float(mean), *map(float, interval.split("–"))]
        expected = table.sel(state=i, next_state=j, statistic=["mean", "lower", "upper"])
        np.testing.assert_allclose(shown, expected, atol=0.5 * 10.0 ** -len(mean.split(".")[1]))


def test_forbidden_hops_are_grey_and_zero(fit: bu.Fit) -> None:
    posterior = fit.posterior.copy()
    posterior["transition"] = xr.zeros_like(posterior["transition"]) + np.array([[1.0, 0.0], [0.2, 0.8]])
    absorbing = dataclasses.replace(fit, posterior=posterior)
    _, ax = plt.subplots()
    assert bu.plot.transition(absorbing, ax=ax) is ax
    assert [t.get_text().split("\n")[0] for t in ax.texts] == ["1", "0", "0.20", "0.80"]
    shown = np.ma.filled(np.ma.masked_invalid(ax.images[0].get_array()), -1.0)
    np.testing.assert_allclose(shown, [[1.0, -1.0], [0.2, 0.8]])
    labels = [t.get_text() for t in bu.plot.dwell(absorbing).axes[0].get_legend().get_texts()]
    assert labels == ["state 0: never left", "state 1: 0.5 (0.5–0.5) s"]


def test_stays_are_geometric(fit: bu.Fit) -> None:
    ax = bu.plot.dwell(fit, prob=0.5).axes[0]
    stay = fit.posterior["transition"].values[..., 0, 0].ravel()
    mean = np.mean(1 / (1 - stay))
    np.testing.assert_allclose(ax.lines[0].get_xdata()[:4], 0.1 * np.arange(4))
    np.testing.assert_allclose(ax.lines[0].get_ydata()[:4], (1 - 1 / mean) ** np.arange(4))
    low, high = np.quantile(stay**3, [0.25, 0.75])
    band = ax.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(sorted(set(band[np.isclose(band[:, 0], 0.3), 1])), [low, high], rtol=0.02)
    assert ax.get_legend().get_texts()[0].get_text().startswith(f"state 0: {0.1 * mean:.3g} (")
    assert ax.get_xlabel() == "time (s)"


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
