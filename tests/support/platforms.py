"""Compilation for machines that are not here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules


def assert_exported(model: Any, y: np.ndarray) -> None:
    """The log density of a bound model and its gradient are lowered for every platform, in single precision."""
    program, numbers = compile_model(model, jnp.asarray(y))
    plain = as_device_data(program, numbers, y, {})
    z = jnp.asarray(unconstrain(program, plain.numbers, model.initial(y), plain.y, {}))
    index = jnp.arange(len(y))
    data = jax.eval_shape(lambda z, key: with_rules(program, z, plain, key, index), z, jax.random.key(0))
    both = jax.jit(lambda z, data: value_and_grad(program, z, data))
    exported = jax.export.export(both, platforms=("cpu", "cuda", "tpu"))(z, data)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert [(out.shape, out.dtype) for out in exported.out_avals] == [((), z.dtype), (z.shape, z.dtype)]
    assert z.dtype == jnp.float32
