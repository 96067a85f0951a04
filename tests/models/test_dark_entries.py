"""Spectra that are exactly zero in most channels: what the verdict says of them, and a prior that expects them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import default_rng

import bayesunmix as bu
from bayesunmix.models._dark_entries import dark_remarks, said_of_each


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


def peaks(background: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """An image of 16 x 16 pixels, and its two spectra of 24 channels."""
    rng = default_rng(1)
    channel = np.arange(24.0)
    spectra = background + np.exp(-0.5 * (channel - np.array([[5.0], [17.0]])) ** 2)
    return rng.dirichlet([1.0, 1.0], (16, 16)) @ spectra + 0.02 * rng.normal(size=(16, 16, 24)), spectra


@pytest.mark.parametrize("background", [0.0, 0.2])
def test_the_verdict_of_peaks_on_nothing(background: float) -> None:
    fit = bu.fit(bu.models.LinearUnmixing(2), peaks(background)[0], progress=False)
    assert fit.converged
    assert ("exactly zero" in fit.diagnostics.attrs["verdict"]) == (background == 0)


def test_spectra_that_are_expected_to_be_sparse() -> None:
    """Dark values within a fifth of what half-normal ones are left at; and the Gaussian guide passes."""
    image, spectra = peaks()
    dark = spectra < 1e-6
    left = []
    for sparsity in (None, "learned"):
        model = bu.models.LinearUnmixing(2, sparsity=sparsity)
        fit = bu.fit(model, image, bu.SVI(sample_if_needed=False), progress=False)
        assert fit.converged
        assert ("exactly zero" in fit.diagnostics.attrs["verdict"]) == (sparsity is None)
        found = fit.posterior["endmembers"].mean(("chain", "draw")).values
        left.append(np.median(found[np.argsort(found.argmax(1))][dark]))
    assert left[1] < 0.2 * left[0]
    assert fit.model.endmember_expectation is None
    assert float(fit.posterior["sparsity"].mean()) > 3.0


def test_a_mode_makes_coordinates_for_unclear_entries_alone() -> None:
    rng = default_rng(0)
    image, spectra = peaks()
    model = bu.models.LinearUnmixing(2, sparsity=5.0).bind(image)
    assert model.adapts_to == "endmembers"
    bright = bu.models.LinearUnmixing(2, sparsity=5.0, brightness=True)
    assert bright.adapts_to is None and bu.models.LinearUnmixing(2).adapts_to is None
    curvature = -np.broadcast_to(np.eye(2) + 0.3, (24, 2, 2)) / 0.001**2
    found = model.adapted({"endmembers": spectra + 1e-5}, rng.normal(size=(2, 24)), curvature)
    np.testing.assert_array_equal(np.isinf(found.endmember_expectation.error), spectra > 0.008)
    counts = bu.models.LinearUnmixing(2, sparsity=5.0, likelihood="poisson").bind(np.round(50 * np.maximum(image, 0.0)))
    few = counts.endmember_resolution
    found = counts.adapted({"endmembers": np.full((2, 24), few)}, np.zeros((2, 24)), curvature)
    assert np.isinf(found.endmember_expectation.error).all()


def test_what_the_data_say_of_an_entry_follows_the_clear_ones() -> None:
    """Against the normal law itself: its marginal where the others are clear, its conditional where they are dark."""
    rng = default_rng(0)
    centre = np.array([[5.0, 5.0], [0.01, 3.0], [0.02, 0.01]])  # entry (endmember, channel)
    root = rng.normal(size=(2, 3, 3))
    precision = 100.0**2 * (root @ root.transpose(0, 2, 1) / 3.0 + np.eye(3))
    value = centre + 1e-4 * rng.normal(size=centre.shape)
    slope = -np.einsum("pij,jp->ip", precision, value - centre)
    found, error = said_of_each(value, slope, precision, np.array([True, True, False]))
    assert np.isinf(error[2]).all()
    # Channel 0: only the first is clear. Entry 1 moves with it, entry 2 held where it is.
    pair = precision[0][:2, :2]
    away = np.linalg.solve(pair, slope[:2, 0])
    np.testing.assert_allclose(found[1, 0], value[1, 0] + away[1], rtol=1e-9)
    np.testing.assert_allclose(error[1, 0], np.sqrt(np.linalg.inv(pair)[1, 1]), rtol=1e-9)
    np.testing.assert_allclose(found[0, 0], value[0, 0] + slope[0, 0] / precision[0, 0, 0], rtol=1e-9)
    # Channel 1: the first two are clear, and the third, of which something is known, stays.
    pair = precision[1][:2, :2]
    np.testing.assert_allclose(found[:2, 1], value[:2, 1] + np.linalg.solve(pair, slope[:2, 1]), rtol=1e-9)


def test_known_and_signed_spectra_are_left_alone() -> None:
    values = {"endmembers": draws(12, 8)}
    data = default_rng(0).random((30, 20))
    assert bu.models.LinearUnmixing(2).bind(data).remarks(values)
    assert not bu.models.LinearUnmixing(2, endmember_support="real").bind(data).remarks(values)
    roughly = [(np.ones(20), 0.1), (np.ones(20), 0.1)]
    assert not bu.models.LinearUnmixing(2, endmembers=roughly).bind(data).remarks(values)
    assert not bu.models.LinearUnmixing(2, endmembers=np.eye(2, 20)).bind(np.eye(30, 20)).remarks({})
