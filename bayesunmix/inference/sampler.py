"""No-U-turn sampling in coordinates whitened by the curvature at the mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import NUTS
from bayesunmix.inference.target import Data, log_density

_CHUNK = 25  # draws between looks: progress, and Ctrl-C that keeps what there is


def _kernel(program: Program, settings: NUTS, white, location, factor, data: Data, key):
    """NumPyro's NUTS with its state at ``white``; the mass matrix stays the identity, because the space is whitened."""

    def potential(location, factor, data):
        return lambda w: -log_density(program, location + factor @ w, data)

    start, step = hmc(potential_fn_gen=potential, algo="NUTS")
    arguments = (location, factor, data)
    state = start(
        white,
        settings.warmup,
        step_size=0.5,
        adapt_mass_matrix=False,
        target_accept_prob=settings.target_accept,
        max_tree_depth=settings.max_tree_depth,
        model_args=arguments,
        rng_key=key,
    )
    return state, lambda s: step(s, arguments)


@partial(jax.jit, static_argnames=("program", "settings"))
def _begin(program: Program, settings: NUTS, white, location, factor, data: Data, key):
    return _kernel(program, settings, white, location, factor, data, key)[0]


@partial(jax.jit, static_argnames=("program", "settings", "length"))
def _advance(program: Program, settings: NUTS, state, location, factor, data: Data, length):
    _, step = _kernel(program, settings, state.z, location, factor, data, state.rng_key)

    def body(state, _):
        state = step(state)
        return state, (state.z, state.diverging, state.num_steps, state.accept_prob)

    return jax.lax.scan(body, state, None, length=length)


def sample(
    program: Program,
    mode: Mode,
    settings: NUTS,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
) -> tuple[np.ndarray, dict[str, np.ndarray], bool]:
    """Unconstrained draws (chain, draw, size), statistics (chain, draw) each, and whether all chains ended.

    After Ctrl-C the chains are cut to the draws that every started chain has.
    """
    location, factor = jnp.asarray(mode.z), jnp.asarray(mode.factor)
    chains: list[tuple[np.ndarray, ...]] = []
    total = settings.chains * (settings.warmup + settings.draws)
    finished = True
    for chain in range(settings.chains):
        key_start, key_run = jax.random.split(jax.random.fold_in(key, chain))
        # Overdispersed starts, or R-hat could not see chains that have not met.
        white = 1.5 * jax.random.normal(key_start, location.shape, location.dtype)
        pieces: list[tuple[np.ndarray, ...]] = []
        try:
            state = _begin(program, settings, white, location, factor, mode.data, key_run)
            for phase, count in (("warmup", settings.warmup), ("sampling", settings.draws)):
                for done in range(0, count, _CHUNK):
                    length = min(_CHUNK, count - done)
                    state, out = _advance(program, settings, state, location, factor, mode.data, length)
                    if phase == "sampling":
                        pieces.append(tuple(np.asarray(o) for o in out))
                    before = chain * (settings.warmup + settings.draws) + (phase == "sampling") * settings.warmup
                    tell(before + done + length, total, f"chain {chain + 1}, {phase}")
        except KeyboardInterrupt:
            finished = False
        if pieces:
            chains.append(tuple(np.concatenate(p) for p in zip(*pieces, strict=True)))
        if not finished:
            break
    if not chains:
        raise KeyboardInterrupt
    shortest = min(len(c[0]) for c in chains)
    white, diverging, steps, accept = (np.stack([c[i][:shortest] for c in chains]) for i in range(4))
    draws = mode.z + white @ mode.factor.T
    return draws, {"diverging": diverging, "tree_steps": steps, "accept": accept}, finished
