"""No-U-turn sampling in coordinates whitened by the curvature at the mode."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.hmc import hmc

from bayesunmix.inference.context import computing
from bayesunmix.inference.layered import inverse
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import NUTS
from bayesunmix.inference.simplex_moves import Moves, proposed
from bayesunmix.inference.target import Data, log_density

_STATISTICS = ("diverging", "tree_steps", "accept")
_CHUNK = 25  # draws between looks: progress, and Ctrl-C that keeps what there is


def _kernel(program: Program, settings: NUTS, white, location, factor, data: Data, key):
    """NumPyro's NUTS with its state at ``white``; the mass matrix stays the identity, because the space is whitened."""

    start, step = hmc(potential_fn_gen=partial(_potential, program), algo="NUTS")
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


def _potential(program: Program, location, factor, data: Data):
    return lambda w: -log_density(program, location + factor @ w, data)


@partial(jax.jit, static_argnames=("program", "settings"))
def _begin(program: Program, settings: NUTS, white, location, factor, data: Data, key):
    return _kernel(program, settings, white, location, factor, data, key)[0]


@partial(jax.jit, static_argnames=("program", "settings", "length"))
def _advance(program: Program, settings: NUTS, state, location, factor, data: Data, moves: Moves | None, back, length):
    _, step = _kernel(program, settings, state.z, location, factor, data, state.rng_key)

    def body(state, _):
        state = step(state)
        if moves is not None:
            state = _moved(program, state, location, factor, back, data, moves)
        return state, (state.z, state.diverging, state.num_steps, state.accept_prob)

    return jax.lax.scan(body, state, None, length=length)


def _moved(program: Program, state, location, factor, back, data: Data, moves: Moves):
    """The state after a move of the simplex as a whole has been tried."""
    key_move, key_accept = jax.random.split(jax.random.fold_in(state.rng_key, 1))
    there, ratio = proposed(program, location + factor @ state.z, data, moves, key_move)
    white = back @ (there - location)
    potential, slope = jax.value_and_grad(_potential(program, location, factor, data))(white)
    accepted = jnp.log(jax.random.uniform(key_accept)) < ratio + state.potential_energy - potential
    keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
    return state._replace(
        z=keep(white, state.z),
        z_grad=keep(slope, state.z_grad),
        potential_energy=keep(potential, state.potential_energy),
    )


class Chains(NamedTuple):
    """Unconstrained draws (chain, draw, size), statistics (chain, draw), and whether every chain ran to its end."""

    draws: np.ndarray
    statistics: dict[str, np.ndarray]
    finished: bool
    states: tuple[Any, ...]  # of every chain at its end
    exhausted: bool = False  # a chain had taken all gradients it was given before its end


def sample(
    program: Program,
    mode: Mode,
    settings: NUTS,
    key: jax.Array,
    tell: Callable[[int, int, str], None] = lambda *_: None,
    before: Chains | None = None,
    most: float = np.inf,
    moves: Sequence[Moves] | None = None,
) -> Chains:
    """Run the chains, each in a thread of its own (one compiled program serves all).

    With ``before`` they go on from there, without warm-up, and its draws come first. After Ctrl-C the chains are cut
    to the draws that every chain has; so they are where a chain has taken ``most`` gradients, which may leave none.
    With ``moves``, of every chain, one is tried after every step.

    Raises
    ------
    KeyboardInterrupt
        When it comes before the first draws.
    """
    stop, compiled, spent = threading.Event(), threading.Event(), threading.Event()
    done = [0] * settings.chains
    states = before.states if before else (None,) * settings.chains
    back = None if moves is None else inverse(mode.factor)  # once for all chains
    own = moves or (None,) * settings.chains
    signals = (done, stop, compiled, spent, most)
    jobs = [
        (program, mode, settings, jax.random.fold_in(key, c), states[c], own[c], back, c, *signals)
        for c in range(settings.chains)
    ]
    warmup = 0 if before else settings.warmup
    total = settings.chains * (warmup + settings.draws)
    with ThreadPoolExecutor(settings.chains) as pool:
        waiting = [pool.submit(_run_chain, *job) for job in jobs]
        while waiting and not all(f.done() for f in waiting):
            try:
                futures.wait(waiting, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
                if any(f.done() and f.exception() for f in waiting):
                    stop.set()
                tell(sum(done), total, "sampling" if min(done) > warmup else "warm-up")
            except KeyboardInterrupt:
                stop.set()
            except BaseException:  # of a progress bar, or a time limit: the chains are not waited for to their end
                stop.set()
                raise
        parts, ends = zip(*[f.result() for f in waiting], strict=True)
    shortest = min(len(part[0]) for part in parts)
    if shortest == 0 and not spent.is_set():
        if before is None:
            raise KeyboardInterrupt
        return before._replace(finished=False)
    white, *rest = (np.stack([part[i][:shortest] for part in parts]) for i in range(4))
    draws, statistics = mode.z + white @ mode.factor.T, dict(zip(_STATISTICS, rest, strict=True))
    if before is not None:
        draws = np.concatenate([before.draws, draws], axis=1)
        statistics = {n: np.concatenate([before.statistics[n], s], axis=1) for n, s in statistics.items()}
    return Chains(draws, statistics, not stop.is_set(), ends, spent.is_set())


def _run_chain(program, mode: Mode, settings: NUTS, key, state, moves, back, chain, done, stop, compiled, spent, most):
    """Draws and statistics of one chain, and its state at the end; ``done[chain]`` counts its steps.

    Chains after the first wait until it has compiled.
    """
    if chain > 0:
        compiled.wait()
    pieces: list[tuple[np.ndarray, ...]] = []
    gradients = 0
    try:
        with computing():
            key_start, key_run = jax.random.split(key)
            location, factor, back = jax.device_put((mode.z, mode.factor, back))
            # Overdispersed starts, or R-hat could not see chains that have not met.
            white = 1.5 * jax.random.normal(key_start, location.shape, location.dtype)
            warmup = 0
            if state is None:
                state = _begin(program, settings, white, location, factor, mode.data, key_run)
                warmup = settings.warmup
            for count, kept in ((warmup, False), (settings.draws, True)):
                for start in range(0, count, _CHUNK):
                    if gradients > most:
                        spent.set()
                    if stop.is_set() or gradients > most:
                        break
                    length = min(_CHUNK, count - start)
                    state, out = _advance(program, settings, state, location, factor, mode.data, moves, back, length)
                    gradients += int(out[2].sum())
                    if kept:
                        pieces.append(tuple(np.asarray(o) for o in out))
                    done[chain] += length
                    compiled.set()
    finally:
        compiled.set()
    if not pieces:
        return (np.zeros((0, mode.z.size)), np.zeros(0), np.zeros(0), np.zeros(0)), state
    return tuple(np.concatenate(piece) for piece in zip(*pieces, strict=True)), state
