"""Layered precisions and roots are the matrices that they stand for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayesunmix as bu
from bayesunmix.inference import layered, softness
from bayesunmix.inference.curvature import bendings, curvature
from bayesunmix.inference.guide_check import RATIO_LIMITS
from bayesunmix.inference.layered import LayeredRoot, Layers
from bayesunmix.inference.mode import MC_SHIFT_LIMIT, find_mode, step_root
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, with_rules
from bayesunmix.inference.whole import Whole
from bayesunmix.models import LinearUnmixing

SIZE, RANK = 14, 3


def precision(seed: int = 0, core: float = 0.5) -> Layers:
    """Four groups of three, their entries apart, and two others."""
    rng = np.random.default_rng(seed)
    places = np.random.default_rng(1).permutation(SIZE)
    root = rng.normal(size=(4, 3, 3))
    block = root @ root.swapaxes(1, 2) + np.eye(3)
    inner = rng.normal(size=(RANK, RANK))
    return Layers(
        places[:12].reshape(4, 3),
        places[12:],
        block,
        rng.uniform(1, 2, 2),
        rng.normal(size=(SIZE, RANK)),
        core * inner @ inner.T,
    )


def dense(layers: Layers) -> np.ndarray:
    return np.stack([layers @ column for column in np.eye(SIZE)], axis=1)


def test_products_are_those_of_the_matrix() -> None:
    layers = precision()
    matrix = layers.columns @ layers.core @ layers.columns.T
    for group, block in zip(layers.group, layers.block, strict=True):
        matrix[np.ix_(group, group)] += block
    matrix[layers.rest, layers.rest] += layers.number
    np.testing.assert_allclose(dense(layers), matrix, atol=1e-12)
    other = precision(2)
    np.testing.assert_allclose(dense(layers - other), matrix - dense(other), atol=1e-12)
    np.testing.assert_allclose(dense(layers + other), matrix + dense(other), atol=1e-12)
    np.testing.assert_allclose(dense(-layers), -matrix, atol=1e-12)


def test_inverse_of_an_upper_triangular_matrix() -> None:
    upper = np.triu(np.random.default_rng(0).normal(size=(6, 6))) + 3.0 * np.eye(6)
    found = layered.inverse_of_upper(upper)
    # Error of a solve: eps times condition and size.
    within = 6 * np.finfo(float).eps * np.linalg.cond(upper)
    np.testing.assert_allclose(found @ upper, np.eye(6), atol=within)
    assert not np.tril(found, -1).any()
    with pytest.raises(np.linalg.LinAlgError, match="zeros on its diagonal"):
        layered.inverse_of_upper(np.diag([1.0, 0.0]))


@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "jax"])
def test_the_root_is_one_of_the_inverse(compiled: bool) -> None:
    layers = precision()
    root, definite = layers.inverse_root()
    assert definite
    root = layered.stretched(root, np.linspace(0.5, 2.0, SIZE))
    stretch = np.diag(np.linspace(0.5, 2.0, SIZE))
    covariance = stretch @ np.linalg.inv(dense(layers)) @ stretch
    eye = jnp.eye(SIZE) if compiled else np.eye(SIZE)
    run = jax.jit if compiled else lambda fn: fn
    factor = np.asarray(run(lambda root, x: x @ root.T)(root, eye)).T  # a column for every unit vector
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-10)
    np.testing.assert_allclose(run(lambda root, x: x @ root)(root, eye), factor, atol=1e-10)
    x = np.random.default_rng(3).normal(size=SIZE)
    np.testing.assert_allclose(root @ x, factor @ x, atol=1e-10)
    np.testing.assert_allclose(root.T @ x, factor.T @ x, atol=1e-10)
    np.testing.assert_allclose(run(layered.push)(root, eye), np.linalg.inv(factor), atol=1e-10)
    np.testing.assert_allclose(run(layered.log_det)(root), np.linalg.slogdet(factor)[1], rtol=1e-10)
    np.testing.assert_allclose(layered.sds(root), np.sqrt(np.diag(covariance)), rtol=1e-10)


def test_a_precision_that_is_not_positive_loses_its_signs() -> None:
    root, definite = precision(core=-5.0).inverse_root()
    assert not definite
    assert isinstance(root, LayeredRoot)
    assert np.isfinite(layered.sds(root)).all()


@pytest.mark.parametrize("sizes", [(3, 24), pytest.param((2, 40), marks=pytest.mark.slow)], ids=str)
def test_layers_of_a_mixture_are_its_curvature(sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the matrix of Louis's identity at the mode, which takes the observed residuals where layers expect them.

    What these add falls off with the root of channels over pixels; a guide tolerates 20 % in any direction's width.
    """
    n_parts, n_channels = sizes
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, n_channels)
    spectra = np.stack([0.2 + np.exp(-0.5 * ((x - c) / 0.2) ** 2) for c in np.linspace(0.2, 0.8, n_parts)])
    y = rng.dirichlet(np.ones(n_parts), 2000) @ spectra + 0.1 * rng.normal(size=(2000, n_channels))
    model = LinearUnmixing(n_parts).bind(y)
    program, numbers = compile_model(model, jnp.asarray(y[:2]))
    data = as_device_data(program, numbers, y, {})
    start = np.asarray(unconstrain(program, numbers, model.initial(y), data.y[:2], {}))
    mode = find_mode(program, data, start, jnp.arange(2000), jax.random.key(0))
    gradient, matrix = curvature(program, mode.z, mode.data)
    monkeypatch.setattr("bayesunmix.inference.curvature.MOST_DENSE", 0)
    slope, layers = curvature(program, mode.z, mode.data)
    assert isinstance(layers, Layers)
    np.testing.assert_allclose(slope, gradient, atol=1e-6 * np.abs(np.diag(matrix)).max() ** 0.5)
    root, definite = (-layers).inverse_root()
    assert definite
    white = np.eye(len(slope)) @ root.T  # rows: F e_i
    ratios = np.linalg.eigvalsh(white @ -matrix @ white.T) ** -0.5
    assert RATIO_LIMITS[0] < ratios.min() <= ratios.max() < RATIO_LIMITS[1]


def test_a_fit_by_layers_is_that_by_a_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start to the guide, on an image small enough for both: means as near as a fit's own limit on them."""
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, 24)
    spectra = np.stack([0.2 + np.exp(-0.5 * ((x - c) / 0.2) ** 2) for c in (0.3, 0.7)])
    image = rng.dirichlet(np.ones(2), (20, 20)) @ spectra + 0.1 * rng.normal(size=(20, 20, 24))
    by_matrix = bu.fit(LinearUnmixing(2), image, progress=False)
    made = []
    monkeypatch.setattr("bayesunmix.inference.curvature.MOST_DENSE", 0)
    monkeypatch.setattr(Layers, "inverse_root", lambda self, own=Layers.inverse_root: made.append(self) or own(self))
    by_layers = bu.fit(LinearUnmixing(2), image, progress=False)
    assert made and by_matrix.converged and by_layers.converged
    one, other = (fit.posterior["endmembers"].values.reshape(-1, 2 * 24) for fit in (by_matrix, by_layers))
    assert (np.abs(one.mean(0) - other.mean(0)) / one.std(0)).max() < MC_SHIFT_LIMIT
    ratios = other.std(0) / one.std(0)
    assert RATIO_LIMITS[0] < ratios.min() <= ratios.max() < RATIO_LIMITS[1]


def test_units_near_a_face_stand_for_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where abundances are known well, a sample is made of them and of some of the others; the posterior is that of all
    units, which a sample with equal weights misses."""
    rng = np.random.default_rng(0)
    spectra = np.stack([np.linspace(0.2, 1.0, 24), np.linspace(1.0, 0.1, 24)])
    image = rng.dirichlet([1.5, 0.8], (30, 40)) @ spectra + 0.02 * rng.normal(size=(30, 40, 24))
    monkeypatch.setattr("bayesunmix.inference.curvature.MOST_DENSE", 0)
    every = bu.fit(LinearUnmixing(2), image, bu.SVI(batch=1200), progress=False)
    seen = []
    own = Whole.near
    monkeypatch.setattr(Whole, "near", lambda self, z: seen.append(own(self, z)) or seen[-1])
    some = bu.fit(LinearUnmixing(2), image, bu.SVI(batch=150), progress=False)
    assert every.converged and some.converged
    assert [len(near) % 150 for near in seen] == [0] and 0 < len(seen[0]) < 900
    one, other = (fit.posterior["endmembers"].values.reshape(-1, 2 * 24) for fit in (every, some))
    assert (np.abs(one.mean(0) - other.mean(0)) / one.std(0)).max() < MC_SHIFT_LIMIT
    ratios = other.std(0) / one.std(0)
    assert RATIO_LIMITS[0] < ratios.min() <= ratios.max() < RATIO_LIMITS[1]


def test_wrong_softness_of_layers_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the softest directions the layers become what the gradient says, cross terms included."""
    layers = precision(core=-0.02)
    _, soft, dual = layers.softest(RANK)
    np.testing.assert_allclose(soft.T @ dual, np.eye(RANK), atol=1e-12)
    wrong = np.random.default_rng(4).normal(size=(SIZE, RANK))
    true = dense(layers) + 0.1 * (wrong @ dual.T + dual @ wrong.T)
    monkeypatch.setattr(softness, "value_and_grad", lambda program, z, data: (0.0, -true @ z))
    monkeypatch.setattr(softness, "_ROUNDS", 1)
    anything: Any = SimpleNamespace(rules=True)
    found = -softness.measured_softness(anything, np.zeros(SIZE), anything, -layers)
    np.testing.assert_allclose(dense(found) @ soft, true @ soft, atol=1e-10)
    assert np.abs((dense(layers) - true) @ soft).max() > 0.1


def test_steps_are_damped_by_the_bend_of_exponentials_alone() -> None:
    """So that none is longer than one where the posterior is an exponential in the global, of a matrix too."""
    y = np.random.default_rng(0).normal(5.0, 0.1, (30, 4))
    model = LinearUnmixing(2).bind(y)
    program, numbers = compile_model(model, jnp.asarray(y[:2]))
    z = np.array([-800.0, -20.0, 0.0, 40.0, 40.0, 40.0, 40.0, 40.0, -2.0])  # softplus of entries, log of the noise
    data = with_rules(program, z, as_device_data(program, numbers, y, {}), jax.random.key(0), jnp.arange(30))
    found = bendings(program, jnp.asarray(z), data)
    np.testing.assert_allclose(found, [1.0, 1.0, 0.5, *[0.0] * 5, 1.0], atol=1e-6)
    gradient, matrix = curvature(program, z, data)
    factor = step_root(program, z, data, gradient, matrix)
    step = factor @ (factor.T @ gradient)
    np.testing.assert_allclose(gradient[:2], 1.0, atol=1e-3)  # of the Jacobian alone
    assert 0.5 < step[:2].min() < step[:2].max() < 1.0 + 1e-3


def test_away_from_the_mode_curvature_loses_its_signs() -> None:
    """Of a block and of the number outside, so that a step climbs out of a saddle."""
    found = precision()
    block, number = found.block.copy(), -found.number
    block[0] = -block[0]
    root, definite = replace(found, block=block, number=number).inverse_root()
    assert not definite
    usual, definite = found.inverse_root()
    assert definite
    for one, other in ((root.lower, usual.lower), (root.scale, usual.scale)):
        np.testing.assert_allclose(one, other, rtol=1e-10)
