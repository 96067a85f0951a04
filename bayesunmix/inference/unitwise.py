"""Whether a program of one's own knows its units by what it is handed alone.

Units are worked on some at a time. A program that holds an array with their entries, or counts them through, would take
those of the first units for any others.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.program import Array, Program, at_units, unconstrain
from bayesunmix.inference.units import local_sites

_FEW = 64  # units that are never worked on in chunks: twice the smallest batch
_VALUES = 2**22  # of the data that are looked at
_ADVICE = (
    "units are worked on some at a time, so hand what is known of every unit over as a covariate, "
    "bu.fit(program, data, name=array), to def program(y=None, *, n_units, name); a covariate that is not of the units "
    "must not have as many entries as there are units"
)


def check_unitwise(program: Program, numbers: tuple[Any, ...], y: Any, covariates: dict[str, Any]) -> None:
    """Compare what a program says of the first units with what it says where only every second one is there.

    An array that it holds goes unnoticed where none of the entries for these units differ.

    Raises
    ------
    ValueError
        When a unit's likelihood changes with its position among those that are handed over.
    """
    n_units = len(y)
    if n_units <= _FEW:
        return
    looked_at = min(n_units, max(2 * _FEW, _VALUES // y[0].size))
    first, second = slice(looked_at), slice(1, looked_at - 1, 2)
    values = np.asarray(y[first], jnp.result_type(float))
    try:
        local = local_sites(program, numbers, y, covariates)
        if local and looked_at < n_units:
            return
        here, fewer = (at_units(covariates, part, n_units) for part in (first, second))
        sites = _sites(program, numbers, values, here)
        of_fewer = {name: value[second] if name in local else value for name, value in sites.items()}
        every = _said(program, numbers, sites, values, here)
        some = _said(program, numbers, of_fewer, values[second], fewer)
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"expected a program that can be asked for any of its {n_units} units, and for some of them it ends in an "
            f"error: {_ADVICE}. {type(error).__name__}: {error}"
        ) from error
    room = np.sqrt(np.finfo(values.dtype).eps)
    for of_every, of_some in zip(every, some, strict=True):
        expected = np.asarray(of_every)[second]
        rounding = room * np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
        same = np.isclose(of_some, expected, rtol=room, atol=rounding, equal_nan=True)
        if not same.all():
            raise ValueError(
                "expected a program that says the same of a unit whichever others are there, and asked for every "
                f"second of {looked_at} units it says something else of {np.sum(~same)}: {_ADVICE}"
            )


@partial(jax.jit, static_argnames="program")
def _sites(program: Program, numbers, y: Array, covariates: dict[str, Any]) -> dict[str, jax.Array]:
    """Sampled sites at the medians of their priors."""
    z = unconstrain(program, numbers, {}, y, covariates)
    values = program.evaluate(numbers, z, y, covariates).values
    return {name: values[name] for name, _ in program.shapes}


@partial(jax.jit, static_argnames="program")
def _said(program: Program, numbers, sites, y: Array, covariates: dict[str, Any]) -> list[jax.Array]:
    """Arrays with an entry per unit."""
    fn = program.likelihood(numbers, sites, y, covariates)
    if not hasattr(fn, "rule"):
        return [fn.log_prob(y)]
    # An integral takes long to compile, and moves with nothing else.
    return [jnp.broadcast_to(moment, y.shape).reshape(len(y), -1).sum(1) for moment in (fn.mean, fn.variance)]
