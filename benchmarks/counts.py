"""Coverage of 90 % intervals of LinearUnmixing for counts, brightness and concentrations, on simulated images.

    python benchmarks/counts.py --likelihood poisson --counts 200 --cubes 20
    python benchmarks/counts.py --brightness --cubes 20
    python benchmarks/counts.py --concentration 0.3 --cubes 20        # known to the fit
    python benchmarks/counts.py --concentration learned --cubes 20    # drawn from its prior
    python benchmarks/counts.py --concentration learned --true-concentration 20    # images without a pure pixel

Images are drawn from the prior, whose scale for counts gives about ``--counts`` a pixel. Prints a line per image and a
table with standard errors across images, and writes both to ``benchmarks/results/``. Bright and dark channels are
scored apart: the faintest fifth of all endmember values by posterior mean, and the rest. (By their true values it would
not be calibration: an interval holds the truth with 90 % given the data, not given a truth that is nearly zero.) A run
that was stopped goes on where it was.

On a machine of many cores every process takes a part of the images, and the table is made of what all have found; a
last call without ``--part`` makes it anew (and fits what is missing). All rows, shortest first, on 16 cores:

    export JAX_PLATFORMS=cpu OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=.
    export JAX_COMPILATION_CACHE_DIR=/tmp/jax XLA_FLAGS=--xla_cpu_multi_thread_eigen=false
    while read -r row; do for i in $(seq 10); do echo "$row --part $i/10"; done; done <<'ROWS' |
    --concentration 5
    --brightness
    --concentration 0.1
    --concentration 20
    --concentration learned
    --likelihood poisson --counts 30
    --method nuts --cubes 8
    --method nuts --cubes 8 --brightness
    --method nuts --cubes 8 --likelihood poisson --counts 30
    --method nuts --cubes 8 --likelihood poisson --counts 200
    --method nuts --cubes 8 --likelihood poisson --counts 3000
    --method nuts --cubes 8 --concentration 5
    --method nuts --cubes 8 --concentration 0.3
    --method nuts --cubes 8 --concentration 0.1
    ROWS
    xargs -P 16 -I {} timeout 500 sh -c "python benchmarks/counts.py {} --out OUT >> OUT.log"
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import bayesunmix as bu

TAILS = [0.05, 0.95]


def covered(low, high, truth) -> np.ndarray:
    """Where an interval holds the truth."""
    return (low <= truth) & (truth <= high)


def model_of_counts(n_endmembers: int, template: xr.DataArray, counts: float, **settings):
    """The model for Poisson counts, bound to a prior that gives about so many a pixel."""
    model = bu.models.LinearUnmixing(n_endmembers, likelihood="poisson", **settings).bind(template.values)
    channels = template.sizes["channel"]
    # A half-normal has mean .8 scales.
    return dataclasses.replace(model, endmember_scale=np.full(channels, counts / (0.8 * channels)))


def one_image(drawn, model, template: xr.DataArray, method, seed: int) -> dict[str, float]:
    """Simulate from ``drawn``, fit ``model``, and compare with the truth."""
    image, truth = bu.simulate(drawn, like=template, seed=1000 + seed)
    if "concentration" not in truth:
        truth = truth.assign(concentration=("endmember", np.full(model.n_endmembers, drawn.concentration)))
    start = time.perf_counter()
    fit = bu.fit(model, image, method, seed=seed, progress=False)
    wall = time.perf_counter() - start
    return scored(fit, truth, seed) | {"seconds": wall}


def scored(fit: bu.Fit, truth: xr.Dataset, seed: int) -> dict[str, float]:
    """How much of the truth 90 % intervals hold, under the best matching of labels."""
    draws = fit.posterior.stack(sample=("chain", "draw")).transpose("sample", ...)
    spectra, true = draws["endmembers"].values, truth["endmembers"].values
    match = linear_sum_assignment(((spectra.mean(0)[:, None] - true[None]) ** 2).sum(-1))[1]
    true = true[match]
    within = covered(*np.quantile(spectra, TAILS, axis=0), true)
    faint = spectra.mean(0) < np.quantile(spectra.mean(0), 0.2)
    latent = fit.latent(prob=0.9, seed=seed)
    low, high = (latent["abundance"].sel(statistic=s).values for s in ("lower", "upper"))
    row = {
        "endmembers": within.mean(),
        "endmembers, bright": within[~faint].mean(),
        "endmembers, faintest fifth": within[faint].mean(),
        "abundance": covered(low, high, truth["abundance"].values[..., match]).mean(),
        "rms z of endmembers": float(np.sqrt((((spectra.mean(0) - true) / spectra.std(0)) ** 2).mean())),
    }
    if "brightness" in latent:
        low, high = (latent["brightness"].sel(statistic=s).values for s in ("lower", "upper"))
        row["brightness"] = covered(low, high, truth["brightness"].values).mean()
    for name in ("brightness_shape", "concentration", "noise_scale", "gain", "read_noise"):
        if name in draws:
            true_one = truth[name].values[match] if name == "concentration" else truth[name].values
            row[name] = float(covered(*np.quantile(draws[name].values, TAILS, axis=0), true_one).mean())
    row |= {
        "converged": float(fit.converged),
        "sampled": float("rhat" in fit.diagnostics),
        "weighted": float("pareto_k" in fit.diagnostics),
        "mc_shift": float(fit.diagnostics["mc_shift"].max()),
    }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--likelihood", choices=("normal", "poisson", "scaled-poisson"), default="normal")
    parser.add_argument("--counts", type=float, default=200.0, help="a pixel, for poisson")
    parser.add_argument("--brightness", action="store_true")
    parser.add_argument("--concentration", default="1", help="a number, or learned")
    parser.add_argument("--true-concentration", type=float, help="of the images, where the fit learns it")
    parser.add_argument("--method", choices=("svi", "nuts"), default="svi")
    parser.add_argument("--cubes", type=int, default=20)
    parser.add_argument("--part", default="1/1", help="i/n: every n-th image, from the i-th")
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--n-endmembers", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    template = xr.DataArray(np.zeros((args.side, args.side, args.channels)), dims=("y", "x", "channel"))
    alpha = "learned" if args.concentration == "learned" else float(args.concentration)
    settings = {"brightness": args.brightness, "concentration": alpha}
    if args.likelihood == "poisson":
        model = model_of_counts(args.n_endmembers, template, args.counts, **settings)
    else:
        model = bu.models.LinearUnmixing(args.n_endmembers, likelihood=args.likelihood, **settings)
        model = model.bind(template.values)
    drawn = model
    if args.true_concentration:
        drawn = dataclasses.replace(model, concentration=args.true_concentration)
    method = bu.SVI() if args.method == "svi" else bu.NUTS(draws=300, warmup=200, chains=2)
    part, parts = map(int, args.part.split("/"))
    for seed in range(part - 1, args.cubes, parts):
        if seed in earlier(args):
            continue
        row = one_image(drawn, model, template, method, seed)
        print(seed, "  ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
        write(args, {seed: row})
    print("\n".join(write(args, {})))


def named(args: argparse.Namespace) -> str:
    """Stem of the files of these settings."""
    kind = f"{args.likelihood}{args.counts:g}" if args.likelihood == "poisson" else args.likelihood
    true = f"_true_{args.true_concentration:g}" if args.true_concentration else ""
    stem = f"counts_{args.method}_{kind}_concentration_{args.concentration}{true}"
    return stem + "_brightness" * args.brightness


def settings_of(args: argparse.Namespace) -> dict[str, object]:
    return {key: value for key, value in vars(args).items() if key not in ("out", "cubes", "part")}


def earlier(args: argparse.Namespace) -> dict[int, dict[str, float]]:
    """Rows by image that runs of the same settings have found, each part in a file of its own."""
    rows = {}
    for path in [*sorted(args.out.glob(f"{named(args)}.[0-9]*.json")), args.out / f"{named(args)}.json"]:
        found = json.loads(path.read_text()) if path.exists() else {}
        if found.get("settings") == settings_of(args):
            rows |= {int(image): row for image, row in found["rows"].items()}
    return rows


def write(args: argparse.Namespace, new: dict[int, dict[str, float]]) -> list[str]:
    """Keep the rows of this part, and make the table of all images so far, so that a run that is stopped leaves one."""
    args.out.mkdir(exist_ok=True)
    name, settings = named(args), settings_of(args)
    rows = earlier(args) | new
    part, parts = map(int, args.part.split("/"))
    own = {image: row for image, row in sorted(rows.items()) if image % parts == part - 1}
    path = args.out / (f"{name}.json" if parts == 1 else f"{name}.{part}.json")
    # Other parts may be reading it.
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"settings": settings, "version": bu.__version__, "rows": own}, indent=1) + "\n")
    half.replace(path)
    if parts == 1:
        for piece in args.out.glob(f"{name}.[0-9]*.json"):
            piece.unlink()
    kept = [row for image, row in rows.items() if image < args.cubes]
    if not kept:
        return ["no images yet"]
    table = np.array([list(row.values()) for row in kept])
    error = table.std(0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else np.full(table.shape[1], np.nan)
    lines = [f"{len(table)} images", "", "| quantity | mean | standard error |", "|---|---|---|"]
    lines += [f"| {n} | {m:.4f} | {e:.4f} |" for n, m, e in zip(kept[0], table.mean(0), error, strict=True)]
    (args.out / f"{name}.md").write_text("\n".join([f"`{settings}`, version {bu.__version__}", "", *lines]) + "\n")
    return lines


if __name__ == "__main__":
    main()
