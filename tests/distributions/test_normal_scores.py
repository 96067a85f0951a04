"""Normal scores of what is expected of an entry: the law that they are made for, their slopes, what is not known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to
from scipy import integrate, stats

from bayesunmix.distributions.normal_scores import Expected, nothing_expected
from bayesunmix.distributions.spectra import Spectra

CENTRES = np.array([[-3.0, 0.0, 1.5, 2.5, 7.0]])  # in errors
KINDS = pytest.mark.parametrize("kind", ["plain", "counted"])
SPARSITIES = pytest.mark.parametrize("sparsity", [1.0, 4.0, 12.0])


def prior(sparsity: float, kind: str, expected: Expected | None = None) -> Spectra:
    shape, counted = CENTRES.shape, kind == "counted"
    return Spectra(
        np.zeros(shape), np.full(shape, 1e3), 1.0, sparsity=np.array([sparsity]), counted=counted, expected=expected
    )


def expected(sparsity: float, kind: str) -> tuple[np.ndarray, np.ndarray, Spectra]:
    error = np.full(CENTRES.shape, 40.0 if kind == "counted" else 1.3)
    centre = CENTRES * error
    return centre, error, prior(sparsity, kind, prior(sparsity, kind).expecting(centre, error))


@KINDS
@SPARSITIES
def test_what_was_expected_is_normal(kind: str, sparsity: float) -> None:
    """Prior times the normal law that the data were to say: a standard normal density, and its derivatives.

    The prior's own tail, half-normal with 1000, was not expected: with errors of 40 it moves slopes by some per cent.
    """
    with jax.enable_x64(True):
        centre, error, law = expected(sparsity, kind)
        transform = biject_to(law.support)

        def log_posterior(score: Any) -> Any:
            x = transform(score)
            volume = transform.log_abs_det_jacobian(score, x)
            return law.log_prob(x) + volume - 0.5 * (((x - centre) / error) ** 2).sum()

        for score in (-4.0, -2.0, 0.0, 1.0, 3.0):
            at = jnp.full(CENTRES.shape, score)
            tolerance = 0.05 if kind == "counted" else 1e-3
            np.testing.assert_allclose(jax.grad(log_posterior)(at), -at, atol=tolerance)
            steepness = jnp.diagonal(jax.hessian(log_posterior)(at)[0, :, 0, :])
            np.testing.assert_allclose(steepness, -1.0, atol=tolerance)


@SPARSITIES
def test_scores_are_those_of_the_distribution_function(sparsity: float) -> None:
    """By quadrature in the entry's logarithm, to a thousandth of a standard deviation."""
    with jax.enable_x64(True):
        centre, error, law = expected(sparsity, "plain")
        scores = np.linspace(-3.0, 3.0, 7)
        entries = np.stack([biject_to(law.support)(jnp.full(CENTRES.shape, score))[0] for score in scores])
    for i in range(CENTRES.size):
        # Of log x. Below the lowest is exp(-40) of the mass at most.
        def density(t: float, i: int = i) -> float:
            return np.exp(t / sparsity - 0.5 * ((np.exp(t) - centre[0, i]) / error[0, i]) ** 2)

        lowest, highest = -40.0 * sparsity, np.log(max(centre[0, i], 0.0) + 9.0 * error[0, i])
        cuts = np.concatenate([[lowest], np.log(np.maximum(entries[:, i], np.exp(lowest))), [highest]])
        mass = np.cumsum([integrate.quad(density, a, b, limit=200)[0] for a, b in pairwise(cuts)])
        np.testing.assert_allclose(stats.norm.ppf(mass[:-1] / mass[-1]), scores, atol=1e-3)


@KINDS
@SPARSITIES
def test_there_and_back_and_slopes(kind: str, sparsity: float) -> None:
    """Also beyond the nodes, where the map is a line; the slope that is said is that of the cubic within .5 %."""
    with jax.enable_x64(True):
        transform = biject_to(expected(sparsity, kind)[2].support)
        for score in (-5.5, -3.3, -0.1, 2.2, 30.0):
            at = jnp.full(CENTRES.shape, score)
            x = transform(at)
            np.testing.assert_allclose(transform.inv(x), at, rtol=1e-6, atol=1e-6)
            step = 1e-4
            numeric = (transform(at + step) - transform(at - step)) / (2.0 * step)
            slope = jax.jvp(transform, (at,), (jnp.ones_like(at),))[1]
            np.testing.assert_allclose(slope, numeric, rtol=5e-3)
            np.testing.assert_allclose(transform.log_abs_det_jacobian(at, x), jnp.log(slope).sum(), rtol=1e-9)


@KINDS
def test_where_nothing_is_expected_the_coordinate_is_the_entrys_own(kind: str) -> None:
    """Of endmembers without room for expectations, of those with room, and of entries that are clear."""
    with jax.enable_x64(True):
        clear = prior(4.0, kind).expecting(np.full(CENTRES.shape, 9.0), np.ones(CENTRES.shape))
        score = jnp.array([[-30.0, -1.0, 0.5, 7.0, 400.0]])
        plain = biject_to(prior(4.0, kind).support)
        for nothing in (nothing_expected(CENTRES.shape), clear):
            transform = biject_to(prior(4.0, kind, nothing).support)
            x = transform(score)
            np.testing.assert_array_equal(x, plain(score))
            np.testing.assert_allclose(transform.inv(x), plain.inv(x), rtol=1e-12)

            def volume(u: Any, t: Any = transform) -> Any:
                return t.log_abs_det_jacobian(u, t(u))

            assert bool(jnp.isfinite(jax.grad(volume)(score)).all())
            np.testing.assert_allclose(volume(score), plain.log_abs_det_jacobian(score, x), rtol=1e-12)


def test_slopes_are_finite_far_below() -> None:
    """Of entries that single numbers hardly hold: second derivatives too."""
    with jax.enable_x64(True):
        law = expected(30.0, "plain")[2]
        transform = biject_to(law.support)

        def value(u: Any) -> Any:
            return law.log_prob(transform(u)) + transform.log_abs_det_jacobian(u, transform(u))

        for score in (-4.9, -13.0, -40.0):
            at = jnp.full(CENTRES.shape, score)
            assert bool(jnp.isfinite(jax.grad(value)(at)).all())
            assert bool(jnp.isfinite(jax.hessian(value)(at)).all())


def test_entries_that_are_seen_hardly_move_with_the_sparsity() -> None:
    """At given scores a fifth more of it moves an entry above its error by less than a fifth of the resolution, and the
    share of all dark entries below one, which the prior leaves even, not at all."""
    with jax.enable_x64(True):
        _, error, law = expected(8.0, "plain")
        higher = prior(9.6, "plain", law.expected)
        for score in (0.0, 1.0, 2.0):
            at = jnp.full(CENTRES.shape, score)
            here, there = (np.asarray(biject_to(one.support)(at)) for one in (law, higher))
            seen = here > error
            np.testing.assert_allclose(there[seen], here[seen], atol=0.2)
        deep = jnp.full(CENTRES.shape, -3.0)
        here, there = (np.asarray(biject_to(one.support)(deep))[:, :-1] for one in (law, higher))  # the last is seen
        np.testing.assert_allclose(there ** (1 / 9.6), here ** (1 / 8.0), rtol=1e-3)
