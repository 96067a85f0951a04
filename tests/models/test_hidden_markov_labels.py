"""Which states may change names: exactly those whose exchange leaves the model as it was."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import handlers
from numpyro.infer.util import log_density

import bayesunmix as bu
from bayesunmix.align import match_labels
from bayesunmix.models import HiddenMarkovModel

RING = [(0, 2), (1, 0), (2, 1)]
WAYS: list[tuple[int, dict[str, Any], tuple[tuple[int, ...], ...]]] = [
    (3, {}, ((0, 1, 2),)),
    (3, {"stickiness": 3.0, "fixed": {"scales": 0.3}}, ((0, 1, 2),)),
    (3, {"absorbing": [2]}, ((0, 1), (2,))),
    (4, {"absorbing": [1, 3]}, ((0, 2), (1, 3))),
    (3, {"forbidden": [(0, 2), (2, 0)]}, ((0, 2), (1,))),
    (3, {"forbidden": RING}, ((0,), (1,), (2,))),
    (3, {"priors": {"means": {"kind": "Normal", "loc": [0.0, 1.0, 1.0], "scale": 1.0}}}, ((0,), (1, 2))),
    (3, {"priors": {"means": {"kind": "Normal", "loc": 0.0, "scale": [1.0, 2.0, 1.0]}}}, ((0, 2), (1,))),
    (2, {"fixed": {"scales": [0.3, 0.4]}}, ((0,), (1,))),
    (2, {"transition_concentration": [[2.0, 1.0], [1.0, 1.0]]}, ((0,), (1,))),
    (3, {"transition_concentration": [1.0, 1.0, 2.0]}, ((0, 1), (2,))),
    (3, {"initial_concentration": [1.0, 2.0, 2.0]}, ((0,), (1, 2))),
    (2, {"fixed": {"transition": [[0.9, 0.1], [0.1, 0.9]]}}, ((0, 1),)),
    (2, {"fixed": {"transition": [[0.9, 0.1], [0.2, 0.8]]}}, ((0,), (1,))),
    (2, {"ordered": True}, ((0,), (1,))),
]


@pytest.mark.parametrize(("n_states", "settings", "groups"), WAYS, ids=str)
def test_states_of_a_group_change_places_and_no_others(n_states: int, settings: dict, groups: tuple) -> None:
    """The oracle is the density of parameters and data itself, with the names of two states exchanged."""
    y = np.random.default_rng(0).normal(size=(2, 5))
    model = HiddenMarkovModel(n_states, **settings).bind(y)
    assert model.label_groups == groups
    assert (model.label_dims == ()) == (len(groups) == n_states)
    with jax.enable_x64(True):
        sites = handlers.trace(handlers.seed(model, 1)).get_trace(y, n_units=2)
        drawn = {n: s["value"] for n, s in sites.items() if s["type"] == "sample" and n != "y"}
        density = jax.jit(lambda values: log_density(model, (jnp.asarray(y),), {"n_units": 2}, values)[0])
        before = float(density(drawn))
        for one, other in itertools.combinations(range(n_states), 2):
            swap = np.arange(n_states)
            swap[[one, other]] = other, one
            moved = {n: v[swap][:, swap] if n == "transition" else v[swap] for n, v in drawn.items()}
            possible = all(bool(sites[name]["fn"].support(value).all()) for name, value in moved.items())
            same = possible and abs(float(density(moved)) - before) < 1e-9
            assert same == any({one, other} <= set(group) for group in groups), (one, other)


def _draws() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "means": np.array([-1.0, 0.0, 2.0]) + 0.1 * rng.normal(size=(2, 50, 3)),
        "transition": np.eye(3) * 0.6 + 0.1 + 0.05 * rng.dirichlet(np.ones(3), (2, 50, 3)),
        "scales": np.full((2, 50, 3), 0.5) + 0.05 * rng.random((2, 50, 3)),
    }


@pytest.mark.parametrize("settings", [{}, {"absorbing": [1]}], ids=str)
def test_draws_with_switched_labels_are_put_in_one_order(settings: dict[str, Any]) -> None:
    """Every draw's labels permuted at random within their groups; the middle one stays where it is never left."""
    model = HiddenMarkovModel(3, **settings).bind(np.random.default_rng(0).normal(size=(2, 30)))
    true, rng = _draws(), np.random.default_rng(2)
    order = np.argsort(rng.random((2, 50, 3)), axis=-1)
    if settings:
        order = np.where(rng.random((2, 50, 1)) < 0.5, [0, 1, 2], [2, 1, 0])
    mixed = {n: np.take_along_axis(v, order.reshape(2, 50, 3, *[1] * (v.ndim - 3)), axis=2) for n, v in true.items()}
    mixed["transition"] = np.take_along_axis(mixed["transition"], order[:, :, None], axis=3)
    found = match_labels(model, mixed)
    for name, value in true.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_lost_atom_and_two_live_states() -> None:
    """The lost one, lowest of the three, keeps its place; the live ones come in the order of their means."""
    rng = np.random.default_rng(0)
    transition = np.array([[0.85, 0.12, 0.03], [0.10, 0.85, 0.05], [0.0, 0.0, 1.0]])
    states = np.zeros((6, 50), int)
    for t in range(1, 50):
        states[:, t] = [rng.choice(3, p=transition[before]) for before in states[:, t - 1]]
    y = np.array([10.0, 5.0, 0.0])[states] + 0.7 * rng.normal(size=states.shape)
    fit = bu.fit(HiddenMarkovModel(3, absorbing=(2,)), y, bu.Gibbs(), progress=False)
    assert fit.converged, fit.diagnostics.attrs["verdict"]
    means = fit.posterior["means"].stack(sample=("chain", "draw")).transpose("state", "sample").values
    assert (np.abs(means.mean(1) - [5.0, 10.0, 0.0]) < 4 * means.std(1)).all()
    assert (fit.posterior["transition"].isel(state=2) == np.array([0.0, 0.0, 1.0])).all()
