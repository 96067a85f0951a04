"""Gaussian mixture: every vector belongs to one of a few classes, and may be measured with a known error of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesunmix._counts import as_count
from bayesunmix.data.clusters import clusters
from bayesunmix.distributions import cholesky
from bayesunmix.distributions.mixtures import NormalMixture
from bayesunmix.distributions.normal_vectors import NormalVectors
from bayesunmix.models._hyperparameters import hyperparameters

_KINDS = ("full", "diagonal", "spherical", "tied", "tied-spherical", "positions", "tied-positions")
_LEVEL = 0.4  # prior median of a class's standard deviation, in that of all the data
_SPREAD = 1.5  # prior standard deviation of the classes' means, in that of all the data


@hyperparameters
@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Mixture of ``n_components`` normal classes with known measurement covariance.

    The story, for unit n (an atom's neighbour vectors, say), feature d and class k::

        w        ~ Dirichlet(concentration, ...)    weights="equal": 1 / n_components each
        m_kd     ~ Normal(centre_d, spread_d)
        s_kd     ~ LogNormal(log level_d, 1)        standard deviations of class k
        C_k      ~ LKJ(1)                           correlations: uniform over correlation matrices
        S_k      = diag(s_k) C_k diag(s_k)
        c_n      ~ Categorical(w)
        y_n      ~ Normal(m_{c_n}, S_{c_n} + R_n)

    ``centre``, ``spread`` and ``level`` are taken from the data once, by :meth:`bind`. ``R_n`` is the covariance of the
    unit's measurement: ``bu.fit(model, vectors, measurement_cov=R)``, or the ``vector_cov`` of neighbour vectors, and 0
    where none is given. Then ``S_k`` is the scatter of the undisturbed vectors. The class is summed out of the
    likelihood (:class:`~bayesunmix.distributions.mixtures.NormalMixture`).

    ``covariance="positions"`` is for neighbour vectors (dy1, dx1, dy2, dx2, ...): every atom scatters around its place
    on its own, the centre of class k with standard deviations ``s_k0`` along y and x, its neighbours with ``s_k1``,
    each LogNormal(log level - log 2 / 2, 1). The centre's scatter is in all of an atom's vectors, so the correlations
    follow, and 4 numbers per class stand for the 36 of four neighbours. ``"tied-positions"`` has the same 4 numbers for
    all classes: domains and variants of one crystal, whose atoms scatter alike wherever their places are.

    *Identifiable*: classes that lie apart by more than their scatter, and their scatter where it is not much smaller
    than the measurement error. *Not identifiable*: the order of the classes (they are put in the order of decreasing
    weight), classes without members, and how a crowd that is not normal is cut into normal pieces.

    *Limits*: ``covariance="tied-spherical", weights="equal"`` with a vanishing scatter is k-means on the full vector.

    Parameters
    ----------
    n_components : int
    covariance : "full", "diagonal", "spherical", "tied", "tied-spherical", "positions" or "tied-positions"
        Of the classes: any, without correlation, a multiple of the identity, one for all classes, one multiple of the
        identity for all, that of independent scatter of centre and neighbours, or one such scatter for all.
    weights : "free" or "equal"
    concentration : float
        Of the Dirichlet prior of the weights.
    centre, spread, level
        The numbers :meth:`bind` fills in, per feature, in the units of the data.

    Raises
    ------
    ValueError
        For sizes, names or numbers out of range.

    References
    ----------
    Bovy, Hogg & Roweis, "Extreme deconvolution", Ann. Appl. Stat. 5, 1657 (2011), for the likelihood; Belianinov et
    al., Nat. Commun. 6, 7801 (2015), for k-means on neighbour vectors.
    """

    n_components: int = field(metadata={"static": True})
    covariance: Literal["full", "diagonal", "spherical", "tied", "tied-spherical", "positions", "tied-positions"] = (
        field(default="full", metadata={"static": True})
    )
    weights: Literal["free", "equal"] = field(default="free", metadata={"static": True})
    concentration: float = field(default=1.0, metadata={"static": True})
    centre: Any = None
    spread: Any = None
    level: Any = None

    unit = "vector"

    def __post_init__(self) -> None:
        as_count("n_components", self.n_components)
        if self.covariance not in _KINDS:
            raise ValueError(f"covariance: expected one of {', '.join(map(repr, _KINDS))}, got {self.covariance!r}")
        if self.weights not in ("free", "equal"):
            raise ValueError(f'weights: expected "free" or "equal", got {self.weights!r}')
        if not (np.isfinite(self.concentration) and self.concentration > 0):
            raise ValueError(f"concentration: expected a positive number, got {self.concentration!r}")

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int, measurement_cov=None) -> None:
        """The program of inference: classes summed out. ``y`` is (unit, feature)."""
        weights, means, roots = self._globals()
        likelihood = NormalMixture(weights, means, roots, measurement_cov)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int, measurement_cov=None) -> None:
        """The same model as in a paper, the class of every unit a discrete latent variable to be enumerated."""
        weights, means, roots = self._globals()
        own = jnp.einsum("kij,klj->kil", roots, roots)
        extra = 0.0 if measurement_cov is None else measurement_cov
        with numpyro.plate("unit", n_units):
            label = numpyro.sample("label", dist.Categorical(weights), infer={"enumerate": "parallel"})
            numpyro.sample("y", NormalVectors(means[label], scale_tril=cholesky.factor(own[label] + extra)), obs=y)

    def _globals(self):
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        centre, spread, level = (jnp.asarray(v) for v in (self.centre, self.spread, self.level))
        n_classes, n_features = self.n_components, centre.shape[0]
        if self._weighted:
            weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(n_classes, self.concentration)))
        else:
            weights = jnp.full(n_classes, 1.0 / n_classes)
        place = jnp.broadcast_to(centre, (n_classes, n_features))
        means = numpyro.sample("means", dist.Normal(place, jnp.broadcast_to(spread, place.shape)).to_event(2))
        if self._of_positions:
            roots = self._from_positions(level)
            numpyro.deterministic("covariances", jnp.einsum("kij,klj->kil", roots, roots))
            return weights, means, roots
        shape = self._scale_shape(n_features)
        middle = jnp.log(level) if "spherical" not in self.covariance else jnp.log(level).mean()
        prior = dist.LogNormal(jnp.broadcast_to(middle, shape), 1.0)
        scales = numpyro.sample("scales", prior.to_event(len(shape)) if shape else prior)
        if self.covariance in ("full", "tied") and n_features > 1:
            turns = dist.LKJCholesky(n_features, 1.0)
            if self.covariance == "full":
                turns = turns.expand([n_classes]).to_event(1)
            roots = scales[..., None] * numpyro.sample("correlation_root", turns)
        elif "spherical" in self.covariance:
            roots = scales[..., None, None] * jnp.eye(n_features)
        else:
            roots = scales[..., None] * jnp.eye(n_features)
        roots = jnp.broadcast_to(roots, (n_classes, n_features, n_features))
        numpyro.deterministic("covariances", jnp.einsum("kij,klj->kil", roots, roots))
        return weights, means, roots

    def _from_positions(self, level):
        """Roots of the classes' covariances, J S J' for vectors from one scattered centre to scattered neighbours."""
        count = level.shape[0] // 2
        # A vector's variance has two shares, the centre's and the neighbour's.
        middle = jnp.log(level).reshape(count, 2).mean(0) - 0.5 * jnp.log(2.0)
        shape = (2, 2) if self.covariance == "tied-positions" else (self.n_components, 2, 2)
        scales = numpyro.sample("scales", dist.LogNormal(jnp.broadcast_to(middle, shape), 1.0).to_event(len(shape)))
        scales = jnp.broadcast_to(scales, (self.n_components, 2, 2))
        shared = jnp.kron(jnp.ones((count, count)), jnp.eye(2))
        centre, neighbour = (jnp.tile(scales[:, i] ** 2, (1, count)) for i in range(2))
        return cholesky.factor(shared * centre[:, :, None] + jnp.eye(2 * count) * neighbour[:, :, None])

    def _scale_shape(self, n_features: int) -> tuple[int, ...]:
        return {
            "full": (self.n_components, n_features),
            "diagonal": (self.n_components, n_features),
            "spherical": (self.n_components,),
            "tied": (n_features,),
            "tied-spherical": (),
        }[self.covariance]

    @property
    def _of_positions(self) -> bool:
        return self.covariance.endswith("positions")

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
        of_class = () if self.covariance.startswith("tied") else ("component",)
        if self._of_positions:
            return {**self._common_dims, "scales": (*of_class, "site", "axis")}
        of_feature = () if "spherical" in self.covariance else ("channel",)
        return {
            **self._common_dims,
            "scales": (*of_class, *of_feature),
            "correlation_root": (*of_class, "channel", "other_feature"),
        }

    @property
    def _common_dims(self) -> dict[str, tuple[str, ...]]:
        return {
            "weights": ("component",),
            "means": ("component", "channel"),
            "covariances": ("component", "channel", "other_feature"),
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

    def bind(self, data) -> GaussianMixture:
        """The same model with every data-scaled prior turned into a number.

        ``data`` is (..., feature). Data without any variation give a prior of unit spread around 0, so that an empty
        template can be simulated on.
        """
        values = np.asarray(data, dtype=np.float64).reshape(-1, np.shape(data)[-1])
        if self._of_positions and values.shape[1] % 2:
            raise ValueError(
                f'covariance="{self.covariance}" expects vectors (dy1, dx1, dy2, dx2, ...), '
                f"got {values.shape[1]} features"
            )
        if np.ptp(values) == 0:
            centre, scale = np.zeros(values.shape[1]), np.ones(values.shape[1])
        else:
            centre, scale = values.mean(axis=0), values.std(axis=0)
            scale = np.maximum(scale, 1e-3 * scale.max())
        return replace(self, centre=centre, spread=_SPREAD * scale, level=_LEVEL * scale)

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: the best of several short runs of expectation and maximisation, errors neglected."""
        values = np.asarray(data, dtype=np.float64)
        kind = {"positions": "diagonal", "tied-positions": "tied"}.get(self.covariance, self.covariance)
        found = clusters(values, self.n_components, kind, equal=self.weights == "equal")
        sds = np.sqrt(np.diagonal(found.covariances, axis1=1, axis2=2))
        start = {"means": found.means}
        if self._weighted:
            share = found.weights + 0.5 / len(values)
            start["weights"] = share / share.sum()
        n_features = values.shape[1]
        if self._of_positions:
            axis = np.sqrt((sds**2).reshape(self.n_components, -1, 2).mean(1) / 2)
            scales = np.stack([axis, axis], axis=1)
            return start | {"scales": scales[0] if self.covariance == "tied-positions" else scales}
        if "spherical" in kind:
            start["scales"] = sds.mean(axis=1) if kind == "spherical" else sds.mean()
        else:
            start["scales"] = sds[0] if kind == "tied" else sds
        if kind in ("full", "tied") and n_features > 1:
            # A little towards no correlation: the coordinate is infinite at a correlation of one.
            correlation = 0.98 * found.covariances / (sds[:, :, None] * sds[:, None, :]) + 0.02 * np.eye(n_features)
            roots = np.linalg.cholesky(correlation)
            start["correlation_root"] = roots if kind == "full" else roots[0]
        return start

    def order(self, draws) -> np.ndarray:
        """Canonical order of the labels for mean latents ``draws["membership"]`` (component,): heaviest first."""
        return np.argsort(-np.asarray(draws["membership"]), kind="stable")

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        classes = f"{self.n_components} class" + ("es" if self.n_components > 1 else "")
        shape = {
            "full": "a covariance of its own",
            "diagonal": "standard deviations of its own and no correlation",
            "spherical": "one standard deviation of its own in all directions",
            "tied": "the covariance of all classes",
            "tied-spherical": "the standard deviation of all classes, the same in all directions",
            "positions": "a scatter of its centre, which is in all of its vectors, and one of the neighbours",
            "tied-positions": "the scatter of all classes: one of the centre, in all its vectors, one of neighbours",
        }[self.covariance]
        lines = [f"Every vector belongs to one of {classes}; each class is normal with {shape}."]
        if self._weighted:
            even = "uniform" if self.concentration == 1 else f"Dirichlet({self.concentration:g})"
            lines.append(f"Weights: {even} before the data are seen.")
        else:
            lines.append("Weights: equal.")
        if self.bound:
            low, high = np.min(self.spread), np.max(self.spread)
            lines.append(f"Means: normal around the mean of the data with standard deviations {low:.3g} to {high:.3g}.")
            low, high = np.min(self.level), np.max(self.level)
            lines.append(f"Scatter: expected near {low:.3g} to {high:.3g}, within a factor of 7 (95 %).")
        else:
            lines.append("Means and scatter: scale taken from the data when the model is fitted.")
        lines.append("Measurement covariances, where given, are taken as exact and add to the scatter of the class.")
        return "\n".join(lines)
