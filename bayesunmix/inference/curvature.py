"""Slope and curvature of the log posterior of the globals.

Units come first: their second derivatives, in the parameters of the likelihood where it knows its own, are sums that
may be taken a chunk of units at a time. The chain rule to the unconstrained globals comes once, at the end.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from bayesunmix.inference.expansion import Expansion
from bayesunmix.inference.layered import Layers
from bayesunmix.inference.program import Array, Program
from bayesunmix.inference.target import GLOBALS, Data, parameters

MOST_DENSE = 2048  # globals whose curvature is a matrix, where there is a choice
MOST_MATRIX = 8192  # where there is none: half a gigabyte
_COLUMNS = 64  # Hessian columns taken together
_ROWS = 512  # of a Hessian that are worked on together


class UnitCurvature(NamedTuple):
    """Second derivatives of the log likelihood of units; a sum over units, so those of chunks add up."""

    own: dict[str, tuple[dict[str, Any], dict[str, Any]]]  # of sites in their parameters; of all others together in z
    latent: dict[str, jax.Array]  # sums of their latents' means, of sites that know them


@partial(jax.jit, static_argnames="program")
def curvature_of_units(program: Program, z: Array, data: Data) -> UnitCurvature:
    """Slope and curvature of the log likelihood of the units.

    A distribution that knows its own curvature gives it in its parameters; any other goes through automatic
    differentiation.
    """

    observed = program.evaluate(data.numbers, z, data.y, data.covariates).observed
    knowing = {n for n, (fn, _) in observed.items() if n in data.rules or getattr(fn, "knows_curvature", False)}

    def plain(v):
        run = program.evaluate(data.numbers, v, data.y, data.covariates)
        rest = [fn.log_prob(value).sum() for name, (fn, value) in run.observed.items() if name not in knowing]
        return data.weight * sum(rest, start=jnp.zeros((), v.dtype))

    own, latent = {}, {}
    for name in sorted(knowing):
        (fn, value), moved = observed[name], _moved(parameters(program, data, name), z)
        found = fn.curvature_on(data.rule(name, value), moved) if name in data.rules else fn.curvature(value, moved)
        *own[name], mean = jax.tree_util.tree_map(lambda x: data.weight * x, (*found, None)[:3])
        if mean is not None:
            latent[name] = mean
    if set(observed) != knowing:
        own[GLOBALS] = {"z": jax.grad(plain)(z)}, {"z": {"z": _dense_hessian(plain, z)}}
    return UnitCurvature(own, latent)


def curvature(program: Program, z: Any, data: Data) -> tuple[np.ndarray, Any]:
    """Gradient (size,) and Hessian of the log density: a matrix, or of very many globals :class:`Layers`.

    Raises ``ValueError`` where only a matrix would do, and would be too large.
    """
    return assembled(program, z, data, expansions_of_all(program, z, data))


def units_curvature(program: Program, z: Array, data: Data) -> Any:
    """What the units have to say of the curvature: sums over them, for :func:`expanded`."""
    if data.others:
        parts = data.alone, *(other for other, _ in data.others)
        # One after the other: what one holds meanwhile is several times its data.
        found = [jax.device_get(units_curvature(program, z, part)) for part in parts]
        return jax.tree_util.tree_map(lambda *parts: sum(parts), *found)
    data = data.alone
    if can_be_layered(program, z, data):
        return layers_of_units(program, z, data)
    if z.size > MOST_MATRIX:
        raise ValueError(
            f"expected at most {MOST_MATRIX} unknown globals, got {z.size}: take fewer components, crop or bin the "
            "channels, or, in a model of your own, integrate the latents of every unit out of the likelihood"
        )
    return curvature_of_units(program, z, data)


def expansions(program: Program, z: Array, data: Data) -> dict[str, Expansion]:
    """The log likelihood to second order, by observed site, without what a sample lacks of all units."""
    return expanded(program, z, data, units_curvature(program, z, data))


def expansions_of_all(program: Program, z: Array, data: Data) -> dict[str, Expansion]:
    """The same, with what a sample lacks of all units."""
    own = expansions(program, z, data)
    if data.rest is None:
        return own
    lacking = {name: jax.tree_util.tree_map(_double, one) for name, one in data.rest.units.items()}
    return {name: one + lacking[name].moved(one.at) for name, one in own.items()}


def expanded(program: Program, z: Array, data: Data, units: Any) -> dict[str, Expansion]:
    """The log likelihood to second order from sums over units."""
    data = data.alone
    if not isinstance(units, UnitCurvature):
        return {"y": _layered_expansion(program, z, data, units)}
    found = {}
    for name, (slope, bend) in jax.device_get(units.own).items():
        at = _parameters_at(program, z, data, name, tuple(slope))
        rows = [[np.reshape(bend[p][q], (at[p].size, at[q].size)) for q in at] for p in at]
        found[name] = Expansion(at, {p: _double(x) for p, x in slope.items()}, _double(np.block(rows)))
    return found


def assembled(program: Program, z: Array, data: Data, own: dict[str, Expansion]) -> tuple[np.ndarray, Any]:
    """Gradient and Hessian of the log density from those of the likelihood, by the chain rule."""
    rest, data = data.rest, data.alone
    slopes = {name: one.slope for name, one in own.items()}
    layered = any(isinstance(one.bend, Layers) for one in own.values())
    around = _diagonal_around_units if layered else _around_units
    gradient, bend = (_double(x) for x in around(program, z, data, slopes))
    if rest is not None:
        gradient += rest.slope
    chains = {name: _chain(program, z, data, name) for name in own}
    for name, one in own.items():
        for p, slope in one.slope.items():
            _add_slope(gradient, slope.ravel(), chains[name][p])
    if layered:
        return gradient, _chained_layers(own["y"].bend, chains["y"], bend)
    for name, one in own.items():
        for (p, rows), (q, columns) in product(one.parts.items(), repeat=2):
            _add_block(bend, one.bend[rows, columns], chains[name][p], chains[name][q])
    bend += bend.T
    bend *= 0.5
    return gradient, bend


def _double(x: Any) -> np.ndarray:
    """A copy in double precision; indices as they are."""
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _parameters_at(program: Program, z: Array, data: Data, name: str, wanted: tuple[str, ...]):
    found = jax.device_get(_parameter_values(program, z, data.alone._replace(rules={}), name))
    return {p: _double(found[p]) for p in wanted}


@partial(jax.jit, static_argnames=("program", "name"))
def _parameter_values(program: Program, z: Array, data: Data, name: str) -> dict[str, jax.Array]:
    return parameters(program, data, name)(z)


# ---------------------------------------------------------------------- very many globals


def can_be_layered(program: Program, z: Array, data: Data) -> bool:
    """Whether the likelihood of very many globals knows its curvature as a block per channel and a few columns."""
    data = data.alone
    if z.size <= MOST_DENSE or set(data.rules) != {"y"}:
        return False
    of_site = parameters(program, data, "y")
    shapes = jax.eval_shape(of_site, z)
    if _moved(of_site, z) != ["endmembers", "noise_scale"] or shapes["noise_scale"].ndim:
        return False
    known: list[bool] = []
    jax.eval_shape(lambda v: known.append(hasattr(_site(program, data, v), "layers_on")), z)
    if not known[0] or z.size != shapes["endmembers"].size + 1:
        return False
    singles = [one is not None for p, one in _singles(program, z, data, "y").items() if shapes[p].size]
    by_ones, probe, by_probe = map(np.asarray, _prior_products(program, z, data._replace(rules={})))
    return all(singles) and bool(np.allclose(by_probe, by_ones * probe, rtol=1e-3, atol=1e-6 * np.abs(by_ones).max()))


@partial(jax.jit, static_argnames="program")
def _prior_products(program: Program, z: Array, data: Data):
    """The Hessian of the prior times ones and times another vector, and that vector: is it diagonal?"""
    prior = lambda v: program.evaluate(data.numbers, v, data.y, data.covariates).log_prior  # noqa: E731
    probe = 1.0 + jax.random.uniform(jax.random.key(0), z.shape, z.dtype)
    by_ones, by_probe = (jax.jvp(jax.grad(prior), (z,), (v,))[1] for v in (jnp.ones_like(z), probe))
    return by_ones, probe, by_probe


def _site(program: Program, data: Data, z: Array) -> Any:
    return program.evaluate(data.numbers, z, data.y, data.covariates).observed["y"][0]


@partial(jax.jit, static_argnames="program")
def layers_of_units(program: Program, z: Array, data: Data) -> Any:
    """Sums over the units."""
    found = _site(program, data, z).layers_on(data.rule("y", data.y))
    return jax.tree_util.tree_map(lambda x: data.weight * x, found)


def _layered_expansion(program: Program, z: Array, data: Data, sums: Any) -> Expansion:
    likelihood: list[Any] = []
    jax.eval_shape(lambda v: likelihood.append(type(_site(program, data, v))), z)
    at = _parameters_at(program, z, data, "y", ("endmembers", "noise_scale"))
    own = likelihood[0].layers(at, sums)
    n_parts, n_channels = at["endmembers"].shape
    size = n_parts * n_channels
    columns = np.zeros((size + 1, len(own.core)))
    columns[:size, :-1] = own.columns.reshape(size, -1)
    columns[size, -1] = 1.0
    group = np.arange(size).reshape(n_parts, n_channels).T
    block = np.broadcast_to(own.block, (n_channels, n_parts, n_parts))
    return Expansion(at, own.slope, Layers(group, np.array([size]), block, np.array([own.number]), columns, own.core))


def _chained_layers(own: Layers, chain: dict[str, Any], diagonal: np.ndarray) -> Layers:
    """Layers of the likelihood's parameters, as those of the globals that each follows."""
    singles = chain["endmembers"], chain["noise_scale"]
    entry, steep = (np.concatenate([getattr(one, field) for one in singles]) for field in ("entry", "slope"))
    columns = np.zeros_like(own.columns)
    columns[entry] = steep[:, None] * own.columns
    group, rest, slope = entry[own.group], entry[own.rest], steep[own.group]
    block = own.block * slope[:, :, None] * slope[:, None, :] + np.eye(own.group.shape[1]) * diagonal[group][:, :, None]
    return Layers(group, rest, block, own.number * steep[own.rest] ** 2 + diagonal[rest], columns, own.core)


@partial(jax.jit, static_argnames="program")
def _diagonal_around_units(program: Program, z: Array, data: Data, slopes: dict[str, dict[str, jax.Array]]):
    """As :func:`_around_units` for globals of which each has a prior and a coordinate of its own."""
    prior, bent = _surroundings(program, data, slopes)
    return jax.grad(prior)(z) + data.tilt, jax.jvp(jax.grad(bent), (z,), (jnp.ones_like(z),))[1]


def bendings(program: Program, z: Array, data: Data) -> np.ndarray:
    """By how much the step of a parameter changes along the global that it follows: 1 for an exponential, 0 for what is
    linear, for a global without a parameter of its own, and where units are not integrated on points."""
    if "y" not in data.rules:
        return np.zeros(z.size)
    data = data.alone._replace(rules={})
    slope, bend = (_double(x) for x in _two_derivatives(program, z, data))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.abs(bend / slope)
    own = [one.entry for one in _singles(program, z, data, "y").values() if one is not None]
    alone = np.isin(np.arange(z.size), np.concatenate(own)) if own else np.zeros(z.size, bool)
    found = np.where(np.isfinite(found), found, 1.0)  # an exponential that is zero in this precision
    return np.where(alone, found, 0.0)


@partial(jax.jit, static_argnames="program")
def _two_derivatives(program: Program, z: Array, data: Data):
    total = lambda v: sum(x.sum() for x in parameters(program, data, "y")(v).values())  # noqa: E731
    return jax.jvp(jax.grad(total), (z,), (jnp.ones_like(z),))


# ---------------------------------------------------------------------- the chain rule


@partial(jax.jit, static_argnames="program")
def _around_units(program: Program, z: Array, data: Data, slopes: dict[str, dict[str, jax.Array]]):
    """Gradient of prior and tilt; Hessian of the prior, and the bend of the likelihood's parameters."""
    prior, bent = _surroundings(program, data, slopes)
    return jax.grad(prior)(z) + data.tilt, _dense_hessian(bent, z)


def _surroundings(program: Program, data: Data, slopes: dict[str, dict[str, jax.Array]]):
    def prior(v):
        return program.evaluate(data.numbers, v, data.y, data.covariates).log_prior

    def bent(v):
        total = prior(v)
        for name, weights in slopes.items():
            found = parameters(program, data, name)(v)
            total = total + sum((weights[p] * found[p]).sum() for p in weights)
        return total

    return prior, bent


class _Single(NamedTuple):
    """Derivative of a parameter of which every entry in ``row`` follows one entry of ``z``, and the others none."""

    row: np.ndarray
    entry: np.ndarray
    slope: np.ndarray


def _add_slope(gradient: np.ndarray, own: np.ndarray, by_z: _Single | np.ndarray) -> None:
    if isinstance(by_z, _Single):
        gradient[by_z.entry] += by_z.slope * own[by_z.row]
    else:
        gradient += own @ by_z


def _add_block(matrix: np.ndarray, block: np.ndarray, left: _Single | np.ndarray, right: _Single | np.ndarray) -> None:
    """Add ``left' block right`` to ``matrix``."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        rows, columns = block.shape
        matrix += _dense(left, rows, matrix).T @ (block @ _dense(right, columns, matrix))
        return
    for start in range(0, len(left.row), _ROWS):  # a slab at a time: the block may be as large as the matrix
        row, entry, slope = (x[start : start + _ROWS] for x in left)
        matrix[np.ix_(entry, right.entry)] += slope[:, None] * block[np.ix_(row, right.row)] * right.slope


def _dense(by_z: _Single | np.ndarray, rows: int, matrix: np.ndarray) -> np.ndarray:
    if isinstance(by_z, np.ndarray):
        return by_z
    found = np.zeros((rows, len(matrix)))
    found[by_z.row, by_z.entry] = by_z.slope
    return found


def _chain(program: Program, z: Array, data: Data, name: str) -> dict[str, _Single | np.ndarray]:
    """Derivatives of a likelihood's parameters by ``z``, each ``_Single`` or a matrix."""
    alone = _singles(program, z, data, name)
    matrices = _jacobian(program, z, data, name) if None in alone.values() else {}
    return {p: np.asarray(matrices[p]).reshape(-1, z.size) if one is None else one for p, one in alone.items()}


def _singles(program: Program, z: Array, data: Data, name: str) -> dict[str, _Single | None]:
    """Of every parameter of a likelihood which entry of ``z`` each of its entries follows, and how steeply; None where
    one follows several.

    Products with the derivative tell: at the origin, where nothing vanishes, the ratio of those with the entries'
    numbers and with ones is a number of an entry, and a random vector confirms at ``z``.
    """
    size = z.size
    numbers, probe = np.arange(1.0, size + 1.0), np.random.default_rng(0).normal(size=size)
    origin = np.zeros_like(z)
    pushed = lambda at, v: _pushed(program, at, data, name, v.astype(z.dtype))  # noqa: E731
    products = pushed(origin, np.ones(size)), pushed(origin, numbers), pushed(z, np.ones(size)), pushed(z, probe)
    found: dict[str, _Single | None] = {}
    for p, one in products[0].items():
        limits = np.finfo(one.dtype)
        at_origin, by_number, slope, by_probe = (np.asarray(x[p], dtype=np.float64).ravel() for x in products)
        row = np.flatnonzero(at_origin)
        entry = np.nan_to_num(np.rint(by_number[row] / at_origin[row]) - 1).clip(0, size - 1).astype(int)
        expected = np.zeros_like(slope)
        expected[row] = slope[row] * probe[entry]
        reach = np.ones_like(slope)
        reach[row] += np.abs(probe[entry])
        # What is below the smallest normal number has no digits, on accelerators, or is zero.
        followed = np.abs(by_probe - expected) <= 1e2 * reach * (limits.eps * np.abs(slope) + limits.tiny)
        own = followed.all() and not np.delete(slope, row).any() and len(np.unique(entry)) == len(entry)
        found[p] = _Single(row, entry, slope[row]) if own else None
    return found


@partial(jax.jit, static_argnames=("program", "name"))
def _pushed(program: Program, z: Array, data: Data, name: str, direction: jax.Array):
    return jax.jvp(parameters(program, data, name), (z,), (direction,))[1]


@partial(jax.jit, static_argnames=("program", "name"))
def _jacobian(program: Program, z: Array, data: Data, name: str):
    return jax.jacfwd(parameters(program, data, name))(z)


def _moved(of_site, z: Array) -> list[str]:
    """Names of the parameters that depend on ``z``; the others are known."""
    traced = jax.make_jaxpr(of_site)(z).jaxpr
    reached = set(traced.invars)
    for equation in traced.eqns:
        if any(isinstance(v, Var) and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    names = sorted(jax.eval_shape(of_site, z))
    return [n for n, v in zip(names, traced.outvars, strict=True) if isinstance(v, Var) and v in reached]


def _dense_hessian(fn, z: Array) -> jax.Array:
    """Hessian by forward over reverse, a block of columns at a time."""
    column = lambda direction: jax.jvp(jax.grad(fn), (z,), (direction,))[1]  # noqa: E731
    return jax.lax.map(column, jnp.eye(z.size, dtype=z.dtype), batch_size=min(_COLUMNS, z.size))
