"""Atoms of other tools come in as they are, or are refused with a reason."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayesunmix as bu


def test_an_array_is_y_and_x_in_pixels() -> None:
    found = bu.atoms([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    np.testing.assert_array_equal(found["position"].values, [[1, 2], [3, 4], [5, 6]])
    assert found["position"].dims == ("atom", "axis") and found["position"].attrs["units"] == "px"
    assert list(found["axis"].values) == ["y", "x"]
    assert "position_cov" not in found and "species" not in found
    np.testing.assert_array_equal(found["frame"], [0, 0, 0])


def test_columns_in_another_order() -> None:
    found = bu.atoms(np.array([[1.0, 2.0]]), columns=("x", "y"), units="nm")
    np.testing.assert_array_equal(found["position"].values, [[2, 1]])
    assert found["position"].attrs["units"] == "nm"


def test_a_mapping_of_frames_as_atomai_gives_it() -> None:
    table = {0: np.array([[1.0, 2.0, 0.0], [3.0, 4.0, 1.0]]), 2: np.array([[5.0, 6.0, 1.0]])}
    found = bu.atoms(table)
    np.testing.assert_array_equal(found["frame"], [0, 0, 2])
    np.testing.assert_array_equal(found["species"], [0, 1, 1])
    np.testing.assert_array_equal(found["position"].values[2], [5, 6])


def test_a_table_with_names_and_errors() -> None:
    table = pd.DataFrame(
        {
            "row": [1.0, 2.0],
            "col": [3.0, 4.0],
            "element": ["Si", "C"],
            "sigma_y": [0.1, 0.2],
            "sigma_x": [0.3, 0.4],
            "cov_yx": [0.01, -0.02],
        }
    )
    found = bu.atoms(table)
    np.testing.assert_allclose(found["position_cov"].values[1], [[0.04, -0.02], [-0.02, 0.16]])
    assert list(found["species"].values) == ["Si", "C"]


@pytest.mark.parametrize("error", [0.5, [0.5] * 3, np.full((3, 2), 0.5), np.broadcast_to(0.25 * np.eye(2), (3, 2, 2))])
def test_an_error_in_every_form(error) -> None:
    found = bu.atoms(np.zeros((3, 2)), error=error)
    np.testing.assert_allclose(found["position_cov"].values, np.broadcast_to(0.25 * np.eye(2), (3, 2, 2)))


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        (np.array([[1.0, np.nan]]), {}, "1 of 1 positions are not finite"),
        ({}, {}, "at least one frame"),
        (np.zeros((3, 4)), {}, "4 columns"),
        (np.zeros((3, 2)), {"error": np.zeros(4)}, r"got shape \(4,\)"),
        (np.zeros((1, 2)), {"error": np.array([[[1.0, 2.0], [2.0, 1.0]]])}, "semi-definite"),
        (pd.DataFrame({"y": [1.0], "z": [2.0]}), {}, "no column for x"),
    ],
)
def test_what_is_no_table_of_atoms(table, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        bu.atoms(table, **options)


def test_text_is_refused() -> None:
    with pytest.raises(TypeError, match="expected numbers"):
        bu.atoms("atoms.csv")
