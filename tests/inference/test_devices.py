"""Two devices, which the processor pretends to be, give the fit of one; the contract compares log densities."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

RUNS = """
import json
import jax
import numpy as np
import bayesunmix as bu

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
    found[count] = said
print(json.dumps(found))
"""


def test_two_devices_give_the_fit_of_one() -> None:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", RUNS], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    one, two = json.loads(ran.stdout).values()
    assert {"ProbabilisticPCA components", "LinearUnmixing endmembers", "LinearUnmixing noise_scale"} < set(one)
    for name, value in one.items():
        off = np.abs(np.subtract(two[name], value)) > 1e-6 * np.abs(value).max()
        # Of 4000 weighted points 40 are picked, one of them the next one in 8 % of runs: weights differ by rounding.
        allowed = 2 if name.startswith("LinearUnmixing") else 0
        assert off.reshape(len(off), -1).any(1).sum() <= allowed, name
