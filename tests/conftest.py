"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("MPLBACKEND", "Agg")
# Most of the time of the tests is XLA's, which compiles small programs that run once: let it not polish them. Without
# its fusion emitters, and only then, the unoptimised code takes a fifth of the time to compile. XLA_FLAGS= (empty)
# tests what users run. A flag that XLA does not know ends the process, so that later versions are left alone.
if (0, 8) <= jax.__version_info__ < (0, 11):
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_use_fusion_emitters=false "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )


@pytest.fixture(autouse=True, scope="module")
def _compiled_programs_are_let_go():
    """A worker that keeps the programs of every module grows by gigabytes, until the machine ends it."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """A function from a name such as ``"eels_cuzn/CuZn_HAADF.hspy"`` to its path; skips where it is absent.

    The measured data sets are too large, and some too unclear in their licence, to be kept in the repository.
    They are looked for in ``../shared/data``, or in the folder that BAYESUNMIX_DATA names.
    """
    folder = Path(os.environ.get("BAYESUNMIX_DATA", ROOT.parent / "shared" / "data"))

    def path(name: str) -> Path:
        found = folder / name
        if not found.exists():
            pytest.skip(f"real data set {name!r} is not on this machine (set BAYESUNMIX_DATA to its folder)")
        return found

    return path


@pytest.fixture(scope="session")
def hidden_chain():
    """A fit of two hidden states to sequences of 40 and 30 frames of .1 s, one of them missing; and the true states."""
    import numpy as np
    import xarray as xr

    import bayesunmix as bu

    rng = np.random.default_rng(0)
    state = np.cumsum(rng.random((2, 40)) < 0.15, axis=1) % 2
    y = 3.0 * state + 0.5 * rng.normal(size=(2, 40))
    y[0, 10], y[1, 30:] = np.nan, np.nan
    time = ("time", 0.1 * np.arange(40), {"units": "s"})
    data = xr.DataArray(y, {"time": time, "length": ("sequence", [40, 30])}, ("sequence", "time"), name="extension")
    settings = bu.Gibbs(draws=60, warmup=20, chains=2)
    return bu.fit(bu.models.HiddenMarkovModel(2), data, settings, progress=False), state
