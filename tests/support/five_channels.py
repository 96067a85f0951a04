"""Mixtures of a few spectra in five channels, and functions of them that tests share: compiling is what takes time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.distributions.unmixing import NormalUnmixing

CHANNELS = 5
FEW = 6
MANY = 1000

Parameters = dict[str, jax.Array]


def parameters(n_parts: int, noise: str, seed: int = 0) -> Parameters:
    rng = np.random.default_rng(seed)
    scale = 0.1 if noise == "isotropic" else np.geomspace(0.05, 0.3, CHANNELS)
    return {
        "endmembers": jnp.asarray(rng.gamma(2.0, 0.5, (n_parts, CHANNELS))),
        "concentration": jnp.asarray(rng.uniform(0.8, 2.0, n_parts)),
        "noise_scale": jnp.asarray(scale),
    }


def draw(own: Parameters, n_units: int, seed: int = 1) -> tuple[jax.Array, jax.Array]:
    return NormalUnmixing(**own).sample_with_latent(jax.random.key(seed), (n_units,))


@jax.jit
def make_rule(own: Parameters, y: jax.Array, key: jax.Array, index: jax.Array) -> Any:
    return NormalUnmixing(**own).rule(y, key, index)


@jax.jit
def conditional_on(own: Parameters, rule: Any) -> Any:
    return NormalUnmixing(**own).conditional_on(rule)
