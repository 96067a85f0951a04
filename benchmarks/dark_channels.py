"""Spectra of a few peaks on nothing: what intervals hold where most channels are truly zero, which no prior expects.

    python benchmarks/dark_channels.py [--images 10] [--sparsity learned]

Intervals are those of entries above eight posterior standard deviations, and of abundances. The same peaks on a
background show what dark channels do. Table in ``benchmarks/results/dark_channels.md``; that of a prior which expects
such spectra in ``dark_channels_sparsity_learned.md``.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
from pca_tables import RESULTS, table, version
from simulated import TAILS, matched

import bayesunmix as bu

_CLEAR = 8.0  # posterior standard deviations
_COUNTS = 200.0  # a pixel
_NOISE = 0.02  # beside peaks of .3 to 1
_DARK = 1e-4


class Setting(NamedTuple):
    """What is simulated and how it is fitted."""

    n_endmembers: int
    side: int
    likelihood: str
    background: float = 0.0
    sampled: bool = False
    told: bool = False  # which channels of each spectrum are dark

    @property
    def name(self) -> str:
        """In the table."""
        noise = f"Poisson, {_COUNTS:g} counts" if self.likelihood == "poisson" else "normal noise"
        under = f"background {self.background:g}" if self.background else "nothing"
        by = ", by NUTS" if self.sampled else ", told where" if self.told else ""
        return f"{self.n_endmembers}, {self.side} x {self.side} x 64, {noise}, on {under}{by}"


SETTINGS = (
    Setting(3, 32, "normal"),
    Setting(3, 32, "normal", sampled=True),
    Setting(3, 32, "normal", told=True),
    Setting(3, 32, "normal", background=0.2),
    Setting(4, 48, "normal"),
    Setting(4, 48, "normal", background=0.2),
    Setting(3, 32, "poisson"),
    Setting(3, 32, "poisson", background=0.2),
)
COLUMNS = (
    "images",
    "clear entries in 90 %",
    "their error / sd, mean",
    "rms error / highest",
    "abundances in 90 %",
    "converged",
    "median CPU s",
)


def image_of(setting: Setting, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, endmembers (K, channel), abundances (y, x, K): three peaks a spectrum."""
    rng = np.random.default_rng([seed, setting.n_endmembers])
    channel = np.arange(64.0)
    at, height = rng.uniform(0, 64, (setting.n_endmembers, 3, 1)), rng.uniform(0.3, 1.0, (setting.n_endmembers, 3, 1))
    spectra = setting.background + (height * np.exp(-0.5 * ((channel - at) / 1.07) ** 2)).sum(1)
    shares = rng.dirichlet(np.ones(setting.n_endmembers), (setting.side, setting.side))
    if setting.likelihood == "poisson":
        spectra *= _COUNTS / spectra.sum(1).mean()
        return rng.poisson(shares @ spectra).astype(float), spectra, shares
    return shares @ spectra + _NOISE * rng.normal(size=(setting.side, setting.side, 64)), spectra, shares


def scored(setting: Setting, seed: int, sparsity: float | str | None) -> np.ndarray:
    """The numbers of a row from one image."""
    image, spectra, shares = image_of(setting, seed)
    known = [(np.zeros(64), np.where(one < _DARK, _DARK, 1.0)) for one in spectra] if setting.told else None
    options = {"likelihood": setting.likelihood, "endmembers": known, "sparsity": sparsity}
    model = bu.models.LinearUnmixing(setting.n_endmembers, **options)
    method = bu.NUTS(draws=300, warmup=300, chains=2) if setting.sampled else None
    start = time.process_time()
    fit = bu.fit(model, image, method, seed=seed, progress=False)
    took = time.process_time() - start
    draws = fit.posterior["endmembers"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    mean, sd = draws.mean(0), draws.std(0)
    match = matched(mean, spectra)
    true, (low, high) = spectra[match], np.quantile(draws, TAILS, axis=0)
    clear = true > _CLEAR * sd
    away = (mean - true)[clear]
    maps = fit.latent()["abundance"]
    lower, upper = (maps.sel(statistic=s).values for s in ("lower", "upper"))
    held = (lower <= shares[..., match]) & (shares[..., match] <= upper)
    inside = ((low <= true) & (true <= high))[clear]
    rms = np.sqrt(np.mean(away**2)) / spectra.max()
    return np.array([inside.mean(), (away / sd[clear]).mean(), rms, held.mean(), fit.converged, took])


def main() -> None:
    """Write the table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--sparsity", help="a number, or learned")
    args = parser.parse_args()
    sparsity = args.sparsity if args.sparsity in (None, "learned") else float(args.sparsity)
    stem = "dark_channels" + (f"_sparsity_{args.sparsity}" if args.sparsity else "")
    rows = []
    for setting in SETTINGS:
        if sparsity is not None and (setting.told or setting.sampled):
            continue
        found = np.array([scored(setting, seed, sparsity) for seed in range(args.images)])
        means, errors = found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))
        cells = [f"{m:.3f} ({e:.3f})" for m, e in zip(means[:2], errors[:2], strict=True)]
        cells += [f"{means[2]:.4f}", f"{means[3]:.3f} ({errors[3]:.3f})", f"{int(found[:, 4].sum())}"]
        cells.append(f"{np.median(found[:, 5]):.0f}")
        rows.append([setting.name, str(args.images), *cells])
        option = f" --sparsity {args.sparsity}" if args.sparsity else ""
        head = f"`python benchmarks/dark_channels.py --images {args.images}{option}`, {version()}"
        (RESULTS / f"{stem}.md").write_text("\n".join([head, "", *table(["spectra", *COLUMNS], rows)]) + "\n")
        print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
