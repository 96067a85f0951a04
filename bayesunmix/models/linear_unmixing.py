"""Bayesian linear unmixing: every pixel is a mixture of a few spectra, its endmembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesunmix.data.purest import principal_plane, purest_pixels
from bayesunmix.distributions.priors import HalfNormal
from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.models._hyperparameters import hyperparameters


@hyperparameters
@dataclass(frozen=True, eq=False)
class LinearUnmixing:
    """Linear mixture of ``n_endmembers`` spectra with abundances on the simplex.

    The story, for pixel n, channel p and endmember k::

        W_kp      ~ HalfNormal(scale_p)          endmember_support="nonnegative"
                    Normal(0, scale_p)           endmember_support="real"
        sigma     ~ LogNormal(log level, 1/2)     one for all channels, or one each (noise="diagonal")
        a_n       ~ Dirichlet(alpha, ..., alpha) abundances: non-negative, sum to one
        y_np      ~ Normal(sum_k a_nk W_kp, sigma_p)

    ``scale`` and ``level`` are taken from the data once, by :meth:`bind`. The abundances are integrated out of the
    likelihood (:class:`~bayesunmix.distributions.unmixing.NormalUnmixing`).

    *Identifiable*: the simplex that the data fill, given enough pixels near its faces. *Not identifiable*:
    the order of
    the endmembers (they are put in the order of decreasing mean abundance), and how far a vertex lies beyond the data
    when no pixel comes near it: then only the Dirichlet prior speaks, and the credible bands are wide.

    Parameters
    ----------
    n_endmembers : int
        At least 1.
    endmembers : array (n_endmembers, channel), optional
        Known endmembers, in the units of the data: multiple linear regression with abundances on the
        simplex. Their order is kept.
    likelihood : "normal"
    concentration : float, optional
        Dirichlet concentration of the abundances, 1 (uniform on the simplex) when not given.
    endmember_support : "nonnegative" or "real"
        "real" for signed data, such as I-V curves or background-subtracted spectra.
    noise : "isotropic" or "diagonal"
    endmember_scale, noise_level, endmember_resolution
        The numbers :meth:`bind` fills in: prior scale of the endmembers and prior median of the noise, in
        the units of the
        data (a number, or one per channel), and the width at which an endmember is told from zero, which shapes the
        coordinate of inference and not the prior.

    Raises
    ------
    ValueError
        For sizes, names or numbers out of range.

    References
    ----------
    Dobigeon et al., "Joint Bayesian endmember extraction and linear unmixing for hyperspectral imagery", IEEE Trans.
    Signal Process. 57, 4355 (2009): the same likelihood and simplex prior, sampled with the abundances.
    """

    n_endmembers: int = field(metadata={"static": True})
    endmembers: Any = None
    likelihood: Literal["normal"] = field(default="normal", metadata={"static": True})
    concentration: float | None = field(default=None, metadata={"static": True})
    endmember_support: Literal["nonnegative", "real"] = field(default="nonnegative", metadata={"static": True})
    noise: Literal["isotropic", "diagonal"] = field(default="isotropic", metadata={"static": True})
    endmember_scale: Any = None
    noise_level: Any = None
    endmember_resolution: Any = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: expected one of {', '.join(map(repr, allowed))}, got {getattr(self, name)!r}"
                )
        if not isinstance(self.n_endmembers, int | np.integer) or self.n_endmembers < 1:
            raise ValueError(f"n_endmembers: expected an integer of at least 1, got {self.n_endmembers!r}")
        if self.concentration is not None and not (np.isfinite(self.concentration) and self.concentration > 0):
            raise ValueError(f"concentration: expected a positive number, got {self.concentration!r}")
        if self.endmembers is not None:
            known = np.asarray(self.endmembers, dtype=np.float64)
            if known.ndim != 2 or len(known) != self.n_endmembers or not np.isfinite(known).all():
                raise ValueError(
                    f"endmembers: expected finite numbers of shape ({self.n_endmembers}, channel), got {known.shape}"
                )
            object.__setattr__(self, "endmembers", known)

    # ------------------------------------------------------------------ the program

    def __call__(self, y=None, *, n_units: int) -> None:
        """The program of inference: abundances integrated out. ``y`` is (unit, channel)."""
        endmembers, noise_scale = self._globals()
        likelihood = NormalUnmixing(endmembers, None if self.alpha == 1 else self._concentration(), noise_scale)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def joint(self, y=None, *, n_units: int) -> None:
        """The same model as in a paper, every pixel's abundances an ordinary latent variable."""
        endmembers, noise_scale = self._globals()
        with numpyro.plate("unit", n_units):
            abundance = numpyro.sample("abundance", dist.Dirichlet(self._concentration()))
            numpyro.sample("y", dist.Normal(abundance @ endmembers, noise_scale).to_event(1), obs=y)

    def _globals(self):
        if not self.bound:
            raise ValueError("the priors have no scale yet: call model.bind(data) first (bu.fit does it for you)")
        scale, level = jnp.asarray(self.endmember_scale), jnp.asarray(self.noise_level)
        if self.endmembers is not None:
            endmembers = jnp.asarray(self.endmembers)
        else:
            shape = (self.n_endmembers, scale.shape[0])
            full = jnp.broadcast_to(scale, shape)
            if self.endmember_support == "nonnegative":
                prior = HalfNormal(full, jnp.broadcast_to(jnp.asarray(self.endmember_resolution), shape))
            else:
                prior = dist.Normal(jnp.zeros_like(full), full)
            endmembers = numpyro.sample("endmembers", prior.to_event(2))
        noise = dist.LogNormal(jnp.log(level), 0.5)
        if self.noise == "diagonal":
            noise = noise.to_event(1)
        return endmembers, numpyro.sample("noise_scale", noise)

    def _concentration(self):
        return jnp.full(self.n_endmembers, self.alpha)

    @property
    def alpha(self) -> float:
        """The Dirichlet concentration in use."""
        return 1.0 if self.concentration is None else self.concentration

    # ------------------------------------------------------------------ what the engine asks of a model

    @property
    def bound(self) -> bool:
        """Whether the priors are numbers already."""
        return self.noise_level is not None

    @property
    def dims(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of every parameter; ``channel`` stands for the data's own last dim."""
        noise = ("channel",) if self.noise == "diagonal" else ()
        return {"endmembers": ("endmember", "channel"), "noise_scale": noise, "abundance": ("endmember",)}

    @property
    def latent(self) -> str:
        """Name of the latent that the likelihood integrates out."""
        return "abundance"

    @property
    def label(self) -> str | None:
        """The dim whose order is arbitrary, if any."""
        return "endmember" if self.endmembers is None and self.n_endmembers > 1 else None

    def bind(self, data) -> LinearUnmixing:
        """The same model with every data-scaled prior turned into a number.

        ``data`` is (..., channel). Data without any variation give a prior of unit scale and noise of .05, so that
        an empty template can be simulated on.
        """
        values = np.asarray(data, dtype=np.float64).reshape(-1, np.shape(data)[-1])
        n_units, n_channels = values.shape
        if self.endmembers is not None and self.endmembers.shape[1] != n_channels:
            raise ValueError(
                f"endmembers have {self.endmembers.shape[1]} channels, the data {n_channels}: give both the same axis"
            )
        if self.n_endmembers > n_channels:
            raise ValueError(
                f"n_endmembers={self.n_endmembers} exceeds the {n_channels} channels: no more spectra than channels "
                "can be told apart"
            )
        if np.ptp(values) == 0:
            scale, level = np.ones(n_channels), np.full(n_channels, 0.05)
        else:
            scale = np.quantile(np.abs(values), 0.999, axis=0)
            scale = np.maximum(scale, 1e-3 * scale.max())
            _, _, left = principal_plane(values, min(self.n_endmembers - 1, n_channels - 1, n_units - 1))
            floor = 1e-4 * scale.max()
            level = np.maximum(np.sqrt(left), floor)
        isotropic = float(np.sqrt(np.mean(level**2)))
        # A posterior's width: noise over the square root of what Dirichlet-spread abundances of all pixels tell.
        resolution = 0.6 * isotropic * np.sqrt(self.n_endmembers * (self.n_endmembers + 1) / n_units)
        return replace(
            self,
            endmember_scale=scale,
            noise_level=level if self.noise == "diagonal" else isotropic,
            endmember_resolution=float(resolution),
        )

    def initial(self, data) -> dict[str, np.ndarray]:
        """Where to start: the purest pixels and the noise left by their plane."""
        start = {"noise_scale": np.asarray(self.noise_level, dtype=np.float64)}
        if self.endmembers is None:
            vertices = purest_pixels(np.asarray(data), self.n_endmembers)
            if self.endmember_support == "nonnegative":
                vertices = np.maximum(vertices, 0.5 * self.endmember_resolution)
            start["endmembers"] = vertices
        return start

    def order(self, draws) -> np.ndarray:
        """Canonical order of the labels for mean latents ``draws["abundance"]`` (endmember,): most abundant first."""
        return np.argsort(-np.asarray(draws["abundance"]), kind="stable")

    def describe(self) -> str:
        """The priors in plain words, a line each."""
        count = f"{self.n_endmembers} endmember" + ("s" if self.n_endmembers > 1 else "")
        lines = [f"Every pixel is a mixture of {count}; its abundances are non-negative and sum to one."]
        even = "uniform over all mixtures" if self.alpha == 1 else f"Dirichlet({self.alpha:g})"
        lines.append(f"Abundances: {even} before the data are seen.")
        if self.endmembers is not None:
            lines.append("Endmembers: known, taken as exact.")
        elif not self.bound:
            lines.append(f"Endmembers: {self.endmember_support}, scale taken from the data when the model is fitted.")
        else:
            low, high = np.min(self.endmember_scale), np.max(self.endmember_scale)
            kind = "half-normal (never negative)" if self.endmember_support == "nonnegative" else "normal around zero"
            lines.append(
                f"Endmembers: every channel on its own, {kind}, with the spread of the data in that channel "
                f"({low:.3g} to {high:.3g})."
            )
        if self.bound:
            level = float(np.sqrt(np.mean(np.square(self.noise_level))))
            kind = (
                "one standard deviation for all channels"
                if self.noise == "isotropic"
                else "a standard deviation per channel"
            )
            lines.append(f"Noise: normal, {kind}, expected near {level:.3g}, within a factor of 2.7 (95 %).")
        return "\n".join(lines)


_CHOICES = {
    "likelihood": ("normal",),
    "endmember_support": ("nonnegative", "real"),
    "noise": ("isotropic", "diagonal"),
}
