"""The forward recursion along a chain of hidden states: log densities of sequences, their paths summed out.

Densities come as ``log_emission`` (time, state, sequence): log p(y_t | state) of every frame, 0 in every state where a
frame is missing. The sequences lie along the last axis, so that a step is a few vector operations over all of them.
The scaled form keeps probabilities that are renormalised on the way; the log form is for chains with forbidden
transitions, where a probability may underflow beside an exact zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

_LONG = 4096  # steps from which blocks pay on a CPU, slopes included
_LANES = 128  # blocks of all sequences together that keep its vector units busy
_MANY_STATES = 8  # a block carries one vector per state; beyond, that costs more than it saves
_FEW_STATES = 4  # up to here a step is faster written out than as a matrix product
_EVERY = 8  # steps between renormalisations in double precision
_HANDFUL = 3  # numbers that a compiler keeps in registers, so that renormalising them costs nothing
_RAREST = 1e-37  # transition probability below which a path is not told from a rarer one


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
    weight, top = weights(log_emission)
    start = (initial[:, None] * weight[0])[:, None]
    return run(transition, start, weight[1:])[1] + total(top)


def blocks_that_pay(steps: int, states: int, sequences: int) -> int:
    """Into how many blocks a long sequence is best cut, a power of two; 1 where cutting does not pay."""
    most = max(1, _LANES // sequences) if steps >= _LONG and states <= _MANY_STATES else 1
    return 1 << (most.bit_length() - 1)


def log_likelihood_of_blocks(initial, transition, first, inside) -> jax.Array:
    """The same for sequences that are cut into blocks, which run side by side.

    What a block does to the state before it is a matrix; it is found by running the block from every state at once.

    Parameters
    ----------
    initial, transition
        As in :func:`log_likelihood`.
    first : (1, state, sequence)
        The first frame.
    inside : (length, state, sequence * block)
        The blocks of every sequence, one after the other along the last axis; a power of two of them.
    """
    _, states, lanes = inside.shape
    sequences = first.shape[2]
    weight, top = weights(inside)
    unit = jnp.broadcast_to(jnp.eye(states, dtype=weight.dtype)[:, :, None], (states, states, lanes))
    matrix, log_size = run(transition, unit, weight)
    matrix = jnp.transpose(matrix.reshape(states, states, sequences, -1), (3, 0, 1, 2))
    log_size = (log_size + total(top)).reshape(sequences, -1).T
    # Neighbours are joined, and so are the sums: in float32 a plain sum over blocks would lose some hundredths.
    while len(matrix) > 1:
        matrix = _product(matrix[1::2], matrix[::2])
        size = matrix.sum(1).max(1)
        matrix, log_size = matrix / size[:, None, None], log_size[::2] + log_size[1::2] + jnp.log(size)
    state, (size, top_first) = normalised(initial[:, None], first[0])
    last = (matrix[0] * state).sum((0, 1))
    return log_size[0] + (jnp.log(size) + top_first + jnp.log(last))


def _product(after, before):
    """Products of matrices (block, state now, state before, sequence)."""
    return sum(after[:, :, k, None] * before[:, k, None] for k in range(after.shape[2]))


def weights(log_emission):
    """Densities of frames in units of the most probable state's, and the logarithm of that, (time, sequence)."""
    top = log_emission.max(-2)
    top = lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0.0))
    return jnp.exp(log_emission - top[..., None, :]), top


def predictor(transition):
    """A function from probabilities (state, ..., sequence) to those of the next frame."""
    rows = jnp.maximum(transition, _RAREST)
    if len(transition) > _FEW_STATES:
        columns = rows.T
        return lambda state: (columns @ state.reshape(len(columns), -1)).reshape(state.shape)

    def written_out(state):
        shape = (len(rows), *[1] * (state.ndim - 1))
        return sum(rows[k].reshape(shape) * state[k] for k in range(len(rows)))

    return written_out


def run(transition, state, weight):
    """Probabilities ``state`` (state, origin, lane) taken through the frames of ``weight`` (time, state, lane).

    Returns them renormalised over states and the largest of the origins, and the logarithm of what was taken out.
    In double precision several steps go by between renormalisations: a path of the most probable states holds at least
    the rarest transition's probability to that power, so nothing that matters underflows.
    """
    every = _EVERY if weight.dtype == jnp.float64 and state.size > _HANDFUL else 1
    predict = predictor(transition)

    def frame(state, weight):
        return predict(state) * weight[:, None], None

    def renormalised(state):
        size = state.sum(0).max(0)
        return state / size, size

    def stretch(state, weight):
        return renormalised(lax.scan(frame, state, weight)[0] if every > 1 else frame(state, weight[0])[0])

    state, size = renormalised(state)
    log_size = jnp.log(size)
    whole = len(weight) // every * every
    if whole:
        state, sizes = lax.scan(stretch, state, weight[:whole].reshape(-1, every, *weight.shape[1:]))
        log_size = log_size + total(jnp.log(sizes))
    if whole < len(weight):
        state, size = stretch(state, weight[whole:])
        log_size = log_size + jnp.log(size)
    return state, log_size


def normalised(predicted, log_emission):
    """Probabilities after a frame, and its density as a number and the log that was taken out of it."""
    weight, top = weights(log_emission)
    joint = predicted * weight
    size = joint.sum(0)
    return joint / size, (size, top)


def log_steps(initial, transition, log_emission) -> jax.Array:
    """log p(y_t | y_1 ... y_t-1) of every frame, (time, sequence)."""
    first, log_first = normalised(initial[:, None], log_emission[0])
    predict = predictor(transition)

    def step(state, log_emission):
        return normalised(predict(state), log_emission)

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


def log_filtered(initial, transition, log_emission) -> jax.Array:
    """log p(state_t, y_1 ... y_t), (time, state, sequence)."""
    log_transition = log_of(transition)

    def step(state, log_emission):
        joint = jax.nn.logsumexp(state[:, None] + log_transition[:, :, None], axis=0) + log_emission
        return joint, joint

    first = log_of(initial)[:, None] + log_emission[0]
    _, rest = lax.scan(step, first, log_emission[1:])
    return jnp.concatenate([first[None], rest])


def log_of(probability):
    """Log with a very small number for an exact zero, so that slopes stay finite."""
    floor = jnp.finfo(probability.dtype).tiny
    return jnp.log(jnp.maximum(probability, floor)) + jnp.where(probability > 0, 0.0, _NEVER)


_NEVER = -1e5
