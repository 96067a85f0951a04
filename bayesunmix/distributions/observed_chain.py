"""Density of sequences of states that are seen directly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import paths


class ObservedChain(dist.Distribution):
    """A Markov chain seen in every ``lag``-th frame: frames 0, lag, 2 lag, ... of a sequence.

    Frames between them are not part of the density, so that no transition is counted twice.

    Parameters
    ----------
    initial : (state,)
    transition : (state, next_state), over ``lag`` frames
    steps : int
        Frames of a sequence.
    lag : int
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "initial": constraints.simplex,
        "transition": constraints.independent(constraints.simplex, 1),
    }
    support = constraints.real_vector
    pytree_data_fields = ("initial", "transition")
    pytree_aux_fields = ("lag",)

    def __init__(self, initial, transition, steps: int, *, lag: int = 1, validate_args=None):
        self.initial, self.transition, self.lag = jnp.asarray(initial), jnp.asarray(transition), lag
        super().__init__((), (steps,), validate_args=False)

    def expand(self, batch_shape):
        """Same distribution for every sequence of ``batch_shape``; the parameters stay shared."""
        new = ObservedChain(self.initial, self.transition, self.event_shape[0], lag=self.lag)
        new._batch_shape = tuple(batch_shape)
        return new

    def log_prob(self, value, intermediates=None):
        """Log density of sequences (..., time), NaN beyond their ends."""
        tiny = jnp.finfo(self.transition.dtype).tiny
        log_initial = jnp.log(jnp.maximum(self.initial, tiny))
        log_transition = jnp.log(jnp.maximum(self.transition, tiny))
        here, there, both = pairs(value, self.lag)
        first = log_initial[jnp.nan_to_num(value[..., 0]).astype(jnp.int32)]
        return first + jnp.where(both, log_transition[here, there], 0.0).sum(-1)

    def sample(self, key, sample_shape=()):
        """Sequences with NaN in the frames that the lag leaves out."""
        shape = (*sample_shape, *self.batch_shape)
        count = 1
        for size in shape:
            count *= size
        steps = self.event_shape[0]
        seen = -(-steps // self.lag)
        path = paths.simulate_path(key, self.initial, self.transition, seen, count).T
        full = jnp.full((count, steps), jnp.nan, self.transition.dtype).at[:, :: self.lag].set(path)
        return full.reshape(*shape, steps)

    def discrepancy(self, value):
        """-2 log density: how improbable the hops of a sequence are."""
        return -2.0 * self.log_prob(value)

    def _moments(self):
        """Mean and variance of the state's number in every frame."""

        def step(share, _):
            return share @ self.transition, share

        share = jax.lax.scan(step, self.initial, None, length=self.event_shape[0])[1]
        number = jnp.arange(len(self.initial), dtype=self.transition.dtype)
        mean = share @ number
        return mean, share @ number**2 - mean**2

    @property
    def mean(self):
        return jnp.broadcast_to(self._moments()[0], self.batch_shape + self.event_shape)

    @property
    def variance(self):
        return jnp.broadcast_to(self._moments()[1], self.batch_shape + self.event_shape)


def pairs(value, lag: int):
    """States ``lag`` frames apart that share no frame between them: here, there, and whether both were seen."""
    kept = value[..., ::lag]
    both = jnp.isfinite(kept[..., :-1]) & jnp.isfinite(kept[..., 1:])
    state = jnp.nan_to_num(kept).astype(jnp.int32)
    return state[..., :-1], state[..., 1:], both
