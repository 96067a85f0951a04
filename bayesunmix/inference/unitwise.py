"""Whether a program of one's own observes its units, and knows them, by what it is handed alone.

Units are worked on some at a time. A program that holds an array with their entries, counts them through, or takes the
mean of all of them, would say something else of every chunk. And what is checked and compared are the data themselves.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers

from bayesunmix.inference.program import ONE_AT_A_TIME, Array, Program, at_units
from bayesunmix.inference.target import as_device_data, place_of, values_at
from bayesunmix.inference.units import is_local, local_sites

_FEW = 64  # units that are never worked on in chunks: twice the smallest batch
_VALUES = 2**22  # of the data that are looked at
_CAST = 1e-6  # relative: what single precision leaves
_ROUNDING = 30  # times what the last digit of the data changes
_REASONS = (
    "Usual reasons: (1) an array with an entry for each unit that the program holds, or counts by, as "
    "jnp.arange(n_units): hand it over, bu.fit(program, data, name=array), to def program(y=None, *, n_units, name); "
    "(2) a mean, a largest value or the like over units inside the program, or n_units in a formula: compute it before "
    "and hand it over; (3) an array of channels with as many entries as there are units: hand it over as array[None]; "
    '(4) a latent of every unit outside of numpyro.plate("unit", n_units)'
)


class _Said(NamedTuple):
    """By a program, of units."""

    as_given: jax.Array  # whether the data are observed as they are
    units: list[jax.Array]  # arrays (units,) that its likelihood comes to
    beside: dict[str, jax.Array]  # log density of every site that is not of the units
    deterministic: dict[str, jax.Array]


def check_unitwise(
    program: Program, numbers: tuple[Any, ...], y: Any, covariates: dict[str, Any], *, sampled: bool
) -> None:
    """Compare what a program says of units with what it says where only some of them are there.

    Four million values of data are looked at, at most. An array that the program holds goes unnoticed where its entries
    for them are alike; and a program with latents of every unit is not looked at where its data are more.

    Parameters
    ----------
    sampled : bool
        Whether deterministic sites are those of a sample of units.

    Raises
    ------
    ValueError
        When something else than the data is observed; when a likelihood or a prior changes with the units that are
        there, if they are too many to be always worked on together.
    """
    n_units = len(y)
    looked_at = min(n_units, max(2 * _FEW, _VALUES // y[0].size))
    some = looked_at // 4
    values = np.asarray(y[:looked_at], jnp.result_type(float))
    digit = np.finfo(values.dtype).eps
    parts = list[slice]()
    if n_units > _FEW:
        # Two in one shape. No pattern of the image repeats in them, and neither both have the largest of anything, nor
        # both the mean of all.
        first, last = looked_at // 16 * 2, looked_at - 2 * some
        parts = [slice(start, start + 2 * some, 2) for start in (first, last + 1 - last % 2)]
    try:
        local = local_sites(program, numbers, y, covariates) if parts else ()
        if local and looked_at < n_units:
            return
        here = at_units(covariates, slice(looked_at), n_units)
        data = as_device_data(program, numbers, values, here)
        known = jax.device_get(values_at(program, place_of(program, {}, data), data))
        sites = {name: known[name] for name, _ in program.shapes}
        whole = jax.device_get(_said(program, data.numbers, sites, values, here))
        moved = jax.device_get(_said(program, data.numbers, sites, (1.0 - 2.0 * digit) * values, here))
        alone = [
            jax.device_get(
                _said(
                    program,
                    data.numbers,
                    {name: value[part] if name in local else value for name, value in sites.items()},
                    values[part],
                    at_units(covariates, part, n_units),
                )
            )
            for part in parts
        ]
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")[:200]
        raise ValueError(
            f"expected a program that can be run with some of its {n_units} units alone, got {type(error).__name__}: "
            f"{why}. {_REASONS}"
        ) from error
    if not whole.as_given:
        raise ValueError(
            'expected the data themselves at the site "y", numpyro.sample("y", ..., obs=y), got something made of '
            "them: what is checked and compared are the data that a fit is handed, so hand over what is to be observed"
        )
    with np.errstate(invalid="ignore"):
        for part, found in zip(parts, alone, strict=True):
            _compare(whole, moved, found, part, np.sqrt(digit), sampled and not local)


def _compare(whole: _Said, moved: _Said, found: _Said, part: slice, room: float, sampled: bool) -> None:
    for of_all, of_moved, of_some in zip(whole.units, moved.units, found.units, strict=True):
        expected, last_digit = of_all[part], np.abs(of_moved - of_all)[part]
        rounding = _at_least_typical(room * np.abs(expected)) + _ROUNDING * _at_least_typical(last_digit)
        same = np.isclose(of_some, expected, 0.0, 0.0, equal_nan=True)  # as two infinities are
        differ = ~same & ~(np.abs(of_some - expected) <= rounding)
        if differ.any():
            raise ValueError(
                "expected a likelihood of each unit that does not depend on which others are there, and with "
                f"{len(expected)} of {len(of_all)} units alone it changes for {differ.sum()} of them. {_REASONS}"
            )
    for name, density in whole.beside.items():
        if not np.isclose(found.beside[name], density, rtol=room, atol=room, equal_nan=True):
            raise ValueError(
                "expected sites outside of the plate that do not depend on which units are there, and the density of "
                f"{name!r} does. {_REASONS}"
            )
    for name, value in whole.deterministic.items() if sampled else ():
        other = found.deterministic[name]
        if np.shape(other) != np.shape(value) or not np.allclose(other, value, rtol=room, atol=room, equal_nan=True):
            raise ValueError(
                "expected deterministic sites that do not depend on which units are there, as an image of so many is "
                f"sampled, and {name!r} does: compute it from the draws of the fit, or take all of them with "
                "bu.SVI(batch=...)"
            )


def _at_least_typical(values: np.ndarray) -> np.ndarray:
    """Values, or their median where they are below it or not finite."""
    finite = np.isfinite(values)
    typical = np.median(values[finite]) if finite.any() else 0.0
    return np.where(finite, np.maximum(values, typical), typical)


@partial(jax.jit, static_argnames="program")
def _said(program: Program, numbers, sites, y: Array, covariates: dict[str, Any]) -> _Said:
    with ONE_AT_A_TIME, handlers.trace() as trace, handlers.substitute(data=sites):
        program.model(numbers)(y, n_units=y.shape[0], **covariates)
    seen = trace.pop("y")
    fn, value = seen["fn"], seen["value"]
    if hasattr(fn, "rule"):  # an integral takes long to compile
        units = [jnp.broadcast_to(moment, value.shape) for moment in (fn.mean, fn.variance)]
        units = [moment.reshape(len(y), -1).sum(1) for moment in units]
    else:
        units = [fn.log_prob(value)]
    as_given = jnp.array(False)
    if value.shape == y.shape:
        as_given = (jnp.isnan(y) | jnp.isclose(value, y, _CAST, 0.0)).all()
    return _Said(
        as_given,
        units,
        {n: s["fn"].log_prob(s["value"]).sum() for n, s in trace.items() if s["type"] == "sample" and not is_local(s)},
        {n: s["value"] for n, s in trace.items() if s["type"] == "deterministic"},
    )
