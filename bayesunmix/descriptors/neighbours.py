"""Neighbour vectors: from atoms with errors to vectors with covariance, in the same sense for every atom."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree

from bayesunmix._counts import as_count

_SPARE = 6  # candidates beyond the neighbours that are asked for
_SAMPLE = 200  # environments that compete for the template
_TURNS = 25  # orientations that are tried for every atom
_SHELL_GAP = 0.15  # relative step in length that starts a new coordination shell
_BEFORE = 0.3  # radians before the axis of y where the order starts
_SMOOTHED = 8  # atoms around, whose median orientation counts


def neighbour_vectors(
    atoms: xr.Dataset,
    n_neighbours: int = 4,
    *,
    order: Literal["angle", "distance"] = "angle",
    lattice: Any = None,
    species: tuple[Any, Any] | None = None,
    tolerance: float | None = None,
) -> xr.Dataset:
    """Vectors from every atom to its neighbours, with the covariance that their position errors imply.

    The ideal neighbourhood is a template: given as ``lattice``, or estimated as the environment that the other
    environments resemble most, refined by medians. Every atom's template is turned to the orientation of the crystal
    around it, within the angle that leaves the neighbours' names unique, and each of its places takes the atom nearest
    to it. So the k-th vector means the same bond for all atoms of a distorted or turned grain.

    Parameters
    ----------
    atoms : xarray.Dataset
        From :func:`find_atoms` or :func:`atoms`. Only atoms of one frame are neighbours.
    n_neighbours : int
        4 for the first shell of a square lattice, 8 for the first two, 3 for graphene, ...
    order : "angle" or "distance"
        "angle": shell by shell, in each by angle from the axis of y towards x in the template. "distance": each atom's
        own nearest atoms by distance, the simple rule, for which bonds trade names as soon as lengths are similar.
    lattice : array, optional
        Two basis vectors (2, 2), the shortest ``n_neighbours`` combinations of which are the template, or the template
        itself (n_neighbours, 2); rows are y, x in the unit of the positions.
    species : (centre, neighbour), optional
        Only vectors from atoms of one species to atoms of the other.
    tolerance : float, optional
        Largest distance of a neighbour from its place; half the distance between the closest places by default.

    Returns
    -------
    xarray.Dataset
        ``vector (atom, feature)``: dy1, dx1, dy2, dx2, ...; ``vector_cov (atom, feature, other_feature)`` where the
        positions have a covariance: the centre's error is in all of an atom's vectors; ``neighbour (atom, neighbour)``
        positions in ``atoms``, -1 where missing; ``complete (atom)``, False at edges and where a neighbour is missing
        (its vector is NaN); ``position (atom, axis)``, ``index (atom)``, position of the centre in ``atoms``, and
        ``orientation (atom)``, radians by which the template was turned.

    Raises
    ------
    ValueError
        For sizes, names or shapes out of range, or no atom with enough neighbours.

    References
    ----------
    Belianinov et al., "Identification of phases, symmetries and defects through local crystallography", Nat. Commun.
    6, 7801 (2015), for the descriptor.
    """
    if order not in ("angle", "distance"):
        raise ValueError(f'order: expected "angle" or "distance", got {order!r}')
    n_neighbours = as_count("n_neighbours", n_neighbours)
    position = np.asarray(atoms["position"].values, dtype=np.float64)
    centres, others = _by_species(atoms, species)
    frame = atoms["frame"].values if "frame" in atoms else np.zeros(len(position), dtype=int)
    candidates = _candidates(position, frame, centres, others, n_neighbours + _SPARE)
    offsets = position[candidates] - position[centres][:, None]
    offsets[candidates < 0] = np.inf
    turn = np.zeros(len(centres))
    if order == "distance":
        chosen = np.broadcast_to(np.arange(n_neighbours), (len(centres), n_neighbours)).copy()
        chosen[~np.isfinite(offsets[:, :n_neighbours]).all(-1)] = -1
        places = np.zeros((n_neighbours, 2))
    else:
        places = _template(offsets, n_neighbours) if lattice is None else _given(lattice, n_neighbours)
        reach = 0.5 * _closest(places) if tolerance is None else tolerance
        turn = _orientation(offsets, places, reach, position[centres], frame[centres])
        chosen = _assign(offsets, places, turn, reach)
    return _dataset(atoms, position, centres, candidates, chosen, places, turn)


def _by_species(atoms: xr.Dataset, species: tuple[Any, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    every = np.arange(atoms.sizes["atom"])
    if species is None:
        return every, every
    if "species" not in atoms:
        raise ValueError("species: these atoms have none; pass atoms with a variable species (atom)")
    known = atoms["species"].values
    found = [every[known == one] for one in species]
    for one, members in zip(species, found, strict=True):
        if not members.size:
            raise ValueError(f"species: no atom of {one!r}; expected two of {sorted(set(known.tolist()))}")
    return found[0], found[1]


def _candidates(position, frame, centres, others, count: int) -> np.ndarray:
    """The nearest atoms of the same frame (centre, count), the centre itself left out, -1 where there are no more."""
    found = np.full((len(centres), count), -1)
    for one in np.unique(frame[centres]):
        here, there = np.flatnonzero(frame[centres] == one), others[frame[others] == one]
        if not there.size:
            continue
        _, nearest = cKDTree(position[there]).query(position[centres[here]], k=min(count + 1, there.size))
        names = there[nearest.reshape(len(here), -1)]
        # The atom itself, where it is among them, goes to the end of its row.
        own = names == centres[here][:, None]
        names = np.take_along_axis(names, np.argsort(own, axis=1, kind="stable"), axis=1)
        names = np.where(np.sort(own, axis=1), -1, names)[:, :count]
        found[here[:, None], np.arange(names.shape[1])] = names
    return found


def _template(offsets: np.ndarray, n_neighbours: int) -> np.ndarray:
    """The environment that others resemble most, then the median of what lies near its places."""
    whole = np.flatnonzero(np.isfinite(offsets[:, :n_neighbours]).all(axis=(1, 2)))
    if not whole.size:
        raise ValueError(f"no atom has {n_neighbours} neighbours: expected more atoms, or fewer n_neighbours")
    sample = whole[np.linspace(0, len(whole) - 1, min(_SAMPLE, len(whole))).astype(int)]
    tried = offsets[sample, :n_neighbours]
    far = _distance2(tried, tried).min(axis=-1)  # (template, atom, place)
    scale = np.median((tried**2).sum(-1))
    cost = np.minimum(far, 0.25 * scale).mean(axis=-1)
    # The resemblance to a quarter of the atoms counts: edges, defects, another grain or sublattice do not. Between
    # equals the more compact one, because the bonds that an edge misses are replaced by longer ones.
    places = tried[np.argmin(np.quantile(cost, 0.25, axis=1) + 0.02 * (tried**2).sum(-1).mean(-1))].copy()
    for _ in range(5):
        distance = _distance2(places[None], offsets[whole])[0]
        nearest = distance.argmin(-1)
        close = np.take_along_axis(distance, nearest[..., None], -1)[..., 0] < (0.35 * _closest(places)) ** 2
        picked = np.take_along_axis(offsets[whole], nearest[..., None], axis=1)
        for place in range(n_neighbours):
            if close[:, place].any():
                places[place] = np.median(picked[close[:, place], place], axis=0)
    return _sorted_places(places)


def _distance2(places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Squared distance (template, atom, place, candidate)."""
    with np.errstate(invalid="ignore"):
        return ((places[:, None, :, None] - offsets[None, :, None]) ** 2).sum(-1)


def _given(lattice: Any, n_neighbours: int) -> np.ndarray:
    places = np.asarray(lattice, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 2 or not np.isfinite(places).all():
        raise ValueError(f"lattice: expected finite vectors (2, 2) or ({n_neighbours}, 2), got shape {places.shape}")
    if len(places) == 2 and n_neighbours != 2:
        reach = int(np.ceil(np.sqrt(n_neighbours))) + 1
        steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
        points = steps[np.any(steps != 0, axis=1)] @ places
        length = np.linalg.norm(points, axis=1)
        rank = np.argsort(length, kind="stable")
        if length[rank[n_neighbours]] < length[rank[n_neighbours - 1]] * (1 + 1e-6):
            raise ValueError(
                f"lattice: n_neighbours={n_neighbours} cuts through a shell of equal lengths: take them all"
            )
        places = points[rank[:n_neighbours]]
    if len(places) != n_neighbours:
        raise ValueError(f"lattice: expected (2, 2) or ({n_neighbours}, 2), got {places.shape}")
    return _sorted_places(places)


def _sorted_places(places: np.ndarray) -> np.ndarray:
    """Shell by shell, in each by angle from y towards x."""
    length = np.linalg.norm(places, axis=1)
    rank = np.argsort(length)
    shell = np.empty(len(places), dtype=int)
    shell[rank] = np.concatenate([[0], np.cumsum(np.diff(length[rank]) > _SHELL_GAP * length[rank][:-1])])
    # A little before the axis of y, so that noise does not move a bond along it from the first place to the last.
    angle = (np.arctan2(places[:, 1], places[:, 0]) + _BEFORE) % (2 * np.pi)
    return places[np.lexsort((angle, shell))]


def _closest(places: np.ndarray) -> float:
    """Smallest distance between two places, or from a place to the centre."""
    points = np.concatenate([np.zeros((1, 2)), places])
    return float(cKDTree(points).query(points, k=2)[0][:, 1].min())


def _turned(places: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Template at every orientation (..., place, 2)."""
    c, s = np.cos(turn)[..., None], np.sin(turn)[..., None]
    y, x = places[:, 0], places[:, 1]
    return np.stack([c * y - s * x, s * y + c * x], axis=-1)


def _orientation(offsets, places, reach: float, position, frame) -> np.ndarray:
    """Turn of the template at every atom: the median of the best turns around it, where that fits nearly as well."""
    first = int(np.sum(np.linalg.norm(places, axis=1) < (1 + _SHELL_GAP) * np.linalg.norm(places, axis=1).min()))
    most = np.pi / max(first, 2)
    turns = np.linspace(-most, most, _TURNS)[1:]

    def cost_of(turn: np.ndarray) -> np.ndarray:
        far = _distance2_each(_turned(places, np.broadcast_to(turn, len(offsets))), offsets).min(axis=-1)
        # Without a reason to turn, do not: at most a fraction of the cost of one lost neighbour. A turn to the right
        # costs more, so that the two ways to the other sublattice of a honeycomb are not a tie.
        reluctance = np.where(turn < 0, 0.1, 0.05) * np.abs(turn) / most
        return np.minimum(far, reach**2).mean(axis=-1) + reluctance * reach**2

    cost = np.stack([cost_of(turn) for turn in turns])
    best, least = turns[cost.argmin(axis=0)], cost.min(axis=0)
    smooth = best.copy()
    for one in np.unique(frame):
        here = np.flatnonzero(frame == one)
        _, around = cKDTree(position[here]).query(position[here], k=min(_SMOOTHED + 1, here.size))
        smooth[here] = np.median(best[here][around.reshape(len(here), -1)], axis=1)
    return np.where(cost_of(smooth) < least + 0.1 * reach**2, smooth, best)


def _assign(offsets: np.ndarray, places: np.ndarray, turn: np.ndarray, reach: float) -> np.ndarray:
    """Candidate at every place (atom, place), -1 where none is within reach; no candidate takes two places."""
    distance = _distance2_each(_turned(places, turn), offsets)
    chosen = distance.argmin(axis=-1)
    doubled = np.flatnonzero((np.diff(np.sort(chosen, axis=1), axis=1) == 0).any(axis=1))
    most = 4.0 * reach**2
    for atom in doubled:
        chosen[atom] = linear_sum_assignment(np.minimum(distance[atom], most))[1]
    far = np.take_along_axis(distance, chosen[..., None], axis=-1)[..., 0]
    return np.where(far <= reach**2, chosen, -1)


def _distance2_each(places: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Squared distance (atom, place, candidate) with a template of each atom's own."""
    return ((places[:, :, None] - offsets[:, None]) ** 2).sum(-1)


def _dataset(atoms, position, centres, candidates, chosen, places, turn) -> xr.Dataset:
    count = chosen.shape[1]
    neighbour = np.where(chosen >= 0, np.take_along_axis(candidates, np.maximum(chosen, 0), axis=1), -1)
    vector = np.where(neighbour[..., None] >= 0, position[neighbour] - position[centres][:, None], np.nan)
    units = str(atoms["position"].attrs.get("units", "px"))
    names = [f"d{axis}{k + 1}" for k in range(count) for axis in "yx"]
    found: dict[str, Any] = {
        "vector": (("atom", "feature"), vector.reshape(len(centres), 2 * count), {"units": units}),
        "neighbour": (("atom", "neighbour"), neighbour),
        "complete": ("atom", (neighbour >= 0).all(axis=1)),
        "position": (("atom", "axis"), position[centres], {"units": units}),
        "index": ("atom", centres),
        "orientation": ("atom", turn, {"units": "rad"}),
        "template": (("neighbour", "axis"), places, {"units": units}),
    }
    if "frame" in atoms:
        found["frame"] = ("atom", atoms["frame"].values[centres])
    if "position_cov" in atoms:
        cov = _vector_covariance(atoms["position_cov"].values, centres, neighbour)
        found["vector_cov"] = (("atom", "feature", "other_feature"), cov, {"units": f"{units}²"})
    coords = {"feature": names, "other_feature": names, "axis": ["y", "x"]}
    if "vector_cov" not in found:
        del coords["other_feature"]
    return xr.Dataset(found, coords)


def _vector_covariance(position_cov: np.ndarray, centres: np.ndarray, neighbour: np.ndarray) -> np.ndarray:
    """J Sigma J' for vector k = neighbour k - centre: the centre's in every block, the neighbour's in its own.

    Missing neighbours leave NaN in their rows and columns.
    """
    count = neighbour.shape[1]
    own = np.kron(np.ones((count, count)), np.ones((2, 2)))[None] * np.tile(position_cov[centres], (1, count, count))
    for k in range(count):
        block = slice(2 * k, 2 * k + 2)
        own[:, block, block] += position_cov[neighbour[:, k]]
        missing = neighbour[:, k] < 0
        own[missing, block, :] = np.nan
        own[missing, :, block] = np.nan
    return own


def lengths_and_angles(vectors: xr.Dataset) -> xr.Dataset:
    """The same neighbourhoods as bond lengths and the angles between one bond and the next, free of orientation.

    Parameters
    ----------
    vectors : xarray.Dataset
        From :func:`neighbour_vectors`, with at least two neighbours.

    Returns
    -------
    xarray.Dataset
        ``vector`` holds the lengths r1, r2, ... in the unit of the positions, then the angles a12, a23, ..., ak1 in
        radians between -pi and pi, and ``vector_cov`` their covariance to first order; the rest as it was.

    Raises
    ------
    ValueError
        For fewer than two neighbours.
    """
    bonds, count = _bonds(vectors)
    if count < 2:
        raise ValueError("lengths_and_angles: expected at least two neighbours")
    length, angle = np.linalg.norm(bonds, axis=-1), np.arctan2(bonds[..., 1], bonds[..., 0])
    following = np.roll(np.arange(count), -1)
    between = (angle[:, following] - angle + np.pi) % (2 * np.pi) - np.pi
    radial, turning = _slopes(bonds, length)
    jacobian = np.zeros((len(bonds), 2 * count, 2 * count))
    for k in range(count):
        own, after = slice(2 * k, 2 * k + 2), slice(2 * following[k], 2 * following[k] + 2)
        jacobian[:, k, own] = radial[:, k]
        jacobian[:, count + k, own] -= turning[:, k]
        jacobian[:, count + k, after] += turning[:, following[k]]
    names = [f"r{k + 1}" for k in range(count)] + [f"a{k + 1}{following[k] + 1}" for k in range(count)]
    return _with_features(vectors, np.concatenate([length, between], axis=1), jacobian, names, "")


def bond_angles(vectors: xr.Dataset) -> xr.Dataset:
    """Direction of every bond, in radians from the axis of y towards x: what the angular mixture classifies.

    Parameters
    ----------
    vectors : xarray.Dataset
        From :func:`neighbour_vectors`.

    Returns
    -------
    xarray.Dataset
        ``vector (atom, feature)`` and, where known, ``vector_cov`` to first order; the rest as it was.
    """
    bonds, count = _bonds(vectors)
    length, angle = np.linalg.norm(bonds, axis=-1), np.arctan2(bonds[..., 1], bonds[..., 0])
    _, turning = _slopes(bonds, length)
    jacobian = np.zeros((len(bonds), count, 2 * count))
    for k in range(count):
        jacobian[:, k, 2 * k : 2 * k + 2] = turning[:, k]
    return _with_features(vectors, angle, jacobian, [f"angle{k + 1}" for k in range(count)], "rad")


def _bonds(vectors: xr.Dataset) -> tuple[np.ndarray, int]:
    values = vectors["vector"].values
    return values.reshape(len(values), -1, 2), values.shape[1] // 2


def _slopes(bonds: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of length and angle by the bond, each (atom, bond, 2)."""
    radial = bonds / length[..., None]
    turning = np.stack([-bonds[..., 1], bonds[..., 0]], axis=-1) / length[..., None] ** 2
    return radial, turning


def _with_features(vectors: xr.Dataset, values, jacobian, names: list[str], units: str) -> xr.Dataset:
    found = vectors.drop_vars(
        [n for n in ("vector", "vector_cov", "feature", "other_feature") if n in vectors.variables]
    )
    found = found.assign_coords(feature=names)
    found["vector"] = (("atom", "feature"), values, {"units": units} if units else {})
    if "vector_cov" in vectors:
        cov = jacobian @ vectors["vector_cov"].values @ jacobian.transpose(0, 2, 1)
        found = found.assign_coords(other_feature=names)
        found["vector_cov"] = (("atom", "feature", "other_feature"), cov)
    return found
