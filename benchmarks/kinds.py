"""Default fits of images drawn from the prior of every kind of linear unmixing: which of them can be used, and how long
they take.

    python -m benchmarks.kinds                  # 52 small images, an hour on two cores
    python -m benchmarks.kinds --part 1/2       # every second kind; parts may run side by side

Likelihood, brightness and one further setting each; every image has a seed of its own. Every fit is the first of its
kind, so most of its time is compiling. One image says little about the calibration of a kind: benchmarks/counts.py has
many of single kinds. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import bayesunmix as bu
from benchmarks.__main__ import commit, machine
from benchmarks.counts import model_of_counts, scored

LIKELIHOODS = "normal", "poisson", "scaled-poisson"
FURTHER: tuple[dict[str, Any], ...] = (
    {}, {"concentration": "learned"}, {"concentration": 0.3}, {"smoothness": 3.0}, {"sparsity": 3.0},
    {"sparsity": "learned"}, {"n_endmembers": 2}, {"n_endmembers": 4},
)  # fmt: skip
OF_NORMAL: tuple[dict[str, Any], ...] = ({"noise": "diagonal"}, {"endmember_support": "real"})
KINDS = [
    {"likelihood": likelihood, "brightness": brightness, **further}
    for likelihood in LIKELIHOODS
    for brightness in (False, True)
    for further in FURTHER + OF_NORMAL * (likelihood == "normal")
]
SIDE, CHANNELS, COUNTS = 20, 40, 200.0
TOLD = ("endmembers", "abundance", "brightness", "mc_shift", "sampled")


def called(kind: dict[str, Any]) -> str:
    """The settings in words."""
    further = [f"{name}={value}" for name, value in kind.items() if name not in ("likelihood", "brightness")]
    return ", ".join([kind["likelihood"], *(["brightness"] * kind["brightness"]), *further])


def fitted(kind: dict[str, Any], seed: int) -> dict[str, Any]:
    """One image of this kind."""
    like = xr.DataArray(np.zeros((SIDE, SIDE, CHANNELS)), dims=("y", "x", "channel"))
    settings = {"n_endmembers": 3, **kind}
    if kind["likelihood"] == "poisson":
        del settings["likelihood"]
        model = model_of_counts(template=like, counts=COUNTS, **settings)
    else:
        model = bu.models.LinearUnmixing(**settings).bind(like.values)
    image, truth = bu.simulate(model, like=like, seed=seed)
    if "concentration" not in truth:
        truth = truth.assign(concentration=("endmember", np.full(model.n_endmembers, model.concentration)))
    wall, work = time.perf_counter(), time.process_time()
    fit = bu.fit(model, image, seed=seed, progress=False)
    row = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - work}
    found = scored(fit, truth, seed)
    row |= {name: float(found[name]) for name in TOLD if name in found}
    return row | {"usable": fit.converged, "verdict": fit.diagnostics.attrs["verdict"], "commit": commit()}


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Markdown, a kind a line."""
    lines = [
        "| kind | usable | NUTS | wall, s | CPU, s | endmembers held | abundances | brightness | mc_shift | commit |",
        "|---" * 10 + "|",
    ]
    for name, row in rows.items():
        shares = [f"{row[key]:.2f}" if key in row else "" for key in ("endmembers", "abundance", "brightness")]
        cells = [name, "yes" if row["usable"] else "no", "yes" if row["sampled"] else "", f"{row['wall']:.0f}"]
        cells += [f"{row['cpu']:.0f}", *shares, f"{row['mc_shift']:.3f}", row["commit"]]
        lines.append(f"| {' | '.join(cells)} |")
    usable = sum(row["usable"] for row in rows.values())
    means = [
        f"{key} {np.mean(found):.3f}"
        for key in ("endmembers", "abundance", "brightness")
        if (found := [row[key] for row in rows.values() if key in row])
    ]
    return [*lines, "", f"{usable} of {len(rows)} usable; 90 % intervals hold on average: {', '.join(means)}."]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="1/1", help="i/n: every n-th kind, from the i-th")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    part, parts = map(int, args.part.split("/"))
    args.out.mkdir(exist_ok=True)
    own = args.out / f"kinds_{args.seed}.{part}of{parts}.json"
    mine: dict[str, dict[str, Any]] = json.loads(own.read_text()) if own.exists() else {}
    for index, kind in list(enumerate(KINDS))[part - 1 :: parts]:
        name = called(kind)
        if name not in mine:
            mine[name] = fitted(kind, 1000 * args.seed + index)
            print(name, mine[name], flush=True)
            own.write_text(json.dumps(mine, indent=1) + "\n")
    found: dict[str, dict[str, Any]] = {}
    for path in args.out.glob(f"kinds_{args.seed}.*.json"):
        found |= json.loads(path.read_text())
    rows = {called(kind): found[called(kind)] for kind in KINDS if called(kind) in found}
    computer = machine()
    head = f"`python -m benchmarks.kinds --seed {args.seed}`, {SIDE} x {SIDE} x {CHANNELS}, {computer['processor']}."
    (args.out / f"kinds_{args.seed}.md").write_text("\n".join([head, "", *table(rows)]) + "\n")
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
