"""Probabilistic PCA and factor analysis: every pixel is a mean spectrum plus a few components, plus noise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions.transforms import PowerTransform

from bayesunmix._counts import as_count
from bayesunmix.data.moments import moments
from bayesunmix.distributions.factors import NormalFactors
from bayesunmix.distributions.loadings import Loadings
from bayesunmix.distributions.poisson_factors import PoissonFactors
from bayesunmix.distributions.turned_loadings import TurnedLoadings
from bayesunmix.models import _count_components as counts
from bayesunmix.models._component_words import described
from bayesunmix.models._factor_priors import complete_moments, normal_priors, row_factor, scaled
from bayesunmix.models._factor_sampler import Compressed, Explicit, FactorSampler, Priors
from bayesunmix.models._hyperparameters import hyperparameters
from bayesunmix.models._isotropic_sampler import IsotropicSampler
from bayesunmix.models._principal_axes import directions, most_likely, normal_axes

_NOISE_SHAPE = 2.0


@hyperparameters
@dataclass(frozen=True, eq=False)
class ProbabilisticPCA:
    """Principal components with a posterior: ``n_components`` loadings, normal scores, normal noise.

    The story, for pixel n, channel p and component k::

        Omega    ~ InverseWishart(K, floor / P)     strengths of the components, in units of the noise
        W_p      ~ Normal(0, level_p^2 Omega)       loadings of channel p
        m_p      ~ Normal(location_p, mean_scale_p) mean spectrum
        sigma^2  ~ InverseGamma(2, 2 level^2)       one (isotropic, two-way), or one a channel (diagonal)
        z_n      ~ Normal(0, I)                     scores
        y_np     ~ Normal(m_p + sum_k z_nk W_kp, sigma_p)
                   Normal(m_p + sum_k z_nk W_kp, sigma sqrt(g_n h_p))   noise="two-way"
                   Poisson(s_n T softmax(m + z_n W)_p), T = sum_p exp(m_p)   noise="poisson"
        s_n     ~ Gamma(c, c), log c ~ Normal(log 10, 1)   brightness, noise="poisson"

    ``level``, ``location`` and ``mean_scale`` are taken from the data once, by :meth:`bind`; ``g`` and ``h``, the mean
    counts of a pixel and of a channel relative to all, are plug-in values, ``g`` without what noise makes of totals.
    Scores are integrated out of the likelihood
    (:class:`~bayesunmix.distributions.factors.NormalFactors`), Omega out of the prior
    (:class:`~bayesunmix.distributions.loadings.Loadings`): relevance is determined without preferring a rotation.

    *Identifiable*: the plane of the components, the variance along its principal axes, mean and noise. *Not
    identifiable*: rotations of the components among themselves. Each draw is therefore turned to its principal axes,
    largest variance first, with the sign of the reference axes. Axes whose variances the data cannot tell
    apart are uncertain, and their bands say so.

    The default method for normal noise is an exact Gibbs sampler on the channel covariance; its cost does not grow
    with the number of complete pixels. Pixels with missing entries (NaN, ``mask="finite"``) and two-way noise are
    visited one by one.

    Counts (``noise="poisson"``) are log-bilinear: brightness and composition of a pixel are independent, the loadings
    are those of the logarithm, and their first-order limit is correspondence analysis. Without components this is the
    product of a row and a column factor, which Trebbia and Bonnet call the signal-free image. Scores are integrated
    numerically, and the model is fitted by ``SVI()`` or ``NUTS()`` on one representative of all rotations
    (:class:`~bayesunmix.distributions.turned_loadings.TurnedLoadings`).

    Parameters
    ----------
    n_components : int
        0 (mean and noise only) or more, fewer than channels and, of normal noise, than pixels less one.
    noise : "isotropic", "diagonal", "two-way" or "poisson"
        One level (probabilistic PCA), one per channel (factor analysis), a level times a known row and column
        factor (weighted PCA of counts), or counts as such. Two-way noise needs non-negative data.
    component_floor : float, "hidden" or "visible"
        Variance, over that of the noise in one direction, that a component of which the data say nothing is expected
        to have. It matters only below or near ``visible_share``, where they cannot tell it from noise. ``"visible"``
        expects every component to be as strong as one that just stays hidden among so many pixels and channels,
        ``"hidden"`` a third of that (:meth:`bind` makes a number of both). With ``"visible"`` intervals allow for more
        of what cannot be seen, and ``n_above_noise`` counts some that are not there; much smaller numbers switch
        off components that can be seen, and superfluous ones mix slowly.
    missing
        Whether single entries may be NaN; :meth:`bind` finds out.
    mean_location, mean_scale, noise_level, column_factor, n_pixels, reference
        What :meth:`bind` fills in: prior mean (channel) and scale of the mean, prior scale of the noise, ``h``,
        the number of pixels behind ``n_above_noise``, and the axes (component, channel) that decide signs.

    Raises
    ------
    ValueError
        For sizes, names or numbers out of range.

    References
    ----------
    Tipping and Bishop, "Probabilistic principal component analysis", J. R. Stat. Soc. B 61, 611 (1999); Bosman et al.,
    "Mapping chemical and bonding information using multivariate analysis of electron energy-loss spectrum
    images", Ultramicroscopy 106, 1024 (2006), for two-way scaling; Trebbia and Bonnet, "EELS elemental mapping with
    unconventional methods I", Ultramicroscopy 34, 165 (1990), for correspondence analysis; Baik, Ben Arous and Peche,
    Ann. Probab. 33, 1643 (2005), for the variance at which a component becomes visible.
    """

    n_components: int = field(metadata={"static": True})
    noise: Literal["isotropic", "diagonal", "two-way", "poisson"] = field(
        default="isotropic", metadata={"static": True}
    )
    component_floor: float | Literal["hidden", "visible"] = "hidden"
    missing: bool = field(default=False, metadata={"static": True})
    mean_location: Any = None
    mean_scale: Any = None
    noise_level: Any = None
    column_factor: Any = None
    n_pixels: Any = None
    reference: Any = None

    def __post_init__(self) -> None:
        if self.noise not in _NOISE:
            raise ValueError(f"noise: expected one of {', '.join(map(repr, _NOISE))}, got {self.noise!r}")
        as_count("n_components", self.n_components, least=0)
        floor = self.component_floor
        if not (floor in _FLOORS if isinstance(floor, str) else np.isfinite(floor) and floor > 0):
            raise ValueError(f"component_floor: expected a positive number, 'hidden' or 'visible', got {floor!r}")
        if self.missing and self.noise == "poisson":
            raise ValueError('missing: expected whole pixels with noise="poisson"; mask those with missing entries')

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int, row_factor=None) -> None:
        """The program of inference: scores integrated out. ``y`` is (unit, channel)."""
        components, mean, spread = self._globals()
        if self.noise == "two-way":
            row_factor = jnp.ones(n_units) if row_factor is None else row_factor
            spread = spread * jnp.sqrt(jnp.asarray(self.column_factor))
        if self.noise == "poisson":
            likelihood: Any = PoissonFactors(components, mean, spread)
        else:
            likelihood = NormalFactors(components, mean, spread, row_factor=row_factor, missing=self.missing)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int) -> None:
        """The same model as in a paper, every pixel's scores an ordinary latent variable; row factor 1."""
        components, mean, spread = self._globals()
        if self.noise == "two-way":
            spread = spread * jnp.sqrt(jnp.asarray(self.column_factor))
        with numpyro.plate("unit", n_units):
            score = numpyro.sample("score", dist.Normal(jnp.zeros(self.n_components), 1.0).to_event(1))
            if self.noise == "poisson":
                level = numpyro.sample("brightness", dist.Gamma(spread, spread)) * jnp.exp(mean).sum()
                rate = level[:, None] * jax.nn.softmax(mean + score @ components)
                numpyro.sample("y", dist.Poisson(rate).to_event(1), obs=y)
            else:
                numpyro.sample("y", dist.Normal(mean + score @ components, spread).to_event(1), obs=y)

    def _globals(self):
        """Components, mean, and the scale of the noise or, of counts, the shape of the brightness."""
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        level, location = jnp.asarray(self.noise_level), jnp.asarray(self.mean_location)
        n_channels, floor = location.shape[0], jnp.asarray(self.component_floor)
        scale = jnp.broadcast_to(level, (n_channels,))
        if self.noise == "two-way":
            scale = scale * jnp.sqrt(jnp.asarray(self.column_factor))
        if self.noise == "poisson" and self.n_components:
            prior: Loadings = TurnedLoadings(scale, self.dof, floor / n_channels, self.reference)
        else:
            prior = Loadings(self.n_components, scale, self.dof, floor / n_channels)
        components = numpyro.sample("components", prior) if self.n_components else jnp.zeros((0, n_channels))
        mean_scale = jnp.broadcast_to(jnp.asarray(self.mean_scale), (n_channels,))
        mean = numpyro.sample("mean", dist.Normal(location, mean_scale).to_event(1))
        if self.noise == "poisson":
            return components, mean, numpyro.sample("brightness_shape", dist.LogNormal(np.log(10.0), 1.0))
        variance = dist.InverseGamma(jnp.full(level.shape, _NOISE_SHAPE), _NOISE_SHAPE * level**2)
        noise = dist.TransformedDistribution(variance, PowerTransform(0.5))
        return components, mean, numpyro.sample("noise_scale", noise.to_event(level.ndim))

    @property
    def dof(self) -> float:
        """Degrees of freedom of the prior of the strengths: the fewest that keep it proper, by one."""
        return float(max(self.n_components, 1))

    # ------------------------------------------------------------------ what the engine asks of a model

    @property
    def bound(self) -> bool:
        """Whether the priors are numbers already."""
        return self.noise_level is not None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter; ``channel`` stands for the data's own last dim."""
        return {
            "components": ("component", "channel"),
            "direction": ("component", "channel"),
            "explained_variance": ("component",),
            "n_above_noise": (),
            "mean": ("channel",),
            "noise_scale": ("channel",) if self.noise == "diagonal" else (),
            "score": ("component",),
            "brightness": (),
            "brightness_shape": (),
        }

    @property
    def likelihood(self) -> str:
        """Law of the data: "poisson" asks for counts."""
        return "poisson" if self.noise == "poisson" else "normal"

    @property
    def latent(self) -> str | None:
        """Name of the latent that the likelihood integrates out; the first of them where there is a brightness."""
        return "score" if self.n_components or self.noise == "poisson" else None

    def latents(self, values) -> dict[str, Any]:
        """The latents of every unit by name, from their last axis."""
        if self.noise != "poisson":
            return {"score": values}
        scores = {"score": values[..., :-1]} if self.n_components else {}
        return {**scores, "brightness": values[..., -1]}

    @property
    def missing_entries(self) -> bool:
        """With ``mask="finite"`` single entries that are not finite are integrated out, not whole pixels left out."""
        return self.noise != "poisson" and (self.missing or not self.bound)

    @property
    def gaussian(self) -> bool:
        """Whether a normal guide can fit the posterior: not while components can be turned."""
        return self.n_components == 0 or self.noise == "poisson"

    @property
    def judged(self) -> tuple[str, ...]:
        """Parameters that convergence is judged by: those that no rotation changes."""
        return ("explained_variance", "noise_scale", "mean") if self.n_components else ("noise_scale", "mean")

    @property
    def unmixed(self) -> dict[str, str]:
        """What to do, by name of the parameter, where chains do not agree on it."""
        hidden = "what the noise hides is switched on in some: ask for fewer components, component_floor='visible', or "
        return {"explained_variance": hidden} if self.component_floor != self.dof * self.visible_share else {}

    def doubts(self, values: dict[str, Any]) -> list[str]:
        """What a normal guide of which ``values`` are draws gets wrong, in words.

        The strength of a component that the noise hides may be anything below what shows, in as many directions as
        there are channels. A normal law of the loadings has one strength, and no direction in which it looks wrong.
        """
        if self.noise != "poisson" or not self.n_components:
            return []
        above = self.identified(values)["n_above_noise"]
        if np.mean(above == self.n_components) > 0.95:
            return []
        return [
            "a component is hidden by the noise, of which the guide knows one strength only, so that intervals are too "
            "narrow there: ask for fewer components, or take noise='diagonal', which is sampled exactly, with "
            "components to spare"
        ]

    @property
    def signal_free(self) -> ProbabilisticPCA:
        """The same noise without any component, not bound yet: what an image without signal looks like.

        Of counts that is rank-one independence: the brightness of the pixel times the mean spectrum.
        """
        return ProbabilisticPCA(0, noise=self.noise)

    def unit_covariates(self, data) -> dict[str, np.ndarray]:
        """What the program needs to know of every unit beside its data: the row factor of two-way noise, about 1."""
        if self.noise != "two-way":
            return {}
        return {"row_factor": row_factor(np.asarray(data), np.asarray(self.column_factor), float(self.noise_level))}

    def bind(self, data) -> ProbabilisticPCA:
        """The same model with every data-scaled prior turned into a number.

        ``data`` is (..., channel), NaN where an entry is missing. Data without any variation give a prior of unit
        scale and noise of .1, so that an empty template can be simulated on.
        """
        values = np.asarray(data)
        values = values if values.ndim == 2 else values.reshape(-1, values.shape[-1])
        n_channels = values.shape[1]
        if self.n_components >= n_channels:
            raise ValueError(
                f"n_components: expected fewer than the {n_channels} channels, got {self.n_components}: with as many, "
                "nothing is left to tell the noise from"
            )
        if self.noise == "poisson":
            bound = replace(self, **counts.priors(values, self.n_components))
        else:
            bound = replace(self, **normal_priors(values, self.n_components, self.noise))
        if not isinstance(self.component_floor, str):
            return bound
        return replace(bound, component_floor=_FLOORS[self.component_floor] * self.dof * bound.visible_share)

    @property
    def visible_share(self) -> float:
        """Variance, over that of the noise, above which a component shows among so many pixels and channels."""
        return float(np.sqrt(len(np.asarray(self.mean_location)) / float(self.n_pixels)))

    def initial(self, data) -> dict[str, np.ndarray]:
        """Maximum likelihood, of the covariance of complete pixels; correspondence analysis of counts."""
        values = np.asarray(data)
        if self.noise == "poisson":
            start = counts.correspondence(values, self.n_components)
            return {name: value for name, value in start.items() if self.n_components or name != "components"}
        width = self._width
        start = most_likely(scaled(complete_moments(values)[0], width), self.n_components, self.noise == "diagonal")
        start["components"], start["mean"] = start["components"] * width, start["mean"] * width
        start["noise_scale"] = np.maximum(start["noise_scale"], 1e-3 * np.asarray(self.noise_level))
        if not self.n_components:
            del start["components"]
        return start

    @property
    def _width(self) -> np.ndarray:
        """What the channels are divided by so that their noise is alike."""
        n_channels = len(np.asarray(self.mean_location))
        return np.ones(n_channels) if self.column_factor is None else np.sqrt(np.asarray(self.column_factor))

    @property
    def gibbs(self) -> Any:
        """The exact sampler of the posterior, for :mod:`bayesunmix.inference.gibbs`; counts have none.

        A function of data and covariates.

        Raises
        ------
        AttributeError
            For counts, so that the engine takes its own methods.
        """
        if self.noise == "poisson":
            raise AttributeError('noise="poisson" has no Gibbs sampler: use bu.SVI() or bu.NUTS()')
        return self._sampler

    def _sampler(self, data, covariates: dict[str, Any]) -> FactorSampler | IsotropicSampler:
        values, width = np.asarray(data), self._width
        start = self.initial(values)
        start = {"components": np.zeros((0, len(width))), **start}
        start["components"], start["mean"] = start["components"] / width, start["mean"] / width
        level = np.asarray(self.noise_level, dtype=np.float64)
        priors = Priors(
            scale=np.atleast_1d(level),
            dof=self.dof,
            floor=float(np.asarray(self.component_floor)) / len(width),
            mean=np.asarray(self.mean_location) / width,
            mean_scale=np.atleast_1d(self.mean_scale if self.column_factor is None else self.mean_scale / width),
            noise_shape=_NOISE_SHAPE,
            noise_rate=_NOISE_SHAPE * np.atleast_1d(level) ** 2,
        )
        if self.noise == "two-way" or self.missing:
            row_factor = covariates.get("row_factor")
            return FactorSampler(Explicit(values / width, row_factor), priors, start, width)
        found = moments(values, last=True)
        if self.noise == "isotropic":
            return IsotropicSampler(found, priors, start, self.reference)
        return FactorSampler(Compressed(found), priors, start, width)

    def identified(self, values: dict[str, Any]) -> dict[str, Any]:
        """Draws turned to principal axes, with what follows from them.

        ``values`` hold ``components`` (..., component, channel), ``noise_scale`` and perhaps ``score``
        (unit, component) of the same turn. With ``explained_variance`` they have been turned before.
        """
        reference = None if self.reference is None else np.asarray(self.reference)
        if self.noise == "poisson":
            values = counts.count_axes(values, reference if self.n_components else None)
        if not self.n_components:
            return {name: value for name, value in values.items() if name not in ("components", "score")}
        turned = self.noise == "poisson" or "explained_variance" in values
        found = values if turned else normal_axes(values, reference)
        noise = np.asarray(values["noise_scale"])
        squared = (noise**2).mean(-1) if self.noise == "diagonal" else noise**2
        visible = self.visible_share * squared
        above = (found["explained_variance"] > visible[..., None]).sum(-1)
        return {**found, "n_above_noise": above.astype(np.float64)}

    @property
    def derived(self) -> dict[str, Any]:
        """What follows from other parameters of the same draw and need not be kept: functions of the named values."""
        return {"direction": directions} if self.n_components else {}

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        return described(self)


_NOISE = ("isotropic", "diagonal", "two-way", "poisson")
_FLOORS = {"hidden": 1.0 / 3.0, "visible": 1.0}  # of the variance that just stays hidden
