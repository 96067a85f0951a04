"""Loadings up to rotation against the loadings themselves."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpyro.distributions import biject_to
from scipy.stats import kstest

from bayesunmix.distributions.loadings import Loadings
from bayesunmix.distributions.turned_loadings import TurnedLoadings

RNG = np.random.default_rng(0)
SCALE, DOF, FLOOR = np.array([0.5, 1.0, 1.5, 1.0]), 6.0, 2.0
AXES = np.random.default_rng(5).normal(size=(2, 4))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def law():
    """Compiled: draws, coordinates of loadings, loadings of coordinates, log densities of both."""
    made = lambda: TurnedLoadings(SCALE, DOF, FLOOR, AXES)  # noqa: E731
    turn = lambda: biject_to(made().support)  # noqa: E731

    def at(u):
        x = turn()(u)
        return x, made().log_prob(x), turn().log_abs_det_jacobian(u, x)

    return {
        "draw": jax.jit(lambda key: made().sample(key, (4000,))),
        "inside": jax.jit(lambda x: made().support(x)),
        "inverse": jax.jit(lambda x: turn().inv(x)),
        "at": jax.jit(at),
        "jacobian": jax.jit(jax.jacfwd(lambda u: turn()(u).ravel())),
    }


def test_loadings_and_their_coordinates_belong_together(law) -> None:
    drawn = law["draw"](jax.random.key(0))
    assert bool(law["inside"](drawn).all()) and not bool(law["inside"](-drawn).any())
    u = law["inverse"](drawn)
    assert u.shape == (4000, 7)
    x, _, log_volume = law["at"](u)
    np.testing.assert_allclose(x, drawn, atol=1e-9)
    # Any rotation has the same representative.
    rotation = np.linalg.qr(RNG.normal(size=(2, 2)))[0]
    np.testing.assert_allclose(law["inverse"](rotation @ drawn), u, atol=1e-9)
    jacobian = law["jacobian"](u[0])
    assert float(log_volume[0]) == pytest.approx(0.5 * np.linalg.slogdet(jacobian.T @ jacobian)[1], abs=1e-9)


def test_one_component_is_known_up_to_its_sign() -> None:
    law = TurnedLoadings(np.array([1.0]), 3.0, 2.0, np.array([[1.0]]))
    grid = np.linspace(1e-4, 400, 400001)
    density = np.exp(np.asarray(jax.jit(law.log_prob)(grid[:, None, None])))
    assert np.trapezoid(density, grid) == pytest.approx(1.0, abs=2e-3)


def test_what_no_rotation_changes_has_the_law_of_the_loadings(law) -> None:
    """By importance weights of the density: they average to one, and reproduce the law of the trace of W W'."""
    u = np.asarray(law["inverse"](law["draw"](jax.random.key(1))))
    centre, root = u.mean(0), 1.3 * np.linalg.cholesky(np.cov(u.T))
    white = RNG.standard_t(4, size=(40000, u.shape[1]))
    log_t = np.log(3 / 8) - 2.5 * np.log1p(white**2 / 4)
    x, log_p, log_volume = (np.asarray(a) for a in law["at"](centre + white @ root.T))
    weight = np.exp(log_p + log_volume - log_t.sum(1) + np.log(np.diag(root)).sum())
    error = weight.std() / np.sqrt(len(weight))
    assert error < 0.05 and abs(weight.mean() - 1) < 4 * error
    free = np.asarray(jax.jit(lambda key: Loadings(2, SCALE, DOF, FLOOR).sample(key, (4000,)))(jax.random.key(9)))
    size = (x**2).sum((1, 2))
    order = np.argsort(size)
    below = np.interp((free**2).sum((1, 2)), size[order], np.cumsum(weight[order]) / weight.sum())
    assert kstest(below, "uniform").statistic < 0.05
