"""Marginal likelihoods of counts, camera signals and brightness against quadrature."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats
from scipy.special import gammaln, logsumexp
from simplex_quadrature import quadrature_nodes

from bayesunmix.distributions import chunks
from bayesunmix.distributions.channel_laws import LAWS
from bayesunmix.distributions.detected import DetectedUnmixing

CHANNELS = 12
UNITS = 12
SETS = 12
NOISE: dict[str, dict[str, float]] = {
    "poisson": {},
    "normal": {"noise_scale": 0.3},
    "scaled-poisson": {"gain": 2.0, "read_noise": 3.0},
}


def log_emission(law: str, mean: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The law of a channel, by SciPy."""
    noise = NOISE[law]
    if law == "poisson":
        return stats.poisson(mean).logpmf(y).sum(-1)
    if law == "normal":
        return stats.norm(mean, noise["noise_scale"]).logpdf(y).sum(-1)
    return stats.norm(mean, np.sqrt(noise["gain"] * mean + noise["read_noise"] ** 2)).logpdf(y).sum(-1)


def quadrature(law: str, y: np.ndarray, endmembers: np.ndarray, alpha: np.ndarray, shape: float | None) -> np.ndarray:
    """Log marginal density of every unit: trapezoid sums over log-ratios, and over log brightness."""
    log_a, log_volume = quadrature_nodes(len(endmembers), min(alpha.min(), 1.0), 0.03)
    prior = gammaln(alpha.sum()) - gammaln(alpha).sum() + (alpha - 1) @ log_a
    mean = np.exp(log_a).T @ endmembers
    brightness, log_weight = np.ones(1), np.zeros(1)
    if shape is not None:
        t = np.linspace(-5, 3, 401)  # a step below the narrowest posterior of log brightness, .03
        brightness = np.exp(t)
        log_weight = stats.gamma(shape, scale=1 / shape).logpdf(brightness) + t + np.log(t[1] - t[0])
    found = []
    for unit in y:
        terms = [
            logsumexp(log_volume + prior + log_emission(law, s * mean, unit)) + w
            for s, w in zip(brightness, log_weight, strict=True)
        ]
        found.append(logsumexp(terms))
    return np.array(found)


def example(law: str, n_parts: int, level: float, shape: float | None) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    endmembers = rng.gamma(2.0, 0.5, (n_parts, CHANNELS)) * level
    size = np.ones((UNITS, 1)) if shape is None else rng.gamma(shape, 1 / shape, (UNITS, 1))
    mean = size * (rng.dirichlet(np.full(n_parts, 0.5), UNITS) @ endmembers)
    if law == "poisson":
        return endmembers, rng.poisson(mean).astype(float)
    noise = NOISE[law]
    scale = noise["noise_scale"] if law == "normal" else np.sqrt(noise["gain"] * mean + noise["read_noise"] ** 2)
    return endmembers, mean + scale * rng.normal(size=mean.shape)


CASES = [
    *[("poisson", n, level, None, a) for n in (2, 3) for level in (0.5, 5.0, 100.0) for a in (1.0, 0.3)],
    *[("poisson", 2, level, 4.0, a) for level in (0.5, 100.0) for a in (1.0, 0.3)],
    *[("scaled-poisson", 3, level, None, 1.0) for level in (0.5, 100.0)],
    ("scaled-poisson", 2, 5.0, 4.0, 0.3),
    ("normal", 2, 3.0, 4.0, 1.0),
    ("normal", 2, 3.0, 4.0, 0.3),
    ("normal", 3, 3.0, None, 0.3),
]


@partial(jax.jit, static_argnames="law")
def on_points(law: str, endmembers, concentration, shape, y, key):
    """Compiled once for all cases of one form."""
    distribution = DetectedUnmixing(endmembers, concentration, law=law, brightness_shape=shape, **NOISE[law])
    return distribution.log_prob_on(distribution.rule(y, key, jnp.arange(UNITS)))


@pytest.mark.parametrize(
    ("law", "n_parts", "level", "shape", "alpha"),
    [case if i % 3 == 0 else pytest.param(*case, marks=pytest.mark.slow) for i, case in enumerate(CASES)],
)
def test_log_density_agrees_with_quadrature(law: str, n_parts: int, level: float, shape: Any, alpha: float) -> None:
    """Mean error at most .02 nats beyond three of its own standard errors, and no more scatter than .2 nats."""
    endmembers, y = example(law, n_parts, level, shape)
    concentration = np.full(n_parts, alpha)
    expected = quadrature(law, y, endmembers, concentration, shape)
    given = None if alpha == 1 else concentration

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), SETS)
        got = np.stack([np.asarray(on_points(law, endmembers, given, shape, y, key)) for key in keys])
    error = got - expected
    assert np.sqrt(np.mean(error**2)) < 0.2
    by_set = error.mean(1)
    assert abs(by_set.mean()) < 0.02 + 3 * by_set.std(ddof=1) / np.sqrt(SETS)


@pytest.mark.parametrize("missing", [False, True])
def test_channels_without_counts_may_be_left_out(missing: bool) -> None:
    """Units with counts in few channels are the same by those alone and, beside one that has more, by all channels.

    What is beyond the expansion is in single precision: sums of 60 terms below a nat, of nine units.
    """
    rng = np.random.default_rng(5)
    endmembers = rng.gamma(1.0, 1.0, (3, 60))
    y = rng.poisson(rng.dirichlet(np.ones(3), 9) @ endmembers * 0.1).astype(float)
    full = np.ones((1, 60))
    assert (y > 0).sum(1).max() <= 15 < full.sum()
    if missing:
        y[:, ::7] = np.nan

    @jax.jit
    def at(endmembers, y):
        distribution = DetectedUnmixing(endmembers, None, law="poisson", missing=missing)
        rule = distribution.rule(y, jax.random.key(0), jnp.arange(len(y)))
        assert rule.filled is not None
        return distribution.log_prob_on(rule)[:9].sum(), rule.filled.all

    with jax.enable_x64(True):
        found = jax.value_and_grad(at, has_aux=True)
        (alone, few), slope = found(endmembers, y)
        (beside, every), its_slope = found(endmembers, np.concatenate([y, full]))
    assert few.all()
    assert not every.all()
    np.testing.assert_allclose(alone, beside, atol=1e-4)
    np.testing.assert_allclose(slope, its_slope, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("law", "shape"), [("normal", 4.0), ("poisson", None), ("scaled-poisson", None)])
def test_chunks_of_units_make_no_difference(law: str, shape: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    endmembers, y = example(law, 2, 5.0, shape)

    def density(endmembers, rule):
        found = DetectedUnmixing(endmembers, None, law=law, brightness_shape=shape, **NOISE[law]).log_prob_on(rule)
        return found.sum(), found

    slope = lambda *arguments: jax.jit(jax.value_and_grad(density, has_aux=True))(*arguments)  # noqa: E731
    with jax.enable_x64(True):
        endmembers = jnp.asarray(endmembers)
        whole = DetectedUnmixing(endmembers, None, law=law, brightness_shape=shape, **NOISE[law])
        rule = whole.rule(jnp.asarray(y[:11]), jax.random.key(0), jnp.arange(11))
        (_, together), slope_together = slope(endmembers, rule)
        cells = len(rule.frame.base.T) * 32
        monkeypatch.setattr(chunks, "_CELLS", 5 * cells)  # of 4, 4 and 3 units
        (_, apart), slope_apart = slope(endmembers, rule)
    # Sums over points in single precision, of some tens of nats.
    np.testing.assert_allclose(apart, together, rtol=4e-6, atol=4e-5)
    np.testing.assert_allclose(slope_apart, slope_together, rtol=1e-5, atol=1e-5 * np.abs(slope_together).max())


def test_points_of_few_counts_reach_their_tails() -> None:
    """Ten counts or so a unit: with 512 points no unit is off by a hundredth of a nat.

    Drawn with the curvature at the top eight of the 300 were, one by five hundredths.
    """
    rng = np.random.default_rng(4)
    endmembers = rng.gamma(1.0, 1.0, (3, CHANNELS))
    y = rng.poisson(rng.dirichlet(np.ones(3), 300) @ endmembers).astype(float)
    expected = quadrature("poisson", y, endmembers, np.ones(3), None)
    with jax.enable_x64(True):
        distribution = DetectedUnmixing(endmembers, None, law="poisson")
        rule = distribution.rule(y, jax.random.key(0), jnp.arange(len(y)), n_points=512)
        found = np.asarray(jax.jit(lambda r: distribution.log_prob_on(r))(rule))
    assert np.abs(found - expected).max() < 0.01


@partial(jax.jit, static_argnames="n_points")
def made_and_used(made, used, shape, y, key, n_points=None):
    """Log densities at ``used`` endmembers, of a rule that was made at others."""
    first, then = (DetectedUnmixing(e, None, law="poisson", brightness_shape=shape) for e in (made, used))
    return then.log_prob_on(first.rule(y, key, jnp.arange(UNITS), n_points=n_points))


@pytest.mark.parametrize("shape", [None, 10.0])
def test_a_rule_of_units_with_next_to_no_counts_serves_nearby(shape: float | None) -> None:
    """Few counts bend the integrand in few directions; in the others faces hold it, and nothing else.

    A rule made at endmembers a tenth off scatters about the truth as one made here does (rms over 12 sets of points
    each; a ratio of 2 is beyond what their heavy tails do).
    """
    rng = np.random.default_rng(8)
    other = rng.gamma(1.0, 1.0, (3, CHANNELS))
    here = other * np.exp(0.1 * rng.normal(size=other.shape))
    y = np.eye(CHANNELS)[np.arange(UNITS)] * (np.arange(UNITS) % 4)[:, None]
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), SETS)
        truth = np.mean([made_and_used(here, here, shape, y, key, 8192) for key in keys[:4]], axis=0)
        frozen, own = (
            np.sqrt(np.mean([(np.asarray(made_and_used(made, here, shape, y, key)) - truth) ** 2 for key in keys]))
            for made in (other, here)
        )
    assert 0.01 < frozen < 2.0 * own < 0.5


@pytest.mark.parametrize("law", list(NOISE))
def test_laws_agree_with_their_own_density(law: str) -> None:
    """Slope, curvature and remainder of a law against differences of its log density."""
    one = LAWS[law]
    noise = tuple(jnp.asarray(NOISE[law][name]) for name in one.noise)
    mean, value, away = jnp.asarray([0.7, 3.0, 40.0]), jnp.asarray([0.0, 5.0, 37.0]), jnp.asarray([0.5, -1.0, 8.0])
    with jax.enable_x64(True):
        mean, value, away = (jnp.asarray(x, jnp.float64) for x in (mean, value, away))
        at = lambda m: one.log_density(m, value, noise)  # noqa: E731
        slope = one.slope(mean, value, noise)
        np.testing.assert_allclose(slope, (at(mean + 1e-6) - at(mean - 1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)
        for spread in (0.0, 0.4):
            quadratic = slope * away - 0.5 * one.bend(mean + spread, value, noise) * away**2
            unit, missed = (1.0, jnp.zeros_like) if one.beyond is None else one.beyond(mean, value, noise, spread)
            expected = at(mean + away) - at(mean) - quadratic
            np.testing.assert_allclose(missed(away / unit), expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_array_less(-1e-12, np.asarray(one.bend(mean, value, noise)))


@pytest.mark.parametrize("unit", [2.0**-30, 2.0**30])
def test_density_and_curvature_of_a_camera_are_the_same_in_any_unit(unit: float) -> None:
    """1e-9 and 1e9: squares, and what has a fourth power on the way, fit into single precision."""
    endmembers, y = example("scaled-poisson", 3, 20.0, None)

    def found(u: float):
        noise = {name: jnp.asarray(u * value) for name, value in NOISE["scaled-poisson"].items()}
        own = DetectedUnmixing(
            law="scaled-poisson",
            endmembers=jnp.asarray(u * endmembers),
            concentration=jnp.ones(3),
            n_points=64,
            **noise,
        )
        rule = own.rule(jnp.asarray(u * y), jax.random.key(0), jnp.arange(len(y)))
        gradient, hessian = own.curvature_on(rule)[:2]
        scaled = {n: u if n in ("endmembers", *noise) else 1.0 for n in gradient}
        both = {n: {m: h * scaled[n] * scaled[m] for m, h in row.items()} for n, row in hessian.items()}
        return own.log_prob_on(rule), {n: g * scaled[n] for n, g in gradient.items()}, both

    with jax.enable_x64(True):
        (value, *slopes), (here, *expected) = found(unit), found(1.0)
    # A density of every channel changes by the logarithm of the unit. Powers of two, so that only what is smaller than
    # single precision holds could differ, and its sums of some hundred terms, of relative 1e-7 each.
    np.testing.assert_allclose(value + CHANNELS * np.log(unit), here, rtol=0, atol=1e-4)
    for got, one in zip(ravel_pytree(slopes)[0], ravel_pytree(expected)[0], strict=True):
        assert abs(got - one) <= 1e-4 * np.abs(one) + 1e-3


@pytest.mark.parametrize(
    ("law", "shape"),
    [
        ("poisson", None),
        ("normal", 4.0),
        pytest.param("poisson", 4.0, marks=pytest.mark.slow),
        pytest.param("scaled-poisson", None, marks=pytest.mark.slow),
    ],
)
def test_curvature_agrees_with_automatic_differentiation(law: str, shape: float | None) -> None:
    """Gradient and Hessian against the density's own gradient and its differences, averaged over point sets.

    The Hessian in full between the few parameters beside the endmembers, and summed over all columns.
    """
    endmembers, y = example(law, 3, 20.0, shape)
    y = np.tile(y, (4, 1))
    parameters = {"endmembers": jnp.asarray(endmembers), "concentration": jnp.asarray([0.6, 1.0, 2.0])}
    parameters |= {name: jnp.asarray(x) for name, x in NOISE[law].items()}
    if shape is not None:
        parameters["brightness_shape"] = jnp.asarray(shape)

    def make(given):
        return DetectedUnmixing(law=law, n_points=256, **given)

    @jax.jit
    def prepared(key):
        rule = make(parameters).rule(jnp.asarray(y), key, jnp.arange(len(y)))
        return rule, make(parameters).curvature_on(rule)[:2]

    with jax.enable_x64(True):
        at, unravel = ravel_pytree(parameters)
        slope = jax.jit(jax.grad(lambda x, rule: make(unravel(x)).log_prob_on(rule).sum()))
        own = jax.tree_util.tree_map(np.zeros_like, parameters)
        where = {n: np.flatnonzero(ravel_pytree({**own, n: np.ones_like(own[n])})[0]) for n in parameters}
        few = np.concatenate([where[n] for n in parameters if n != "endmembers"])
        steps = [1e-2 * np.eye(at.size)[i] * at[i] for i in few] + [5e-3 * np.ones(at.size)]
        got, expected = [], []
        for key in jax.random.split(jax.random.key(1), 6):
            rule, (gradient, blocks) = prepared(key)
            full = np.zeros((at.size, at.size))
            for n in parameters:
                for m in parameters:
                    full[np.ix_(where[n], where[m])] = np.reshape(blocks[n][m], (len(where[n]), len(where[m])))
            got.append((ravel_pytree(gradient)[0], full[few], full.sum(1)))
            rows = [(slope(at + h, rule) - slope(at - h, rule)) / (2 * np.abs(h).max()) for h in steps]
            expected.append((slope(at, rule), np.stack(rows[:-1]), rows[-1]))
    got, expected = (tuple(np.stack(x) for x in zip(*side, strict=True)) for side in (got, expected))

    def agree(a, b):
        error = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / len(a))
        scale = np.sqrt(np.mean(b**2))
        # Four standard errors of the difference of means over point sets, some 200 numbers in all.
        assert np.all(np.abs(a.mean(0) - b.mean(0)) < 4.5 * error + 2e-3 * scale)

    for side in zip(got, expected, strict=True):
        agree(*side)


@pytest.mark.parametrize(("law", "shape"), [("normal", None), ("poisson", None), ("scaled-poisson", 4.0)])
def test_what_was_not_measured_says_nothing(law: str, shape: float | None) -> None:
    """Two channels that nobody measured: the density, its slope and its curvature are those of the others."""
    endmembers, y = example(law, 2, 20.0, shape)
    gaps = y.copy()
    gaps[:, [1, 3]] = np.nan
    rest = np.delete(np.arange(y.shape[1]), [1, 3])
    key, index = jax.random.key(5), jnp.arange(UNITS)
    with jax.enable_x64(True):

        @partial(jax.jit, static_argnames="missing")
        def evaluated(endmembers, y, missing):
            own = DetectedUnmixing(endmembers, None, law=law, brightness_shape=shape, missing=missing, **NOISE[law])
            rule = own.rule(y, key, index)
            return own.log_prob_on(rule), *own.curvature_on(rule)[:2]

        found, slope, bend = evaluated(endmembers, gaps, missing=True)
        expected, slope_of_rest, bend_of_rest = evaluated(endmembers[:, rest], gaps[:, rest], missing=False)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    slope, bend = np.asarray(slope["endmembers"]), np.asarray(bend["endmembers"]["endmembers"])
    scale = np.abs(slope_of_rest["endmembers"]).max()
    np.testing.assert_allclose(slope[:, rest], slope_of_rest["endmembers"], atol=1e-4 * scale)
    kept = np.ix_(range(2), rest, range(2), rest)
    within = np.asarray(bend_of_rest["endmembers"]["endmembers"])
    np.testing.assert_allclose(bend[kept], within, atol=1e-4 * np.abs(within).max())
    assert (slope[:, [1, 3]] == 0).all()
    assert (bend[:, [1, 3]] == 0).all()


@jax.jit
def in_the_dark(endmembers, shape, y):
    own = DetectedUnmixing(endmembers, None, law="normal", brightness_shape=shape, **NOISE["normal"])
    rule = own.rule(y, jax.random.key(0), jnp.arange(UNITS))
    return rule.frame.centre, own.log_prob_on(rule), own.curvature_on(rule)[:2]


@pytest.mark.parametrize("shape", [0.2, 0.6, 2.0])
def test_dark_units_keep_a_reference_point(shape: float) -> None:
    """The power of the size is negative below the sum of the concentrations, and dark units have nothing but noise."""
    endmembers, y = example("normal", 3, 20.0, 4.0)
    y = np.random.default_rng(0).normal(0.0, NOISE["normal"]["noise_scale"], y.shape)
    with jax.enable_x64(True):
        centre, *found = in_the_dark(endmembers, shape, y)
    assert float(centre.min()) > 1e-8
    for one in jax.tree_util.tree_leaves(found):
        assert bool(jnp.isfinite(one).all())
