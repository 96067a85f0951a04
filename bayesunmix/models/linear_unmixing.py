"""Bayesian linear unmixing: every pixel is a mixture of a few spectra, its endmembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesunmix._counts import as_count
from bayesunmix.data.counts import factorised_counts, purest_shapes
from bayesunmix.data.gaps import filled
from bayesunmix.data.purest import purest_pixels
from bayesunmix.data.thinning import thinned
from bayesunmix.distributions.channel_laws import LAWS
from bayesunmix.distributions.detected import DetectedUnmixing
from bayesunmix.distributions.normal_scores import nothing_expected
from bayesunmix.distributions.spectra import Spectra
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.models._dark_entries import dark_remarks, said_of_each
from bayesunmix.models._data_scales import SCALES, level_beside
from bayesunmix.models._endmember_knowledge import (
    channels_of,
    compare_sizes,
    compare_with_data,
    knowledge,
    parsed,
    placed,
    refuse_negative,
    warn_of_twins,
)
from bayesunmix.models._hyperparameters import hyperparameters
from bayesunmix.models._sufficient import KnownMixture, summarised
from bayesunmix.models._unmixing_words import described


@hyperparameters
@dataclass(frozen=True, eq=False)
class LinearUnmixing:
    """Linear mixture of ``n_endmembers`` spectra with abundances on the simplex.

    The story, for pixel n, channel p and endmember k::

        W_kp      ~ HalfNormal(scale_p)          endmember_support="nonnegative"
                    scale_p chi(1/q)             sparsity=q: most entries near zero, where q is above 1
                    Normal(0, scale_p)           endmember_support="real"
                    Normal(library_kp, sd_kp)    endmembers=[(library, sd), ...], never negative if "nonnegative"
        l         ~ LogNormal(log 5, 1)          smoothness="learned": length over which W_k. hangs together
        q         ~ LogNormal(log 2, 1)          sparsity="learned"
        a_n       ~ Dirichlet(alpha_1, ..., alpha_K)   abundances: non-negative, sum to one
        log alpha_k ~ Normal(0, 0.7)             concentration="learned"; otherwise a given number, 1 if not given
        s_n       ~ Gamma(c, c), of mean 1       brightness=True; otherwise 1
        log c     ~ Normal(log 10, 1)
        mu_np     = s_n sum_k a_nk W_kp
        y_np      ~ Normal(mu_np, sigma_p)       likelihood="normal"
                    Poisson(mu_np)               likelihood="poisson", counts
                    Normal(mu_np, sqrt(gain mu_np + read_noise^2))   likelihood="scaled-poisson", a camera's signal
        sigma     ~ LogNormal(log level, 1/2)     one for all channels, or one each (noise="diagonal")
        gain      ~ LogNormal(log level, 1/2),  read_noise ~ LogNormal(log level, 1/2)

    ``scale`` and ``level`` are taken from the data once, by :meth:`bind`. The abundances, and the brightness, are
    integrated out of the likelihood (:class:`~bayesunmix.distributions.unmixing.NormalUnmixing`,
    :class:`~bayesunmix.distributions.detected.DetectedUnmixing`).

    *Identifiable*: the simplex that the data fill, given enough pixels near its faces. *Not identifiable*:
    the order of
    the endmembers (they are put in the order of decreasing mean abundance), and how far a vertex lies beyond the data
    when no pixel comes near it: then only the Dirichlet prior speaks, and the credible bands are wide.

    Parameters
    ----------
    n_endmembers : int
        At least 1.
    endmembers : array (n_endmembers, channel), or a list with an entry for each, optional
        What is known of them, in the units of the data: an array is known exactly (all of them known: multiple linear
        regression with abundances on the simplex); in a list an entry may also be a pair ``(spectrum, sd)``, a
        library spectrum with its standard deviation (a number, or one per channel), or ``None``, free. Their order is
        kept.
    likelihood : "normal", "poisson" or "scaled-poisson"
        "poisson" for counts as they were counted; "scaled-poisson" for cameras, whose variance is
        ``gain * mean + read_noise**2``.
    brightness : bool
        Whether pixels differ in thickness, dose or illumination, independently of their composition. The relative
        scale of the endmembers is then known only through that independence; their shapes are not affected.
    concentration : float, "learned" or None
        Dirichlet concentration of the abundances, 1 (uniform on the simplex) when not given.
    smoothness : float, "learned" or None
        Number of channels over which the entries of an endmember hang together; independent channels when not given.
        Of an endmember known up to a standard deviation it is the deviations that are smooth. Every channel keeps its
        own prior (:class:`~bayesunmix.distributions.spectra.Spectra`).
    sparsity : float, "learned" or None
        For spectra that are zero in many channels, such as peaks on nothing: entries of endmembers of which nothing is
        known are chi variables with 1 / sparsity degrees of freedom, of which a share (x / scale)^(1 / sparsity) lies
        below a small x. Half-normal ones, 1, when not given: they take a value below the noise for small and positive,
        and dozens of those shift a spectrum.
    endmember_support : "nonnegative" or "real"
        "real" for signed data, such as I-V curves or background-subtracted spectra.
    noise : "isotropic" or "diagonal"
    missing : bool
        With ``mask="finite"``: whether entries that are NaN are integrated out, or their pixels left out, which is
        faster.
    endmember_scale, noise_level, endmember_resolution
        The numbers :meth:`bind` fills in: prior scale of the endmembers and prior median of the noise, in the units
        of the data (a number, or one per channel; gain and read noise for a camera), and the width at which an
        endmember is told from zero, which shapes the coordinate of inference and not the prior.
    endmember_expectation
        For :meth:`adapted`, which fills it in, to shape that coordinate.

    Raises
    ------
    TypeError
        For ``endmembers`` that are not real numbers.
    ValueError
        For sizes, names or numbers out of range.

    References
    ----------
    Dobigeon et al., "Joint Bayesian endmember extraction and linear unmixing for hyperspectral imagery", IEEE Trans.
    Signal Process. 57, 4355 (2009): the same likelihood and simplex prior, sampled with the abundances.
    """

    n_endmembers: int = field(metadata={"static": True})
    endmembers: Any = None
    likelihood: Literal["normal", "poisson", "scaled-poisson"] = field(default="normal", metadata={"static": True})
    brightness: bool = field(default=False, metadata={"static": True})
    concentration: float | Literal["learned"] | None = field(default=None, metadata={"static": True})
    smoothness: float | Literal["learned"] | None = field(default=None, metadata={"static": True})
    sparsity: float | Literal["learned"] | None = field(default=None, metadata={"static": True})
    endmember_support: Literal["nonnegative", "real"] = field(default="nonnegative", metadata={"static": True})
    noise: Literal["isotropic", "diagonal"] = field(default="isotropic", metadata={"static": True})
    missing: bool = field(default=False, metadata={"static": True})
    endmember_scale: Any = None
    noise_level: Any = None
    endmember_resolution: Any = None
    endmember_expectation: Any = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: expected one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}"
                )
        as_count("n_endmembers", self.n_endmembers)
        for name, unit in _LEARNED.items():
            value = getattr(self, name)
            number = isinstance(value, int | float | np.number) and np.isfinite(value) and value > 0
            if not number and not (value is None or (isinstance(value, str) and value == "learned")):
                raise ValueError(f'{name}: expected a positive number{unit} or "learned", got {value!r}')
        if self.likelihood != "normal" and self.endmember_support == "real":
            raise ValueError(
                f'endmember_support="real" allows negative signals, which likelihood={self.likelihood!r} cannot '
                'produce: use endmember_support="nonnegative", or likelihood="normal"'
            )
        if self.likelihood != "normal" and self.noise == "diagonal":
            raise ValueError(f'noise="diagonal" belongs to likelihood="normal", got likelihood={self.likelihood!r}')
        object.__setattr__(self, "endmembers", parsed(self.endmembers, self.n_endmembers, self.endmember_support))
        if self.smoothness is not None and self._all_known:
            raise ValueError("smoothness: all endmembers are known exactly, so there is nothing to smooth")
        if self.sparsity is not None and self.endmember_support == "real":
            raise ValueError(
                'sparsity belongs to endmember_support="nonnegative", got endmember_support="real": drop one of them'
            )
        if self.sparsity is not None and self.smoothness is not None:
            raise ValueError("sparsity and smoothness do not go together: give one of them")
        if self.sparsity is not None and self.endmembers is not None and not any(e is None for e in self.endmembers):
            raise ValueError("sparsity: something is known of every endmember, so there is none that it could describe")

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int) -> None:
        """The program of inference: latents integrated out. ``y`` is (unit, channel)."""
        endmembers, alpha, shape, noise = self.globals()
        if self.likelihood == "normal" and not self.brightness and not self.missing:
            likelihood = NormalUnmixing(endmembers, alpha, noise["noise_scale"])
        else:
            likelihood = DetectedUnmixing(
                endmembers, alpha, law=self.likelihood, brightness_shape=shape, missing=self.missing, **noise
            )
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int) -> None:
        """The same model as in a paper, every pixel's latents ordinary variables."""
        endmembers, alpha, shape, noise = self.globals()
        law = LAWS[self.likelihood]
        with numpyro.plate("unit", n_units):
            alpha = jnp.ones(self.n_endmembers) if alpha is None else alpha
            mean = numpyro.sample("abundance", dist.Dirichlet(alpha)) @ endmembers
            if shape is not None:
                mean = mean * numpyro.sample("brightness", dist.Gamma(shape, shape))[:, None]
            numpyro.sample("y", law.distribution(mean, tuple(noise[n] for n in law.noise)).to_event(1), obs=y)

    def globals(self):
        """Endmembers, concentration, shape of the brightness and noise by its names; None for what is not there."""
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        endmembers = jnp.asarray(self.endmembers) if self._all_known else self._unknown_endmembers()
        alpha = None
        if self.concentration == "learned":
            alpha = numpyro.sample("concentration", dist.LogNormal(jnp.zeros(self.n_endmembers), 0.7).to_event(1))
        elif self.concentration not in (None, 1):
            alpha = jnp.full(self.n_endmembers, self.concentration)
        shape = numpyro.sample("brightness_shape", dist.LogNormal(np.log(10.0), 1.0)) if self.brightness else None
        noise = {}
        for i, name in enumerate(LAWS[self.likelihood].noise):
            level = jnp.asarray(self.noise_level)
            prior = dist.LogNormal(jnp.log(level[i] if self.likelihood == "scaled-poisson" else level), 0.5)
            noise[name] = numpyro.sample(name, prior.to_event(1) if self.noise == "diagonal" else prior)
        return endmembers, alpha, shape, noise

    def _unknown_endmembers(self):
        known = knowledge(self.endmembers, self.n_endmembers, len(self.endmember_scale), jnp)
        length, sparsity = self.smoothness, self.sparsity
        if length == "learned":
            length = numpyro.sample("smoothness", dist.LogNormal(np.log(_TYPICAL_LENGTH), 1.0))
        if sparsity == "learned":
            sparsity = numpyro.sample("sparsity", dist.LogNormal(np.log(_TYPICAL_SPARSITY), 1.0))
        return numpyro.sample("endmembers", self._spectra(known, length, sparsity))

    def _spectra(self, known, length, sparsity) -> Spectra:
        scale = jnp.asarray(self.endmember_scale)
        return Spectra(
            known.location,
            jnp.where(jnp.asarray(known.free)[:, None], scale, known.spread),
            self.endmember_resolution,
            length,
            sparsity=None if sparsity is None else jnp.where(jnp.asarray(known.free), sparsity, 1.0),
            fixed=known.fixed,
            signed=self.endmember_support == "real",
            counted=self.likelihood == "poisson",
            own_scale=self.brightness,
            expected=self.endmember_expectation,
        )

    @property
    def _all_known(self) -> bool:
        return self.endmembers is not None and not isinstance(self.endmembers, tuple)

    # ------------------------------------------------------------------ what the engine asks of a model

    @property
    def bound(self) -> bool:
        """Whether the priors are numbers already."""
        return self.endmember_scale is not None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter; ``channel`` stands for the data's own last dim."""
        noise = ("channel",) if self.noise == "diagonal" else ()
        scalars = dict.fromkeys(("brightness", "brightness_shape", "gain", "read_noise"), ())
        own = {"endmembers": ("endmember", "channel"), "noise_scale": noise, "concentration": ("endmember",)}
        scalars["smoothness"] = scalars["sparsity"] = ()
        return {**own, "abundance": ("endmember",), **scalars}

    @property
    def latent(self) -> str:
        """Name of the latent that the likelihood integrates out; the first of them with a brightness."""
        return "abundance"

    def latents(self, values) -> dict[str, Any]:
        """Latents by name, from ``values`` (..., latent) as the likelihood orders them."""
        if not self.brightness:
            return {"abundance": values}
        return {"abundance": values[..., :-1], "brightness": values[..., -1]}

    @property
    def missing_entries(self) -> bool:
        """Whether single entries may be NaN under ``mask="finite"``."""
        return self.missing

    @property
    def label(self) -> str | None:
        """The dim whose order is arbitrary, if any."""
        return "endmember" if self.endmembers is None and self.n_endmembers > 1 else None

    def bind(self, data) -> LinearUnmixing:
        """The same model with every data-scaled prior turned into a number.

        ``data`` is (..., channel), NaN where an entry is missing. Data without any variation give a prior of unit
        scale and noise of .05, so that an empty template can be simulated on.

        Raises
        ------
        ValueError
            For more endmembers than channels or pixels, known ones of other channels or in other units, and counts of
            which everything but abundances is known.

        Warns
        -----
        UserWarning
            For known endmembers that cannot be told apart, or do not resemble the data.
        """
        n_units, n_channels = int(np.prod(np.shape(data)[:-1])), np.shape(data)[-1]
        enough = max(_FOR_NOISE, _UNITS_FOR_NOISE * n_channels)
        values = thinned(data, enough) if self._all_known and not self.missing else thinned(data)
        given = channels_of(self.endmembers)
        if given not in (None, n_channels):
            raise ValueError(f"endmembers have {given} channels, the data {n_channels}: give both the same axis")
        told = self.likelihood != "poisson" or self.brightness or self.concentration == "learned"
        if self._all_known and not told:
            raise ValueError(
                "endmembers that are known leave nothing to learn from counts but abundances: take brightness=True, "
                "for pixels whose mean counts differ from mixtures of them, or concentration='learned'"
            )
        if self.n_endmembers > n_channels:
            raise ValueError(
                f"n_endmembers={self.n_endmembers} exceeds the {n_channels} channels: no more spectra than channels "
                "can be told apart"
            )
        rank = min(self.n_endmembers - (not self.brightness), n_channels - 1, n_units - 1)
        never = np.flatnonzero(np.isnan(values).all(axis=0))
        if never.size:
            raise ValueError(
                f"{never.size} of {n_channels} channels have no value in any pixel, the first at position {never[0]}: "
                "nothing can be learned of them; leave them out with data.dropna(data.dims[-1], how='all')"
            )
        values = filled(values, rank)
        varied = np.ptp(values) > 0
        if varied and self.endmembers is None and self.n_endmembers > n_units:
            raise ValueError(
                f"n_endmembers={self.n_endmembers} exceeds the {n_units} pixels: no more spectra than pixels can be "
                "found; give the endmembers if they are known"
            )
        if varied and self.endmember_support == "nonnegative" and self.likelihood == "normal":
            refuse_negative(values)
        if varied and self._all_known:
            warn_of_twins(self.endmembers, any_scale=self.brightness)
            compare_with_data(self.endmembers, values, any_scale=self.brightness)
        elif varied and not self.brightness:
            compare_sizes(knowledge(self.endmembers, self.n_endmembers, n_channels).location, values)
        scales = SCALES[self.likelihood](values, n_units, self.n_endmembers, rank, self.noise)
        few = n_units <= _FEW_UNITS * self.n_endmembers < _FEW_UNITS * n_channels
        if varied and few and self._all_known and self.likelihood == "normal":
            level = level_beside(self.endmembers, values)
            scales["noise_level"] = np.full(n_channels, level) if self.noise == "diagonal" else level
        return replace(self, **scales)

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: the purest pixels and the noise left by their plane."""
        start: dict[str, Any] = {}
        if self.likelihood == "normal":
            start["noise_scale"] = np.asarray(self.noise_level, dtype=np.float64)
        elif self.likelihood == "scaled-poisson":
            start["gain"], start["read_noise"] = np.asarray(self.noise_level, dtype=np.float64)
        if self.concentration == "learned":
            start["concentration"] = np.ones(self.n_endmembers)
        if self.brightness:
            start["brightness_shape"] = np.asarray(10.0)
        if self._all_known:
            return start
        values = filled(thinned(data), self.n_endmembers)
        nonnegative = self.endmember_support == "nonnegative"
        least = 0.5 * float(self.endmember_resolution)
        kept = np.maximum(values, 0.0) if nonnegative else values
        if self.likelihood == "poisson":
            found = factorised_counts(kept, self.n_endmembers, brightness=self.brightness, least=least)
        elif self.brightness:
            found = purest_shapes(kept, self.n_endmembers, least=least)
        else:
            found = purest_pixels(values, self.n_endmembers)
        if self.endmembers is not None:
            found = placed(found, knowledge(self.endmembers, self.n_endmembers, values.shape[1]))
        start["endmembers"] = np.maximum(found, least) if nonnegative else found
        if self.sparsity == "learned":
            start["sparsity"] = np.asarray(_TYPICAL_SPARSITY)
        if self.smoothness == "learned":
            start["smoothness"] = np.asarray(_TYPICAL_LENGTH)
        return start

    def sufficient(self, values) -> tuple[Any, Any]:
        """A model of the same globals and latents, and fewer numbers a pixel that say the same; or itself and all.

        Call on a bound model; ``values`` is (unit, channel).
        """
        plain = self.likelihood == "normal" and self.noise == "isotropic" and not (self.brightness or self.missing)
        if not (self._all_known and plain and values.shape[1] > self.n_endmembers + 1):
            return self, values
        endmembers, numbers = summarised(self.endmembers, values)
        return KnownMixture(self, endmembers, values.shape[1]), numbers

    @property
    def adapts_to(self) -> str | None:
        """The parameter of the likelihood in view of which :meth:`adapted` makes coordinates, if any."""
        return "endmembers" if self.sparsity is not None and not self.brightness else None

    def adapted(self, values=None, slope=None, curvature=None) -> LinearUnmixing:
        """The same bound model, entries of its sparse spectra in coordinates made for what the data say of them.

        ``values`` of the sites, and ``slope`` (endmember, channel) and ``curvature`` (channel, endmember, endmember) of
        the log likelihood in the endmembers at their values; without them there is room for such coordinates only, so
        that programs are alike.
        """
        known = knowledge(self.endmembers, self.n_endmembers, len(self.endmember_scale))
        if values is None:
            return replace(self, endmember_expectation=nothing_expected(known.location.shape))
        sparsity = np.where(known.free, values.get("sparsity", self.sparsity), 1.0)
        centre, error = said_of_each(values["endmembers"], slope, -curvature, np.asarray(known.free))
        if self.likelihood == "poisson":  # where an entry is told from its own few counts, no normal law stands
            few = values["endmembers"].sum(0) < _MANY_COUNTS * self.endmember_resolution
            error = np.where(few, np.inf, error)
        prior = self._spectra(known, None, sparsity)
        return replace(self, endmember_expectation=prior.expecting(centre, error))

    def lifted(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """``values`` of the sites with no entry of an endmember much further below the noise than any posterior has it;
        None where all are."""
        if self._all_known or self.endmember_support == "real" or self.sparsity is not None:
            return None
        known = knowledge(self.endmembers, self.n_endmembers, len(self.endmember_scale))
        found, least = values["endmembers"], _FAR_BELOW * np.asarray(self.endmember_resolution)
        low = (found < least) & ~np.asarray(known.fixed)[:, None]
        return {**values, "endmembers": np.where(low, least, found)} if low.any() else None

    def order(self, draws) -> np.ndarray:
        """Canonical order of the labels for mean latents ``draws["abundance"]`` (endmember,): most abundant first."""
        return np.argsort(-np.asarray(draws["abundance"])[: self.n_endmembers], kind="stable")

    def remarks(self, values: dict[str, Any]) -> list[str]:
        """What to know of a posterior with draws ``values`` (chain, draw, ...) that passed its checks."""
        if self._all_known or self.endmember_support == "real" or self.sparsity is not None:
            return []
        free = np.asarray(knowledge(self.endmembers, self.n_endmembers, values["endmembers"].shape[-1]).free)
        return dark_remarks(values["endmembers"][:, :, free]) if free.any() else []

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        return described(self)


_TYPICAL_LENGTH = 5.0  # channels
_TYPICAL_SPARSITY = 2.0
_FAR_BELOW = 1e-8  # of the width at which an endmember is told from zero
_MANY_COUNTS = 50  # of a channel in the whole image
_FEW_UNITS = 10  # to an endmember: their own plane follows their noise
_FOR_NOISE, _UNITS_FOR_NOISE = 2**17, 2**8  # values and units behind the prior of a noise level alone, at least
_LEARNED = {"concentration": "", "smoothness": " of channels", "sparsity": ""}  # settings, and their unit
_CHOICES = {
    "likelihood": ("normal", "poisson", "scaled-poisson"),
    "endmember_support": ("nonnegative", "real"),
    "noise": ("isotropic", "diagonal"),
}
