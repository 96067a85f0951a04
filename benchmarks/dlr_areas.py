"""Areas of the laid-out targets of DLR HySU from a fit with the image library, against their true sizes.

    python benchmarks/dlr_areas.py PATH/TO/dlr_hysu.npz

The area of a material in a target is its abundance summed inside a one-pixel dilation of both its material mask and its
size mask, times .49 square metres a pixel; its 90 % interval comes from joint draws of all abundances.
"""

from __future__ import annotations

import argparse
import json
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
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    with np.load(args.path) as file:
        cube = file["Y"] / float(file["reflectance_scale"])
        library, names = file["E_image"], [str(name) for name in file["E_image_names"]]
        wavelength, material, size = file["wavelength_um"], file["roi_material"], file["roi_size"]
    # The library lists the green fabric twice, with the same spectrum.
    keep = [i for i, name in enumerate(names) if name != "green fabric b"]
    library, names = library[keep], [names[i] for i in keep]
    image = xr.DataArray(cube, dims=("y", "x", "wavelength"), coords={"wavelength": wavelength}, name="DLR HySU")
    image["wavelength"].attrs["units"] = "um"
    model = bu.models.LinearUnmixing(len(names), endmembers=library, noise=args.noise)
    fit = bu.fit(model, image, seed=0)
    print(fit)
    draws = fit.sample_latent(args.draws, seed=1)["abundance"].values  # (draw, y, x, endmember)
    rows = []
    for code, true in AREAS.items():
        for m, name in enumerate(names[:-1]):
            where = binary_dilation(material[..., m].astype(bool)) & binary_dilation(size == code)
            area = PIXEL_AREA * draws[:, where, m].sum(1)
            low, high = np.quantile(area, [0.05, 0.95])
            rows.append(
                {
                    "material": name,
                    "true": true,
                    "area": float(area.mean()),
                    "lower": float(low),
                    "upper": float(high),
                    "error_percent": float(100 * (area.mean() / true - 1)),
                    "covered": bool(low <= true <= high),
                }
            )
    lines = ["| material | true m2 | area | 90 % interval | error % | covered |", "|---|---|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| {row['material']} | {row['true']:g} | {row['area']:.3f} | {row['lower']:.3f} to {row['upper']:.3f} "
            f"| {row['error_percent']:+.1f} | {'yes' if row['covered'] else 'no'} |"
        )
    check = bu.check(fit)
    lines += ["", f"verdict: {fit.diagnostics.attrs['verdict']}", f"check: {check.attrs['verdict']}"]
    lines += [f"noise_scale: {float(fit.posterior['noise_scale'].mean()):.5f} (reflectance)"]
    print("\n".join(lines))
    args.out.mkdir(exist_ok=True)
    stem = f"dlr_areas_{args.noise}"
    (args.out / f"{stem}.md").write_text("\n".join(lines) + "\n")
    (args.out / f"{stem}.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
