"""Coverage of 90 % intervals on cubes simulated from the prior.

    python benchmarks/calibration.py --method svi --cubes 20
    python benchmarks/calibration.py --method nuts --cubes 8
    python benchmarks/calibration.py --method svi --cubes 10 --side 48 --channels 128 --n-endmembers 4

Prints a line per cube and a table, and writes both with the versions to ``benchmarks/results/``. A cube is drawn from
the prior of ``LinearUnmixing`` bound to an empty template (unit scale, noise near .05), then fitted with the same bound
model. Standard errors are computed across cubes.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import bayesunmix as bu

LEVEL = 0.9


def inside(lower: np.ndarray, upper: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Where an interval covers the truth."""
    return (lower <= truth) & (truth <= upper)


def one_cube(model, template: xr.DataArray, method, seed: int) -> dict[str, float]:
    """Simulate, fit, and compare with the truth under the best matching of labels."""
    image, truth = bu.simulate(model, like=template, seed=1000 + seed)
    start = time.perf_counter()
    fit = bu.fit(model, image, method, seed=seed, progress=False)
    wall = time.perf_counter() - start
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    spectra = fit.posterior["endmembers"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    true_spectra = truth["endmembers"].values
    cost = ((spectra.mean(0)[:, None] - true_spectra[None]) ** 2).sum(-1)
    match = linear_sum_assignment(cost)[1]
    true_spectra = true_spectra[match]
    covered = inside(*np.quantile(spectra, tails, axis=0), true_spectra)
    abundance = fit.latent(prob=LEVEL, seed=seed)["abundance"]
    true_abundance = truth["abundance"].values[..., match]
    noise = fit.posterior["noise_scale"].values.ravel()
    z = (spectra.mean(0) - true_spectra) / spectra.std(0)
    faint = true_spectra < np.quantile(true_spectra, 0.1)
    return {
        "abundance": inside(
            abundance.sel(statistic="lower").values, abundance.sel(statistic="upper").values, true_abundance
        ).mean(),
        "endmembers": covered.mean(),
        "endmembers, faintest tenth": covered[faint].mean(),
        "noise": float(inside(*np.quantile(noise, tails), float(truth["noise_scale"]))),
        "rms z of endmembers": float(np.sqrt((z**2).mean())),
        "converged": float(fit.converged),
        "sampled": float("rhat" in fit.diagnostics),
        "mc_shift": float(fit.diagnostics["mc_shift"].max()) if "mc_shift" in fit.diagnostics else 0.0,
        "true noise": float(truth["noise_scale"]),
        "seconds": wall,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=("svi", "nuts"), default="svi")
    parser.add_argument("--cubes", type=int, default=20)
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--n-endmembers", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    template = xr.DataArray(np.zeros((args.side, args.side, args.channels)), dims=("y", "x", "channel"))
    model = bu.models.LinearUnmixing(args.n_endmembers).bind(template.values)
    method = bu.SVI() if args.method == "svi" else bu.NUTS(draws=300, warmup=200, chains=2)
    rows = []
    for seed in range(args.cubes):
        rows.append(one_cube(model, template, method, seed))
        print(seed, "  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()), flush=True)
    columns = list(rows[0])
    table = np.array([[row[name] for name in columns] for row in rows])
    mean, error = table.mean(0), table.std(0, ddof=1) / np.sqrt(len(rows))
    lines = ["| quantity | mean | standard error |", "|---|---|---|"]
    lines += [f"| {name} | {m:.4f} | {e:.4f} |" for name, m, e in zip(columns, mean, error, strict=True)]
    print("\n".join(lines))
    args.out.mkdir(exist_ok=True)
    name = f"calibration_{args.method}_{args.side}x{args.side}x{args.channels}_n{args.n_endmembers}"
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    (args.out / f"{name}.json").write_text(
        json.dumps({"settings": settings, "version": bu.__version__, "rows": rows}, indent=1) + "\n"
    )
    (args.out / f"{name}.md").write_text("\n".join([f"`{settings}`", "", *lines]) + "\n")


if __name__ == "__main__":
    main()
