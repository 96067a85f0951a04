"""Draws as wide as units that depend on one another leave the globals.

The likelihood of units that share parts, such as the vectors of atoms that share a neighbour, is a composite one: every
term is the density of a unit, but their product is not that of all. Its posterior mean is right; its covariance ``C``
is not. With ``s_u`` the slope of unit ``u``'s term at the mean, the mean errs by ``C sum_u s_u`` around where the prior
and independent units would leave it, so its covariance is::

    C + C X C,    X = sum over different u, v that share parts of s_u s_v'

(the variance of ``s_u`` itself is its curvature, which is in ``C`` already). Draws are taken there by the linear map
around their mean that is nearest to the identity. Where nothing is shared nothing changes. WAIC on such draws subtracts
the trace that the composite likelihood information criterion asks for.

References
----------
Ribatet, Cooley & Davison, "Bayesian inference from composite likelihoods", Stat. Sinica 22, 813 (2012), for the map;
Varin & Vidoni, Biometrika 92, 519 (2005), for the criterion.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.sparse import csr_array

from bayesunmix.inference.program import Program, at_units, compile_model, unconstrain
from bayesunmix.inference.target import Data, as_device_data, constrain, with_rules

LEAST = 0.25  # of the variance of independent units: X is an estimate, and may leave less than nothing
_CHUNK_BYTES = 2**27  # of slopes of units


def widened(
    model: Any, values: dict[str, np.ndarray], y: np.ndarray, covariates: dict[str, Any], shared: csr_array
) -> dict[str, np.ndarray]:
    """Draws (chain, draw, ...) of a model's sites, moved to the covariance that units which share parts leave.

    Parameters
    ----------
    model
        Bound.
    values
        Draws of the posterior of all units as if they were independent.
    y, covariates
        Of all units.
    shared : (unit, unit)
        Ones where two different units share parts.
    """
    few = at_units(covariates, slice(2), len(y))
    program, numbers = compile_model(model, y, covariates)
    data = as_device_data(program, numbers, y[:2], few)
    chains, draws = next(iter(values.values())).shape[:2]
    sites = {name: values[name].reshape(-1, *values[name].shape[2:]) for name, _ in program.shapes}
    z = np.asarray(_unconstrained(program, sites, data), dtype=np.float64)
    moved = spread(z, slopes(program, numbers, z.mean(0), y, covariates), shared)
    named = constrain(program, moved, data)
    return {name: np.asarray(value).reshape(chains, draws, *value.shape[1:]) for name, value in named.items()}


def spread(z: np.ndarray, slope: np.ndarray, shared: csr_array) -> np.ndarray:
    """Draws (draw, size) at the covariance of units with slopes (unit, size), of which those ``shared`` depend."""
    mean, scale = z.mean(0), np.sqrt(len(z) - 1.0)
    draws, lengths, axes = np.linalg.svd(z - mean, full_matrices=False)
    root = (lengths / scale)[:, None] * axes  # covariance = root' root, of the space that the draws span
    white = slope @ root.T
    values, turn = np.linalg.eigh(np.eye(len(root)) + white.T @ (shared @ white))
    stretch = (turn * np.sqrt(np.maximum(values, LEAST))) @ turn.T
    return mean + scale * draws @ stretch @ root


def slopes(program: Program, numbers: Any, z: np.ndarray, y: np.ndarray, covariates: dict[str, Any]) -> np.ndarray:
    """Slope of every unit's log likelihood at ``z``, (unit, size)."""
    step = max(256, _CHUNK_BYTES // (8 * len(z) * y[0].size))
    found = []
    for start in range(0, len(y), step):
        part = slice(start, min(start + step, len(y)))
        own = at_units(covariates, part, len(y))
        data = as_device_data(program, numbers, y[part], own)
        data = with_rules(program, z, data, jax.random.key(0), np.arange(part.start, part.stop))
        found.append(np.asarray(_slopes(program, z, data), dtype=np.float64))
    return np.concatenate(found)


@partial(jax.jit, static_argnames="program")
def _slopes(program: Program, z: jax.Array, data: Data) -> jax.Array:
    def terms(v):
        observed = program.evaluate(data.numbers, v, data.y, data.covariates).observed
        return sum(
            fn.log_prob_on(data.rule(name, value)) if name in data.rules else fn.log_prob(value)
            for name, (fn, value) in observed.items()
        )

    return jax.jacfwd(terms)(z)


@partial(jax.jit, static_argnames="program")
def _unconstrained(program: Program, sites: dict[str, jax.Array], data: Data) -> jax.Array:
    one = lambda values: unconstrain(program, data.numbers, values, data.y, data.covariates)  # noqa: E731
    return jax.lax.map(one, sites, batch_size=32)
