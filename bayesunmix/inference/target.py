"""The log posterior of the globals and its gradient, compiled once per program and shape."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.distributions.unmixing_rule import with_data, without_data
from bayesunmix.inference.devices import spread
from bayesunmix.inference.expansion import Expansion
from bayesunmix.inference.program import Array, Program, narrowed, on_device, unconstrain

GLOBALS = "globals"  # whose own parameters are the unconstrained globals, beside the sites of a model


class Data(NamedTuple):
    """What every evaluation is conditioned on."""

    numbers: tuple[Any, ...]
    y: jax.Array
    covariates: dict[str, jax.Array]
    rules: dict[str, Any]  # frozen integration rules of the observed sites that have one, to be asked for by name
    anchor: Array  # where the rules were made
    tilt: Array  # (size,) slope there that the rules' few points miss (0 unless measured with many)
    weight: Array  # units that every unit here stands for
    rest: Rest | None = None  # what the weighted units get wrong of all units; None where they are all
    others: tuple[tuple[Data, Array], ...] = ()  # further units of other weights, and which they are

    def rule(self, name: str, value: jax.Array) -> Any:
        """The rule of an observed site, whose value it needs not hold."""
        return with_data(self.rules[name], value)

    @property
    def alone(self) -> Data:
        """Without further units and what is said of them."""
        return self._replace(rest=None, others=())

    @property
    def unruled(self) -> Data:
        """Without integration rules, which take as much room as the units themselves."""
        return self._replace(rules={}, others=tuple((other.unruled, its) for other, its in self.others))


class Rest(NamedTuple):
    """All units less a weighted sample of them, near a point.

    Second order in the parameters of the likelihood, in which it is nearly a parabola itself. As one in the globals it
    would be off where a spectrum lies far below the noise: there ``exp(z)`` bends by its slope, of which a sample knows
    little.
    """

    units: dict[str, Expansion]  # by observed site; ``GLOBALS`` for what knows no curvature in its own parameters
    at: np.ndarray
    value: Any
    slope: np.ndarray  # (size,) what the expansions, made elsewhere, lack of it at the point

    def along(self, z: Any) -> Any:
        """The part that is linear in the globals."""
        return self.value + self.slope @ (z - self.at)


def parameters(program: Program, data: Data, name: str):
    """The parameters of the likelihood at a site, as a function of ``z``."""

    def found(z):
        if name == GLOBALS:
            return {"z": z}
        fn = program.evaluate(data.numbers, z, data.y, data.covariates).observed[name][0]
        return {p: getattr(fn, p) for p in fn.arg_constraints if getattr(fn, p) is not None}

    return found


def _expanded(program: Program, z: Array, data: Data) -> jax.Array:
    """The part of the rest that is not linear in the globals."""
    rest: Any = data.rest
    parts = [one.value(parameters(program, data, name)(z)) for name, one in rest.units.items()]
    return sum(parts, start=jnp.zeros((), z.dtype))


def _log_parts(program: Program, z: Array, data: Data):
    run = program.evaluate(data.numbers, z, data.y, data.covariates)
    likelihood = jnp.zeros((), z.dtype)
    for name, (distribution, value) in run.observed.items():
        if name in data.rules:
            likelihood = likelihood + distribution.log_prob_on(data.rule(name, value)).sum()
        else:
            likelihood = likelihood + distribution.log_prob(value).sum()
    return run.log_prior, data.weight * likelihood


def log_density(program: Program, z: Array, data: Data) -> jax.Array:
    """Log joint density of data and unconstrained globals."""
    prior, likelihood = _log_parts(program, z, data)
    likelihood = likelihood + sum(_log_parts(program, z, other)[1] for other, _ in data.others)
    found = prior + likelihood + data.tilt @ (z - data.anchor)
    return found if data.rest is None else found + data.rest.along(z) + _expanded(program, z, data)


def value_and_grad(program: Program, z: Any, data: Data) -> tuple[Any, Any]:
    """Log density and gradient."""
    value, gradient = _alone(program, z, data.alone)
    # Outside the compiled function, which so is one for samples and for all units.
    if data.others:
        found = jax.device_get([_alone(program, z, other) for other, _ in data.others])
        prior, its_gradient = jax.device_get(prior_value_and_grad(program, z, data.alone._replace(rules={})))
        with np.errstate(invalid="ignore"):  # far out both are infinite
            value = np.asarray(value) + sum(own for own, _ in found) - len(found) * prior
            gradient = np.asarray(gradient) + sum(own for _, own in found) - len(found) * its_gradient
    if data.rest is not None:
        more, slope = jax.device_get(_expanded_value_and_grad(program, z, data._replace(rules={}, others=())))
        linear = data.rest.along(np.asarray(z, dtype=np.float64))
        value, gradient = np.asarray(value) + linear + more, np.asarray(gradient) + data.rest.slope + slope
    return value, gradient


def _alone(program: Program, z: Any, data: Data) -> tuple[jax.Array, jax.Array]:
    found = _value_and_grad(program, z, data)
    # Slopes are many, and programs of several devices, whose parts wait for each other, must not be under way at once.
    return jax.block_until_ready(found) if len(jax.local_devices()) > 1 else found


def slopes_at(program: Program, points, data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Log density and slope at every point, by the one compiled function that the mode was found with."""
    found = jax.device_get([value_and_grad(program, z, data) for z in np.asarray(points)])
    return np.stack([value for value, _ in found]), np.stack([slope for _, slope in found])


@partial(jax.jit, static_argnames="program")
def prior_value_and_grad(program: Program, z: Array, data: Data):
    """Log prior and its gradient."""
    return jax.value_and_grad(lambda v: program.evaluate(data.numbers, v, data.y, data.covariates).log_prior)(z)


@partial(jax.jit, static_argnames="program")
def _expanded_value_and_grad(program: Program, z: Array, data: Data):
    return jax.value_and_grad(lambda v: _expanded(program, v, data))(z)


@partial(jax.jit, static_argnames="program")
def _value_and_grad(program: Program, z: Array, data: Data):
    return jax.value_and_grad(lambda v: log_density(program, v, data))(z)


def with_rules(program: Program, z: Array, data: Data, key: jax.Array, index: Array, more: int = 1) -> Data:
    """Data with integration rules made at ``z`` for the observed sites whose distribution has one.

    ``more`` multiplies the distribution's own number of points.
    """
    rules = _rules(program, z, data.numbers, data.y, data.covariates, key, index, more)
    others = tuple((with_rules(program, z, other, key, its, more), its) for other, its in data.others)
    tilt = on_device(np.zeros(z.shape, z.dtype))
    return data._replace(rules=rules, anchor=on_device(z), tilt=tilt, others=others)


@partial(jax.jit, static_argnames=("program", "more"))
def _rules(program: Program, z, numbers, y, covariates, key, index, more: int) -> dict[str, Any]:
    run = program.evaluate(numbers, z, y, covariates)
    return {
        name: without_data(distribution.rule(value, key, index, n_points=more * distribution.n_points))
        for name, (distribution, value) in run.observed.items()
        if hasattr(distribution, "rule")
    }


def has_rules(program: Program, data: Data) -> bool:
    """Whether an observed site is integrated on points."""
    found: list[bool] = []

    def look(z):
        observed = program.evaluate(data.numbers, z, data.y, data.covariates).observed
        found.extend(hasattr(distribution, "rule") for distribution, _ in observed.values())

    jax.eval_shape(look, data.anchor)
    return any(found)


def with_fresh_points(program: Program, data: Data, key: jax.Array, index: Array) -> Data:
    """The same data and proposals with points that the frozen rules did not use, uncorrected."""
    rules = _redrawn(program, data.alone, key, index)
    others = tuple((with_fresh_points(program, other, key, its), its) for other, its in data.others)
    tilt = on_device(np.zeros(data.tilt.shape, data.tilt.dtype))
    return data._replace(rules=rules, tilt=tilt, others=others)


@partial(jax.jit, static_argnames="program")
def _redrawn(program: Program, data: Data, key: jax.Array, index: Array) -> dict[str, Any]:
    run = program.evaluate(data.numbers, data.anchor, data.y, data.covariates)
    return {name: run.observed[name][0].redraw(rule, key, index) for name, rule in data.rules.items()}


@partial(jax.jit, static_argnames="program")
def values_at(program: Program, z: Array, data: Data) -> dict[str, jax.Array]:
    """Site values at one place."""
    return program.evaluate(data.numbers, z, data.y, data.covariates).values


def place_of(program: Program, values: dict[str, Any], data: Data) -> np.ndarray:
    """The place (size,) of site values, back from :func:`values_at`."""
    return np.asarray(unconstrain(program, data.numbers, values, data.y, data.covariates))


@partial(jax.jit, static_argnames="program")
def constrain(program: Program, draws: jax.Array, data: Data) -> dict[str, jax.Array]:
    """Site values of unconstrained draws (n, size), each with a leading draw axis."""
    return jax.lax.map(
        lambda z: program.evaluate(data.numbers, z, data.y, data.covariates).values, draws, batch_size=32
    )


def as_device_data(
    program: Program,
    numbers: tuple[Any, ...],
    y: np.ndarray,
    covariates: dict[str, Any],
    weight: float = 1.0,
    kind: type | None = None,
) -> Data:
    """Data in the precision of the current context, units over all local devices, without rules yet.

    With the ``kind`` of their likelihood units may stay narrower: :func:`~bayesunmix.inference.program.narrowed`.
    """
    dtype = jnp.result_type(float)
    nowhere = on_device(np.zeros(program.size, dtype))
    return Data(
        tuple(on_device(n, dtype) for n in numbers),
        spread(narrowed(y, kind), len(y)),
        {k: spread(v, len(y)) for k, v in covariates.items()},
        {},
        nowhere,
        nowhere,
        on_device(weight, dtype),
    )
