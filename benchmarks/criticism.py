"""Whether criticism finds what is wrong, and only that.

    python benchmarks/criticism.py failures --runs 20
    python benchmarks/criticism.py recovery --count 40 --heldout 8
    python benchmarks/criticism.py streaming --side 256 --channels 1024
    python benchmarks/criticism.py power --runs 20

``failures`` plants one fault at a time in simulated images, fits endmembers and all, and counts how often
``bu.check`` fails a test (p below .01), and where. ``recovery`` counts how often ``bu.sweep`` and ``bu.compare``
prefer the true number of endmembers, and whether hidden entries of the first images say the same. ``streaming``
measures time and peak memory of uncertainty and WAIC. ``power`` counts how often ``bu.calibrate`` finds a posterior
whose standard deviation or mean is a little off. Tables go to ``benchmarks/results/``; what a run that was
stopped has found is kept beside them, image by image, and a run of the same settings goes on from there. Several
processes can work on one table side by side, each on every fourth image, say, and share what they compile:

    export JAX_COMPILATION_CACHE_DIR=/tmp/compiled JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
    export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
    for i in $(seq 0 15); do taskset -c $i python benchmarks/criticism.py recovery --share $i/16 & done; wait
    python benchmarks/criticism.py recovery --share 0/0

The last line makes the table of what is there; without ``--share`` it would also do whatever is missing.
Nothing here asks for a CPU: on an accelerator the same commands run there (on images this small a core is as fast;
``JAX_PLATFORMS=cpu`` takes the cores). Fits never fall back to
sampling: an image with a fault may leave no Gaussian posterior, and a check of the fit that is there is what its user
sees first. The share of fits that passed their own diagnostics is in the table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import xarray as xr
from scipy.stats import mannwhitneyu, spearmanr

import bayesunmix as bu
from bayesunmix.compare import TIE, difference_error
from bayesunmix.data.units import as_units

LEVEL = 0.01  # at which a test of the whole image raises an alarm
RESULTS = Path(__file__).parent / "results"


def spectra(n_endmembers: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth spectra of a few peaks on a background, (endmember, channel), at most about 1."""
    x = np.linspace(0, 1, channels)
    centre, width = rng.uniform(0.05, 0.95, (2, n_endmembers, 4)), rng.uniform(0.02, 0.08, (n_endmembers, 4))
    height = rng.uniform(0.2, 0.8, (n_endmembers, 4))
    peaks = height[..., None] * np.exp(-0.5 * ((x - centre[0][..., None]) / width[..., None]) ** 2)
    return 0.1 + 0.2 * np.exp(-3 * x) + peaks.sum(1)


def mixtures(n_endmembers: int, side: int, channels: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free image (y, x, channel) of uniform mixtures, and its spectra."""
    members = spectra(n_endmembers, channels, rng)
    return rng.dirichlet(np.ones(n_endmembers), (side, side)) @ members, members


def noise_for(clean: np.ndarray, decibel: float) -> float:
    """Standard deviation of noise at a signal-to-noise ratio."""
    return float(np.sqrt(np.mean(clean**2)) * 10 ** (-decibel / 20))


class Kept:
    """Rows of a run, by name, each written as soon as it is there; every process has a file of its own."""

    def __init__(self, args: argparse.Namespace) -> None:
        apart = ("out", "runs", "rights", "count", "heldout", "faults", "share")
        self._settings = json.dumps({key: value for key, value in vars(args).items() if key not in apart})
        self._mine, self._of = args.share
        args.out.mkdir(exist_ok=True)
        stem = f"criticism_{args.what}_rows"
        self._path = args.out / (f"{stem}.jsonl" if self._of == 1 else f"{stem}_{self._mine}of{self._of}.jsonl")
        self._rows: dict[str, dict] = {}
        for path in sorted(args.out.glob(f"{stem}*.jsonl")):
            self._rows |= self._read(path)
        if self._of and not self._read(self._path):
            self._path.write_text(self._settings + "\n")

    def _read(self, path: Path) -> dict[str, dict]:
        """What an earlier run with these settings has found; a last line that was cut off is left out."""
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in lines[1:] if line.endswith("]")]
        return dict(json.loads(line) for line in whole) if lines and lines[0] == self._settings else {}

    def row(self, name: str, number: int, make: Callable[[], dict]) -> dict | None:
        """The row of that name, made unless an earlier run has it or another process has this number."""
        if name not in self._rows and self._of and number % self._of == self._mine:
            self._rows[name] = make()
            print(name, self._rows[name], flush=True)
            with self._path.open("a") as file:
                file.write(json.dumps([name, self._rows[name]]) + "\n")
        return self._rows.get(name)


SPIKE = 8.0  # noise standard deviations
METHOD = bu.SVI(sample_if_needed=False)


# ---------------------------------------------------------------------- planted failures


def corner(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A fourth phase takes 30 % of the pixels' mixture in one corner, a quarter of the side wide."""
    size = len(clean) // 4
    image = clean.copy()
    image[:size, :size] = 0.7 * image[:size, :size] + 0.3 * spectra(1, clean.shape[-1], rng)[0]
    return image + rng.normal(0, noise, clean.shape)


def shift(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The energy axis drifts by 1 channel from the first row to the last."""
    rows = np.linspace(0, 1.0, len(clean))[:, None, None]
    image = (1 - rows) * clean + rows * np.roll(clean, 1, axis=-1)
    return image + rng.normal(0, noise, clean.shape)


def dose(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Two rows are measured with twice the dose: twice the signal, root two times the noise."""
    image, level = clean.copy(), np.full((len(clean), 1, 1), noise)
    rows = slice(len(clean) // 2, len(clean) // 2 + 2)
    image[rows] *= 2
    level[rows] *= np.sqrt(2)
    return image + level * rng.normal(size=clean.shape)


def spikes(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """0.1 % of the values are raised by ``SPIKE`` noise standard deviations."""
    hit = rng.uniform(size=clean.shape) < 1e-3
    return clean + rng.normal(0, noise, clean.shape) + SPIKE * noise * hit


def dead(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """One channel in the middle always reads zero."""
    image = clean + rng.normal(0, noise, clean.shape)
    image[..., clean.shape[-1] // 2] = 0.0
    return image


def nothing(clean: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """The model is right."""
    return clean + rng.normal(0, noise, clean.shape)


FAILURES: dict[str, Callable[..., np.ndarray]] = {
    "nothing": nothing,
    "fourth phase in a corner": corner,
    "energy shift": shift,
    "doubled dose": dose,
    "spikes": spikes,
    "dead channel": dead,
}


# The map that points at a fault, chosen beforehand.
MAPS = {
    "fourth phase in a corner": "p_neighbours",
    "energy shift": "p_autocorrelation",
    "doubled dose": "p_value",
    "spikes": "p_largest",
}


def where_it_is(name: str, clean: np.ndarray, values: np.ndarray, noise: float) -> np.ndarray:
    """Pixels (y, x) that hold the fault; of a drift those near its ends."""
    side = len(clean)
    inside = np.zeros((side, side), bool)
    if name == "fourth phase in a corner":
        inside[: side // 4, : side // 4] = True
    elif name == "energy shift":
        inside[: side // 4] = inside[-(side // 4) :] = True
    elif name == "doubled dose":
        inside[side // 2 : side // 2 + 2] = True
    else:
        inside = (values - clean).max(-1) > 0.75 * SPIKE * noise
    return inside


def localised(name: str, found: xr.Dataset, inside: np.ndarray) -> dict[str, float]:
    """Whether the maps of ``bu.check`` point at the fault.

    ``area`` is the probability that a pixel with the fault has the smaller p of two (area under the ROC curve), and
    ``where`` is 1 when that is beyond chance at p < .001 (Mann and Whitney). Of a dead channel ``where`` says whether
    it has the smallest p of all.
    """
    if name == "dead channel":
        return {
            "area": np.nan,
            "where": float(int(found["p_channel"].argmin("channel")) == found.sizes["channel"] // 2),
        }
    if name not in MAPS:
        return {"area": np.nan, "where": np.nan}
    p = found[MAPS[name]].values
    test = mannwhitneyu(p[inside], p[~inside], alternative="less")
    pairs = inside.sum() * (~inside).sum()
    return {"area": float(1.0 - test.statistic / pairs), "where": float(test.pvalue < 1e-3)}


def one_failure(name: str, run: int, args: argparse.Namespace) -> dict:
    """p-values of the tests of one image."""
    rng = np.random.default_rng([run, list(FAILURES).index(name)])
    clean, _ = mixtures(3, args.side, args.channels, rng)
    noise = noise_for(clean, args.decibel)
    values = FAILURES[name](clean, noise, rng)
    image = xr.DataArray(values, dims=("y", "x", "channel"))
    fit = bu.fit(bu.models.LinearUnmixing(3), image, METHOD, seed=run, progress=False)
    found = bu.check(fit, draws=20, seed=run)
    p = {str(test): float(found["test_p"].sel(test=test)) for test in found["test"].values}
    where = localised(name, found, where_it_is(name, clean, values, noise))
    return {"fault": name, "run": run, "p": p, "ok": int(fit.converged), **where}


def failures(args: argparse.Namespace, kept: Kept) -> tuple[list[str], list[dict]]:
    """Table of alarms by fault and test."""
    rows = [
        kept.row(f"{name} {run}", run, partial(one_failure, name, run, args))
        for name in args.faults
        for run in range(args.runs * (args.rights if name == "nothing" else 1))
    ]
    rows = [row for row in rows if row]
    tests = list(rows[0]["p"])
    lines = ["| planted | runs | fits that passed | any test | localised | area | " + " | ".join(tests) + " |"]
    lines.append("|---" * (6 + len(tests)) + "|")
    for name in args.faults:
        own = [row for row in rows if row["fault"] == name]
        p = np.array([[row["p"][test] for test in tests] for row in own])
        alarm = p < LEVEL
        # Of several tests the smallest p counts, times their number.
        some = p.min(1) * len(tests) < LEVEL
        where = np.array([row["where"] for row in own])
        area = np.array([row["area"] for row in own])
        told = ["" if np.isnan(x).all() else f"{np.nanmean(x):.2f}" for x in (where, area)]
        cells = " | ".join(f"{share:.2f}" for share in alarm.mean(0))
        passed = np.mean([row["ok"] for row in own])
        lines.append(f"| {name} | {len(own)} | {passed:.2f} | {some.mean():.2f} | {told[0]} | {told[1]} | {cells} |")
    return lines, rows


# ---------------------------------------------------------------------- number of endmembers


COMPARED = bu.SVI(draws=400, sample_if_needed=False)


def image_of_size(number: int, args: argparse.Namespace) -> tuple[int, xr.DataArray]:
    """True number of endmembers, and the image."""
    true = 2 + number % 4
    rng = np.random.default_rng([number, true])
    clean, _ = mixtures(true, args.side, args.channels, rng)
    noisy = clean + rng.normal(0, noise_for(clean, args.decibel), clean.shape)
    return true, xr.DataArray(noisy, dims=("y", "x", "channel"))


def one_recovery(number: int, args: argparse.Namespace) -> dict:
    """What each criterion prefers for one image, endmembers added until one more is clearly worse."""
    true, image = image_of_size(number, args)
    start = time.perf_counter()
    fits, tables, comparing = {}, {}, 0.0
    for size in args.sizes:
        model = bu.models.LinearUnmixing(2)
        fits |= bu.sweep(model, image, COMPARED, n_endmembers=[size], seed=number, progress=False)
        if len(fits) > 1:
            fitted = time.perf_counter()
            tables = {criterion: bu.compare(fits, criterion) for criterion in args.criteria}
            comparing += time.perf_counter() - fitted
            if all(behind(table, f"n_endmembers={size}") for table in tables.values()):
                break
    names = list(fits)
    picked = {criterion: table.attrs["preferred"] for criterion, table in tables.items()}
    columns = ("elpd", "p", "elpd_diff", "dse")
    return {
        "true": true,
        "sizes": args.sizes[: len(names)],
        "picked": {c: int(p.split("=")[1]) if p else None for c, p in picked.items()},
        **{column: {c: [float(x) for x in t.loc[names, column]] for c, t in tables.items()} for column in columns},
        "passed": [int(fits[name].converged) for name in names],
        "fit_seconds": [fits[name].provenance["wall_s"] for name in names],
        "seconds": [time.perf_counter() - start - comparing, comparing],
    }


def behind(table: pd.DataFrame, name: str) -> bool:
    """Whether a model is clearly worse than the best: one does not go on adding endmembers then."""
    return bool(table.loc[name, "elpd_diff"] > max(TIE, 2 * table.loc[name, "dse"]))


def one_heldout(number: int, sizes: list[int], args: argparse.Namespace) -> dict:
    """What hidden entries prefer of these sizes, by the rule of ``bu.compare``."""
    true, image = image_of_size(number, args)
    start = time.perf_counter()
    options = {"method": COMPARED, "seed": number, "progress": False}
    found = [bu.heldout(bu.models.LinearUnmixing(k), image, **options) for k in sizes]
    best = max(found, key=lambda one: one.elpd)
    error = [difference_error(best.pointwise - one.pointwise) for one in found]
    below = [best.elpd - one.elpd for one in found]
    tied = [k for k, d, e in zip(sizes, below, error, strict=True) if d == 0 or d < max(TIE, 2 * e)]
    elpd = [one.elpd for one in found]
    seconds = time.perf_counter() - start
    return {"true": true, "picked": min(tied), "elpd": elpd, "elpd_diff": below, "dse": error, "seconds": seconds}


def recovery(args: argparse.Namespace, kept: Kept) -> tuple[list[str], list[dict]]:
    """Preferred number of endmembers against the true one."""
    found = {n: kept.row(str(n), n, partial(one_recovery, n, args)) for n in range(args.count)}
    rows = {n: row for n, row in found.items() if row}
    lines = ["| criterion | true | sets | right | too few | too many | no verdict |", "|---" * 7 + "|"]
    for criterion in args.criteria:
        for true in (2, 3, 4, 5, None):
            own = [(row["true"], row["picked"][criterion]) for row in rows.values() if true in (None, row["true"])]
            counts = [
                sum(got == want for want, got in own),
                sum(got is not None and got < want for want, got in own),
                sum(got is not None and got > want for want, got in own),
                sum(got is None for _, got in own),
            ]
            label = "all" if true is None else str(true)
            lines.append(f"| {criterion} | {label} | {len(own)} | " + " | ".join(map(str, counts)) + " |")
    lines += how_fits_went(list(rows.values()), args.sizes)
    seen = [n for n in range(args.heldout) if n in rows]
    tried = {n: kept.row(f"heldout {n}", n, partial(one_heldout, n, rows[n]["sizes"], args)) for n in seen}
    hidden = {n: row for n, row in tried.items() if row}
    return lines + agreement(rows, hidden, args.criteria), [*rows.values(), *hidden.values()]


def how_fits_went(rows: list[dict], sizes: list[int]) -> list[str]:
    """Share of fits that passed their own diagnostics, and their seconds, by fitted less true endmembers."""
    lines = ["", "| fitted less true | fits | passed | median seconds | longest |", "|---" * 5 + "|"]
    for excess in range(min(sizes) - 5, max(sizes) - 1):
        own = [
            (passed, seconds)
            for row in rows
            for k, passed, seconds in zip(row["sizes"], row["passed"], row["fit_seconds"], strict=True)
            if k - row["true"] == excess
        ]
        if own:
            passed, seconds = np.transpose(own)
            lines.append(
                f"| {excess:+d} | {len(own)} | {passed.mean():.2f} | {np.median(seconds):.0f} | {seconds.max():.0f} |"
            )
    return lines


def agreement(rows: dict[int, dict], hidden: dict[int, dict], criteria: list[str]) -> list[str]:
    """How hidden entries rank the sizes of the same images."""
    both = [(rows[n], row) for n, row in hidden.items() if n in rows]
    if not both:
        return []
    right = sum(row["picked"] == row["true"] for _, row in both)
    lines = ["", f"Hidden entries (10 %): right in {right} of {len(both)}."]
    for criterion in criteria:
        same = sum(a["picked"][criterion] == b["picked"] for a, b in both)
        order = [spearmanr(a["elpd"][criterion], b["elpd"])[0] for a, b in both]
        lines.append(f"As {criterion} in {same} of {len(both)}; rank correlation over all sizes {np.mean(order):.2f}.")
    return lines


# ---------------------------------------------------------------------- power of calibration


@dataclass(frozen=True)
class Levels:
    """The levels of 25 channels, measured four times; its sampler draws from the posterior with a planted error."""

    width: float = 1.0  # of its standard deviation
    shift: float = 0.0  # of its mean, in standard deviations

    def __call__(self, y=None, *, n_units: int) -> None:
        level = numpyro.sample("level", dist.Normal(0.0, 1.0).expand([25]).to_event(1))
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", dist.Normal(level, 1.0).to_event(1), obs=y)

    def gibbs(self, y: np.ndarray, covariates: dict) -> KnownPosterior:
        sd = (1 + len(y)) ** -0.5
        return KnownPosterior(y.sum(0) * sd**2 + self.shift * sd, self.width * sd)


@dataclass(frozen=True)
class KnownPosterior:
    """Independent draws, as the engine drives a sampler."""

    mean: np.ndarray
    sd: float

    def start(self, rng: np.random.Generator, chains: int) -> dict[str, np.ndarray]:
        return {"level": self.mean + self.sd * rng.normal(size=(chains, len(self.mean)))}

    def sweep(self, state: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.start(rng, len(state["level"]))

    @staticmethod
    def values(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return state


PLANTED = {
    "nothing": Levels(),
    "sd 10 % too small": Levels(width=0.9),
    "sd 10 % too large": Levels(width=1.1),
    "mean off by .2 sd": Levels(shift=0.2),
    "mean off by .1 sd": Levels(shift=0.1),
}


def one_power(name: str, run: int, images: int) -> dict:
    """The p-value of one calibration, and its 90 % coverage."""
    method = bu.Gibbs(draws=60, warmup=1, chains=2, most_thin=1)
    found = bu.calibrate(PLANTED[name], np.zeros((4, 25)), images, run, method=method, progress=False)
    covered = float(found["coverage"].sel(name="level", level=0.9))
    return {"planted": name, "images": images, "p": found.attrs["uniform_p"]["level"], "coverage": covered}


def power(args: argparse.Namespace, kept: Kept) -> tuple[list[str], list[dict]]:
    """How often a calibration of so many images finds what is planted, at p < .01."""
    sizes = (25, 100)
    made = [
        kept.row(f"{name} {images} {run}", run, partial(one_power, name, run, images))
        for name in PLANTED
        for images in sizes
        for run in range(args.runs)
    ]
    rows = [row for row in made if row]
    lines = [
        "| planted | " + " | ".join(f"{n} images" for n in sizes) + " | 90 % coverage |",
        "|---" * (2 + len(sizes)) + "|",
    ]
    for name in PLANTED:
        own = [row for row in rows if row["planted"] == name]
        shares = [np.mean([row["p"] < LEVEL for row in own if row["images"] == n]) for n in sizes]
        covered = np.mean([row["coverage"] for row in own])
        lines.append(f"| {name} | " + " | ".join(f"{share:.2f}" for share in shares) + f" | {covered:.3f} |")
    return lines, rows


# ---------------------------------------------------------------------- memory


def peak() -> float:
    """Most memory that this program has held, in GiB; Linux, where getrusage counts what ran before it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def measured(path: str, step: str, draws: int) -> dict:
    """Seconds of a step on a saved fit, in a process of its own, and memory beyond that of the fit as loaded."""
    fit = bu.load_fit(path)
    before, start = peak(), time.perf_counter()
    if step == "waic":
        bu.waic(fit)
    else:
        bu.uncertainty(fit, draws=draws)
    return {"step": step, "seconds": time.perf_counter() - start, "beyond_GiB": peak() - before}


def streaming(args: argparse.Namespace, _: Kept) -> tuple[list[str], list[dict]]:
    """Seconds and memory of uncertainty and WAIC beyond the fit, whose endmembers are known, and its data.

    The draws, of the noise level alone, are those of a fit to a corner of the image: what is measured does not depend
    on their values, and the fit of the whole image is measured elsewhere.
    """
    rng = np.random.default_rng(0)
    members = spectra(3, args.channels, rng)
    shares = rng.dirichlet(np.ones(3), (args.side, args.side)).astype(np.float32)
    values = shares @ members.astype(np.float32)
    values += 0.05 * rng.standard_normal(values.shape, dtype=np.float32)
    image = xr.DataArray(values, dims=("y", "x", "channel"))
    model = bu.models.LinearUnmixing(3, endmembers=members)
    fit = bu.fit(model, image[:32, :32], bu.SVI(draws=args.draws), progress=False)
    fit = replace(fit, units=as_units(image))
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/fit.nc"
        fit.save(path)
        for step in ("waic", "uncertainty"):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                rows.append(pool.submit(measured, path, step, args.draws).result())
    lines = [
        f"Data: {image.nbytes / 2**30:.2f} GiB.",
        "",
        "| step | seconds | memory beyond the fit (GiB) |",
        "|---|---|---|",
    ]
    lines += [f"| {row['step']} | {row['seconds']:.0f} | {row['beyond_GiB']:.2f} |" for row in rows]
    return lines, rows


def share(text: str) -> tuple[int, int]:
    """ "1/4" as (1, 4)."""
    mine, of = map(int, text.split("/"))
    return mine, of


WORK = {"failures": failures, "recovery": recovery, "streaming": streaming, "power": power}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(WORK))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rights", type=int, default=5, help="how many times as many runs without a fault")
    parser.add_argument("--faults", nargs="+", choices=FAILURES, default=list(FAILURES))
    parser.add_argument("--count", type=int, default=40, help="images of the recovery")
    parser.add_argument("--share", type=share, default=(0, 1), metavar="I/N", help="images whose number is I modulo N")
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 3, 4, 5, 6], help="endmembers that are fitted")
    parser.add_argument("--criteria", nargs="+", default=["waic", "loo"])
    parser.add_argument("--heldout", type=int, default=0, help="images whose sizes are also scored by hidden entries")
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--decibel", type=float, default=25.0)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    lines, rows = WORK[args.what](args, Kept(args))
    print("\n".join(lines))
    if args.share[1] > 1:
        return
    settings = {key: value for key, value in vars(args).items() if key not in ("out", "share")}
    content = {"settings": settings, "version": bu.__version__, "rows": rows}
    (args.out / f"criticism_{args.what}.json").write_text(json.dumps(content, indent=1) + "\n")
    (args.out / f"criticism_{args.what}.md").write_text("\n".join([f"`{settings}`", "", *lines]) + "\n")


if __name__ == "__main__":
    main()
