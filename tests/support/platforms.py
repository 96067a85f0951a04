"""Compilation for machines that are not here, and two devices that the processor pretends to be."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
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


def assert_two_devices_agree(models: dict[str, tuple[Any, np.ndarray]], folder: Path) -> None:
    """Log density and gradient of bound models are on two devices what they are on one, to 1e-6.

    In a process of its own, which gets the models by way of a file in ``folder``.
    """
    (folder / "models").write_bytes(pickle.dumps(models))
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, str(folder / "models")]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert set(found) == set(models)
    for name, (one, two) in found.items():
        assert (one.pop("devices"), two.pop("devices")) == ([1], [2]), name
        np.testing.assert_allclose(two["value"], one["value"], rtol=1e-6, err_msg=name)
        largest = np.abs(one["gradient"]).max()
        np.testing.assert_allclose(two["gradient"], one["gradient"], rtol=0, atol=1e-6 * largest, err_msg=name)


def _evaluated(model: Any, y: np.ndarray) -> dict[str, Any]:
    """At the start of a fit, in double precision."""
    with jax.enable_x64(True):
        program, numbers = compile_model(model, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        z = jnp.asarray(unconstrain(program, data.numbers, model.initial(y), data.y, {}))
        data = with_rules(program, z, data, jax.random.key(0), jnp.arange(len(y)))
        value, gradient = value_and_grad(program, z, data)
        devices = {len(leaf.sharding.device_set) for leaf in jax.tree.leaves((data.y, data.rules))}
        return {"value": float(value), "gradient": gradient.tolist(), "devices": sorted(devices)}


if __name__ == "__main__":
    both, known = jax.local_devices(), pickle.loads(Path(sys.argv[1]).read_bytes())
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in known}
    for count in (1, 2):
        jax.local_devices = lambda count=count: both[:count]
        for name, given in known.items():
            told[name].append(_evaluated(*given))
    sys.stdout.write(json.dumps(told))
