"""The simplex that endmembers span, moved as a whole.

With many channels a pixel's abundances are known well, and where a face of the simplex can lie is decided by the few
pixels next to it: the posterior has walls in the K (K - 1) directions that move the vertices within their own plane,
which no curvature tells, and is normal in all the others. Write endmembers as ``W = M (W0 + V)``, with ``M`` (K, K)
whose rows sum to one, and ``V`` orthogonal to the plane of a reference ``W0``. Noise makes ``V``, and it moves with the
vertices, so that the posterior of ``M`` hardly depends on it. Its density at ``V = 0``, faces taken one by one,

    q(M) ~ |det M|^(P - K + 1 - n_units) prod_nk Phi(b_nk / s_k) p(M W0)

is cheap: ``b`` and ``s`` are the abundances given ``M W0`` as if faces were not there, and ``|det M|^(P - K + 1)`` is
the volume element of ``(M, V)``. It is sampled, and its draws are what a chain is offered between its own steps (an
independence sampler), or are weighted (:mod:`bayesunmix.inference.simplex_draws`): the density itself decides, either
way.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from bayesunmix.distributions import truncated
from bayesunmix.distributions.inverses import general_inverse_and_log_det
from bayesunmix.distributions.one_face import FreeNormal
from bayesunmix.inference.program import Program, unconstrain
from bayesunmix.inference.target import Data

_SITE = "endmembers"
_WARMUP = 300
_DEPTH = 6  # of the trees of NUTS: 3 to 5 are needed, and a superfluous endmember would take a hundred times as long
MIXES = 1000  # draws of q by a chain
_REACH, _ROUND = 10.0, 256  # standard deviations; and pixels, since every number of them is compiled for


class Simplex(NamedTuple):
    """A reference, and what the density of ``M`` takes of data and prior there."""

    endmembers: jax.Array  # (K, P)
    plane: jax.Array  # (P, K - 1) tells where endmembers are in the plane of these
    back: jax.Array  # (K, K), and how they are mixed of these
    free: FreeNormal  # abundances of the pixels that have a face in reach
    n_units: jax.Array
    prior_slope: jax.Array  # (K (K - 1),) of the log prior of M W0, a parabola in M
    prior_bend: jax.Array

    def mix(self, endmembers) -> jax.Array:
        """The ``M`` of endmembers (K, P)."""
        return self.corners(endmembers) @ self.back

    @property
    def power(self) -> int:
        """Of the determinant of ``M`` in the volume element of ``(M, V)``."""
        n_parts, n_channels = self.endmembers.shape
        return n_channels - n_parts + 1

    def corners(self, endmembers) -> jax.Array:
        """Where endmembers (K, P) are in the plane, and ones, (K, K)."""
        away = (endmembers - self.endmembers.mean(0)) @ self.plane
        return jnp.concatenate([away, jnp.ones_like(away[:, :1])], axis=1)


class Moves(NamedTuple):
    """Draws of ``q``."""

    simplex: Simplex
    mixes: jax.Array  # (n, K, K)
    heights: jax.Array  # (n,) log q, up to a constant


def has_simplex(program: Program, data: Data, z: np.ndarray) -> bool:
    """Whether abundances are uniform on a simplex whose corners, the endmembers, are all free, and no unit stands for
    others; in double precision, which the log densities of images need."""
    sizes = {name: int(np.prod(shape)) for name, shape in program.shapes}
    plain = data.rest is None and not (data.others or data.covariates) and data.y.dtype == jnp.float64
    if _SITE not in sizes or not plain:
        return False
    found = False

    def look(at, y) -> None:
        nonlocal found
        run = program.evaluate(data.numbers, at, y, {})
        fn, endmembers = run.observed["y"][0], run.values[_SITE]
        if hasattr(fn, "without_faces") and fn.endmembers.shape == endmembers.shape and len(endmembers) > 1:
            found = endmembers.size == sizes[_SITE] and fn.without_faces(y).applies

    jax.eval_shape(look, z, data.y[:2])  # nothing is computed, nor compiled
    return found


def crowded(program: Program, data: Data, z: np.ndarray) -> bool:
    """Whether there are as many channels as pixels, so that ``q`` has no end."""
    return has_simplex(program, data, z) and _endless(data)


def _endless(data: Data) -> bool:
    return data.y.shape[1] + 1 >= len(data.y)


def simplex_at(program: Program, data: Data, z: np.ndarray) -> Simplex | None:
    """The simplex of the endmembers at ``z``; None where there is none, or ``q`` has no end."""
    if not has_simplex(program, data, z) or _endless(data):
        return None
    # Small matrices by NumPy: see general_inverse_and_log_det.
    found = jax.device_get(_simplex(program, z, data))
    found = found._replace(plane=np.linalg.qr(found.plane)[0])
    corners, room = jax.device_get(_corners_and_room(found))
    back = np.linalg.inv(corners)
    values, axes = np.linalg.eigh(found.prior_bend)
    bend = (axes * np.minimum(values, 0.0)) @ axes.T  # a prior that opens upwards would leave no density
    # Faces that are out of reach of a pixel, wherever the simplex may lie, cost time only.
    count = min(len(room), _ROUND * -(-int((room < _REACH).sum()) // _ROUND))
    near = np.argsort(room, kind="stable")[:count]
    free = found.free._replace(mean=found.free.mean[near])
    return jax.device_put(found._replace(back=back, free=free, prior_bend=bend))


@partial(jax.jit, static_argnames="program")
def _simplex(program: Program, z, data: Data) -> Simplex:
    run = program.evaluate(data.numbers, z, data.y, data.covariates)
    fn, endmembers = run.observed["y"][0], run.values[_SITE]
    plane = ((endmembers[:-1] - endmembers[-1]) / fn.noise_scale**2).T
    n_units = jnp.asarray(len(data.y), z.dtype)

    def prior(away):
        there = placed(program, z, data, as_mix(away) @ endmembers)
        run = program.evaluate(data.numbers, there, data.y[:1], data.covariates)
        return run.log_prior - run.log_volumes[_SITE]

    none = jnp.zeros(len(endmembers) * (len(endmembers) - 1), z.dtype)
    slope, bend = jax.grad(prior)(none), jax.hessian(prior)(none)
    one = jnp.eye(len(endmembers), dtype=z.dtype)
    return Simplex(endmembers, plane, one, fn.without_faces(data.y), n_units, slope, bend)


@jax.jit
def _corners_and_room(simplex: Simplex):
    """Where its endmembers are in its plane; and standard deviations from the nearest face, (units,)."""
    return simplex.corners(simplex.endmembers), simplex.free.room.min(1)


def endmembers_at(program: Program, z, data: Data) -> tuple[jax.Array, jax.Array]:
    """Endmembers, and the log of their volume beside that of the globals they follow."""
    run = program.evaluate(data.numbers, z, data.y[:1], data.covariates)
    return run.values[_SITE], run.log_volumes[_SITE]


def placed(program: Program, z, data: Data, endmembers) -> jax.Array:
    """The globals with other endmembers; not numbers where these are not in the support."""
    one = data.y[:1]
    values = program.evaluate(data.numbers, z, one, data.covariates).values
    return unconstrain(program, data.numbers, {**values, _SITE: endmembers}, one, data.covariates)


# ---------------------------------------------------------------------- the density of M


def log_height(simplex: Simplex, mix) -> jax.Array:
    """``log q``, up to a constant."""
    room = simplex.free.mixed(mix).room
    away = (mix - jnp.eye(len(mix)))[:, :-1].ravel()
    prior = simplex.prior_slope @ away + 0.5 * away @ simplex.prior_bend @ away
    log_det = general_inverse_and_log_det(mix)[1]
    return (simplex.power - simplex.n_units) * log_det + truncated.log_above(-room).sum() + prior


def as_mix(away) -> jax.Array:
    """``M`` from all but its last column less the identity, (K (K - 1),)."""
    n_parts = round(0.5 + (0.25 + len(away)) ** 0.5)
    away = away.reshape(n_parts, n_parts - 1)
    return jnp.eye(n_parts) + jnp.concatenate([away, -away.sum(1, keepdims=True)], axis=1)


@partial(jax.jit, static_argnames="n_draws")
def draw_mixes(simplex: Simplex, key: jax.Array, n_draws: int) -> Moves:
    """Draws of ``q`` by NUTS."""
    n_parts = len(simplex.endmembers)
    sd = jnp.repeat(simplex.free.sd, n_parts - 1)
    start, step = hmc(potential_fn_gen=lambda own: lambda x: -log_height(own, as_mix(sd * x)), algo="NUTS")
    origin = jnp.zeros_like(sd)
    state = start(
        origin, _WARMUP, step_size=0.1, dense_mass=True, max_tree_depth=_DEPTH, model_args=(simplex,), rng_key=key
    )

    def body(state, _):
        state = step(state, (simplex,))
        return state, (state.z, -state.potential_energy)

    found, heights = jax.lax.scan(body, state, None, length=_WARMUP + n_draws)[1]
    return Moves(simplex, jax.vmap(lambda x: as_mix(sd * x))(found[_WARMUP:]), heights[_WARMUP:])


# ---------------------------------------------------------------------- a move


class Remixed(NamedTuple):
    """Globals with another ``M`` and the same ``V``."""

    z: jax.Array  # there
    before: jax.Array  # the M here
    here: jax.Array  # endmembers
    alone: jax.Array  # endmembers with the M of the reference
    log_volume: jax.Array  # of (M, V) by that of the globals, there over here


def remixed(program: Program, z, data: Data, simplex: Simplex, mix) -> Remixed:
    """The globals ``z`` with ``mix`` for their ``M``."""
    endmembers, log_here = endmembers_at(program, z, data)
    before = simplex.mix(endmembers)
    back, log_before = general_inverse_and_log_det(before)
    there = placed(program, z, data, mix @ back @ endmembers)
    volume = simplex.power * (general_inverse_and_log_det(mix)[1] - log_before)
    return Remixed(
        there, before, endmembers, back @ endmembers, volume + log_here - endmembers_at(program, there, data)[1]
    )


def proposed(program: Program, z, data: Data, moves: Moves, key) -> tuple[jax.Array, jax.Array]:
    """Globals that a move leads to, and what is to be added to the log ratio of the densities there and here."""
    chosen = jax.random.randint(key, (), 0, len(moves.mixes))
    moved = remixed(program, z, data, moves.simplex, moves.mixes[chosen])
    return moved.z, moved.log_volume + log_height(moves.simplex, moved.before) - moves.heights[chosen]
