"""A normal variable between two bounds, in float32, against Mills' ratio in float64."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import erfcx

from bayesunmix.distributions import truncated

# Bounds at which the density rises, falls, or does both; and far out, where only the distance to the bound matters.
LOWS = [-1500.0, -15.0, -2.0, -0.5, 0.3, 3.0, 9.9, 12.0, 50.0, 1500.0]
WIDTHS = [1e-5, 1e-3, 0.02, 0.3, 2.0, 50.0]
CASES = np.array(list(itertools.product(LOWS, WIDTHS, [0.05, 0.5, 0.97])), dtype=np.float32)


def tail(x: float) -> float:
    """Mass above x >= 0 over the density there."""
    return float(np.sqrt(np.pi / 2) * erfcx(x / np.sqrt(2)))


def mass(near: float, width: float) -> float:
    """Mass of the interval over the largest density in it; ``near`` is its bound nearer to 0."""
    far = near + width
    relative = np.exp(-0.5 * width * (near + far))
    if near >= 0:
        # The difference of tails close to each other, by the midpoint rule to third order.
        if width * (1 + far) < 1e-4:
            return float(width * np.exp(-0.25 * width * (2 * near + 0.5 * width)))
        return tail(near) - relative * tail(far)
    return np.sqrt(2 * np.pi) - np.exp(-0.5 * near**2) * tail(-near) - np.exp(-0.5 * far**2) * tail(far)


def expected(low: float, width: float, uniform: float) -> tuple[float, float]:
    mirrored = 2 * low + width < 0
    near, share = (-(low + width), 1 - uniform) if mirrored else (low, uniform)
    whole = mass(near, width)

    def missing(t: float) -> float:
        if near >= 0:
            return mass(near, t) - share * whole
        side = mass(near, t) if near + t > -near else mass(-(near + t), t) * np.exp(-0.5 * min(near + t, 0.0) ** 2)
        return side - share * whole

    found = brentq(missing, 0.0, width, xtol=1e-13 * width, rtol=1e-14)
    return float(np.log(whole)), width - found if mirrored else found


@pytest.fixture(scope="module")
def computed():
    low, width, uniform = (jnp.asarray(x) for x in CASES.T)

    def both(low, width):
        return truncated.log_mass(low, width), truncated.quantile(uniform, low, width)

    @jax.jit
    def all_of_it(low, width):
        zero, one = jnp.zeros_like(low), jnp.ones_like(low)
        by = [jax.jvp(both, (low, width), move)[1] for move in ((one, zero), (zero, one))]
        return both(low, width), by

    return jax.device_get(all_of_it(low, width))


@pytest.fixture(scope="module")
def reference():
    return np.array([expected(*map(float, case)) for case in CASES]).T


def test_mass_and_quantile_far_out_and_between_close_bounds(computed, reference) -> None:
    (log_mass, quantile), _ = computed
    np.testing.assert_allclose(log_mass, reference[0], rtol=3e-6, atol=5e-6)
    np.testing.assert_allclose(quantile, reference[1], rtol=2e-3, atol=1e-12)


def test_derivatives_are_those_of_the_function(computed) -> None:
    """By the fundamental theorem, with the oracle's mass: at the bounds the density, at z what keeps the share."""
    _, ((mass_both, both), (mass_width, widened)) = computed
    for i, (low, width, uniform) in enumerate(CASES.astype(float)):
        mirrored = 2 * low + width < 0
        near = -(low + width) if mirrored else low
        far, whole = near + width, mass(near, width)
        at_far = np.exp(-0.5 * (width * (near + far) if near > 0 else far**2)) / whole
        at_near = (1.0 if near > 0 else np.exp(-0.5 * near**2)) / whole
        by_both = (near if near > 0 else 0.0) - at_near + at_far
        lost = 1e-12 * (abs(near) + at_near)  # rounding of the oracle itself
        slack = 5e-3 * abs(by_both) + 1e-5 + lost
        assert mass_both[i] == pytest.approx(-by_both if mirrored else by_both, abs=slack)
        assert mass_width[i] == pytest.approx(at_far if not mirrored else at_far - by_both, rel=1e-4, abs=slack)
        e = 1e-3 * max(width, 1e-3)
        up, down = expected(low, width + e * width, uniform)[1], expected(low, width - e * width, uniform)[1]
        assert widened[i] == pytest.approx((up - down) / (2 * e * width), rel=5e-3, abs=2e-4)
    assert np.isfinite(both).all()


def test_what_a_face_holds_follows_its_force(computed) -> None:
    """1500 standard deviations out the part is exponential: it moves by -E / force^2 with the force."""
    _, ((_, both), _) = computed
    there = (CASES[:, 0] == 1500.0) & (CASES[:, 1] >= 0.3)
    force, drop = 1500.0, -np.log1p(-CASES[there, 2].astype(float))
    np.testing.assert_allclose(both[there], -drop / force**2, rtol=1e-3)


@pytest.mark.parametrize("low", [-9.0, -1.0, 0.0, 0.7, 4.0, 12.0, 29.9, 30.1, 1e3])
def test_mean_and_variance_above_a_bound(low: float) -> None:
    """Against quadrature of the density relative to the bound."""
    spread = 1.0 / max(low, 1.0)
    far = max(-low, 0.0) + 40.0 * spread
    weigh = lambda power: quad(  # noqa: E731
        lambda x: x**power * np.exp(-x * (low + 0.5 * x) - 0.5 * min(low, 0.0) ** 2),
        0.0,
        far,
        epsabs=0.0,
        epsrel=1e-12,
        limit=500,
        points=[max(-low, 0.0) + spread],
    )[0]
    total, first, second = (weigh(power) for power in range(3))
    with jax.enable_x64(True):
        excess, variance = (float(x) for x in truncated.above(np.float64(low)))
    # Mills' ratio is known to 1e-10, the series beyond 30 to its next term, 500 / 30^8 of 1.
    known = 2e-10 * abs(low + excess)
    np.testing.assert_allclose(excess, first / total, rtol=0, atol=known + 1e-12)
    series = 1e-9 if low > 30.0 else 0.0
    expected = second / total - (first / total) ** 2
    np.testing.assert_allclose(variance, expected, rtol=1e-9, atol=2 * known * abs(low + excess) + series * expected)


@pytest.mark.parametrize("low", [-5.0, -2.0, 0.0, 1.0, 3.0, 8.0, 11.0, 13.0, 40.0])
def test_cumulants_of_what_is_above(low: float) -> None:
    """By sums over a fine grid; between the formula and its series, at 12, half a percent is lost to rounding."""
    with jax.enable_x64(True):
        excess, _ = truncated.above(np.float64(low))
        third, fourth = (float(x) for x in truncated.lean(np.float64(low), excess))
    x = np.linspace(0.0, 60.0 / low if low > 3.0 else 14.0, 200_001)
    weight = np.exp(-0.5 * x**2 - low * x)
    weight[[0, -1]] /= 2.0  # the trapezoidal rule
    weight /= weight.sum()
    mean = (weight * x).sum()
    second, raw_third, raw_fourth = ((weight * (x - mean) ** k).sum() for k in (2, 3, 4))
    assert third == pytest.approx(raw_third, rel=5e-3)
    assert fourth == pytest.approx(raw_fourth - 3.0 * second**2, rel=5e-3)
