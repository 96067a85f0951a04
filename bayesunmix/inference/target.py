"""The log posterior of the globals, its gradient and its curvature, compiled once per program and shape."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from bayesunmix.inference.devices import spread
from bayesunmix.inference.program import Program

_COLUMNS = 64  # Hessian columns taken together


class Data(NamedTuple):
    """What every evaluation is conditioned on."""

    numbers: tuple[Any, ...]
    y: jax.Array
    covariates: dict[str, jax.Array]
    rules: dict[str, Any]  # frozen integration rules of the observed sites that have one
    anchor: jax.Array  # where the rules were made
    tilt: jax.Array  # (size,) slope there that the rules' few points miss (0 unless measured with many)


def _log_parts(program: Program, z: jax.Array, data: Data):
    run = program.evaluate(data.numbers, z, data.y, data.covariates)
    likelihood = jnp.zeros((), z.dtype)
    for name, (distribution, value) in run.observed.items():
        if name in data.rules:
            likelihood = likelihood + distribution.log_prob_on(data.rules[name]).sum()
        else:
            likelihood = likelihood + distribution.log_prob(value).sum()
    return run.log_prior, likelihood


def log_density(program: Program, z: jax.Array, data: Data) -> jax.Array:
    """Log joint density of data and unconstrained globals."""
    prior, likelihood = _log_parts(program, z, data)
    return prior + likelihood + data.tilt @ (z - data.anchor)


@partial(jax.jit, static_argnames="program")
def value_and_grad(program: Program, z: jax.Array, data: Data):
    """Log density and gradient."""
    return jax.value_and_grad(lambda v: log_density(program, v, data))(z)


@partial(jax.jit, static_argnames=("program", "more"))
def with_rules(program: Program, z: jax.Array, data: Data, key: jax.Array, index: jax.Array, more: int = 1) -> Data:
    """Data with integration rules made at ``z`` for the observed sites whose distribution has one.

    ``more`` multiplies the distribution's own number of points.
    """
    run = program.evaluate(data.numbers, z, data.y, data.covariates)
    rules = {
        name: distribution.rule(value, key, index, n_points=more * distribution.n_points)
        for name, (distribution, value) in run.observed.items()
        if hasattr(distribution, "rule")
    }
    return data._replace(rules=rules, anchor=z, tilt=jnp.zeros_like(z))


@partial(jax.jit, static_argnames="program")
def with_fresh_points(program: Program, data: Data, key: jax.Array, index: jax.Array) -> Data:
    """The same data and proposals with points that the frozen rules did not use, uncorrected."""
    run = program.evaluate(data.numbers, data.anchor, data.y, data.covariates)
    rules = {name: run.observed[name][0].redraw(rule, key, index) for name, rule in data.rules.items()}
    return data._replace(rules=rules, tilt=jnp.zeros_like(data.tilt))


@partial(jax.jit, static_argnames="program")
def hessian(program: Program, z: jax.Array, data: Data):
    """Gradient (size,) and Hessian (size, size) of the log density.

    A distribution that knows its own curvature gives it in its parameters, from where the chain rule takes
    it to ``z``;
    any other goes through automatic differentiation.
    """

    observed = program.evaluate(data.numbers, z, data.y, data.covariates).observed
    knowing = {n for n, (fn, _) in observed.items() if n in data.rules or getattr(fn, "knows_curvature", False)}

    def smooth(v):
        """What automatic differentiation sees: the prior, and observed sites without a curvature of their own."""
        run = program.evaluate(data.numbers, v, data.y, data.covariates)
        rest = [fn.log_prob(value).sum() for name, (fn, value) in run.observed.items() if name not in knowing]
        return run.log_prior + sum(rest, start=data.tilt @ (v - data.anchor))

    gradient, matrix = jax.grad(smooth)(z), _dense_hessian(smooth, z)
    for name in sorted(knowing):

        def parameters(v, name=name):
            fn = program.evaluate(data.numbers, v, data.y, data.covariates).observed[name][0]
            return {p: getattr(fn, p) for p in fn.arg_constraints if getattr(fn, p) is not None}

        (fn, value), moved = observed[name], _moved(parameters, z)
        own = fn.curvature_on(data.rules[name], moved) if name in data.rules else fn.curvature(value, moved)
        own_gradient, own_hessian = own
        jacobian = jax.jacfwd(parameters)(z)
        names = sorted(own_gradient)
        flat = {p: jacobian[p].reshape(-1, z.size) for p in names}
        for p in names:
            gradient = gradient + own_gradient[p].reshape(-1) @ flat[p]
            for q in names:
                block = own_hessian[p][q].reshape(flat[p].shape[0], flat[q].shape[0])
                matrix = matrix + flat[p].T @ (block @ flat[q])
        matrix = matrix + _dense_hessian(partial(_weighted, own_gradient, parameters), z)
    return gradient, 0.5 * (matrix + matrix.T)


def _moved(parameters, z: jax.Array) -> list[str]:
    """Names of the parameters that depend on ``z``; the others are known."""
    traced = jax.make_jaxpr(parameters)(z).jaxpr
    reached = set(traced.invars)
    for equation in traced.eqns:
        if any(isinstance(v, Var) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    names = sorted(jax.eval_shape(parameters, z))
    return [n for n, v in zip(names, traced.outvars, strict=True) if isinstance(v, Var) and v in reached]


def _weighted(weights: dict[str, jax.Array], parameters, z: jax.Array) -> jax.Array:
    found = parameters(z)
    return sum(((weights[p] * found[p]).sum() for p in weights), start=jnp.zeros((), z.dtype))


def _dense_hessian(fn, z: jax.Array) -> jax.Array:
    """Hessian by forward over reverse, a block of columns at a time."""
    column = lambda direction: jax.jvp(jax.grad(fn), (z,), (direction,))[1]  # noqa: E731
    return jax.lax.map(column, jnp.eye(z.size, dtype=z.dtype), batch_size=min(_COLUMNS, z.size))


@partial(jax.jit, static_argnames="program")
def constrain(program: Program, draws: jax.Array, data: Data) -> dict[str, jax.Array]:
    """Site values of unconstrained draws (n, size), each with a leading draw axis."""
    return jax.lax.map(
        lambda z: program.evaluate(data.numbers, z, data.y, data.covariates).values, draws, batch_size=32
    )


def as_device_data(program: Program, numbers: tuple[Any, ...], y: np.ndarray, covariates: dict[str, Any]) -> Data:
    """Data in the precision of the current context, units over all local devices, without rules yet."""
    dtype = jnp.result_type(float)
    nowhere = jnp.zeros(program.size, dtype)
    return Data(
        tuple(jnp.asarray(n, dtype) for n in numbers),
        spread(jnp.asarray(y, dtype), len(y)),
        {k: spread(v, len(y)) for k, v in covariates.items()},
        {},
        nowhere,
        nowhere,
    )
