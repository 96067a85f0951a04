"""Probabilistic PCA: number of components, calibration, speed beside scikit-learn, low dose.

    python benchmarks/pca.py selection --first 0 --count 20
    python benchmarks/pca.py calibration --noise isotropic --count 200
    python benchmarks/pca.py draws
    python benchmarks/pca.py large --pixels 256 --channels 1024 --components 8
    python benchmarks/pca.py dose
    python benchmarks/pca.py real --data eels --sizes 1 6

Each prints what it measured, with the settings it was measured at. Nothing is run by the tests.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import jax
import numpy as np
import xarray as xr
from numpyro.diagnostics import effective_sample_size

import bayesunmix as bu
from bayesunmix.models import ProbabilisticPCA

FRESH = 4  # times the fitted pixels


def image_of(values: np.ndarray) -> xr.DataArray:
    return xr.DataArray(values, dims=("y", "x", "energy"))


# ---------------------------------------------------------------------- how many components


def simulated(seed: int, side: int = 24, n_channels: int = 32):
    """An image of 2 to 6 components of unequal strength, and more fresh pixels."""
    rng = np.random.default_rng(seed)
    n = 2 + seed % 5
    loadings = rng.normal(size=(n, n_channels)) * rng.uniform(0.15, 0.6, (n, 1))
    mean = rng.uniform(0, 3, n_channels)

    def draw(*shape):
        return mean + rng.normal(size=(*shape, n)) @ loadings + rng.normal(size=(*shape, n_channels))

    return n, image_of(draw(side, side)), image_of(draw(FRESH * side, side))


def selection(first: int, count: int) -> None:
    """Preferred number of components, and WAIC against fresh pixels."""
    right = close = 0
    for seed in range(first, first + count):
        n, image, fresh = simulated(seed)
        fits = {k: bu.fit(ProbabilisticPCA(k), image, progress=False, seed=seed) for k in range(n - 1, n + 2)}
        table = bu.compare({str(k): fit for k, fit in fits.items()})
        preferred = int(table.attrs["preferred"])
        log_density = bu.log_likelihood(thinned(fits[n]), fresh).stack(sample=("chain", "draw")).values
        terms = np.logaddexp.reduce(log_density, axis=-1) - np.log(log_density.shape[-1])
        expected = terms.sum() / FRESH
        found = table.loc[str(n)]
        apart = (found["elpd"] - expected) / np.hypot(found["se"], np.sqrt(terms.size * terms.var()) / FRESH)
        right, close = right + (preferred == n), close + (abs(apart) < 2)
        print(f"seed {seed}: true {n}, preferred {preferred}, WAIC from fresh data {apart:+.2f} se", flush=True)
    print(f"true number preferred {right} of {count}, elpd within 2 se {close} of {count}")


def thinned(fit: bu.Fit) -> bu.Fit:
    from dataclasses import replace

    return replace(fit, posterior=fit.posterior.isel(draw=slice(None, None, 5)))


# ---------------------------------------------------------------------- calibration


def calibration(noise: str, count: int, n_units: int = 40, n_channels: int = 6, n_components: int = 2) -> None:
    """Simulation-based calibration: ranks of invariants among posterior draws, and coverage of 90 % intervals."""
    from scipy.stats import kstest

    rng = np.random.default_rng(0)
    base = np.abs(rng.normal(size=(n_units, n_channels)) + 3)
    model = ProbabilisticPCA(n_components, noise=noise, component_floor=1.0).bind(base)
    covariates = {"row_factor": rng.uniform(0.3, 2.0, n_units)} if noise == "two-way" else {}
    names = [
        "explained variance 1",
        "explained variance 2",
        "noise 1",
        "mean 1",
        "mean 2",
        "gram 11",
        "gram 12",
        "gram 45",
    ]

    def invariants(values):
        gram = np.einsum("...kp,...kq->...pq", values["components"], values["components"])
        level = np.asarray(values["noise_scale"]).reshape(*gram.shape[:-2], -1)[..., :1]
        grams = [gram[..., 0, :2], gram[..., 3, 4:5]]
        return np.concatenate([values["explained_variance"], level, values["mean"][..., :2], *grams], axis=-1)

    ranks, covered, started = [], [], time.perf_counter()
    for seed in range(count):
        data, truth = bu.simulate(model, base, seed=seed, **covariates)
        sampler, state = model.gibbs(data.values, covariates), None
        state = sampler.start(rng, 8)
        kept = []
        for sweep in range(150 + 240):
            state = sampler.sweep(state, rng)
            if sweep >= 150 and sweep % 10 == 0:
                kept.append(model.identified(sampler.finished(sampler.values(state))))
        draws = invariants({name: np.concatenate([one[name] for one in kept]) for name in kept[0]})
        true = invariants({name: truth[name].values for name in kept[0]})
        ranks.append((draws < true).mean(0))
        low, high = np.quantile(draws, [0.05, 0.95], axis=0)
        covered.append((low <= true) & (true <= high))
    p_values = [kstest(one, "uniform").pvalue for one in np.transpose(ranks)]
    share, error = np.mean(covered, 0), np.sqrt(0.09 / count)
    for name, p, c in zip(names, p_values, share, strict=True):
        print(f"{name:24s} uniform p {p:.3f}  coverage {c:.3f} ± {error:.3f}")
    print(f"{noise}, {count} data sets of {n_units} x {n_channels}, {time.perf_counter() - started:.0f} s")


# ---------------------------------------------------------------------- speed


def draws(n_units: int = 16384, n_channels: int = 128) -> None:
    """Effective draws per CPU second of the least-mixing invariant, 4 components, the prior of the defaults."""
    rng = np.random.default_rng(1)
    loadings = rng.normal(size=(4, n_channels)) * np.array([[0.5], [0.3], [0.2], [0.15]])
    y = 1 + rng.normal(size=(n_units, 4)) @ loadings + rng.normal(size=(n_units, n_channels))
    model = ProbabilisticPCA(4).bind(y)
    sampler = model.gibbs(y, {})
    state = sampler.start(rng, 8)
    for _ in range(100):
        state = sampler.sweep(state, rng)
    kept, started = [], time.process_time()
    for _ in range(1000):
        state = sampler.sweep(state, rng)
        kept.append(sampler.values(state))
    spent = time.process_time() - started
    components = np.stack([one["components"] for one in kept], axis=1)
    squares = np.linalg.svd(components, compute_uv=False) ** 2
    found = {
        "explained variances": squares,
        "noise": np.stack([one["noise_scale"] for one in kept], axis=1),
        "communalities": (components**2).sum(-2),
        "mean": np.stack([one["mean"] for one in kept], axis=1),
    }
    for name, values in found.items():
        print(
            f"{name:20s} at least {np.min(effective_sample_size(values)) / spent:8.0f} effective draws per CPU second"
        )
    print(f"{n_units} x {n_channels}, explained variances over noise {squares.mean((0, 1)).round(2)}")


def large(side: int, n_channels: int, n_components: int) -> None:
    """A whole fit beside scikit-learn's PCA, in turn; and the memory it needs beside the image."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(n_components, n_channels)) * np.linspace(1, 0.3, n_components)[:, None]
    values = np.empty((side, side, n_channels), np.float32)
    for row in values:
        row[:] = rng.normal(size=(side, n_components)) @ loadings + rng.standard_normal((side, n_channels))
    image = image_of(values)
    bu.fit(ProbabilisticPCA(2), image[:4, :8, :16], progress=False)
    for again in range(3):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        started = time.perf_counter()
        fit = bu.fit(ProbabilisticPCA(n_components), image, progress=False, seed=again)
        ours = time.perf_counter() - started
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        started = time.perf_counter()
        PCA(n_components, svd_solver="covariance_eigh").fit(values.reshape(-1, n_channels))
        theirs = time.perf_counter() - started
        print(
            f"fit {ours:.2f} s, scikit-learn {theirs:.2f} s, ratio {ours / theirs:.2f}, peak grew by {more:.0f} MiB "
            f"({values.nbytes / 2**20:.0f} MiB image), worst R-hat {float(fit.diagnostics['rhat'].max()):.4f}",
            flush=True,
        )


# ---------------------------------------------------------------------- low dose


def dose(side: int = 32, n_channels: int = 40) -> None:
    """Counts at 1 to 30 a pixel: do intervals of the true spectra cover, and how far is truncated PCA?"""
    rng = np.random.default_rng(0)
    energy, y, x = np.linspace(0, 1, n_channels), *np.mgrid[:side, :side] / side
    spectra = np.stack([np.exp(-3 * energy), np.exp(-(((energy - 0.6) / 0.1) ** 2)) + 0.1])
    spectra /= spectra.sum(1, keepdims=True)
    share = 0.5 + 0.5 * np.tanh(8 * (x - 0.5 + 0.2 * np.sin(5 * y)))
    truth = (1 - share)[..., None] * spectra[0] + share[..., None] * spectra[1]
    print("counts a pixel | noise    | coverage of 90 % | rms error, fit | rms error, PCA")
    for counts in (1, 3, 10, 30):
        expected = counts * truth
        image = image_of(rng.poisson(expected).astype(float))
        flat = image.values.reshape(-1, n_channels)
        centre = flat.mean(0)
        rotation = np.linalg.svd(flat - centre, full_matrices=False)
        truncated = centre + (rotation.U[:, :1] * rotation.S[:1]) @ rotation.Vh[:1]
        worse = np.sqrt(np.mean((truncated - expected.reshape(-1, n_channels)) ** 2))
        for noise in NOISES:
            fit = bu.fit(ProbabilisticPCA(1, noise=noise), image, progress=False)
            parts = bu.uncertainty(fit)
            inside = np.abs(parts["mean"] - expected) < 1.6449 * parts["epistemic"]
            kept = np.isfinite(parts["mean"])
            error = np.sqrt(float(((parts["mean"] - expected) ** 2).mean()))
            print(
                f"{counts:14d} | {noise:8s} | {float(inside.sum() / kept.sum()):16.3f} | {error:14.4f} | {worse:14.4f}",
                flush=True,
            )


# ---------------------------------------------------------------------- real data

REAL = {
    "eels": ("eels_cuzn/CuZn_EELS_mapping_tutorial.hspy", "diagonal", 1),
    "cafm": ("cafm_bfo_iv/bfo_iv_final.hf5", "isotropic", 1),
    "eds": ("eds_fept/core_shell.hspy", "diagonal", 16),
}


def real(name: str, sizes: range) -> None:
    """Fits of several sizes to a measured image: explained variances, fit, and which size is preferred."""
    file, noise, bins = REAL[name]
    folder = Path(os.environ.get("BAYESUNMIX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    image = bu.load(folder / file)
    channel = image.dims[-1]
    if bins > 1:
        image = image.coarsen({channel: bins}, boundary="trim").sum()
        image = image.isel({channel: (image > 0).any(image.dims[:-1])})
    fits = {}
    for k in sizes:
        started = time.perf_counter()
        fits[str(k)] = fit = bu.fit(ProbabilisticPCA(k, noise=noise), image, progress=False)
        spent = time.perf_counter() - started
        variance = fit.posterior["explained_variance"]
        low, high = variance.quantile([0.05, 0.95], ("chain", "draw")).values
        shown = ", ".join(f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
        checked = bu.check(fit, draws=40, replicates=49).attrs
        above = float(fit.posterior["n_above_noise"].mean())
        print(
            f"{name} {image.shape} {noise} K={k}: {spent:.1f} s, R-hat {float(fit.diagnostics['rhat'].max()):.3f}, "
            f"above noise {above:.2f}, explained {shown}; reduced chi2 {checked['reduced_chi2']:.2f}, "
            f"small p {checked['small_p_share']:.3f}",
            flush=True,
        )
    table = bu.compare(fits)
    print(table[["elpd", "p", "elpd_diff", "dse"]].round(1).to_string())
    print(table.attrs["verdict"])


NOISES = ("diagonal", "two-way")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["selection", "calibration", "draws", "large", "dose", "real"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--noise", default="isotropic")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--data", choices=list(REAL), default="eels")
    parser.add_argument("--sizes", type=int, nargs=2, default=(1, 6), help="first and last, for real data")
    given = parser.parse_args()
    if given.what == "selection":
        selection(given.first, given.count)
    elif given.what == "calibration":
        calibration(given.noise, given.count)
    elif given.what == "draws":
        draws()
    elif given.what == "large":
        large(given.pixels, given.channels, given.components)
    elif given.what == "real":
        real(given.data, range(given.sizes[0], given.sizes[1] + 1))
    else:
        dose()


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
