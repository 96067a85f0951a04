"""Mixture of von Mises laws: every set of bond angles belongs to one of a few classes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesunmix._counts import as_count
from bayesunmix.data.clusters import clusters
from bayesunmix.distributions.angles import AngleMixture, WrappedNormal, nearest_turn
from bayesunmix.models._hyperparameters import hyperparameters

_LEVEL = 6.0  # prior median of a class's concentration, in one over the circular variance of all the data


@hyperparameters
@dataclass(frozen=True, eq=False)
class VonMisesMixture:
    """Mixture of ``n_components`` classes of angles, such as :func:`bayesunmix.descriptors.bond_angles`.

    The story, for unit n, angle f in radians and class k::

        w        ~ Dirichlet(1, ..., 1)              weights="equal": 1 / n_components each
        m_kf     ~ WrappedNormal(centre_f, 1.5)      a multiple of 2 pi does not matter
        kappa_kf ~ LogNormal(log level_f, 1.5)        dispersion="tied": one for all classes and angles
        c_n      ~ Categorical(w)
        y_nf     ~ VonMises(m_{c_n f}, kappa_{c_n f})

    ``centre`` and ``level`` are taken from the data once, by :meth:`bind`. The class is summed out of the likelihood
    (:class:`~bayesunmix.distributions.angles.AngleMixture`). Measurement errors are part of the dispersion.

    *Identifiable*: classes whose angles lie apart by more than their dispersion. *Not identifiable*: the order of the
    classes (they are put in the order of decreasing weight).

    *Limits*: ``weights="equal", dispersion="tied"`` with a growing concentration is k-means on the angles, taken as
    points of the unit circle.

    Parameters
    ----------
    n_components : int
    weights : "free" or "equal"
    dispersion : "free" or "tied"
    centre, level
        The numbers :meth:`bind` fills in, per angle.

    Raises
    ------
    ValueError
        For sizes or names out of range, and data that are no angles.

    References
    ----------
    Banerjee et al., "Clustering on the unit hypersphere using von Mises-Fisher distributions", J. Mach. Learn. Res. 6,
    1345 (2005), for the limit.
    """

    n_components: int = field(metadata={"static": True})
    weights: Literal["free", "equal"] = field(default="free", metadata={"static": True})
    dispersion: Literal["free", "tied"] = field(default="free", metadata={"static": True})
    centre: Any = None
    level: Any = None

    unit = "vector"

    def __post_init__(self) -> None:
        as_count("n_components", self.n_components)
        for name, allowed in (("weights", ("free", "equal")), ("dispersion", ("free", "tied"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}: expected one of {allowed}, got {getattr(self, name)!r}")

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int) -> None:
        """The program of inference: classes summed out. ``y`` is (unit, angle)."""
        likelihood = AngleMixture(*self._globals())
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int) -> None:
        """The same model as in a paper, the class of every unit a discrete latent variable to be enumerated."""
        weights, means, concentrations = self._globals()
        with numpyro.plate("unit", n_units):
            label = numpyro.sample("label", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.VonMises(means[label], concentrations[label]).to_event(1), obs=y)

    def _globals(self):
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        centre, level = jnp.asarray(self.centre), jnp.asarray(self.level)
        shape = (self.n_components, centre.shape[0])
        if self._weighted:
            weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(self.n_components)))
        else:
            weights = jnp.full(self.n_components, 1.0 / self.n_components)
        means = numpyro.sample("means", WrappedNormal(jnp.broadcast_to(centre, shape), 1.5).to_event(2))
        if self.dispersion == "tied":
            one = numpyro.sample("concentrations", dist.LogNormal(jnp.log(level).mean(), 1.5))
            return weights, means, jnp.broadcast_to(one, shape)
        prior = dist.LogNormal(jnp.broadcast_to(jnp.log(level), shape), 1.5)
        return weights, means, numpyro.sample("concentrations", prior.to_event(2))

    @property
    def _weighted(self) -> bool:
        return self.weights == "free" and self.n_components > 1

    # ------------------------------------------------------------------ what the engine asks of a model

    @property
    def bound(self) -> bool:
        """Whether the priors are numbers already."""
        return self.level is not None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter; ``channel`` stands for the data's own last dim."""
        return {
            "weights": ("component",),
            "means": ("component", "channel"),
            "concentrations": () if self.dispersion == "tied" else ("component", "channel"),
            "membership": ("component",),
        }

    @property
    def latent(self) -> str:
        """Name of the latent that the likelihood sums out."""
        return "membership"

    @property
    def label(self) -> str | None:
        """The dim whose order is arbitrary, if any."""
        return "component" if self.n_components > 1 else None

    def bind(self, data) -> VonMisesMixture:
        """The same model with the priors' numbers taken from ``data`` (..., angle).

        Raises
        ------
        ValueError
            For values beyond two turns, which are no angles in radians.
        """
        values = np.asarray(data, dtype=np.float64).reshape(-1, np.shape(data)[-1])
        if np.abs(values).max() > 4 * np.pi:
            raise ValueError(f"expected angles in radians, got values up to {np.abs(values).max():.3g}")
        moment = np.exp(1j * values).mean(axis=0)
        spread = np.maximum(1.0 - np.abs(moment), 1e-4) if np.ptp(values) else np.ones(values.shape[1])
        return replace(self, centre=np.angle(moment), level=_LEVEL / spread)

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: clusters of the angles as points of the unit circle."""
        values = np.asarray(data, dtype=np.float64)
        points = np.concatenate([np.cos(values), np.sin(values)], axis=1)
        found = clusters(points, self.n_components, "tied-spherical", equal=self.weights == "equal")
        n_angles = values.shape[1]
        along, across = found.means[:, :n_angles], found.means[:, n_angles:]
        angle = np.arctan2(across, along)
        # On the branch of the prior.
        means = nearest_turn(angle, self.centre)
        length = np.clip(np.hypot(along, across), 0.05, 0.9999)
        sharp = length * (2 - length**2) / (1 - length**2)
        start = {"means": means, "concentrations": sharp.mean() if self.dispersion == "tied" else sharp}
        if self._weighted:
            share = found.weights + 0.5 / len(values)
            start["weights"] = share / share.sum()
        return start

    @property
    def turning(self) -> tuple[str, ...]:
        """Names of the parameters that are known up to a multiple of 2 pi."""
        return ("means",)

    def identified(self, values: dict[str, Any]) -> dict[str, Any]:
        """Draws (chain, draw, ...) with every mean on one turn: around its circular mean, next to ``centre``."""
        means = np.asarray(values["means"])
        middle = np.angle(np.exp(1j * means).mean((0, 1)))
        return {**values, "means": nearest_turn(means, nearest_turn(middle, np.asarray(self.centre)))}

    def order(self, draws) -> np.ndarray:
        """Canonical order of the labels for mean latents ``draws["membership"]`` (component,): heaviest first."""
        return np.argsort(-np.asarray(draws["membership"]), kind="stable")

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        classes = f"{self.n_components} class" + ("es" if self.n_components > 1 else "")
        shape = "one concentration for all" if self.dispersion == "tied" else "a concentration for every angle"
        lines = [f"Every set of angles belongs to one of {classes}; each class is von Mises with {shape}."]
        lines.append("Weights: " + ("uniform before the data are seen." if self._weighted else "equal."))
        if self.bound:
            low, high = np.min(self.level), np.max(self.level)
            lines.append("Means: wrapped normal around the circular mean of the data, with a scale of 1.5 radians.")
            lines.append(f"Concentrations: expected near {low:.3g} to {high:.3g}, within a factor of 20 (95 %).")
        else:
            lines.append("Means and concentrations: scale taken from the data when the model is fitted.")
        return "\n".join(lines)
