"""Everything the page says about a fit, computed once through the fit's public face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.check import check
from bayesunmix.dynamics import chapman_kolmogorov
from bayesunmix.plot.truth import endmember_draws, matched
from bayesunmix.uncertainty import uncertainty

PROB = 0.9


@dataclass(frozen=True, eq=False)
class Facts:
    """A fit with its derived results, and the truth in the fit's order where it is known."""

    fit: Any
    latent: xr.Dataset
    checked: xr.Dataset
    split: xr.Dataset
    truth: xr.Dataset | None
    memory: xr.Dataset | None = None  # of a chain of states, ``bu.chapman_kolmogorov``

    @property
    def hops(self) -> bool:
        """Whether the units are sequences of states that hop."""
        return self.memory is not None

    @property
    def mixes(self) -> bool:
        """Whether the pixels are mixtures, with abundances."""
        return "abundance" in self.latent

    @property
    def classes(self) -> bool:
        """Whether the units are vectors that belong to classes."""
        return "membership" in self.latent

    @property
    def parts(self) -> tuple[str, str]:
        """What a unit of the data and an entry of it are called."""
        if self.hops:
            return "sequence", "frame"
        return (str(self.fit.units.pixel_dims[-1]), "feature") if self.classes else ("pixel", "channel")

    @property
    def abundance(self) -> xr.DataArray:
        return self.latent["abundance"]

    @property
    def components(self) -> list[dict[str, float]]:
        """Of a model with components: explained variance with its interval, and the probability to be above noise."""
        if "explained_variance" not in self.fit.posterior:
            return []
        posterior = self.fit.posterior.stack(sample=("chain", "draw"))
        variance = posterior["explained_variance"].transpose("component", "sample").values
        low, high = np.quantile(variance, [(1 - PROB) / 2, (1 + PROB) / 2], axis=1)
        above = posterior["n_above_noise"].values
        return [
            {"mean": float(v.mean()), "lower": float(a), "upper": float(b), "above_noise": float(np.mean(above > k))}
            for k, (v, a, b) in enumerate(zip(variance, low, high, strict=True))
        ]

    @property
    def pixel_dims(self) -> list[Any]:
        return list(self.checked["chi2"].dims)

    @property
    def endmembers_inferred(self) -> bool:
        return "endmembers" in self.fit.posterior

    @property
    def scales(self) -> list[dict[str, float]]:
        """For each endmember its scale (mean over channels) with an interval, and the relative sd of its shape.

        Only where a brightness leaves the scale to be told from the shape.
        """
        if not (self.endmembers_inferred and "brightness" in self.latent):
            return []
        draws = self.fit.posterior["endmembers"].stack(sample=("chain", "draw")).transpose("endmember", ..., "sample")
        found = []
        for spectrum in draws.values:
            scale = spectrum.mean(axis=0)
            shape = spectrum / scale
            low, high = np.quantile(scale, [(1 - PROB) / 2, (1 + PROB) / 2])
            of_shape = float(np.sqrt((shape.var(axis=1)).mean() / (shape.mean(axis=1) ** 2).mean()))
            found.append({"mean": float(scale.mean()), "lower": float(low), "upper": float(high), "shape": of_shape})
        return found

    @property
    def accounts_for_data(self) -> bool:
        """Whether none of the tests of ``bu.check`` failed."""
        return bool(self.checked.attrs["passed"])

    @property
    def worst_channel(self) -> tuple[str, float]:
        """Where the root mean square residual by channel is largest, and how large it is there."""
        residual = self.checked["residual"]
        channel = residual.dims[-1]
        by_channel = (residual**2).mean(residual.dims[:-1]) ** 0.5
        position = int(np.nanargmax(by_channel.values))
        worst = by_channel.isel({channel: position})
        if channel not in worst.coords:
            return f"{channel} {position}", float(worst)
        where = worst.coords[channel]
        name = f"{where.item():.5g}" if where.dtype.kind in "fiu" else str(where.item())
        return f"{name} {where.attrs.get('units', '')}".strip(), float(worst)

    @property
    def residual_by_signal(self) -> tuple[float, float]:
        """Median root mean square residual of the darkest and of the brightest third of the channels."""
        residual = self.checked["residual"]
        by_channel = ((residual**2).mean(residual.dims[:-1]) ** 0.5).values
        order = np.argsort(self.fit.data.mean(residual.dims[:-1]).values)
        third = max(1, order.size // 3)
        return float(np.median(by_channel[order[:third]])), float(np.median(by_channel[order[-third:]]))

    @property
    def epistemic_share(self) -> float:
        """Share of the predictive variance, over the image, that is not noise."""
        epistemic, total = (np.mean(finite(self.split[part]) ** 2) for part in ("epistemic", "total"))
        return float(epistemic / total)

    @property
    def purest(self) -> list[float]:
        """For each endmember the mean abundance that one pixel in a thousand exceeds."""
        mean = self.abundance.sel(statistic="mean").transpose("endmember", ...)
        return [float(np.quantile(finite(member), 0.999)) for member in mean]

    @property
    def pure_share(self) -> tuple[float, float]:
        """Share of pixels with an abundance above .95, and the share if all mixtures were equally common."""
        mean = self.abundance.sel(statistic="mean").transpose("endmember", ...)
        n = mean.sizes["endmember"]
        return float(np.mean(finite(mean.max("endmember")) > 0.95)), min(1.0, n * 0.05 ** (n - 1))

    @property
    def neighbours_alike(self) -> float:
        """Correlation of chi-square between adjacent pixels; about zero when the misfit has no structure."""
        chi2 = self.checked["chi2"]
        near, far = [], []
        for dim in self.pixel_dims:
            near.append(chi2.isel({dim: slice(None, -1)}).values.ravel())
            far.append(chi2.isel({dim: slice(1, None)}).values.ravel())
        a, b = np.concatenate(near), np.concatenate(far)
        both = np.isfinite(a) & np.isfinite(b)
        if both.sum() < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
            return 0.0
        return float(np.corrcoef(a[both], b[both])[0, 1])

    @property
    def abundance_coverage(self) -> float | None:
        """Share of the true abundances inside their intervals; None without truth."""
        if self.truth is None or not self.mixes:
            return None
        order = (*self.pixel_dims, "endmember")
        true = self.truth["abundance"].transpose(*order).values
        low, high = (self.abundance.sel(statistic=s).transpose(*order).values for s in ("lower", "upper"))
        kept = np.isfinite(low)
        return float(np.mean(((low <= true) & (true <= high))[kept]))

    @property
    def endmember_coverage(self) -> float | None:
        """Share of the true endmember channels inside their bands; None without truth or bands."""
        if self.truth is None or not self.endmembers_inferred:
            return None
        draws = endmember_draws(self.fit).values
        low, high = np.quantile(draws, [(1 - PROB) / 2, (1 + PROB) / 2], axis=0)
        true = self.truth["endmembers"].transpose("endmember", ...).values
        return float(np.mean((low <= true) & (true <= high)))


def gather(fit: Any, truth: xr.Dataset | None) -> Facts:
    """Do the work that the page needs, once."""
    return Facts(
        fit=fit,
        latent=fit.latent(prob=PROB) if getattr(fit.model, "latent", None) else xr.Dataset(),
        checked=check(fit),
        split=uncertainty(fit),
        truth=matched(fit, truth) if truth is not None and "endmember" in truth.dims else truth,
        memory=_memory(fit),
    )


def _memory(fit: Any) -> xr.Dataset | None:
    """The memory check over as many lags as half of the longest sequence holds; None without states that hop."""
    if getattr(fit.model, "unit", "pixel") != "sequence" or getattr(fit.model, "n_states", 1) < 2:
        return None
    most = max(1, int(fit.units.lengths.max()) // (2 * getattr(fit.model, "lag", 1)))
    return chapman_kolmogorov(fit, [lag for lag in (1, 2, 4, 8, 16) if lag <= most], prob=PROB)


def finite(values: xr.DataArray) -> np.ndarray:
    """The finite values, flat."""
    array = np.asarray(values.values, float)
    return array[np.isfinite(array)]
