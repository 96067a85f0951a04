"""Hidden Markov model: sequences whose frames are shown by a state that hops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr

from bayesunmix.align import within
from bayesunmix.distributions.hidden_markov import HiddenMarkov
from bayesunmix.models import _hidden_markov_data as frames
from bayesunmix.models import _hidden_markov_settings as settings
from bayesunmix.models._hidden_markov_gibbs import PathSampler
from bayesunmix.models._hidden_markov_priors import emissions_at, label_groups, prior_of
from bayesunmix.models._hidden_markov_start import emission_means, start
from bayesunmix.models._hyperparameters import hyperparameters


@hyperparameters
@dataclass(frozen=True, eq=False)
class HiddenMarkovModel:
    """A chain of ``n_states`` hidden states, and what each of them shows in a frame.

    The story, for sequence n, frame t and state k::

        pi        ~ Dirichlet(initial_concentration)
        A_k       ~ Dirichlet(transition_concentration, + stickiness where the state stays)
        z_n1      ~ pi,    z_nt ~ A[z_n,t-1]
        y_nt      ~ Normal(means[z], scales[z]**2)      emission="normal", one feature
                    Normal(means[z], covariances[z])    several features, known measurement covariance added
                    Categorical(probabilities[z])       a confusion matrix: what a detector calls the state
                    Poisson(rates[z]), or Exponential(rates[z])

    A list of emissions is a product: one feature each, independent given the state. The path of states is summed out of
    the likelihood (:class:`~bayesunmix.distributions.hidden_markov.HiddenMarkov`), and so are missing frames (NaN), as
    far as being missing says nothing about the state.

    *Identifiable*: the states up to their order, when emissions or dwell times differ. States are put in the order of
    their emission mean (the first feature that has one); draws are matched to each other before that. States that
    priors, fixed values or forbidden transitions tell apart keep the place they were given, and the others are put in
    order among those they can change places with: two live states before an absorbing one, for example.
    *Not identifiable*: a state that is never visited (its emission keeps the prior), and ``initial`` beyond what one
    frame a sequence tells.

    Parameters
    ----------
    n_states : int
    emission : str, or a sequence of str
        "normal", "categorical", "poisson", "exponential".
    transition_concentration : float, (n_states,) or (n_states, n_states)
    initial_concentration : float or (n_states,)
    stickiness : float
        Added to the concentration of staying.
    absorbing : sequence of int
        States that are never left, such as "lost".
    forbidden : sequence of (state, next_state)
        Transitions of probability zero.
    priors : dict
        By parameter: ``means``, ``scales``, ``covariances``, ``rates``, ``probabilities``, with the feature's number
        as suffix under a list (``rates_0``). A NumPyro distribution, or its name and parameters
        (``{"kind": "Normal", "loc": [0, 3], "scale": 1}``); parameters broadcast against (state[, feature]).
    fixed : dict
        Known values by parameter, also ``initial`` and ``transition``.
    ordered : bool, or a sequence of str
        Constrain ``means`` or ``rates`` (or those named) to increase from state to state.
    covariance : "full" or "diagonal"
        Of normal emissions of several features.
    soft : bool
        Categorical data are the probabilities that a classifier gave, a column for every symbol, also in a list.
    n_symbols, n_steps, n_features
        Sizes that :meth:`bind` reads from the data.
    log_form : bool
        Sum over paths in logarithms; set where some hop or first state is impossible.

    Raises
    ------
    ValueError, TypeError
        For names, sizes or numbers out of range.

    References
    ----------
    Rabiner, Proc. IEEE 77, 257 (1989); Scott, J. Am. Stat. Assoc. 97, 337 (2002), for the sampler behind ``Gibbs``;
    Dawid & Skene, Appl. Stat. 28, 20 (1979), for the confusion matrix; Fox et al., Ann. Appl. Stat. 5, 1020 (2011), for
    sticky rows.
    """

    n_states: int = field(metadata={"static": True})
    emission: Any = field(default="normal", metadata={"static": True})
    transition_concentration: Any = 1.0
    initial_concentration: Any = 1.0
    stickiness: float = 0.0
    absorbing: Any = field(default=(), metadata={"static": True})
    forbidden: Any = field(default=(), metadata={"static": True})
    priors: Any = None
    fixed: Any = None
    ordered: Any = field(default=False, metadata={"static": True})
    covariance: str = field(default="full", metadata={"static": True})
    soft: bool = field(default=False, metadata={"static": True})
    n_symbols: Any = field(default=None, metadata={"static": True})
    n_steps: Any = field(default=None, metadata={"static": True})
    n_features: Any = field(default=None, metadata={"static": True})
    log_form: bool = field(default=False, metadata={"static": True})

    unit = "sequence"
    latent = "state"

    def __post_init__(self) -> None:
        self._put(settings.checked_sizes(self))
        settings.check_ways(self)
        self._put(settings.checked_numbers(self))
        self._put({"log_form": settings.needs_log_form(self)})

    def _put(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------------ names and sizes

    @property
    def families(self) -> tuple[str, ...]:
        """Emission families in order."""
        return (self.emission,) if isinstance(self.emission, str) else self.emission

    @property
    def suffixes(self) -> list[str]:
        """What the parameters of every family carry after their name."""
        return [""] if isinstance(self.emission, str) else [f"_{i}" for i in range(len(self.families))]

    @property
    def wide(self) -> bool:
        """Whether one normal family describes several features."""
        return self.emission == "normal" and (self.n_features or 1) > 1

    @property
    def parameters(self) -> dict[str, str]:
        """Emission parameters: name with suffix, and name without."""
        found = {}
        for family, suffix in zip(self.families, self.suffixes, strict=True):
            for name in settings.EMISSIONS[family]:
                spread = "covariances" if self.wide and self.covariance == "full" else "scales"
                if name in ("scales", "covariances") and name != spread:
                    continue
                found[name + suffix] = name
        return found

    @property
    def allowed(self) -> tuple[tuple[bool, ...], ...]:
        """Which transitions can happen."""
        return tuple(
            tuple((i, j) not in self.forbidden and (i not in self.absorbing or i == j) for j in range(self.n_states))
            for i in range(self.n_states)
        )

    @property
    def restricted(self) -> bool:
        """Whether some transition cannot happen."""
        return not all(map(all, self.allowed))

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter; "channel" is the data's own time, "feature" their last dim."""
        wide = ("feature",) if self.wide else ()
        by_name = {
            "means": ("state", *wide),
            "scales": ("state", *wide),
            "covariances": ("state", "feature", "other_feature"),
            "rates": ("state",),
            "probabilities": ("state", "symbol"),
        }
        found = {name: by_name[plain] for name, plain in self.parameters.items()}
        chain = {"initial": ("state",), "transition": ("state", "next_state")}
        return {**chain, **found, "state": ("channel", "state")}

    @property
    def bound(self) -> bool:
        """Whether the priors are numbers already."""
        return self.n_steps is not None

    @property
    def label_groups(self) -> tuple[tuple[int, ...], ...]:
        """States that nothing but the data tells apart, so that their order is arbitrary; every state in one group."""
        return label_groups(self)

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int, measurement_cov=None) -> None:
        """The program of inference: paths summed out. ``y`` is (sequence, time[, feature])."""
        if y is not None:
            frames.check_noise(measurement_cov, y.shape, self)
        initial, transition, families = self._globals(measurement_cov)
        shape = self._event_shape if y is None else y.shape[1:]
        likelihood = HiddenMarkov(initial, transition, families, shape, log_form=self.log_form)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int) -> None:
        """The same model as in a paper, the state of every frame a discrete latent variable."""
        initial, transition, families = self._globals(None)
        steps = (self._event_shape if y is None else y.shape[1:])[0]
        columns = None if y is None else y.reshape(n_units, steps, -1)
        with numpyro.plate("unit", n_units):
            state = numpyro.sample("state_0", dist.Categorical(initial))
            for t in range(steps):
                if t > 0:
                    state = numpyro.sample(f"state_{t}", dist.Categorical(transition[state]))
                start = 0
                for family, suffix in zip(families, self.suffixes, strict=True):
                    frame = None if columns is None else columns[:, t, start : start + family.columns]
                    family.observe(f"y_{t}{suffix}", state, frame)
                    start += family.columns

    @property
    def _event_shape(self) -> tuple[int, ...]:
        return (self.n_steps,) if self.n_features is None else (self.n_steps, self.n_features)

    def _globals(self, measurement_cov):
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        initial, transition, *rest = (self._value(name) for name in ("initial", "transition", *self.parameters))
        found = dict(zip(self.parameters, rest, strict=True))
        return initial, transition, emissions_at(self, found, measurement_cov)

    def _value(self, name: str):
        if name in self.fixed:
            return jnp.broadcast_to(jnp.asarray(self.fixed[name], jnp.result_type(float)), self.shape_of(name))
        return numpyro.sample(name, self.prior(name))

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter of the bound model."""
        sizes = {"state": self.n_states, "next_state": self.n_states, "symbol": self.n_symbols}
        return tuple(int(sizes.get(dim, self.n_features)) for dim in self.dims[name])

    def prior(self, name: str) -> dist.Distribution:
        """Prior of a parameter, one event."""
        return prior_of(self, name)

    def orders(self, name: str) -> bool:
        """Whether the states are constrained to increase in a parameter."""
        if isinstance(self.ordered, tuple):
            return name in self.ordered
        first = next((n for n, plain in self.parameters.items() if plain in ("means", "rates")), None)
        return self.ordered and name == first

    # ------------------------------------------------------------------ what the engine asks of a model

    def bind(self, data) -> HiddenMarkovModel:
        """The same model with its sizes, and priors that were not given scaled to ``data`` (sequence, time, ...)."""
        values = np.asarray(data, dtype=np.float64)
        sizes = {
            "n_steps": values.shape[1],
            "n_features": values.shape[2] if values.ndim == 3 else None,
            "n_symbols": frames.count_symbols(values, self.families, self.soft, settings.known_symbols(self)),
        }
        sized = replace(self, **sizes)
        frames.check(values, sized)
        if sized.n_states == 1:
            sized = replace(sized, fixed={**sized.fixed, "initial": np.ones(1), "transition": np.ones((1, 1))})
        for name in sized.ordered if isinstance(sized.ordered, tuple) else ():
            if name not in sized.parameters or len(sized.dims[name]) != 1:
                raise ValueError(f"ordered: expected parameters with one number a state, got {name!r}")
        if sized.ordered is True and sized.wide:
            raise ValueError("ordered: only for one feature; give a list of emissions for several")
        defaults = frames.default_priors(values, sized)
        wanted = {
            name: sized.priors.get(name) or defaults[name] for name in sized.parameters if name not in sized.fixed
        }
        if not wanted and {"initial", "transition"} <= set(sized.fixed):
            raise ValueError("fixed: everything is known, so there is nothing to infer; leave one parameter free")
        bound = replace(sized, priors=wanted)
        settings.check_values(bound)
        return bound

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: frames clustered, and counts of the clusters' hops."""
        return start(np.asarray(data, dtype=np.float64), self)

    def order(self, draws) -> np.ndarray:
        """States by increasing emission mean, from parameters without sample axes."""
        return np.argsort(emission_means(draws, self), kind="stable")

    @property
    def label_dims(self) -> tuple[str, ...]:
        """Dims that carry an exchangeable label, to be matched across draws and put in the order of :meth:`order`."""
        return _AXES if len(self.label_groups) < self.n_states else ()

    def relabelled(self, truth: xr.Dataset) -> xr.Dataset:
        """A simulated truth with its states in canonical order."""
        if not self.label_dims:
            return truth
        fixed = {name: np.broadcast_to(v, (self.n_states, *np.shape(v)[1:])) for name, v in self.fixed.items()}
        known = {**fixed, **{str(n): v.values for n, v in truth.data_vars.items()}}
        order = within(self.order(known), self.label_groups)
        moved = truth.isel({dim: order for dim in _AXES if dim in truth.dims})
        if "path" in truth:
            moved["path"] = truth["path"].copy(data=np.argsort(order)[truth["path"].values])
        return moved.assign_coords({d: truth[d] for d in _AXES if d in truth.coords and truth[d].ndim == 1})

    def gibbs(self, y, covariates: Mapping[str, Any]) -> PathSampler:
        """The model's own sampler: paths given parameters, parameters given paths."""
        return PathSampler(self, y, covariates)

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        return settings.describe(self)


_AXES = ("state", "next_state")
