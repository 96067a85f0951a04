"""Moran's I against its definition, and its probability against permutations."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.stats import kstest

from bayesunmix.spatial import morans_i, neighbour_pairs


def test_pairs_touch_and_both_are_kept() -> None:
    kept = np.array([[True, True, False], [True, False, True]])
    assert sorted(map(tuple, neighbour_pairs(kept).tolist())) == [(0, 1), (0, 2)]
    assert len(neighbour_pairs(np.ones((2, 4, 5), bool))) == 2 * (3 * 5 + 4 * 4)
    assert neighbour_pairs(np.ones(4, bool)).tolist() == [[0, 1], [1, 2], [2, 3]]


def test_the_value_is_that_of_the_definition() -> None:
    values = np.random.default_rng(0).normal(size=(5, 6))
    values[1, 2] = np.nan
    away = values - np.nanmean(values)
    products = [*(away[1:] * away[:-1]).ravel(), *(away[:, 1:] * away[:, :-1]).ravel()]
    found, _ = morans_i(xr.DataArray(values))
    assert found == pytest.approx(np.nanmean(products) / np.nanmean(away**2))


def test_probabilities_are_uniform_without_structure_and_small_with() -> None:
    rng = np.random.default_rng(1)
    p = [morans_i(xr.DataArray(rng.normal(size=(16, 16)) ** 3))[1] for _ in range(500)]
    assert kstest(p, "uniform").pvalue > 1e-3
    smooth = np.add.outer(np.sin(np.arange(16) / 4), np.cos(np.arange(16) / 4))
    assert morans_i(xr.DataArray(smooth + rng.normal(0, 1, (16, 16))))[1] < 1e-4


def test_a_flat_map_has_no_structure() -> None:
    assert morans_i(xr.DataArray(np.ones((4, 4)))) == (0.0, 1.0)
