"""Calibration of a model on images simulated from its prior, by ``bu.calibrate``.

    python benchmarks/calibration.py --method svi --cubes 60
    python benchmarks/calibration.py --method nuts --cubes 8
    python benchmarks/calibration.py --model ProbabilisticPCA --method gibbs --size 2
    python benchmarks/calibration.py --set noise=diagonal --cubes 20

Prints coverage, location and spread of every parameter, and writes them with the figure to ``benchmarks/results/``. The
model is bound to an empty template (unit scale) once. A run that is stopped goes on where it was when it is started
again. The coverage of a single number, such as one noise level an image, has a standard error of .3 / sqrt(cubes).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np
import xarray as xr

import bayesunmix as bu

METHODS = {"svi": bu.SVI(), "nuts": bu.NUTS(), "gibbs": bu.Gibbs()}


def table(found: xr.Dataset) -> list[str]:
    """Lines of a Markdown table, one parameter each."""
    levels = found["level"].values
    lines = [
        "| parameter | p | location | spread | " + " | ".join(f"{level:.0%}" for level in levels) + " |",
        "|---" * (4 + len(levels)) + "|",
    ]
    for name in found["name"].values:
        one = found.sel(name=name)
        covered = [f"{c:.3f} ± {e:.3f}" for c, e in zip(one["coverage"].values, one["coverage_se"].values, strict=True)]
        p = found.attrs["uniform_p"][str(name)]
        lines.append(
            f"| {name} | {p:.2g} | {float(one['location']):+.3f} | {float(one['spread']):.3f} | {' | '.join(covered)} |"
        )
    return lines


def commit() -> str:
    """The commit of the package that runs."""
    found = subprocess.run(
        ["git", "-C", Path(bu.__file__).parent, "describe", "--always", "--dirty"], capture_output=True, text=True
    )
    return found.stdout.strip() or "not in a repository"


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="LinearUnmixing")
    parser.add_argument("--size", type=int, default=3, help="endmembers, components or states")
    parser.add_argument("--method", choices=METHODS, default="svi")
    parser.add_argument("--cubes", type=int, default=60)
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the model")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    template = xr.DataArray(np.zeros((args.side, args.side, args.channels)), dims=("y", "x", "channel"))
    chosen = {name: number(value) for name, value in (item.split("=", 1) for item in args.set)}
    model = getattr(bu.models, args.model)(args.size, **chosen)
    args.out.mkdir(exist_ok=True)
    parts = [args.model, args.size, *(f"{name}-{value}" for name, value in chosen.items()), args.method]
    stem = "_".join(map(str, ["calibration", *parts, f"{args.side}x{args.side}x{args.channels}"]))
    start = time.perf_counter()
    found = bu.calibrate(
        model, template, args.cubes, args.seed, method=METHODS[args.method], path=args.out / f"{stem}.npz"
    )
    seconds = time.perf_counter() - start
    settings = {key: value for key, value in vars(args).items() if key != "out"}
    shifts = found["mc_shift"].values[np.isfinite(found["mc_shift"].values)]
    facts = {
        "draws": found.attrs["draws"],
        "finished": bool(found.attrs["finished"]),
        "images": found.sizes["simulation"],
        "not converged": int((~found["converged"]).sum()),
        "largest mc_shift": round(float(shifts.max()), 4) if shifts.size else "exact likelihood",
    }
    lines = [
        f"`{settings}`, version {bu.__version__} ({commit()}), {seconds:.0f} s",
        "",
        *table(found),
        "",
        f"`{json.dumps(facts)}`",
    ]
    print("\n".join(lines))
    (args.out / f"{stem}.md").write_text("\n".join(lines) + "\n")
    bu.plot.calibration(found).savefig(args.out / f"{stem}.png")


if __name__ == "__main__":
    main()
