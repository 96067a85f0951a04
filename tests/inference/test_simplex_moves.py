"""The simplex of the endmembers moved as a whole: its coordinates, its density, moves of chains, and weighted draws."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from bayesunmix.inference import simplex_draws as drawing
from bayesunmix.inference.mode import Mode, find_mode
from bayesunmix.inference.program import Program, compile_model, unconstrain
from bayesunmix.inference.sampler import sample
from bayesunmix.inference.settings import NUTS
from bayesunmix.inference.simplex_moves import (
    Simplex,
    as_mix,
    crowded,
    draw_mixes,
    endmembers_at,
    log_height,
    proposed,
    simplex_at,
)
from bayesunmix.inference.target import as_device_data, log_density, with_rules
from bayesunmix.models import LinearUnmixing

K, P, N = 3, 5, 120


class Case(NamedTuple):
    program: Program
    mode: Mode
    simplex: Simplex


def made(model: LinearUnmixing, y: np.ndarray) -> tuple[Program, Mode]:
    bound = model.bind(y)
    program, numbers = compile_model(bound, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    start = np.asarray(unconstrain(program, data.numbers, bound.initial(y), data.y, {}))
    return program, find_mode(program, data, start, jnp.arange(len(y)), jax.random.key(0))


def pixels(rng: np.random.Generator) -> np.ndarray:
    spectra = np.array([[1.0, 0.7, 0.3, 0.2, 0.4], [0.2, 0.3, 0.8, 1.0, 0.5], [0.4, 0.9, 0.3, 0.5, 1.0]])
    return rng.dirichlet(np.ones(K), N) @ spectra + 0.03 * rng.normal(size=(N, P))


@pytest.fixture(scope="module")
def case() -> Case:
    with jax.enable_x64(True):
        program, mode = made(LinearUnmixing(K), pixels(np.random.default_rng(1)))
        simplex = simplex_at(program, mode.data, mode.z)
    assert simplex is not None
    return Case(program, mode, simplex)


def some_mixes(count: int, spread: float = 0.05) -> jax.Array:
    away = spread * np.random.default_rng(2).normal(size=(count, K * (K - 1)))
    return jnp.stack([as_mix(jnp.asarray(one)) for one in away])


def test_mixes_are_a_group_that_endmembers_follow(case: Case) -> None:
    first, second = some_mixes(2)
    endmembers = case.simplex.endmembers
    np.testing.assert_allclose(case.simplex.mix(endmembers), np.eye(K), atol=1e-10)
    # Not in the plane of the reference.
    beside = endmembers + 0.02 * jnp.asarray(np.random.default_rng(3).normal(size=endmembers.shape))
    expected = first @ case.simplex.mix(beside)
    np.testing.assert_allclose(case.simplex.mix(first @ beside), expected, atol=1e-10)
    np.testing.assert_allclose(as_mix((second - jnp.eye(K))[:, :-1].ravel()), second, atol=1e-12)


def test_faceless_abundances_follow_the_endmembers(case: Case) -> None:
    program, data = case.program, case.mode.data
    mix = some_mixes(1)[0]
    values = program.evaluate(data.numbers, jnp.asarray(case.mode.z), data.y, {}).values
    at = lambda w: program.likelihood(data.numbers, {**values, "endmembers": w}, data.y, {}).without_faces(data.y)  # noqa: E731
    mine, theirs = at(values["endmembers"]).mixed(mix), at(mix @ values["endmembers"])
    np.testing.assert_allclose(mine.mean, theirs.mean, atol=1e-9)
    np.testing.assert_allclose(mine.covariance, theirs.covariance, atol=1e-12)


def test_density_of_the_mix_is_the_posterior_along_it(case: Case) -> None:
    """Where one face at most is in reach of every pixel, faces taken one by one are all there is."""
    rng = np.random.default_rng(4)
    spectra = np.array([[1.0, 0.7, 0.3, 0.2, 0.4], [0.2, 0.3, 0.8, 1.0, 0.5], [0.4, 0.9, 0.3, 0.5, 1.0]])
    shares = rng.dirichlet(np.ones(K), 4 * N)
    shares = shares[np.sort(shares, axis=1)[:, 1] > 0.2][:N]
    y = shares @ spectra + 0.01 * rng.normal(size=(len(shares), P))
    program, mode = made(LinearUnmixing(K, endmember_support="real"), y)
    z = np.asarray(
        unconstrain(program, mode.data.numbers, {"endmembers": spectra, "noise_scale": 0.01}, mode.data.y, {})
    )
    # Points where the endmembers are, whose order at the mode may be another.
    data = with_rules(program, jnp.asarray(z), mode.data, jax.random.key(0), jnp.arange(len(y)))
    simplex = simplex_at(program, data, z)
    assert simplex is not None

    def posterior(mix):
        values = {"endmembers": mix @ simplex.endmembers, "noise_scale": 0.01}
        there = unconstrain(program, data.numbers, values, data.y, {})
        own = endmembers_at(program, there, data)[1]
        return log_density(program, there, data) - own + (P - K + 1) * jnp.linalg.slogdet(mix)[1]

    mixes = some_mixes(12, 0.01)
    missed = np.array([posterior(m) - log_height(simplex, m) for m in mixes])
    heights = np.array([log_height(simplex, m) for m in mixes])
    assert np.ptp(heights) > 5.0  # something is compared
    assert np.ptp(missed) < 1e-2


def coordinates(case: Case) -> tuple[drawing._Coordinates, np.ndarray]:
    mode = case.mode
    own = drawing._coordinates(case.program, jnp.asarray(mode.z), mode.data, case.simplex, jnp.asarray(mode.factor))
    beside = np.linalg.qr(np.concatenate([own.along, np.eye(len(mode.z))], axis=1))[0][:, K * (K - 1) :]
    return own, beside[:, : len(mode.z) - K * (K - 1)]


def test_volume_of_mix_and_normal_coordinates_is_their_jacobian(case: Case) -> None:
    own, beside = coordinates(case)
    size = K * (K - 1)

    @jax.jit
    def compared(x):
        def z(x):
            mix = as_mix(x[:size])
            return drawing._at(case.program, case.mode.data, case.simplex, own, beside @ x[size:], mix)

        jacobian = jnp.linalg.slogdet(jax.jacfwd(lambda x: z(x)[0])(x))[1]
        return z(x)[1], jacobian

    rng = np.random.default_rng(5)
    points = np.concatenate([0.05 * rng.normal(size=(8, size)), rng.normal(size=(8, beside.shape[1]))], axis=1)
    mine, theirs = np.transpose([compared(jnp.asarray(x)) for x in points])
    assert np.ptp(theirs) > 0.1
    np.testing.assert_allclose(mine - mine[0], theirs - theirs[0], atol=1e-8)


def test_slopes_of_points_by_those_of_the_globals(case: Case) -> None:
    """Pulled back to ``t`` they are those of the density itself."""
    own, beside = coordinates(case)
    program, mode, simplex = case
    rng = np.random.default_rng(7)
    whites = jnp.asarray(rng.normal(size=(3, beside.shape[1])) @ beside.T)
    mixes = jnp.stack([as_mix(0.05 * rng.normal(size=K * (K - 1))) for _ in range(3)])

    def density(white, mix):
        z, volume = drawing._at(program, mode.data, simplex, own, white, mix)
        return log_density(program, z, mode.data) + volume

    expected = jax.jit(jax.vmap(jax.grad(density)))(whites, mixes)
    found = drawing._slopes(program, mode.data, simplex, own, whites, mixes)
    rounding = 1e-6 * np.abs(expected).max()  # of points, which are drawn in float32
    np.testing.assert_allclose(found, expected, atol=rounding)


def test_a_move_and_its_way_back_are_in_balance(case: Case) -> None:
    """The ratio of a move is that of its way back, by the volumes of globals between there and here."""
    program, mode, simplex = case
    moves = draw_mixes(simplex, jax.random.key(0), 1)
    z = jnp.asarray(mode.z + mode.factor @ np.random.default_rng(6).normal(size=len(mode.z)))

    def there_by(mix):
        one = moves._replace(mixes=mix[None], heights=log_height(simplex, mix)[None])
        return lambda z: proposed(program, z, mode.data, one, jax.random.key(1))

    target = some_mixes(1)[0]
    there, ratio = there_by(target)(z)
    before = simplex.mix(endmembers_at(program, z, mode.data)[0])
    again, back = there_by(before)(there)
    np.testing.assert_allclose(again, z, atol=1e-9)
    np.testing.assert_allclose(ratio, -back, atol=1e-9)
    # With M by the volume of M and V: the determinant of the map at fixed M and new one is that of the move.
    own, beside = coordinates(case)
    size = K * (K - 1)
    at = lambda x: drawing._at(program, mode.data, simplex, own, beside @ x[size:], as_mix(x[:size]))[0]  # noqa: E731
    x = np.concatenate([(before - jnp.eye(K))[:, :-1].ravel(), 0.3 * np.ones(beside.shape[1])])
    y = np.concatenate([(target - jnp.eye(K))[:, :-1].ravel(), 0.3 * np.ones(beside.shape[1])])
    log_det = [jnp.linalg.slogdet(jax.jacfwd(at)(jnp.asarray(v)))[1] for v in (x, y)]
    moved, found = there_by(target)(at(jnp.asarray(x)))
    np.testing.assert_allclose(moved, at(jnp.asarray(y)), atol=1e-8)
    expected = log_det[1] - log_det[0] + log_height(simplex, before) - log_height(simplex, target)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def moments(draws: np.ndarray) -> np.ndarray:
    return np.concatenate([draws.mean(0), draws.std(0)])


@pytest.fixture(scope="module")
def plain(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Means and sds of the globals by chains without moves, and their standard errors."""
    with jax.enable_x64(True):
        chains = sample(case.program, case.mode, NUTS(draws=1500, warmup=300, chains=2), jax.random.key(3))
    return summed(chains.draws)


def summed(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from numpyro.diagnostics import effective_sample_size

    flat = draws.reshape(-1, draws.shape[-1])
    away = (draws - flat.mean(0)) ** 2
    error = flat.std(0) / np.sqrt(effective_sample_size(draws))
    of_sd = away.std((0, 1)) / np.sqrt(effective_sample_size(away)) / (2 * flat.std(0))
    return moments(flat), np.concatenate([error, of_sd])


def agree(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
    """32 numbers, each with its errors: beyond 4.5 standard errors in one of 5000 runs."""
    assert np.abs((one[0] - other[0]) / np.hypot(one[1], other[1])).max() < 4.5


def test_chains_with_moves_find_the_same_posterior(case: Case, plain: tuple[np.ndarray, np.ndarray]) -> None:
    moves = [draw_mixes(case.simplex, jax.random.key(c), 5000) for c in range(2)]
    settings = NUTS(draws=1000, warmup=300, chains=2)
    chains = sample(case.program, case.mode, settings, jax.random.key(4), moves=moves)
    agree(summed(chains.draws), plain)


def test_weighted_draws_are_the_posterior(case: Case, plain: tuple[np.ndarray, np.ndarray]) -> None:
    found = drawing.simplex_draws(case.program, case.mode, case.simplex, 1000, jax.random.key(5))
    assert found is not None and found.reliable()
    errors = np.repeat(found.draws.std(0)[None], 2, 0) / np.sqrt([[found.effective], [2 * found.effective / 3]])
    agree((moments(found.draws), errors.ravel()), plain)


def test_probability_above_is_stable_in_both_tails() -> None:
    from bayesunmix.distributions import truncated

    low = np.concatenate([np.linspace(-40, 40, 81), [300.0]])
    np.testing.assert_allclose(truncated.log_above(jnp.asarray(low)), special.log_ndtr(-low), rtol=1e-9, atol=1e-12)
    slope = jax.vmap(jax.grad(truncated.log_above))(jnp.asarray(low))
    expected = -np.exp(-0.5 * low**2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(-low))
    np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "model", [LinearUnmixing(K, concentration=0.5), LinearUnmixing(1), LinearUnmixing(K, brightness=True)]
)
def test_models_without_such_a_simplex_have_no_moves(model: LinearUnmixing) -> None:
    y = pixels(np.random.default_rng(1))
    bound = model.bind(y)
    program, numbers = compile_model(bound, jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    z = np.asarray(unconstrain(program, data.numbers, bound.initial(y), data.y, {}))
    assert simplex_at(program, data, z) is None


def test_dark_channels_hold_the_simplex_instead() -> None:
    """Endmembers that are zero in most channels leave the prior under nearly every move: no weights are tried."""
    rng = np.random.default_rng(8)
    spectra = np.kron(np.eye(3), np.ones(6))
    y = rng.dirichlet(np.ones(3), 150) @ spectra + 0.02 * rng.normal(size=(150, 18))
    program, mode = made(LinearUnmixing(3), y)
    simplex = simplex_at(program, mode.data, mode.z)
    assert simplex is not None
    assert drawing.simplex_draws(program, mode, simplex, 500, jax.random.key(0)) is None


def test_as_many_channels_as_pixels_have_no_density_of_the_simplex() -> None:
    rng = np.random.default_rng(9)
    y = rng.dirichlet(np.ones(2), 12) @ rng.uniform(0.5, 1.0, (2, 12)) + 0.01 * rng.normal(size=(12, 12))
    program, numbers = compile_model(LinearUnmixing(2).bind(y), jnp.asarray(y))
    data = as_device_data(program, numbers, y, {})
    z = np.zeros(program.size)
    assert crowded(program, data, z) and simplex_at(program, data, z) is None
