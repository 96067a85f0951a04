"""A model as pure functions of one flat vector of unconstrained globals."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to

Array = jax.Array | np.ndarray  # compiled functions take both
ONE_AT_A_TIME = threading.RLock()  # who reads a program: NumPyro's handlers are one stack for all threads


def on_device(value: Any, dtype: Any = None) -> jax.Array:
    """An array of JAX, for many calls or for a model's own code; nothing is compiled for it, as for ``jnp.asarray``.

    It may share the memory of an array of NumPy, which must not change.
    """
    there = isinstance(value, jax.Array) and (dtype is None or dtype == value.dtype)
    return jax.device_put(value if there else np.asarray(value, dtype))


def narrowed(values: np.ndarray, kind: type | None) -> np.ndarray:
    """Values for the likelihood of a class: as they are, if it widens single precision by itself.

    Everything else expects the precision that is worked in. Blocks of units would cut across devices.
    """
    if getattr(kind, "widens_data", False) and values.dtype == np.float32 and len(jax.local_devices()) == 1:
        return values
    return np.asarray(values, jnp.result_type(float))


def at_units(covariates: dict[str, Any], part: Any, n_units: int) -> dict[str, Any]:
    """The entries at ``part`` of covariates that have one per unit; any other as it is."""
    return {n: value[part] if np.ndim(value) and len(value) == n_units else value for n, value in covariates.items()}


class Evaluation(NamedTuple):
    """One run of a model's program at given unconstrained values."""

    values: dict[str, jax.Array]  # sites that were sampled, and deterministic ones
    log_prior: jax.Array  # in the unconstrained coordinates, Jacobian included; with what is observed beside the units
    observed: dict[str, tuple[Any, jax.Array]]  # of the units, name -> (distribution, data)
    log_volumes: dict[str, jax.Array]  # of sampled sites: log of the Jacobian's determinant


class _Identity:
    """A value compared by identity, for what cannot be hashed."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclass(frozen=True)
class Program:
    """What is static of a model under compilation: its structure, without its numbers.

    Two fits whose programs are equal, on data of one shape, share their compiled functions.
    """

    treedef: Any
    constants: tuple[Any, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]  # unconstrained shape of every latent site, in order
    seen: str = ""  # of code of one's own: what it did, which may hang on more than it was handed

    @property
    def size(self) -> int:
        """Number of unconstrained globals."""
        return sum(int(np.prod(shape)) for _, shape in self.shapes)

    def model(self, numbers: tuple[Any, ...]) -> Callable[..., None]:
        """The model with its numbers put back."""
        stream = iter(numbers)
        leaves = [next(stream) if c is _NUMBER else c.value for c in self.constants]
        return jax.tree_util.tree_unflatten(self.treedef, leaves)

    def split(self, z: Array) -> dict[str, Array]:
        """A flat vector as the unconstrained value of every site."""
        parts, start = dict[str, Array](), 0
        for name, shape in self.shapes:
            size = int(np.prod(shape))
            parts[name] = z[start : start + size].reshape(shape)
            start += size
        return parts

    def evaluate(self, numbers: tuple[Any, ...], z: Array, y: Array, covariates: dict) -> Evaluation:
        """Run the model's program with its globals at unconstrained ``z``."""
        unconstrained = self.split(z)
        log_prior = jnp.zeros((), z.dtype)
        values: dict[str, jax.Array] = {}
        log_volumes: dict[str, jax.Array] = {}

        def fill(site):
            nonlocal log_prior
            if site["type"] != "sample" or site["is_observed"]:
                return None
            transform = biject_to(site["fn"].support)
            u = unconstrained[site["name"]]
            x = transform(u)
            log_volumes[site["name"]] = transform.log_abs_det_jacobian(u, x).sum()
            log_prior = log_prior + log_volumes[site["name"]] + site["fn"].log_prob(x).sum()
            values[site["name"]] = x
            return x

        with ONE_AT_A_TIME, handlers.trace() as trace, handlers.substitute(substitute_fn=fill):
            self.model(numbers)(y, n_units=y.shape[0], **covariates)
        observed: dict[str, tuple[Any, jax.Array]] = {}
        for name, site in trace.items():
            if name == "y":
                observed[name] = (site["fn"], site["value"])
            elif site["type"] == "sample" and site["is_observed"]:
                # Counts once, whatever share of the units is looked at.
                log_prior = log_prior + site["fn"].log_prob(site["value"]).sum()
            elif site["type"] == "deterministic":
                values[name] = site["value"]
        return Evaluation(values, log_prior, observed, log_volumes)

    def likelihood(self, numbers: tuple[Any, ...], values: dict[str, Any], y: Array, covariates: dict) -> Any:
        """Distribution of the site "y" with the other sites at ``values``."""
        with ONE_AT_A_TIME, handlers.trace() as trace, handlers.substitute(data=values):
            self.model(numbers)(y, n_units=y.shape[0], **covariates)
        return trace["y"]["fn"]


_PRIOR_DRAWS = 101  # behind a median; odd
_NUMBER = _Identity("a number of the model")


def compile_model(model: Any, y: Array, covariates: dict | None = None) -> tuple[Program, tuple[Any, ...]]:
    """Split a model into its static program and its numbers, and check that it can be fitted.

    Raises
    ------
    ValueError
        When the model has no observed site named "y", has a likelihood put in by ``numpyro.factor``, or samples
        discrete latents.
    """
    leaves, treedef = jax.tree_util.tree_flatten(model)
    constants = tuple(_NUMBER if _is_number(leaf) else _Identity(leaf) for leaf in leaves)
    numbers = numbers_of(model)
    of_ones_own = not all(c is _NUMBER or isinstance(c.value, str | int | None) for c in constants)
    units = jax.ShapeDtypeStruct(y.shape, jnp.result_type(float))
    if of_ones_own or covariates:
        shapes = _shapes(model, units, covariates or {})
    else:
        shapes = _known_shapes(Program(treedef, constants, ()), tuple(n.shape for n in numbers), units)
    seen = _digest(model, units, covariates or {}) if of_ones_own else ""
    return Program(treedef, constants, shapes, seen), numbers


@lru_cache
def _known_shapes(program: Program, of_numbers: tuple[tuple[int, ...], ...], units: jax.ShapeDtypeStruct):
    """The same for a model whose numbers have these shapes, whatever they are."""
    return _shapes(program.model(tuple(on_device(np.ones(shape)) for shape in of_numbers)), units, {})


def _digest(model: Callable[..., None], units: jax.ShapeDtypeStruct, covariates: dict) -> str:
    """A hash of what code of one's own does with units of this shape, whatever their values.

    A function reads globals and what it closes over, which are not among its arguments and may have changed since its
    program was compiled.
    """
    kinds: list[tuple[str, str]] = []

    def look(y, covariates):
        with ONE_AT_A_TIME, handlers.trace() as trace, handlers.seed(rng_seed=0):
            model(y, n_units=y.shape[0], **covariates)
        sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
        kinds.extend((name, type(site["fn"]).__qualname__) for name, site in sites.items())
        laws = [site["fn"] for site in sites.values()]
        foreign = [s for s in sites.values() if not type(s["fn"]).__module__.startswith(("numpyro", "bayesunmix"))]
        densities = [site["fn"].log_prob(site["value"]) for site in foreign]
        return [leaf for leaf in jax.tree_util.tree_leaves((laws, densities)) if _is_number(leaf)]

    traced = jax.make_jaxpr(look)(units, covariates)
    # Without addresses of functions, which differ from one look to the next.
    found = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", f"{kinds} {traced.jaxpr}").encode())
    for constant in traced.consts:
        found.update(np.asarray(constant).tobytes())
    return found.hexdigest()


def _shapes(
    model: Callable[..., None], units: jax.ShapeDtypeStruct, covariates: dict
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and unconstrained shapes of the latent sites of a model that can be fitted."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    observed: dict[str, tuple[list[str], bool]] = {}  # plates, and whether scaled

    def look(y) -> None:
        with ONE_AT_A_TIME, handlers.trace() as trace, handlers.seed(rng_seed=0):
            model(y, n_units=y.shape[0], **covariates)
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            if not site["is_observed"]:
                if site["fn"].support.is_discrete:
                    raise ValueError(f"the latent site {name!r} is discrete: sum it out inside a distribution")
                transform = biject_to(site["fn"].support)
                shapes.append((name, tuple(transform.inverse_shape(jnp.shape(site["value"])))))
            elif type(site["fn"]).__name__ == "Unit":
                raise ValueError(
                    f"the site {name!r} is a numpyro.factor: a bare factor has no distribution that can be predicted "
                    "from or checked; put the likelihood into an observed site, "
                    'numpyro.sample("y", distribution, obs=y)'
                )
            else:
                observed[name] = [frame.name for frame in site["cond_indep_stack"]], site["scale"] is not None

    jax.eval_shape(look, units)  # shapes only: nothing is computed, nor compiled
    if "y" not in observed:
        raise ValueError(
            f'expected an observed site named "y" in the plate "unit", got observed sites {list(observed)}'
        )
    for name, (plates, scaled) in observed.items():
        _check_observed(name, plates, scaled)
    if not shapes:
        raise ValueError("the model has nothing to infer: expected at least one latent sample site")
    return tuple(shapes)


def numbers_of(model: Any) -> tuple[jax.Array, ...]:
    """Numbers of a model whose program is compiled already."""
    leaves = jax.tree_util.tree_leaves(model)
    return tuple(on_device(leaf) for leaf in leaves if _is_number(leaf))


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, float | np.ndarray | np.floating | jax.Array)


def _check_observed(name: str, plates: list[str], scaled: bool) -> None:
    """What is fitted must be what is scored: refuse what criticism would not see."""
    if name == "y" and plates != ["unit"]:
        raise ValueError(
            f'expected the observed site "y" in the plate "unit" alone, got plates {plates}; channels belong to the '
            'distribution: with numpyro.plate("unit", n_units): numpyro.sample("y", distribution.to_event(1), obs=y)'
        )
    if name != "y" and "unit" in plates:
        raise ValueError(
            f'expected one observed site in the plate "unit", got {name!r} beside "y": put what is seen of a unit into '
            "one distribution, and into the channels of one array"
        )
    if scaled:
        raise ValueError(
            f"the observed site {name!r} is scaled (handlers.scale, or a plate with subsample_size): every unit counts "
            "once here; large images are sampled by bu.SVI(batch=...)"
        )


@partial(jax.jit, static_argnames="program")
def unconstrain(program: Program, numbers: tuple[Any, ...], values: dict[str, Any], y: Array, covariates: dict):
    """Flat unconstrained vector of given site values; a site that is not given sits at the median of its prior."""
    found: dict[str, jax.Array] = {}

    def fill(site):
        if site["type"] != "sample" or site["is_observed"]:
            return None
        transform = biject_to(site["fn"].support)
        if site["name"] in values:
            x = jnp.asarray(values[site["name"]], y.dtype)
            found[site["name"]] = transform.inv(x)
            return x
        draws = site["fn"].sample(jax.random.key(0), (_PRIOR_DRAWS,))
        found[site["name"]] = jnp.median(transform.inv(draws), axis=0).astype(y.dtype)
        return transform(found[site["name"]])

    with ONE_AT_A_TIME, handlers.trace(), handlers.substitute(substitute_fn=fill):
        program.model(numbers)(y, n_units=y.shape[0], **covariates)
    return ravel_pytree([found[name] for name, _ in program.shapes])[0]
