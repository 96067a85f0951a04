"""Paths of hidden states given the data: filtered and smoothed probabilities, draws, the most probable path.

Arrays have time first and the sequences last, as in :mod:`forward`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from bayesunmix.distributions.forward import log_filtered, log_of, predictor, weights


def filtered(initial, transition, log_emission, *, log_form: bool = False) -> jax.Array:
    """p(state_t | y_1 ... y_t), (time, state, sequence)."""
    if log_form:
        return jax.nn.softmax(log_filtered(initial, transition, log_emission), axis=1)
    weight, _ = weights(log_emission)
    predict = predictor(transition)

    def frame(predicted, weight):
        joint = predicted * weight
        return joint / joint.sum(0)

    def step(state, weight):
        state = frame(predict(state), weight)
        return state, state

    first = frame(initial[:, None], weight[0])
    _, rest = lax.scan(step, first, weight[1:], unroll=2)
    return jnp.concatenate([first[None], rest])


def smoothed(transition, filter_) -> jax.Array:
    """p(state_t | all of y) from the filter, (time, state, sequence)."""
    tiny = jnp.finfo(filter_.dtype).tiny
    predict, back_to = predictor(transition), predictor(transition.T)

    def back(after, now):
        now = now * back_to(after / jnp.maximum(predict(now), tiny))
        now = now / jnp.maximum(now.sum(0), tiny)
        return now, now

    last = filter_[-1]
    _, before = lax.scan(back, last, filter_[:-1], reverse=True)
    return jnp.concatenate([before, last[None]])


def sample_path(key, transition, filter_) -> jax.Array:
    """A path of every sequence given all of y, by backward sampling from the filter, (time, sequence) of int.

    The state of a frame is drawn for every state that may follow, all frames at once; the path is what hangs together.
    """
    uniform = jax.random.uniform(key, (len(filter_), filter_.shape[2]), filter_.dtype)
    last = _choose(filter_[-1], uniform[-1])
    candidates = _choose(jnp.moveaxis(filter_[:-1], 1, 0)[..., None, :] * transition[:, None, :, None],
                         uniform[:-1, None])  # fmt: skip
    return _traced(candidates, last)


def _choose(chances, uniform):
    """A place along the first axis of ``chances``, with probability in proportion; never one of chance zero."""
    places = list(chances)
    whole, below, found = sum(places), 0.0, 0
    for chance in places[:-1]:
        below = below + chance
        found = found + (uniform * whole >= below).astype(jnp.int32)
    return jnp.broadcast_to(found, whole.shape).astype(jnp.int32)


def _traced(before, last):
    """The path (time, sequence) to ``last``; ``before`` (time, next state, sequence) is the state before each."""

    def back(after, before):
        state = jnp.take_along_axis(before, after[None], axis=0)[0]
        return state, state

    _, path = lax.scan(back, last, before, reverse=True)
    return jnp.concatenate([path, last[None]])


def most_probable_path(initial, transition, log_emission) -> jax.Array:
    """The path with the highest posterior probability (Viterbi), (time, sequence) of int."""
    log_transition = log_of(transition)

    def step(best, log_emission):
        reach = best[:, None] + log_transition[:, :, None]
        return reach.max(0) + log_emission, reach.argmax(0).astype(jnp.int32)

    best, source = lax.scan(step, log_of(initial)[:, None] + log_emission[0], log_emission[1:])
    return _traced(source, best.argmax(0).astype(jnp.int32))


def simulate_path(key, initial, transition, steps: int, sequences: int) -> jax.Array:
    """Paths from the chain itself, (time, sequence) of int."""
    uniform = jax.random.uniform(key, (steps, sequences), transition.dtype)
    first = _choose(jnp.broadcast_to(initial[:, None], (len(initial), sequences)), uniform[0])

    def step(state, uniform):
        state = _choose(transition[state].T, uniform)
        return state, state

    _, rest = lax.scan(step, first, uniform[1:])
    return jnp.concatenate([first[None], rest])
