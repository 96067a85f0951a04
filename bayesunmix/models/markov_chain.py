"""Markov chain of states that are seen directly: its posterior has a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesunmix._counts import as_count
from bayesunmix.distributions.observed_chain import ObservedChain
from bayesunmix.models._hyperparameters import hyperparameters


@hyperparameters
@dataclass(frozen=True, eq=False)
class MarkovChain:
    """Sequences of observed states 0 ... ``n_states`` - 1 that hop with fixed probabilities.

    The story, for sequence n and frame t = 0, lag, 2 lag, ...::

        pi    ~ Dirichlet(concentration)
        A_k   ~ Dirichlet(concentration)                  every row, reversible=False
        A_kl  = x_kl / sum_l x_kl,  x symmetric            reversible=True: detailed balance,
                x ~ Dirichlet(concentration) over pairs k <= l
        y_n0  ~ pi,    y_n,t+lag ~ A[y_nt]

    Counts of hops are pooled over sequences. Without detailed balance the posterior is Dirichlet, row by row, and is
    drawn from directly (``Gibbs()``, the default, whose draws are then independent). Averaging the probabilities of
    single trajectories instead of pooling their counts is biased, more so the shorter they are.

    *Identifiable*: rows of states that were left. *Not identifiable*: a row of a state that was never seen keeps its
    prior. With ``lag`` > 1 only every lag-th frame enters, so that no hop counts twice.

    Parameters
    ----------
    n_states : int
    lag : int
        Frames of one step.
    reversible : bool
        Detailed balance; needs ``NUTS()`` or ``SVI()``.
    concentration : float, or (n_states, n_states) where not reversible
        1 is uniform.
    initial_concentration : float or (n_states,)
    n_steps
        Frames, read from the data by :meth:`bind`.

    Raises
    ------
    ValueError
        For sizes or numbers out of range, states that are no whole numbers below ``n_states``, and missing frames
        inside a sequence (``HiddenMarkovModel`` with known ``probabilities`` integrates them out).

    References
    ----------
    Strelioff, Crutchfield & Huebler, Phys. Rev. E 76, 011106 (2007), for the Dirichlet posterior; Noe, J. Chem. Phys.
    128, 244103 (2008), for detailed balance.
    """

    n_states: int = field(metadata={"static": True})
    lag: int = field(default=1, metadata={"static": True})
    reversible: bool = field(default=False, metadata={"static": True})
    concentration: Any = 1.0
    initial_concentration: Any = 1.0
    n_steps: int | None = field(default=None, metadata={"static": True})

    unit = "sequence"

    def __post_init__(self) -> None:
        for name, least in (("n_states", 2), ("lag", 1)):
            object.__setattr__(self, name, as_count(name, getattr(self, name), least))
        shapes = {
            "concentration": (self.n_states,) * (0 if self.reversible else 2),
            "initial_concentration": (self.n_states,),
        }
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape not in ((), shape) or not (np.isfinite(value) & (value > 0)).all():
                raise ValueError(f"{name}: expected positive numbers of shape () or {shape}, got {value}")
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int) -> None:
        """The program of inference. ``y`` is (sequence, time), NaN beyond the end of a sequence."""
        if self.n_steps is None:
            raise ValueError("the number of frames is not known yet: call model.bind(data) first (bu.fit does it)")
        initial = numpyro.sample("initial", dist.Dirichlet(self._initial_weights))
        if self.reversible:
            first, second = np.triu_indices(self.n_states)
            flow = numpyro.sample("flow", dist.Dirichlet(jnp.full(len(first), self.concentration)))
            full = jnp.zeros((self.n_states, self.n_states), flow.dtype).at[first, second].set(flow)
            full = full.at[second, first].set(flow)
            transition = numpyro.deterministic("transition", full / full.sum(-1, keepdims=True))
        else:
            transition = numpyro.sample("transition", dist.Dirichlet(self._weights).to_event(1))
        steps = self.n_steps if y is None else y.shape[1]
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", ObservedChain(initial, transition, steps, lag=self.lag), obs=y)

    joint = __call__  # there is nothing to integrate out

    @property
    def _weights(self):
        return jnp.broadcast_to(jnp.asarray(self.concentration), (self.n_states, self.n_states))

    @property
    def _initial_weights(self):
        return jnp.broadcast_to(jnp.asarray(self.initial_concentration), (self.n_states,))

    # ------------------------------------------------------------------ what the engine asks of a model

    @property
    def bound(self) -> bool:
        """Whether the sizes are known."""
        return self.n_steps is not None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter."""
        return {"initial": ("state",), "transition": ("state", "next_state"), "flow": ("pair",)}

    def bind(self, data) -> MarkovChain:
        """The same model with the number of frames, after a look at the data (sequence, time)."""
        values = np.asarray(data, dtype=np.float64)
        seen = np.isfinite(values)
        if values.ndim != 2:
            raise ValueError(f"expected states (sequence, time), got data of shape {values.shape}")
        if ((values[seen] < 0) | (values[seen] >= self.n_states) | (values[seen] % 1 != 0)).any():
            raise ValueError(f"expected states 0 to {self.n_states - 1}, got {np.unique(values[seen])[:8]}")
        kept = seen[:, :: self.lag]
        if not kept[:, 0].all() or (kept[:, 1:] & ~kept[:, :-1]).any():
            raise ValueError(
                "frames are missing inside a sequence: integrate them out with HiddenMarkovModel(n_states, "
                "'categorical', fixed={'probabilities': np.eye(n_states)})"
            )
        if not (kept[:, 1:] & kept[:, :-1]).any():
            raise ValueError(f"expected two frames of a sequence a lag of {self.lag} apart, got none: no hop was seen")
        return replace(self, n_steps=values.shape[1])

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: the shares that were counted."""
        first, hops = self.counts(np.asarray(data, dtype=np.float64))
        begin = {"initial": (first + 1.0) / (first + 1.0).sum()}
        if self.reversible:
            flow = (hops + hops.T + 1.0)[np.triu_indices(self.n_states)]
            return {**begin, "flow": flow / flow.sum()}
        return {**begin, "transition": (hops + 1.0) / (hops + 1.0).sum(1, keepdims=True)}

    def counts(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """First states (state,) and pooled hops (state, next_state) of sequences (sequence, time)."""
        kept = values[:, :: self.lag]
        both = np.isfinite(kept[:, :-1]) & np.isfinite(kept[:, 1:])
        hops = np.zeros((self.n_states, self.n_states))
        np.add.at(hops, (kept[:, :-1][both].astype(int), kept[:, 1:][both].astype(int)), 1.0)
        return np.bincount(kept[:, 0].astype(int), minlength=self.n_states).astype(float), hops

    @property
    def gibbs(self):
        """Independent draws from the closed form; a reversible chain has none."""
        if self.reversible:
            raise AttributeError("a reversible chain has no posterior in closed form")
        return self._closed_form

    def _closed_form(self, y, covariates: Mapping[str, Any]) -> DirichletRows:
        if covariates:
            raise TypeError(f"expected no covariates, got {sorted(covariates)}")
        first, hops = self.counts(np.asarray(y, dtype=np.float64))
        return DirichletRows(np.asarray(self._initial_weights) + first, np.asarray(self._weights) + hops)

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        step = "frame to frame" if self.lag == 1 else f"over {self.lag} frames"
        kind = "with detailed balance" if self.reversible else "every row on its own"
        return (
            f"States are observed and hop between {self.n_states} values, {step}.\n"
            f"Transition probabilities: Dirichlet of concentration {np.asarray(self.concentration).tolist()}, {kind}."
        )


class DirichletRows:
    """The posterior itself, as the engine drives a sampler: every sweep is an independent draw."""

    def __init__(self, initial: np.ndarray, transition: np.ndarray):
        self.initial, self.transition = initial, transition

    def start(self, rng: np.random.Generator, chains: int) -> dict[str, np.ndarray]:
        """A draw for every chain."""
        return {name: _dirichlet(rng, getattr(self, name), chains) for name in ("initial", "transition")}

    def sweep(self, state: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Another draw for every chain."""
        return self.start(rng, len(state["initial"]))

    @staticmethod
    def values(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters by name, (chain, ...)."""
        return state


def _dirichlet(rng: np.random.Generator, weights: np.ndarray, chains: int) -> np.ndarray:
    gamma = rng.standard_gamma(weights, (chains, *weights.shape))
    return gamma / gamma.sum(-1, keepdims=True)
