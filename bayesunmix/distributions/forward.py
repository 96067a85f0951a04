"""Recursions along a chain of hidden states, many sequences at a time.

Densities come as ``log_emission`` (time, state, sequence): log p(y_t | state) of every frame, 0 in every state where a
frame is missing. The sequences lie along the last axis, so that a step is one small matrix product over all of them.
The scaled form keeps probabilities that are renormalised at every step; the log form is for chains with forbidden
transitions, where a probability may underflow beside an exact zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

_LONG = 4096  # steps from which blocks pay on a CPU
_LANES = 128  # blocks of all sequences together that keep its vector units busy
_FEW_STATES = 8  # a block carries one vector per state
_EVERY = 8  # steps between renormalisations in double precision, which holds transitions from 1e-38 on


def log_likelihood(initial, transition, log_emission, *, log_form: bool = False) -> jax.Array:
    """Log density of every sequence, its path summed out, shape (sequence,).

    Parameters
    ----------
    initial : (state,)
    transition : (state, next_state)
    log_emission : (time, state, sequence)
    log_form : bool
        Work with log probabilities: for forbidden transitions.
    """
    if log_form:
        return jax.nn.logsumexp(log_filtered(initial, transition, log_emission)[-1], axis=0)
    return total(log_steps(initial, transition, log_emission))


def blocks_that_pay(steps: int, states: int, sequences: int) -> int:
    """Into how many blocks a long sequence is best cut; 1 where cutting does not pay."""
    return max(1, _LANES // sequences) if steps >= _LONG and states <= _FEW_STATES else 1


def log_steps(initial, transition, log_emission) -> jax.Array:
    """log p(y_t | y_1 ... y_t-1) of every frame, (time, sequence)."""
    first, log_first = _normalised(initial[:, None], log_emission[0])

    def step(state, log_emission):
        return _normalised(transition.T @ state, log_emission)

    _, rest = lax.scan(step, first, log_emission[1:])
    size, top = (jnp.concatenate([a[None], b]) for a, b in zip(log_first, rest, strict=True))
    return jnp.log(size) + top


def total(terms) -> jax.Array:
    """Sum over the first axis in two levels: in float32 the error of a plain sum of 1e5 terms is several nats."""
    steps = len(terms)
    width = max(1, math.isqrt(steps))
    rows = -(-steps // width)
    padded = jnp.concatenate([terms, jnp.zeros((rows * width - steps, *terms.shape[1:]), terms.dtype)])
    return padded.reshape(rows, width, *terms.shape[1:]).sum(1).sum(0)


def log_likelihood_of_blocks(initial, transition, first, inside, rest) -> jax.Array:
    """The same for sequences that are cut into blocks, which run side by side.

    What a block does to the state before it is a matrix; it is found by running the block from every state at once.

    Parameters
    ----------
    initial, transition
        As in :func:`log_likelihood`.
    first : (1, state, sequence)
        The first frame.
    inside : (length, state, sequence * block)
        The blocks of every sequence, one after the other along the last axis.
    rest : (frames, state, sequence)
        What is left after the last block; may be none.
    """
    length, states, lanes = inside.shape
    sequences = first.shape[2]
    top = _top(inside)
    weight = jnp.exp(inside - top[:, None])
    every = _EVERY if weight.dtype == jnp.float64 else 1
    unit = jnp.broadcast_to(jnp.eye(states, dtype=weight.dtype)[:, :, None], (states, states, lanes))

    # Rows: the state now. Columns: the state before the block, by lane.
    def onwards(matrix, weight):
        return (transition.T @ matrix).reshape(states, states, -1) * weight[:, None]

    def step(matrix, weights):
        for weight in weights:
            joint = onwards(matrix, weight)
            matrix = joint.reshape(states, -1)
        size = joint.sum(0).max(0)
        return (joint / size).reshape(states, -1), size

    whole = length // every * every
    matrix, sizes = lax.scan(step, unit.reshape(states, -1), weight[:whole].reshape(-1, every, states, lanes))
    log_size = total(jnp.log(sizes))
    if whole < length:
        matrix, size_after = step(matrix, weight[whole:])
        log_size = log_size + jnp.log(size_after)
    found = (log_size + total(top)).reshape(sequences, -1).sum(1)
    state, (size, top_first) = _normalised(initial[:, None], first[0])

    def join(state, matrix):
        joint = jnp.einsum("is,jis->js", state, matrix)
        size = joint.sum(0)
        return joint / size, size

    matrix = jnp.moveaxis(matrix.reshape(states, states, sequences, -1), 3, 0)
    state, between = lax.scan(join, state, matrix)

    def last(state, log_emission):
        return _normalised(transition.T @ state, log_emission)

    _, (size_rest, top_rest) = lax.scan(last, state, rest)
    ends = jnp.log(size) + top_first + (jnp.log(size_rest) + top_rest).sum(0)
    return found + jnp.log(between).sum(0) + ends


def _top(log_emission):
    """Log density of the most probable state, (..., sequence); what is taken out before an exponential."""
    top = log_emission.max(-2)
    return lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))


def _normalised(predicted, log_emission):
    """Probabilities after a frame, and its density as a number and the log that was taken out of it."""
    top = _top(log_emission)
    joint = predicted * jnp.exp(log_emission - top)
    size = joint.sum(0)
    return joint / size, (size, top)


def filtered(initial, transition, log_emission, *, log_form: bool = False) -> jax.Array:
    """p(state_t | y_1 ... y_t), (time, state, sequence)."""
    if log_form:
        return jax.nn.softmax(log_filtered(initial, transition, log_emission), axis=1)
    first, _ = _normalised(initial[:, None], log_emission[0])

    def step(state, log_emission):
        state, _ = _normalised(transition.T @ state, log_emission)
        return state, state

    _, rest = lax.scan(step, first, log_emission[1:])
    return jnp.concatenate([first[None], rest])


def log_filtered(initial, transition, log_emission) -> jax.Array:
    """log p(state_t, y_1 ... y_t), (time, state, sequence)."""
    log_transition = _log(transition)

    def step(state, log_emission):
        joint = jax.nn.logsumexp(state[:, None] + log_transition[:, :, None], axis=0) + log_emission
        return joint, joint

    first = _log(initial)[:, None] + log_emission[0]
    _, rest = lax.scan(step, first, log_emission[1:])
    return jnp.concatenate([first[None], rest])


def _log(probability):
    """Log with a very small number for an exact zero, so that slopes stay finite."""
    floor = jnp.finfo(probability.dtype).tiny
    return jnp.log(jnp.maximum(probability, floor)) + jnp.where(probability > 0, 0.0, _NEVER)


_NEVER = -1e5


def smoothed(transition, filter_) -> jax.Array:
    """p(state_t | all of y) from the filter, (time, state, sequence)."""
    tiny = jnp.finfo(filter_.dtype).tiny

    def back(after, now):
        ahead = transition.T @ now
        now = now * (transition @ (after / jnp.maximum(ahead, tiny)))
        now = now / jnp.maximum(now.sum(0), tiny)
        return now, now

    last = filter_[-1]
    _, before = lax.scan(back, last, filter_[:-1], reverse=True)
    return jnp.concatenate([before, last[None]])


def sample_path(key, transition, filter_) -> jax.Array:
    """A path of every sequence given all of y, by backward sampling from the filter, (time, sequence) of int."""
    steps, _, sequences = filter_.shape
    uniform = jax.random.uniform(key, (steps, sequences), filter_.dtype)
    last = _choose(filter_[-1], uniform[-1])

    def back(after, inputs):
        now, uniform = inputs
        state = _choose(now * transition[:, after], uniform)
        return state, state

    _, before = lax.scan(back, last, (filter_[:-1], uniform[:-1]), reverse=True)
    return jnp.concatenate([before, last[None]])


def _choose(weights, uniform):
    """A row of ``weights`` (state, lane) per lane, with probability in proportion; never one of weight zero."""
    cumulative = jnp.cumsum(weights, axis=0)
    return (uniform * cumulative[-1] >= cumulative[:-1]).sum(0)


def most_probable_path(initial, transition, log_emission) -> jax.Array:
    """The path with the highest posterior probability (Viterbi), (time, sequence) of int."""
    log_transition = _log(transition)

    def step(best, log_emission):
        reach = best[:, None] + log_transition[:, :, None]
        return reach.max(0) + log_emission, reach.argmax(0)

    best, source = lax.scan(step, _log(initial)[:, None] + log_emission[0], log_emission[1:])
    last = best.argmax(0)

    def back(after, source):
        state = jnp.take_along_axis(source, after[None], axis=0)[0]
        return state, state

    _, before = lax.scan(back, last, source, reverse=True)
    return jnp.concatenate([before, last[None]])


def simulate_path(key, initial, transition, steps: int, sequences: int) -> jax.Array:
    """Paths from the chain itself, (time, sequence) of int."""
    uniform = jax.random.uniform(key, (steps, sequences), transition.dtype)
    first = _choose(jnp.broadcast_to(initial[:, None], (len(initial), sequences)), uniform[0])

    def step(state, uniform):
        state = _choose(transition[state].T, uniform)
        return state, state

    _, rest = lax.scan(step, first, uniform[1:])
    return jnp.concatenate([first[None], rest])
