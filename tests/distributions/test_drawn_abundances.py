"""Abundances given the data, drawn by NormalUnmixing: on points, and one each without."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from five_channels import CHANNELS, MANY, conditional_on, draw, make_rule, parameters
from scipy import stats

from bayesunmix.distributions.unmixing import NormalUnmixing


def test_true_abundances_rank_uniformly_among_conditional_draws() -> None:
    """Simulation-based calibration of the latent: 1000 units, 63 draws each, ranks in 8 bins, p > 1e-4 each."""
    own = parameters(3, "isotropic")
    y, truth = draw(own, MANY, seed=5)
    conditional = conditional_on(own, make_rule(own, y, jax.random.key(6), jnp.arange(MANY)))
    draws = conditional.sample(jax.random.key(7), (63,))
    assert draws.shape == (63, MANY, 3)
    np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-9)
    ranks = np.asarray((draws < truth).sum(0))
    for part in range(3):
        counts, _ = np.histogram(ranks[:, part], bins=8, range=(0, 64))
        assert stats.chisquare(counts).pvalue > 1e-4


def test_one_draw_stays_in_the_simplex_at_other_parameters_than_those_of_the_rule() -> None:
    """With eight times the noise, parts that the rule found far from their faces come near them."""
    own = {**parameters(4, "isotropic"), "concentration": None, "noise_scale": jnp.asarray(0.015)}
    y, _ = draw(own, 200, seed=12)
    rule = NormalUnmixing(**own).rule(y, jax.random.key(0), jnp.arange(200))
    assert (np.asarray(rule.frame.near) < 2).sum() > 20
    there = NormalUnmixing(**{**own, "noise_scale": jnp.asarray(0.12)})
    draws = np.asarray(jax.jit(there.draw_on)(rule, jax.random.key(1)))
    assert draws.min() >= 0.0
    np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-5)


@pytest.mark.parametrize("n_parts", [2, 3, 4])
def test_one_draw_without_points_follows_the_conditional(n_parts: int) -> None:
    """Units inside, at one face and in corners: moments of 2000 draws against 60 sets of 512 points.

    Means within 5 standard errors: false alarm below 1e-3 a case. Ranks of the truth among 63 of the draws in 8 bins.
    """
    n_units = 400
    own = {**parameters(n_parts, "isotropic"), "concentration": None, "noise_scale": jnp.asarray(0.015)}
    y, truth = draw(own, n_units, seed=11)
    index = jnp.arange(n_units)

    @jax.jit
    def both(y: jax.Array) -> Any:
        few, many = NormalUnmixing(**own), NormalUnmixing(**own, n_points=512)
        rule, dense = few.rule(y, jax.random.key(0), index), many.rule(y, jax.random.key(0), index)

        def once(key: jax.Array) -> jax.Array:
            key_points, key_draw = jax.random.split(key)
            return few.draw_on(few.redraw(rule, key_points, index), key_draw)

        def moments(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            found = many.conditional_on(many.redraw(dense, key, index))
            return found.mean, found.variance + found.mean**2

        draws = jax.lax.map(once, jax.random.split(jax.random.key(1), 2000))
        mean, square = (m.mean(0) for m in jax.lax.map(moments, jax.random.split(jax.random.key(2), 60)))
        return draws, mean, square - mean**2, rule.frame.near

    draws, mean, variance, near = map(np.asarray, both(y))
    assert draws.min() >= 0.0
    np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-5)
    kinds = [near == 0, near == 1, near > 1]
    assert min(kind.sum() for kind in kinds[: min(n_parts, 3)]) > 5, [kind.sum() for kind in kinds]
    z = (draws.mean(0) - mean) / np.sqrt(variance / len(draws))
    assert np.abs(z).max() < 5
    for kind in kinds[: min(n_parts, 3)]:
        ratio = (draws[:, kind].var(0) / variance[kind]).mean()
        assert abs(ratio - 1.0) < 5 * np.sqrt(5.0 / len(draws) / kind.sum())  # kurtosis of up to 6 at a face
    ranks = (draws[::31][:63] < np.asarray(truth)).sum(0)
    for part in range(n_parts):
        counts, _ = np.histogram(ranks[:, part], bins=8, range=(0, 64))
        assert stats.chisquare(counts).pvalue > 1e-4


def test_parts_below_rounding_follow_their_law() -> None:
    """Without information an abundance is a beta variable, down to what no distance from a centre can tell.

    A fifth of the points were zero, and those between 1e-12 and 1e-8 what rounding made of them.
    """
    with jax.enable_x64(True):
        at = jnp.asarray(np.random.default_rng(5).uniform(0.5, 1.5, (3, CHANNELS)))
        y = jnp.ones((MANY, CHANNELS))
        found = jax.jit(lambda y: NormalUnmixing(at, jnp.full(3, 0.1), 1e3).conditional(y))(y)
    points, weights = np.asarray(found.points), np.asarray(found.weights)
    for limit in (1e-14, 1e-12, 1e-10, 1e-8, 1e-6):
        share = (weights * (points < limit)).sum((1, 2)) / MANY
        np.testing.assert_allclose(share, stats.beta(0.1, 0.2).cdf(limit), rtol=0.05)


def test_conditional_draws_have_the_conditional_moments() -> None:
    """2000 draws of 1000 units: 3000 means within 5.5 standard errors (false alarm 1e-4), variances on average."""
    own = parameters(3, "isotropic")
    y, _ = draw(own, MANY)
    conditional = conditional_on(own, make_rule(own, y, jax.random.key(6), jnp.arange(MANY)))
    draws = np.asarray(conditional.sample(jax.random.key(8), (2000,)))
    variance = np.asarray(conditional.variance)
    z = (draws.mean(0) - np.asarray(conditional.mean)) / np.sqrt(variance / len(draws))
    assert np.abs(z).max() < 5.5
    assert abs(np.mean(draws.var(0) / variance) - 1) < 0.01
