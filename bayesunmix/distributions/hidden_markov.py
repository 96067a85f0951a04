"""Marginal likelihood of a hidden Markov model: the path of states, summed out.

z_1 ~ initial,   z_t ~ transition[z_t-1]      state of frame t
y_t ~ emission of state z_t                   independent over frames, and over families of features
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from bayesunmix.distributions import forward, paths


class HiddenMarkov(dist.Distribution):
    """Sequences whose frames are emitted by a hidden chain of states.

    Parameters
    ----------
    initial : (state,)
    transition : (state, next_state)
    emissions : tuple
        Families of :mod:`bayesunmix.distributions.emissions`, one after the other along the features.
    event_shape : (time,) or (time, feature)
    log_form : bool
        Sum paths in logarithms; needed where transitions are forbidden.
    """

    arg_constraints = {  # noqa: RUF012 (the name and type are NumPyro's)
        "initial": constraints.simplex,
        "transition": constraints.independent(constraints.simplex, 1),
    }
    pytree_data_fields = ("initial", "transition", "emissions")
    pytree_aux_fields = ("log_form",)

    def __init__(self, initial, transition, emissions, event_shape, *, log_form=False, validate_args=None):
        self.initial = jnp.asarray(initial)
        self.transition = jnp.asarray(transition)
        self.emissions = tuple(emissions)
        self.log_form = log_form
        super().__init__((), tuple(event_shape), validate_args=False)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape):
        """Same distribution for every sequence of ``batch_shape``; the parameters stay shared."""
        new = HiddenMarkov(self.initial, self.transition, self.emissions, self.event_shape, log_form=self.log_form)
        new._batch_shape = tuple(batch_shape)
        return new

    # ------------------------------------------------------------------ the marginal likelihood

    def log_prob(self, value, intermediates=None):
        """Log density of every sequence, shape ``value.shape[:-len(event_shape)]``; NaN is integrated out."""
        units = value.reshape(-1, *value.shape[value.ndim - len(self.event_shape) :])
        blocks = forward.blocks_that_pay(units.shape[1], len(self.initial), len(units))
        if self.log_form or blocks == 1:
            found = forward.log_likelihood(self.initial, self.transition, self.frames(units), log_form=self.log_form)
        else:
            found = forward.log_likelihood_of_blocks(self.initial, self.transition, *self._cut(units, blocks))
        return found.reshape(value.shape[: value.ndim - len(self.event_shape)])

    def _cut(self, value, blocks: int):
        """Log densities of the first frame, and of blocks of the others; data are cut, and not their densities."""
        sequences, steps = value.shape[:2]
        length = -(-(steps - 1) // blocks)

        def inside(array, fill):
            more = jnp.full((sequences, 1 + blocks * length - steps, *array.shape[2:]), fill, array.dtype)
            whole = jnp.concatenate([array[:, 1:], more], axis=1)
            return whole.reshape(sequences * blocks, length, *array.shape[2:])

        for part in (lambda array, _: array[:, :1], inside):
            families = []
            for family in self.emissions:
                noise = getattr(family, "noise", None)
                if noise is not None:
                    noise = jnp.broadcast_to(noise, (sequences, steps, *noise.shape[-2:]))
                    family = family._replace(noise=part(noise, 0.0))
                families.append(family)
            own = HiddenMarkov(self.initial, self.transition, families, self.event_shape)
            yield own.frames(part(value, jnp.nan))

    def log_prob_blocks(self, value, n_blocks: int):
        """log p(block | all frames before it) for ``n_blocks`` stretches of nearly equal length, (sequence, block)."""
        if self.log_form:
            steps = jax.nn.logsumexp(forward.log_filtered(self.initial, self.transition, self.frames(value)), axis=1)
            steps = jnp.diff(steps, axis=0, prepend=0.0)
        else:
            steps = forward.log_steps(self.initial, self.transition, self.frames(value))
        block = jnp.arange(len(steps)) * n_blocks // len(steps)
        return jax.ops.segment_sum(steps, block, n_blocks).T

    def frames(self, value):
        """log p(y_t | state), (time, state, sequence)."""
        y = value[..., None] if len(self.event_shape) == 1 else value
        start, log_p = 0, jnp.zeros((), y.dtype)
        for family in self.emissions:
            log_p = log_p + family.log_prob(y[..., start : start + family.columns])
            start += family.columns
        return jnp.transpose(log_p, (1, 2, 0))

    # ------------------------------------------------------------------ the latent

    def conditional(self, value) -> PathPosterior:
        """p(path | y, parameters) of sequences (sequence, time[, feature])."""
        frames = self.frames(value)
        filter_ = paths.filtered(self.initial, self.transition, frames, log_form=self.log_form)
        return PathPosterior(self.initial, self.transition, frames, filter_)

    def emission(self, latent) -> PathEmission:
        """p(y | path, parameters) for one-hot paths (sequence, time, state)."""
        return PathEmission(self.emissions, latent, len(self.event_shape) == 1)

    def sample(self, key, sample_shape=()):
        """Draw a path, then data."""
        return self.sample_with_latent(key, sample_shape)[0]

    def sample_with_latent(self, key, sample_shape=()):
        """Data and the one-hot paths that made them."""
        key_path, key_data = jax.random.split(key)
        outer = (*sample_shape, *self.batch_shape)
        count = 1
        for size in outer:
            count *= size
        path = paths.simulate_path(key_path, self.initial, self.transition, self.event_shape[0], count)
        latent = jax.nn.one_hot(path.T, len(self.initial), dtype=self.transition.dtype)
        y = self.emission(latent).sample(key_data)
        return y.reshape(*outer, *self.event_shape), latent.reshape(*outer, *latent.shape[1:])

    def _occupancy(self):
        """p(state_t) without data, (time, state)."""

        def step(share, _):
            return share @ self.transition, share

        return jax.lax.scan(step, self.initial, None, length=self.event_shape[0])[1]

    @property
    def mean(self):
        return jnp.broadcast_to(self._moments()[0], self.batch_shape + self.event_shape)

    @property
    def variance(self):
        return jnp.broadcast_to(self._moments()[1], self.batch_shape + self.event_shape)

    def _moments(self):
        """Mean and variance of every frame without its path."""
        states, steps = len(self.initial), self.event_shape[0]
        share = self._occupancy()
        one_hot = jnp.broadcast_to(jnp.eye(states)[:, None, :], (states, steps, states))
        given = [self.emission(one_hot[k : k + 1]) for k in range(states)]
        weight = [share[:, k].reshape(-1, *([1] * (len(self.event_shape) - 1))) for k in range(states)]
        mean = sum(w * g.mean[0] for w, g in zip(weight, given, strict=True))
        square = sum(w * (g.variance[0] + g.mean[0] ** 2) for w, g in zip(weight, given, strict=True))
        return mean, square - mean**2


class PathPosterior(NamedTuple):
    """Paths of every sequence given its data; arrays with time first as in :mod:`paths`."""

    initial: jax.Array
    transition: jax.Array
    frames: jax.Array
    filter: jax.Array

    @property
    def mean(self):
        """Smoothed probability of every state, (sequence, time, state)."""
        return jnp.transpose(paths.smoothed(self.transition, self.filter), (2, 0, 1))

    @property
    def variance(self):
        """Of the indicator of every state, (sequence, time, state)."""
        share = self.mean
        return share * (1.0 - share)

    @property
    def entropy(self):
        """Entropy of the state of every frame, (sequence, time), in nats."""
        return jax.scipy.special.entr(self.mean).sum(-1)

    def sample(self, key, sample_shape=()):
        """One-hot paths, ``sample_shape + (sequence, time, state)``."""
        count = 1
        for size in sample_shape:
            count *= size
        draw = lambda k: paths.sample_path(k, self.transition, self.filter).T  # noqa: E731
        path = jax.vmap(draw)(jax.random.split(key, count))
        path = path.reshape(*sample_shape, *path.shape[1:])
        return jax.nn.one_hot(path, len(self.initial), dtype=self.filter.dtype)

    def viterbi(self):
        """Most probable path, (sequence, time) of int."""
        return paths.most_probable_path(self.initial, self.transition, self.frames).T


class PathEmission:
    """Frames given their states: what the engine predicts and checks with."""

    def __init__(self, emissions: tuple[Any, ...], path, single: bool):
        self.emissions, self.path, self.single = emissions, path, single
        columns = sum(family.columns for family in emissions)
        self.batch_shape = path.shape[:-2]
        self.event_shape = (path.shape[-2],) if single else (path.shape[-2], columns)

    def _joined(self, parts):
        y = jnp.concatenate(parts, axis=-1)
        return y[..., 0] if self.single else y

    @property
    def mean(self):
        return self._joined([family.mean(self.path) for family in self.emissions])

    @property
    def variance(self):
        return self._joined([family.variance(self.path) for family in self.emissions])

    def sample(self, key, sample_shape=()):
        path = jnp.broadcast_to(self.path, (*sample_shape, *self.path.shape))
        keys = jax.random.split(key, len(self.emissions))
        return self._joined([family.sample(k, path) for family, k in zip(self.emissions, keys, strict=True)])

    def discrepancy(self, y):
        """Misfit of every sequence, missing frames left out: chi-square, or -2 log density of symbols and waits."""
        y = y[..., None] if self.single else y
        start, found = 0, jnp.zeros(y.shape[:-2], y.dtype)
        for family in self.emissions:
            found = found + family.discrepancy(y[..., start : start + family.columns], self.path).sum(-1)
            start += family.columns
        return found
