"""Posteriors by way of samples of pixels, in memory and on the disk, beside that of all pixels.

    python -m benchmarks.samples_agree               # 128 x 128 x 256, four endmembers: some minutes

Shifts of posterior means are in posterior standard deviations, widths are ratios of these. Fits with one seed share
their random numbers, so that what differs is what samples change; where a fit takes another way to its draws, their
Monte Carlo error (.02) is part of it.
"""

from __future__ import annotations

import argparse
import datetime
import tempfile
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr

import bayesunmix as bu
from benchmarks.__main__ import commit, machine
from benchmarks.simulated import cube, matched

DRAWS = 4000
BATCHES = 4096, 1024, 256


def told(data: xr.DataArray, n_endmembers: int, batch: int) -> tuple[bool, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Whether the fit can be used; means and standard deviations of endmembers, noise and abundances."""
    method = bu.SVI(batch=batch, draws=DRAWS)
    fit = bu.fit(bu.models.LinearUnmixing(n_endmembers), data, method, progress=False)
    spectra, noise = fit.posterior["endmembers"].values[0], fit.posterior["noise_scale"].values
    maps = fit.latent()["abundance"].transpose("statistic", ..., "endmember")
    return fit.converged, {
        "endmembers": (spectra.mean(0), spectra.std(0)),
        "noise": (noise.mean(), noise.std()),
        "abundances": (maps.sel(statistic="mean").values, maps.sel(statistic="sd").values),
    }


def beside(found: dict[str, Any], every: dict[str, Any]) -> list[str]:
    """Largest and root mean square shift, and the range of widths, for each kind of parameter."""
    own = np.argsort(matched(found["endmembers"][0], every["endmembers"][0]))
    cells = []
    for name, (mean, sd) in every.items():
        axis = {"endmembers": 0, "noise": None, "abundances": -1}[name]
        its_mean, its_sd = (value if axis is None else np.take(value, own, axis) for value in found[name])
        shift, ratio = (its_mean - mean) / sd, its_sd / sd
        worst, typical = np.abs(shift).max(), np.sqrt(np.mean(shift**2))
        cells.append(f"{worst:.3f}, {typical:.3f}; {ratio.min():.3f} to {ratio.max():.3f}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--endmembers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    image = cube(args.seed, args.side, args.channels, args.endmembers).image
    usable, every = told(image, args.endmembers, args.side**2)
    computer = machine()
    lines = [
        f"`python -m benchmarks.samples_agree`, {args.side} x {args.side} x {args.channels}, n={args.endmembers}, seed "
        f"{args.seed}, {datetime.date.today()}, commit {commit()}, {computer['processor']}. All pixels at once: "
        f"{'usable' if usable else 'not usable'}. Largest and root mean square shift in posterior sds; widths.",
        "",
        "| batch | usable | endmembers | noise | abundances |",
        "|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        tiles = (args.side // 4, args.side // 4, args.channels)
        dask.array.from_array(image.values, chunks=tiles).to_zarr(f"{folder}/image.zarr")
        lazy = xr.DataArray(dask.array.from_zarr(f"{folder}/image.zarr"), dims=image.dims)
        for name, data, batch in [("4096, on the disk", lazy, BATCHES[0]), *((str(b), image, b) for b in BATCHES)]:
            usable, found = told(data, args.endmembers, batch)
            lines.append(f"| {name} | {'yes' if usable else 'no'} | {' | '.join(beside(found, every))} |")
            print(lines[-1], flush=True)
    args.out.mkdir(exist_ok=True)
    (args.out / "samples_agree.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
