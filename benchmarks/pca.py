"""Probabilistic PCA: number of components, calibration, speed beside scikit-learn, low dose.

    python benchmarks/pca.py selection --count 40
    python benchmarks/pca.py calibration --noise isotropic --count 400
    python benchmarks/pca.py floors --count 20
    python benchmarks/pca.py draws
    python benchmarks/pca.py large --pixels 256 --channels 1024 --components 8
    python benchmarks/pca.py dose --count 4
    python benchmarks/pca.py integral --count 100
    python benchmarks/pca.py real --data eels --sizes 0 8

Each prints its table and writes it to benchmarks/results/ with the settings it was measured at. Those of
many data sets keep what they found of each in a JSON file beside it, and go on there when they are started again.
Nothing is run by the tests.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size
from pca_dose import dose
from pca_floors import floors
from pca_integral import integral
from pca_tables import Kept, image_of, table, write
from simulated import loaded

import bayesunmix as bu
from bayesunmix.models import ProbabilisticPCA

FRESH = 4  # times the fitted pixels
USUAL_FLOOR = ProbabilisticPCA(1).component_floor


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


def selection(count: int) -> None:
    """Preferred number of components, and WAIC against fresh pixels."""
    kept = Kept("selection")
    for seed in range(count):
        if str(seed) in kept.rows:
            continue
        n, image, fresh = simulated(seed)
        fits = {k: bu.fit(ProbabilisticPCA(k), image, progress=False, seed=seed) for k in range(n - 1, n + 2)}
        found = bu.compare({str(k): fit for k, fit in fits.items()})
        log_density = bu.log_likelihood(thinned(fits[n]), fresh).stack(sample=("chain", "draw")).values
        terms = np.logaddexp.reduce(log_density, axis=-1) - np.log(log_density.shape[-1])
        row = found.loc[str(n)]
        error = np.hypot(row["se"], np.sqrt(terms.size * terms.var()) / FRESH)
        apart = float((row["elpd"] - terms.sum() / FRESH) / error)
        kept.add(seed, {"true": n, "preferred": int(found.attrs["preferred"]), "apart": apart})
        print(seed, kept.rows[str(seed)], flush=True)
    rows = [kept.rows[str(seed)] for seed in range(count)]
    right = sum(row["preferred"] == row["true"] for row in rows)
    close = sum(abs(row["apart"]) < 2 for row in rows)
    shown = []
    for n in range(2, 7):
        these = [row for row in rows if row["true"] == n]
        off = [str(row["preferred"]) for row in these if row["preferred"] != n]
        near = sum(abs(row["apart"]) < 2 for row in these)
        shown.append(
            [
                n,
                len(these),
                len(these) - len(off),
                ", ".join(off) or "-",
                near,
                f"{max(abs(row['apart']) for row in these):.2f}",
            ]
        )
    write(
        "selection",
        f"selection --count {count}",
        [
            f"{count} images of 24 x 24 pixels and 32 channels, isotropic noise of 1, loadings normal with a "
            "strength uniform "
            "in .15 to .6 for each component. Candidates: one fewer, the true number, one more. WAIC of the true "
            "number "
            f"beside the log score of {FRESH} times as many fresh pixels, in standard errors of the difference.",
            "",
            f"Preferred number right in {right} of {count}; elpd within 2 standard errors of fresh data in "
            f"{close} of {count}.",
            "",
            *table(
                [
                    "true number",
                    "images",
                    "preferred",
                    "else preferred",
                    "elpd within 2 se",
                    "largest |difference| / se",
                ],
                shown,
            ),
        ],
    )


def thinned(fit: bu.Fit) -> bu.Fit:
    return replace(fit, posterior=fit.posterior.isel(draw=slice(None, None, 5)))


# ---------------------------------------------------------------------- calibration


def sampled(model: ProbabilisticPCA, y: np.ndarray, covariates: dict[str, Any], rng) -> list[dict[str, np.ndarray]]:
    """Draws of 8 chains of the Gibbs sampler, every tenth sweep."""
    sampler = model.gibbs(y, covariates)
    state, found = sampler.start(rng, 8), []
    for sweep in range(150 + 240):
        state = sampler.sweep(state, rng)
        if sweep >= 150 and sweep % 10 == 0:
            found.append(model.identified(sampler.finished(sampler.values(state))))
    return found


FEW = 40  # pixels, where priors weigh and posteriors are not normal
INVARIANTS = (
    "explained variance 1",
    "explained variance 2",
    "noise, channel 1",
    "mean, channel 1",
    "mean, channel 2",
    "W'W, channels 1 and 1",
    "W'W, channels 1 and 2",
    "W'W, channels 4 and 5",
)


def calibration(noise: str, count: int, n_units: int, nuts: bool, n_channels: int = 6) -> None:
    """Simulation-based calibration: ranks of invariants among posterior draws, and coverage of 90 % intervals."""
    from scipy.stats import kstest

    # Counts take seconds a fit, not milliseconds.
    n_components = 1 if noise == "poisson" else 2
    names = [name for name in INVARIANTS if n_components > 1 or name != "explained variance 2"]
    rng = np.random.default_rng(0)
    base = np.abs(rng.normal(size=(n_units, n_channels)) + 3)
    base = np.round(3 * base) if noise == "poisson" else base
    kind: Any = "isotropic" if noise == "missing" else noise
    model = ProbabilisticPCA(n_components, noise=kind, component_floor=1.0).bind(base)
    covariates = {"row_factor": rng.uniform(0.3, 2.0, n_units)} if noise == "two-way" else {}
    model = replace(model, missing=noise == "missing")

    def invariants(values):
        gram = np.einsum("...kp,...kq->...pq", values["components"], values["components"])
        level = np.asarray(values["noise_scale"]).reshape(*gram.shape[:-2], -1)[..., :1]
        grams = [gram[..., 0, :2], gram[..., 3, 4:5]]
        return np.concatenate([values["explained_variance"], level, values["mean"][..., :2], *grams], axis=-1)

    method = bu.NUTS(draws=500, warmup=300, chains=2) if nuts else bu.SVI(draws=192)
    stem = f"calibration_{noise}" + ("_nuts" if nuts else "") + (f"_{n_units}" if n_units != FEW else "")
    kept = Kept(stem)
    for seed in range(count):
        if str(seed) in kept.rows:
            continue
        rng = np.random.default_rng([seed, 1])
        data, truth = bu.simulate(model, base, seed=seed, **covariates)
        y = np.where(rng.random(data.shape) < 0.1, np.nan, data.values) if noise == "missing" else data.values
        if noise == "poisson":
            # The axes choose a representative of all rotations and change no law: those of the data, as in any fit.
            axes = ProbabilisticPCA(n_components, noise="poisson").bind(y).reference
            fit = bu.fit(replace(model, reference=axes), y, method, seed=seed, progress=False)
            found = [{name: value.values.reshape(-1, *value.shape[2:]) for name, value in fit.posterior.items()}]
            passed = bool(fit.converged)
            print(seed, fit.diagnostics.attrs["verdict"], flush=True)
        else:
            passed = True
            found = sampled(model, y, covariates, rng)
        draws = invariants({name: np.concatenate([one[name] for one in found]) for name in found[0]})
        true = invariants({name: truth[name].values for name in found[0]})
        low, high = np.quantile(draws, [0.05, 0.95], axis=0, method="weibull")
        inside = (low <= true) & (true <= high)
        rank = np.round((draws < true).mean(0), 4).tolist()
        kept.add(seed, {"rank": rank, "inside": inside.astype(int).tolist(), "passed": passed})
    rows = [kept.rows[str(seed)] for seed in range(count)]
    p_values = [kstest(one, "uniform").pvalue for one in np.transpose([row["rank"] for row in rows])]
    share = np.mean([row["inside"] for row in rows], axis=0)
    error = np.sqrt(0.09 / count)
    lines = [
        [name, f"{p:.3f}", f"{c:.3f}", f"{error:.3f}", f"{(c - 0.9) / error:+.1f}"]
        for name, p, c in zip(names, p_values, share, strict=True)
    ]
    gaps = ", one entry in ten not measured" if noise == "missing" else ""
    drawn = (
        f"Ranks among {'1000 draws of `bu.NUTS(warmup=300)`' if nuts else '192 draws of `bu.SVI()`'}; "
        f"{sum(row['passed'] for row in rows)} fits passed their own checks."
        if noise == "poisson"
        else "Ranks among 192 draws of the Gibbs sampler, every tenth sweep of 8 chains after 150."
    )
    write(
        stem,
        f"calibration --noise {noise} --count {count}"
        + (" --nuts" if nuts else "")
        + (f" --units {n_units}" if n_units != FEW else ""),
        [
            f"{count} data sets of {n_units} pixels and {n_channels} channels with n_components={n_components}, drawn "
            f"from the prior ({kind} noise, `component_floor=1`){gaps}. {drawn} "
            "`W'W` is what no rotation of the components changes.",
            "",
            *table(
                ["quantity", "p of uniform ranks", "covered by 90 %", "standard error", "in standard errors"], lines
            ),
        ],
    )


# ---------------------------------------------------------------------- speed


def draws(n_units: int = 16384, n_channels: int = 128) -> None:
    """Effective draws per CPU second of the least-mixing invariant, 4 components, the prior of the defaults."""
    rng = np.random.default_rng(1)
    loadings = rng.normal(size=(4, n_channels)) * np.array([[0.5], [0.3], [0.2], [0.15]])
    y = 1 + rng.normal(size=(n_units, 4)) @ loadings + rng.normal(size=(n_units, n_channels))
    started = time.process_time()
    model = ProbabilisticPCA(4).bind(y)
    sampler = model.gibbs(y, {})
    state = sampler.start(rng, 8)
    for _ in range(100):
        state = sampler.sweep(state, rng)
    before, kept, started = time.process_time() - started, [], time.process_time()
    for _ in range(1000):
        state = sampler.sweep(state, rng)
        kept.append(sampler.values(state))
    spent = time.process_time() - started
    components = np.stack([one["components"] for one in kept], axis=1)
    squares = np.linalg.svd(components, compute_uv=False) ** 2
    found = {
        "explained variances": squares,
        "noise": np.stack([one["noise_scale"] for one in kept], axis=1),
        "variance of each channel without noise": (components**2).sum(-2),
        "mean": np.stack([one["mean"] for one in kept], axis=1),
    }
    fewest = {name: float(np.min(effective_sample_size(values))) for name, values in found.items()}
    write(
        "draws",
        "draws",
        [
            f"{n_units} x {n_channels}, 4 components of explained variances "
            f"{squares.mean((0, 1)).round(2).tolist()} in units of "
            "the noise variance, the prior of the defaults (inverse Wishart strengths with 4 degrees of freedom, "
            f"`component_floor='hidden'`). 8 chains of 1000 sweeps: {spent:.2f} s of CPU, after {before:.2f} s for "
            "covariance, start "
            "and 100 sweeps of warm-up.",
            "",
            *table(
                ["invariant", "least effective draws", "per CPU second"],
                [[name, f"{n:.0f}", f"{n / spent:.0f}"] for name, n in fewest.items()],
            ),
        ],
    )


def megabytes() -> float:
    """Peak of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory(side: int, n_channels: int, n_components: int) -> None:
    """Peak of image and fit above that of the libraries after a small fit, over the size of the image."""
    bu.fit(ProbabilisticPCA(2), loaded(8, 16, 2)[0], progress=False)
    before = megabytes()
    image, _ = loaded(side, n_channels, n_components)
    bu.fit(ProbabilisticPCA(n_components), image, progress=False)
    print((megabytes() - before) * 2**20 / image.nbytes)


def large(side: int, n_channels: int, n_components: int) -> None:
    """A whole fit beside scikit-learn's PCA, in turn; and the memory it needs, the image included."""
    from sklearn.decomposition import PCA

    sizes = ["--pixels", str(side), "--channels", str(n_channels), "--components", str(n_components)]
    peaks = [
        float(subprocess.run([sys.executable, __file__, "memory", *sizes], capture_output=True, text=True).stdout)
        for _ in range(2)
    ]
    image, _ = loaded(side, n_channels, n_components)
    bu.fit(ProbabilisticPCA(2), image[:4, :8, :16], progress=False)
    rows = []
    for again in range(8):
        started, spent = time.perf_counter(), time.process_time()
        fit = bu.fit(ProbabilisticPCA(n_components), image, progress=False, seed=again)
        ours, cpu = time.perf_counter() - started, time.process_time() - spent
        started, spent = time.perf_counter(), time.process_time()
        PCA(n_components, svd_solver="covariance_eigh").fit(image.values.reshape(-1, n_channels))
        theirs, their_cpu = time.perf_counter() - started, time.process_time() - spent
        times = [f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}", f"{cpu:.2f}", f"{their_cpu:.2f}"]
        rhat = f"{float(fit.diagnostics['rhat'].max()):.4f}"
        rows.append([again + 1, *times, f"{cpu / their_cpu:.2f}", rhat, f"{os.getloadavg()[0]:.1f}"])
    threads = os.environ.get("OPENBLAS_NUM_THREADS", "all")
    write(
        f"large_{side}x{side}x{n_channels}_k{n_components}_threads_{threads}",
        f"large {' '.join(sizes)}",
        [
            f"{side} x {side} x {n_channels} in float32 ({image.nbytes / 2**20:.0f} MiB), {n_components} components, "
            "isotropic noise: `bu.fit` with "
            f"its defaults ({fit.posterior.sizes['chain']} x {fit.posterior.sizes['draw']} draws) and scikit-learn's "
            f'`PCA(svd_solver="covariance_eigh")` in turn. `OPENBLAS_NUM_THREADS`: {threads}, on {os.cpu_count()} '
            "cores.",
            "",
            *table(["round", "fit, s", "PCA, s", "ratio", "CPU s", "PCA, CPU s", "ratio", "worst R-hat", "load"], rows),
            "",
            f"Peak memory, the image included, over the image: {' and '.join(f'{peak:.3f}' for peak in peaks)}, each "
            "in a process of its own, that of the libraries after a small fit not counted.",
        ],
    )


# ---------------------------------------------------------------------- real data

# File, noise, channels and pixels along each side that are binned to one.
REAL: dict[str, tuple[str, Any, int, int]] = {
    "eels": ("eels_cuzn/CuZn_EELS_mapping_tutorial.hspy", "diagonal", 1, 1),
    "cafm": ("cafm_bfo_iv/bfo_iv_final.hf5", "isotropic", 1, 1),
    "eds": ("eds_fept/core_shell.hspy", "diagonal", 16, 1),
    "eds_counts": ("eds_fept/core_shell.hspy", "poisson", 16, 2),
}


def real(name: str, sizes: range, floor: Any = USUAL_FLOOR) -> None:
    """Fits of several sizes to a measured image: explained variances, fit, and which size is preferred."""
    file, noise, bins, pixels = REAL[name]
    folder = Path(os.environ.get("BAYESUNMIX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    image = bu.load(folder / file)
    channel = image.dims[-1]
    if bins > 1:
        sides = dict.fromkeys(image.dims[:-1], pixels)
        image = image.coarsen({channel: bins, **sides}, boundary="trim").sum()
        image = image.isel({channel: (image > 0).any(image.dims[:-1])})
    fits, rows = {}, []
    for k in sizes:
        started = time.perf_counter()
        fits[str(k)] = fit = bu.fit(ProbabilisticPCA(k, noise=noise, component_floor=floor), image, progress=False)
        spent = time.perf_counter() - started
        checked = bu.check(fit, draws=40, replicates=49).attrs
        above, last = "-", "-"
        if k:
            low, high = fit.posterior["explained_variance"].isel(component=-1).quantile([0.05, 0.95]).values
            above, last = f"{float(fit.posterior['n_above_noise'].mean()):.2f}", f"{low:.3g} to {high:.3g}"
        rhat = float(fit.diagnostics["rhat"].max()) if "rhat" in fit.diagnostics else float("nan")
        print(fit.diagnostics.attrs["verdict"], flush=True)
        fitted = [f"{checked['reduced_chi2']:.2f}", f"{checked['small_p_share']:.3f}"]
        rows.append([k, f"{spent:.1f}", f"{rhat:.3f}", above, last, *fitted])
        print(*rows[-1], flush=True)
    compared = bu.compare(fits)
    for row in rows:
        row += [f"{compared.loc[str(row[0]), c]:.1f}" for c in ("elpd_diff", "dse")]
    head = ["components", "s", "R-hat", "above noise", "variance of the last", "reduced chi2", "share of p < .05"]
    binned = f", {bins} channels binned to one, empty ones left out" if bins > 1 else ""
    binned += f", {pixels} x {pixels} pixels binned to one" if pixels > 1 else ""
    other, told = ("", "") if floor == USUAL_FLOOR else (f"_{floor}", f" --floor {floor}")
    binned += f", `component_floor={floor!r}`" if other else ""
    write(
        f"real_{name}{other}",
        f"real --data {name} --sizes {sizes.start} {sizes.stop - 1}{told}",
        [
            f"`{Path(file).name}`, {' x '.join(map(str, image.shape))}{binned}, {noise} noise.",
            "",
            *table([*head, "elpd below the best", "dse"], rows),
            "",
            compared.attrs["verdict"],
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "what",
        choices=["selection", "floors", "calibration", "draws", "large", "memory", "dose", "integral", "real"],
    )
    parser.add_argument(
        "--count", type=int, help="data sets of selection, floors, calibration and dose; pixels of integral"
    )
    parser.add_argument(
        "--noise", choices=["isotropic", "diagonal", "two-way", "missing", "poisson"], default="isotropic"
    )
    parser.add_argument("--units", type=int, default=FEW, help="pixels, for calibration")
    parser.add_argument("--nuts", action="store_true", help="for calibration of counts")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--components", type=int, default=8)
    parser.add_argument("--data", choices=list(REAL), default="eels")
    parser.add_argument("--floor", choices=["visible"], default=USUAL_FLOOR, help="component_floor, for real data")
    parser.add_argument("--sizes", type=int, nargs=2, default=(0, 8), help="first and last, for real data")
    given = parser.parse_args()
    if given.what == "selection":
        selection(given.count or 40)
    elif given.what == "floors":
        floors(given.count or 20, simulated)
    elif given.what == "calibration":
        calibration(given.noise, given.count or 400, given.units, given.nuts)
    elif given.what == "draws":
        draws()
    elif given.what == "large":
        large(given.pixels, given.channels, given.components)
    elif given.what == "memory":
        memory(given.pixels, given.channels, given.components)
    elif given.what == "integral":
        integral(given.count or 100)
    elif given.what == "real":
        real(given.data, range(given.sizes[0], given.sizes[1] + 1), given.floor)
    else:
        dose(given.count or 4)


if __name__ == "__main__":
    with jax.enable_x64(True):
        main()
