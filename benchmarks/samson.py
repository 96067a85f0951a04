"""Samson (soil, tree, water): spectral angles and abundances of fits with brightness, against the reference.

    python benchmarks/samson.py PATH/TO/samson.npz
    python benchmarks/samson.py PATH/TO/samson.npz --concentration 0.5 --noise diagonal --side 48
    python benchmarks/samson.py PATH/TO/samson.npz --likelihood scaled-poisson --concentration learned
    python benchmarks/samson.py PATH/TO/samson.npz --smoothness learned
    python benchmarks/samson.py PATH/TO/samson.npz --climb    # where the likelihood leads from the reference itself

The reference scales each of its endmembers to a largest value of one and derives its abundances from them, so the
fitted abundances are divided out in the same way: times the largest value of their endmember, then to sum one. Spectral
angles do not depend on scale. The coverage of the reference by 90 % intervals is printed as it is: the reference is an
estimate itself.

``--climb`` fits nothing. From the reference's spectra it climbs the likelihood of linear mixtures with brightness and
equal noise, without any prior (alternating least squares under non-negativity), and prints how far spectra and
abundances are from the reference as the likelihood rises.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.optimize import linear_sum_assignment, nnls

import bayesunmix as bu


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles between all rows, in rad."""
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (a, b)]
    return np.arccos(np.clip(unit[0] @ unit[1].T, -1, 1))


def compared(parts, spectra, true, reference) -> tuple[np.ndarray, float]:
    """Angles (rad) and RMSE of abundances, parts (pixel, 3) scaled as the reference scales its own."""
    shares = parts * spectra.max(-1)
    shares = shares / shares.sum(-1, keepdims=True)
    return np.diag(angle(spectra, reference)), float(np.sqrt(np.mean((shares - true) ** 2)))


def climb(values: np.ndarray, true: np.ndarray, reference: np.ndarray) -> list[str]:
    """The table of ``--climb`` for values (pixel, channel)."""
    parts = np.array([nnls(reference.T, value)[0] for value in values])
    lines = [
        "| steps | residual | log likelihood above the start (nats) | angles (rad) | mean | abundance RMSE |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    first = None
    for step in range(301):
        spectra = np.maximum(np.linalg.lstsq(parts, values, rcond=None)[0], 0.0)
        residual = float(np.sqrt(np.mean((values - parts @ spectra) ** 2)))
        first = first or residual
        if step in (0, 1, 3, 10, 30, 100, 300):
            angles, rmse = compared(parts, spectra, true, reference)
            # Of normal noise whose level is the residual's.
            higher = values.size * np.log(first / residual)
            listed = ", ".join(f"{a:.3f}" for a in angles)
            lines.append(f"| {step} | {residual:.5f} | {higher:.0f} | {listed} | {angles.mean():.3f} | {rmse:.3f} |")
        pull, gram = values @ spectra.T, spectra @ spectra.T
        for _ in range(20):
            parts = np.maximum(parts * np.maximum(pull, 1e-12) / np.maximum(parts @ gram, 1e-12), 1e-12)
    axes = np.linalg.svd(values, full_matrices=False)[2][:3]
    plane = [float(angle(e[None], (axes.T @ (axes @ e))[None])[0, 0]) for e in reference]
    lines += ["", f"Angles of the reference to the best three-dimensional subspace: {np.round(plane, 3).tolist()}."]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--noise", choices=("isotropic", "diagonal"), default="isotropic")
    parser.add_argument("--concentration", default="1", help="a number, or learned")
    parser.add_argument("--likelihood", default="normal")
    parser.add_argument("--smoothness", help="a number of channels, or learned")
    parser.add_argument("--climb", action="store_true")
    parser.add_argument("--side", type=int, default=95, help="fit that many rows and columns")
    parser.add_argument("--plain", action="store_true", help="without brightness")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    with np.load(args.path) as file:
        names = [str(name) for name in file["E_names"]] if "E_names" in file else ["soil", "tree", "water"]
        whole, reference = file["Y"], file["E"]
        cube, true = whole[: args.side, : args.side], file["A"][: args.side, : args.side]
    if args.climb:
        values, shares = cube.reshape(-1, cube.shape[-1]).astype(float), true.reshape(-1, 3).astype(float)
        lines = ["`python benchmarks/samson.py PATH --climb`", "", *climb(values, shares, reference.astype(float))]
        print("\n".join(lines))
        (args.out / "samson_climb.md").write_text("\n".join(lines) + "\n")
        return
    image = xr.DataArray(cube, dims=("y", "x", "channel"), name="Samson")
    alpha = "learned" if args.concentration == "learned" else float(args.concentration)
    length = args.smoothness if args.smoothness in (None, "learned") else float(args.smoothness)
    model = bu.models.LinearUnmixing(
        3,
        likelihood=args.likelihood,
        noise=args.noise,
        brightness=not args.plain,
        concentration=alpha,
        smoothness=length,
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
    angles, rmse = compared(mean[..., order], draws.mean(0)[order], true, reference)
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
    stem += f"_smoothness_{args.smoothness}" if args.smoothness else ""
    stem += f"_side_{args.side}" if args.side < len(whole) else ""
    (args.out / f"{stem}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
