"""Units over two devices, which the processor pretends to be, give the answer of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

RUNS = """
import json
import jax
import jax.numpy as jnp
import numpy as np
import bayesunmix as bu
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules

both = jax.local_devices()
spectra = 0.2 + np.abs(np.sin(np.linspace(0.1, 3.0, 16) * np.array([[1.0], [2.3]])))
rng = np.random.default_rng(0)
image = rng.dirichlet(np.ones(2), (6, 7)) @ spectra + 0.05 * rng.normal(size=(6, 7, 16))
found = {}
for count in (1, 2):
    jax.local_devices = lambda: both[:count]
    said = {}
    for model in (bu.models.ProbabilisticPCA(1, noise="diagonal"), bu.models.LinearUnmixing(2)):
        fit = bu.fit(model, image, bu.SVI(draws=40, steps=10), progress=False)
        size = fit.posterior.sizes["draw"]
        drawn = {name: x.values.reshape(size, -1) for name, x in fit.posterior.data_vars.items()}
        said |= {type(model).__name__ + " " + name: x.tolist() for name, x in drawn.items()}
    with jax.enable_x64(True):
        y = image.reshape(42, 16)
        model = bu.models.LinearUnmixing(2).bind(y)
        program, numbers = compile_model(model, jnp.asarray(y))
        data = as_device_data(program, numbers, y, {})
        z = jnp.asarray(unconstrain(program, data.numbers, model.initial(y), data.y, {}))
        data = with_rules(program, z, data, jax.random.key(0), jnp.arange(42))
        density, gradient = value_and_grad(program, z, data)
        used = [len(leaf.sharding.device_set) for leaf in jax.tree.leaves(data.rules)]
        said |= {"density": [float(density)], "gradient": gradient.tolist(), "devices": used}
    found[count] = said
print(json.dumps(found))
"""


def test_two_devices_give_the_answer_of_one() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", RUNS], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    one, two = json.loads(ran.stdout).values()
    assert set(one.pop("devices")) == {1}
    assert set(two.pop("devices")) == {2}
    assert {"ProbabilisticPCA components", "LinearUnmixing endmembers", "LinearUnmixing noise_scale"} < set(one)
    for name, value in one.items():
        off = np.abs(np.subtract(two[name], value)) > 1e-6 * np.abs(value).max()
        # Of 4000 weighted points 40 are picked, one of them the next one in 8 % of runs: weights differ by rounding.
        allowed = 2 if name.startswith("LinearUnmixing") else 0
        assert off.reshape(len(off), -1).any(1).sum() <= allowed, name
