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
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from criticism_count import recovery
from criticism_faults import FAILURES, LEVEL, failures
from criticism_rows import Kept
from simulated import random_spectra

import bayesunmix as bu
from bayesunmix.data.units import as_units

RESULTS = Path(__file__).parent / "results"


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
    """Seconds of a step on a saved fit, by the clock and of the processor, and memory beyond the loaded fit."""
    fit = bu.load_fit(path)
    before, start, processor = peak(), time.perf_counter(), time.process_time()
    if step == "waic":
        bu.waic(fit)
    else:
        bu.uncertainty(fit, draws=draws)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    return {"step": step, "seconds": seconds, "processor": processor, "beyond_GiB": peak() - before}


def streaming(args: argparse.Namespace, _: Kept) -> tuple[list[str], list[dict]]:
    """Seconds and memory of uncertainty and WAIC beyond the fit, whose endmembers are known, and its data.

    The draws, of the noise level alone, are those of a fit to a corner of the image: what is measured does not depend
    on their values, and the fit of the whole image is measured elsewhere.
    """
    rng = np.random.default_rng(0)
    members = random_spectra(3, args.channels, rng)
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
        "| step | seconds | seconds of processor | memory beyond the fit (GiB) |",
        "|---|---|---|---|",
    ]
    cells = ("{step}", "{seconds:.0f}", "{processor:.0f}", "{beyond_GiB:.2f}")
    lines += ["| " + " | ".join(cell.format(**row) for cell in cells) + " |" for row in rows]
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
