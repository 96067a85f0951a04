"""Data held in single precision are worth as much as the same numbers held in double."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesunmix.distributions import unmixing_rule
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.distributions.unmixing_rule import with_data, without_data

UNITS, CHANNELS, PARTS = 23, 12, 3
# Sums over integration points are in single precision.
ROUNDING = {"value": 0.0, "faces": 1e-13, "value and slope": 4e-6, "curvature": 4e-6, "layers": 4e-6}


@pytest.fixture(params=["whole blocks", "a remainder", "one block"])
def _blocks(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    units = {"whole blocks": 1, "a remainder": 5, "one block": 100}[request.param]
    monkeypatch.setattr(unmixing_rule, "_CELLS", units * CHANNELS)


def likelihood(noise: str, background: float = 0.0) -> tuple[NormalUnmixing, jax.Array]:
    """A mixture, and data that single precision holds exactly."""
    rng = np.random.default_rng(0)
    endmembers = background + rng.gamma(2.0, 0.5, (PARTS, CHANNELS))
    scale = jnp.asarray(0.1 if noise == "isotropic" else np.geomspace(0.05, 0.3, CHANNELS))
    fn = NormalUnmixing(jnp.asarray(endmembers), None, scale)
    y, _ = fn.sample_with_latent(jax.random.key(1), (UNITS,))
    return fn, y.astype(jnp.float32)


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("noise", ["isotropic", "diagonal"])
def test_narrow_data_are_worth_what_wide_ones_are(noise: str) -> None:
    fn, narrow = likelihood(noise)

    def all_of(y: jax.Array) -> dict[str, Any]:
        rule = fn.rule(y, jax.random.key(2), jnp.arange(UNITS))
        moved = fn.endmembers + 0.01 * jnp.arange(CHANNELS)

        def density(endmembers: jax.Array, scale: jax.Array) -> jax.Array:
            return NormalUnmixing(endmembers, None, scale).log_prob_on(rule).sum()

        found = {
            "value and slope": jax.value_and_grad(density, argnums=(0, 1))(moved, fn.noise_scale),
            "curvature": fn.curvature_on(rule, ("endmembers",)),
            "faces": fn.without_faces(y)[:2],
            "value": rule.value,
        }
        return found | ({"layers": fn.layers_on(rule)} if noise == "isotropic" else {})

    found, expected = jax.jit(all_of)(narrow), jax.jit(all_of)(narrow.astype(jnp.float64))
    for name, wide in expected.items():
        for one, other in zip(jax.tree.leaves(found[name]), jax.tree.leaves(wide), strict=True):
            assert one.dtype == other.dtype == np.float64
            limit = ROUNDING[name] * np.abs(other).max()
            np.testing.assert_allclose(one, other, rtol=0, atol=limit, err_msg=name)


def test_a_rule_needs_not_hold_the_data() -> None:
    fn, y = likelihood("isotropic")
    rule = fn.rule(y, jax.random.key(2), jnp.arange(UNITS))
    lean = without_data(rule)
    assert max(leaf.size for leaf in jax.tree.leaves(lean)) < y.size
    np.testing.assert_array_equal(fn.log_prob_on(with_data(lean, y)), fn.log_prob_on(rule))


def test_in_single_precision_a_rule_holds_the_residual() -> None:
    """So that a background of a thousand does not cancel: data that came from elsewhere would change nothing."""
    wide, y = likelihood("isotropic", background=1e3)
    with jax.enable_x64(False):
        fn = NormalUnmixing(jnp.asarray(wide.endmembers, jnp.float32), None, jnp.float32(0.1))
        rule = fn.rule(jnp.asarray(y), jax.random.key(2), jnp.arange(UNITS))
        assert rule.residual is not None and rule.data is None
        again = with_data(without_data(rule), jnp.zeros_like(y))
        np.testing.assert_array_equal(fn.log_prob_on(again), fn.log_prob_on(rule))
        np.testing.assert_allclose(rule.value, y, rtol=2e-7)
