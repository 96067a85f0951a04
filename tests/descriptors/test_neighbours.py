"""Neighbour vectors: the right bonds in the same sense everywhere, their covariance, and gaps that stay gaps."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix.data.lattices import off_centred_lattice


def square(n: int = 12, spacing: float = 10.0) -> np.ndarray:
    return spacing * np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return points @ np.array([[c, s], [-s, c]])


def honeycomb(n: int = 8, bond: float = 10.0) -> np.ndarray:
    steps = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    cells = steps @ (bond * np.array([[np.sqrt(3.0), 0.0], [np.sqrt(3.0) / 2, 1.5]]))
    return np.concatenate([cells, cells + np.array([0.0, bond])])


def test_square_lattice_in_order_of_angle() -> None:
    noisy = square() + 0.3 * np.random.default_rng(0).normal(size=(144, 2))
    found = bu.descriptors.neighbour_vectors(bu.atoms(noisy), 4)
    whole = found["vector"].values[found["complete"].values]
    np.testing.assert_allclose(whole.mean(0), [10, 0, 0, 10, -10, 0, 0, -10], atol=4 * 0.3 * np.sqrt(2 / 100))
    # An inner atom's neighbours are named exactly.
    atom = 5 * 12 + 5
    np.testing.assert_array_equal(found["neighbour"].values[atom], [atom + 12, atom + 1, atom - 12, atom - 1])


def test_edges_are_flagged_and_not_invented() -> None:
    found = bu.descriptors.neighbour_vectors(bu.atoms(square()), 4)
    edge = (square() == 0).any(1) | (square() == 110).any(1)
    np.testing.assert_array_equal(found["complete"].values, ~edge)
    assert (found["neighbour"].values[edge] == -1).sum(1).min() >= 1
    assert np.isnan(found["vector"].values[edge]).any(1).all()


def test_a_vacancy_is_missing_in_its_neighbours_only() -> None:
    gone = 5 * 12 + 5
    found = bu.descriptors.neighbour_vectors(bu.atoms(np.delete(square(), gone, axis=0)), 4)
    inner = [i - (i > gone) for i in (gone - 12, gone - 1, gone + 1, gone + 12)]
    whole = found["complete"].values
    assert not whole[inner].any()
    assert whole.sum() == 100 - 1 - 4


@pytest.mark.parametrize("degrees", [0.0, 17.0, 25.0])
def test_a_turned_grain_keeps_the_names_of_its_bonds(degrees: float) -> None:
    both = np.concatenate([square(), turned(square(), degrees) + np.array([0.0, 200.0])])
    found = bu.descriptors.neighbour_vectors(bu.atoms(both), 4)
    there = slice(144, None)
    back = turned(found["vector"].values[there].reshape(-1, 2), -degrees).reshape(-1, 8)
    here = found["vector"].values[:144]
    whole = found["complete"].values
    assert whole.sum() == 200
    np.testing.assert_allclose(back[whole[there]], here[whole[:144]], atol=1e-9)


def test_a_strong_distortion_keeps_the_order_where_distance_loses_it() -> None:
    """Sheared until one diagonal is as short as a side: the nearest by distance are other bonds."""
    sheared = square() @ np.array([[1.0, 0.45], [0.0, 1.0]])
    sheared += 0.2 * np.random.default_rng(1).normal(size=sheared.shape)
    ideal = np.array([[10, 4.5], [0, 10], [-10, -4.5], [0, -10]])
    by_place = bu.descriptors.neighbour_vectors(bu.atoms(sheared), 4, lattice=ideal)
    by_distance = bu.descriptors.neighbour_vectors(bu.atoms(sheared), 4, order="distance")
    whole = by_place["complete"].values
    assert whole.sum() == 100
    assert by_place["vector"].values[whole].std(0).max() < 0.4
    assert by_distance["vector"].values[whole].std(0).max() > 4


def test_shells_of_basis_vectors() -> None:
    found = bu.descriptors.neighbour_vectors(bu.atoms(square()), 8, lattice=[[10, 0], [0, 10]])
    length = np.linalg.norm(found["template"].values, axis=1)
    np.testing.assert_allclose(length, [10] * 4 + [10 * np.sqrt(2)] * 4)
    assert found["complete"].values.sum() == 100
    with pytest.raises(ValueError, match="cuts through a shell"):
        bu.descriptors.neighbour_vectors(bu.atoms(square()), 6, lattice=[[10, 0], [0, 10]])


def test_the_next_shell_is_found_without_a_lattice() -> None:
    """Eight neighbours of a noisy square lattice: four sides, then four diagonals, each in order of angle."""
    noisy = square() + 0.3 * np.random.default_rng(2).normal(size=(144, 2))
    found = bu.descriptors.neighbour_vectors(bu.atoms(noisy, error=0.3), 8)
    whole = found["complete"].values
    assert whole.sum() == 100
    sides, diagonals = [10, 0, 0, 10, -10, 0, 0, -10], [10, 10, -10, 10, -10, -10, 10, -10]
    np.testing.assert_allclose(
        found["vector"].values[whole].mean(0), sides + diagonals, atol=4 * 0.3 * np.sqrt(2 / 100)
    )
    assert found["vector_cov"].shape == (144, 16, 16)


def test_honeycomb_has_three_neighbours_of_both_sublattices() -> None:
    found = bu.descriptors.neighbour_vectors(bu.atoms(honeycomb()), 3)
    whole = found["complete"].values
    bonds = found["vector"].values[whole].reshape(-1, 3, 2)
    np.testing.assert_allclose(np.linalg.norm(bonds, axis=-1), 10.0)
    assert whole.mean() > 0.7
    names = {tuple(np.round(b.ravel(), 6)) for b in bonds}
    assert len(names) == 2  # one sense for each sublattice


def test_frames_do_not_mix() -> None:
    table = {0: square(6), 1: square(6) + np.array([0.0, 5.0])}
    found = bu.descriptors.neighbour_vectors(bu.atoms(table), 4)
    frame = np.repeat([0, 1], 36)
    neighbour = found["neighbour"].values
    assert (frame[neighbour] == frame[:, None])[neighbour >= 0].all()
    assert found["complete"].values.sum() == 2 * 16


def test_covariance_against_simulated_errors() -> None:
    """Position errors drawn 4000 times: the vectors scatter as vector_cov says, shared centre included."""
    atoms, _ = off_centred_lattice((3, 3), scatter=0.0, seed=3)
    found = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    claimed = found["vector_cov"].values[4]
    rng, draws = np.random.default_rng(0), 4000
    root = np.linalg.cholesky(atoms["position_cov"].values)
    moved = np.einsum("nij,dnj->dni", root, rng.normal(size=(draws, *root.shape[:2])))
    centre, corners = found["index"].values[4], found["neighbour"].values[4]
    drawn = (moved[:, corners] - moved[:, [centre]]).reshape(draws, 8)
    # Standard error of a covariance of normal draws.
    error = np.sqrt((claimed**2 + np.outer(np.diag(claimed), np.diag(claimed))) / draws)
    assert np.abs((np.cov(drawn.T) - claimed) / error).max() < 4.5


@pytest.mark.parametrize("form", [bu.descriptors.lengths_and_angles, bu.descriptors.bond_angles])
def test_other_forms_carry_the_covariance_through_their_slopes(form) -> None:
    atoms, _ = off_centred_lattice((3, 3), seed=4)
    vectors = bu.descriptors.neighbour_vectors(atoms, 4, species=("centre", "cage"))
    found = form(vectors)
    step = 1e-6
    jacobian = np.empty((found.sizes["feature"], 8))
    for i in range(8):
        ends = []
        for sign in (1, -1):
            moved = vectors.copy(deep=True)
            moved["vector"][0, i] += sign * step
            ends.append(form(moved)["vector"].values[0])
        jacobian[:, i] = (ends[0] - ends[1]) / (2 * step)
    expected = jacobian @ vectors["vector_cov"].values[0] @ jacobian.T
    np.testing.assert_allclose(found["vector_cov"].values[0], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found["neighbour"], vectors["neighbour"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_neighbours": 0}, "at least 1"),
        ({"order": "size"}, 'expected "angle" or "distance"'),
        ({"species": ("A", "B")}, "have none"),
        ({"n_neighbours": 200}, "no atom has 200 neighbours"),
        ({"lattice": np.zeros((3, 3))}, "got shape"),
    ],
)
def test_bad_settings(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        bu.descriptors.neighbour_vectors(bu.atoms(square()), **options)
