"""Areas of the laid-out targets of DLR HySU from fits with the image library, against their true sizes.

    python benchmarks/dlr_areas.py PATH/TO/dlr_hysu.npz
    python benchmarks/dlr_areas.py PATH/TO/dlr_hysu.npz --concentration 1

The fit sees the targets and three pixels around them: the library describes these, and what else is in the image would
set the noise level. The area of a material in a target is its mean abundance summed inside a one-pixel dilation of both
its material mask and its size mask, times .49 square metres a pixel; its 90 % interval comes from joint draws of all
abundances. Concentrations are compared by the ELBO, which for one global is the evidence.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import xarray as xr
from scipy.ndimage import binary_dilation

import bayesunmix as bu

AREAS = {1: 9.0, 2: 4.0, 3: 1.0, 4: 0.25, 5: 0.0625}  # size class: square metres
PIXEL_AREA = 0.49


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--noise", choices=("isotropic", "diagonal"), default="isotropic")
    parser.add_argument("--concentration", nargs="+", default=["1", "0.5", "0.3", "0.1"])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    with np.load(args.path) as file:
        cube = file["Y"] / float(file["reflectance_scale"])
        library, names = file["E_image"], [str(name) for name in file["E_image_names"]]
        wavelength, material, size = file["wavelength_um"], file["roi_material"].astype(bool), file["roi_size"]
    # The library lists the green fabric twice, with the same spectrum.
    keep = [i for i, name in enumerate(names) if name != "green fabric b"]
    library, names = library[keep], [names[i] for i in keep]
    image = xr.DataArray(cube, dims=("y", "x", "wavelength"), coords={"wavelength": wavelength}, name="DLR HySU")
    image["wavelength"].attrs["units"] = "um"
    near = binary_dilation(material.any(-1), iterations=3)
    targets = {
        (code, m): binary_dilation(material[..., m]) & binary_dilation(size == code)
        for code in AREAS
        for m in range(len(names) - 1)
    }
    lines, tables, kept = [], [], []
    lines += [f"{near.sum()} of {near.size} pixels, noise {args.noise}. Largest error of the five materials, in %.", ""]
    lines += ["| concentration | 9 m2 | 4 m2 | 1 m2 | covered of 15 | noise | ELBO | seconds | verdict |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for concentration in args.concentration:
        model = bu.models.LinearUnmixing(
            len(names),
            endmembers=library,
            noise=args.noise,
            concentration=concentration if concentration == "learned" else float(concentration),
        )
        start = time.perf_counter()
        fit = bu.fit(model, image, mask=near, seed=0, progress=False)
        seconds = time.perf_counter() - start
        mean = fit.latent()["abundance"].sel(statistic="mean").values  # (y, x, endmember)
        draws = fit.sample_latent(args.draws, seed=1)["abundance"].values  # (draw, y, x, endmember)
        rows = []
        for (code, m), where in targets.items():
            area, true = float(PIXEL_AREA * mean[where, m].sum()), AREAS[code]
            low, high = np.quantile(PIXEL_AREA * draws[:, where, m].sum(1), [0.05, 0.95])
            error = 100 * (area / true - 1)
            row = {"material": names[m], "true": true, "area": area, "lower": float(low)}
            rows.append({**row, "upper": float(high), "error_percent": error, "covered": bool(low <= true <= high)})
        kept.append({"concentration": concentration, "rows": rows})
        large = [row for row in rows if row["true"] >= 1]
        worst = [max(abs(r["error_percent"]) for r in large if r["true"] == true) for true in (9.0, 4.0, 1.0)]
        noise = float(np.sqrt((fit.posterior["noise_scale"] ** 2).mean()))
        elbo = float(fit.diagnostics["elbo"][-10:].mean())
        lines.append(
            f"| {concentration} | {worst[0]:.1f} | {worst[1]:.1f} | {worst[2]:.1f} "
            f"| {sum(r['covered'] for r in large)} | {noise:.5f} | {elbo:.0f} | {seconds:.0f} "
            f"| {fit.diagnostics.attrs['verdict']} |"
        )
        tables += ["", f"Concentration {concentration}. {bu.check(fit).attrs['verdict']}", ""]
        tables += ["| material | true m2 | area | 90 % interval | error % | covered |", "|---|---|---|---|---|---|"]
        tables += [
            f"| {r['material']} | {r['true']:g} | {r['area']:.3f} | {r['lower']:.3f} to {r['upper']:.3f} "
            f"| {r['error_percent']:+.1f} | {'yes' if r['covered'] else 'no'} |"
            for r in rows
        ]
        print(lines[-1], flush=True)
        args.out.mkdir(exist_ok=True)
        stem = f"dlr_areas_{args.noise}"
        (args.out / f"{stem}.md").write_text("\n".join(lines + tables) + "\n")
        (args.out / f"{stem}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
