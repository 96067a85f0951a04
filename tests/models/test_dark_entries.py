"""The verdict says where spectra may be exactly zero, which the prior does not expect."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

import bayesunmix as bu
from bayesunmix.models._dark_entries import dark_remarks


def draws(dark: int, lit: int, empty: int = 0) -> np.ndarray:
    """(chain, draw, endmember, channel): one spectrum clear in ``dark + lit`` channels, the other one dark in some."""
    found = np.abs(default_rng(0).normal(0, 0.01, (1, 500, 2, dark + lit + empty)))
    found[:, :, 0, : dark + lit] += 1.0
    found[:, :, 1, dark : dark + lit] += 1.0
    return found


def test_dark_values_count_where_others_are_clear() -> None:
    assert dark_remarks(draws(0, 20)) == []
    assert dark_remarks(draws(4, 16)) == []
    (remark,) = dark_remarks(draws(12, 8))
    assert remark.startswith("30% of the endmember values")
    assert dark_remarks(draws(4, 16, empty=80)) == []
    assert dark_remarks(draws(0, 0, empty=20)) == []


@pytest.mark.parametrize("background", [0.0, 0.2])
def test_the_verdict_of_peaks_on_nothing(background: float) -> None:
    rng = default_rng(1)
    channel = np.arange(24.0)
    spectra = background + np.exp(-0.5 * (channel - np.array([[5.0], [17.0]])) ** 2)
    image = rng.dirichlet([1.0, 1.0], (16, 16)) @ spectra + 0.02 * rng.normal(size=(16, 16, 24))
    fit = bu.fit(bu.models.LinearUnmixing(2), image, progress=False)
    assert fit.converged
    assert ("exactly zero" in fit.diagnostics.attrs["verdict"]) == (background == 0)


def test_known_and_signed_spectra_are_left_alone() -> None:
    values = {"endmembers": draws(12, 8)}
    data = default_rng(0).random((30, 20))
    assert bu.models.LinearUnmixing(2).bind(data).remarks(values)
    assert not bu.models.LinearUnmixing(2, endmember_support="real").bind(data).remarks(values)
    roughly = [(np.ones(20), 0.1), (np.ones(20), 0.1)]
    assert not bu.models.LinearUnmixing(2, endmembers=roughly).bind(data).remarks(values)
    assert not bu.models.LinearUnmixing(2, endmembers=np.eye(2, 20)).bind(np.eye(30, 20)).remarks({})
