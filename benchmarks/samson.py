"""Samson (soil, tree, water): spectral angles and abundances of fits with brightness, against the reference.

    python benchmarks/samson.py PATH/TO/samson.npz
    python benchmarks/samson.py PATH/TO/samson.npz --concentration 0.5 --noise diagonal --side 48
    python benchmarks/samson.py PATH/TO/samson.npz --likelihood scaled-poisson --concentration learned

The reference scales each of its endmembers to a largest value of one and derives its abundances from them, so the
fitted abundances are divided out in the same way: times the largest value of their endmember, then to sum one. Spectral
angles do not depend on scale. The coverage of the reference by 90 % intervals is printed as it is: the reference is an
estimate itself.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment

import bayesunmix as bu


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between all rows, in rad."""
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b)]
    return np.arccos(np.clip(unit[0] @ unit[1].T, -1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--noise", choices=("isotropic", "diagonal"), default="isotropic")
    parser.add_argument("--concentration", default="1", help="a number, or learned")
    parser.add_argument("--likelihood", default="normal")
    parser.add_argument("--side", type=int, default=95, help="fit that many rows and columns")
    parser.add_argument("--plain", action="store_true", help="without brightness")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    with np.load(args.path) as file:
        names = [str(name) for name in file["E_names"]] if "E_names" in file else ["soil", "tree", "water"]
        cube, true, reference = file["Y"][: args.side, : args.side], file["A"][: args.side, : args.side], file["E"]
    image = xr.DataArray(cube, dims=("y", "x", "channel"), name="Samson")
    alpha = "learned" if args.concentration == "learned" else float(args.concentration)
    model = bu.models.LinearUnmixing(
        3, likelihood=args.likelihood, noise=args.noise, brightness=not args.plain, concentration=alpha
    )
    start = time.perf_counter()
    fit = bu.fit(model, image, bu.SVI(sample_if_needed=False), seed=0, progress=False)
    seconds = time.perf_counter() - start
    draws = fit.posterior["endmembers"].stack(sample=("chain", "draw")).transpose("sample", ...).values
    latent = fit.latent()["abundance"]
    mean = latent.sel(statistic="mean").values
    cost = angle(draws.mean(0), reference)
    fitted, known = linear_sum_assignment(cost)
    order = fitted[np.argsort(known)]
    angles = cost[order, np.arange(3)]
    shares = mean[..., order] * draws.mean(0)[order].max(-1)
    shares /= shares.sum(-1, keepdims=True)
    rmse = float(np.sqrt(np.mean((shares - true) ** 2)))
    listed = ", ".join(f"{name} {a:.3f}" for name, a in zip(names, angles, strict=True))
    settings = {key: str(value) for key, value in vars(args).items() if key not in ("path", "out")}
    lines = [
        f"`{settings}`, version {bu.__version__}, {seconds:.0f} s",
        "",
        f"Spectral angles (rad): {listed}; mean {angles.mean():.4f}. Abundance RMSE {rmse:.4f}.",
        "",
        f"{fit.diagnostics.attrs['verdict']} {bu.check(fit).attrs['verdict']}",
    ]
    print("\n".join(lines))
    args.out.mkdir(exist_ok=True)
    noise = args.noise if args.likelihood == "normal" else args.likelihood
    stem = "samson" + "_plain" * args.plain + f"_{noise}_concentration_{args.concentration}"
    (args.out / f"{stem}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
