"""Time and memory of a default fit: cold, warm, and the maps of its abundances.

    python benchmarks/fit_time.py --side 64 --channels 256 --n-endmembers 4

Smooth endmembers, uniform abundances, noise at ``--snr`` decibels. Prints a line per fit with its verdict and the
integration error, and the peak memory of the process; written to ``benchmarks/results/`` with the load of the machine,
without which wall times say little. Cold means without compiled programs, unless ``JAX_COMPILATION_CACHE_DIR`` is set.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from pathlib import Path

import numpy as np
import xarray as xr

import bayesunmix as bu


def cube(side: int, channels: int, n_endmembers: int, snr: float, seed: int) -> xr.DataArray:
    """Two peaks an endmember on a common background."""
    rng = np.random.default_rng(seed)
    energy = np.linspace(0.0, 1.0, channels)
    centres = np.linspace(0.15, 0.85, n_endmembers)
    peak = lambda centre, width: np.exp(-0.5 * ((energy - centre) / width) ** 2)  # noqa: E731
    spectra = np.stack([0.3 + peak(c, 0.08) + 0.5 * peak((c + 0.37) % 1.0, 0.04) for c in centres])
    signal = rng.dirichlet(np.ones(n_endmembers), (side, side)) @ spectra
    noise = signal.std() * 10 ** (-snr / 20)
    return xr.DataArray(signal + noise * rng.normal(size=signal.shape), dims=("y", "x", "energy"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--n-endmembers", type=int, default=4)
    parser.add_argument("--snr", type=float, default=25.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    image = cube(args.side, args.channels, args.n_endmembers, args.snr, seed=0)
    model = bu.models.LinearUnmixing(args.n_endmembers)
    size = f"{args.side} x {args.side} x {args.channels}, n={args.n_endmembers}"
    lines = [f"{size}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start", ""]
    for repeat in range(args.repeats):
        start, work = time.perf_counter(), time.process_time()
        fit = bu.fit(model, image, seed=repeat, progress=False)
        wall, cpu = time.perf_counter() - start, time.process_time() - work
        start = time.perf_counter()
        fit.latent()
        maps = time.perf_counter() - start
        shift = float(fit.diagnostics["mc_shift"].max())
        lines.append(
            f"- {'cold' if repeat == 0 else 'warm'}: fit {wall:.1f} s wall, {cpu:.1f} s CPU; maps {maps:.1f} s; "
            f"mc_shift {shift:.4f}; {fit.diagnostics.attrs['verdict']}"
        )
        print(lines[-1], flush=True)
    lines.append(f"- peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    print(lines[-1])
    args.out.mkdir(exist_ok=True)
    name = f"fit_time_{args.side}x{args.side}x{args.channels}_n{args.n_endmembers}.md"
    (args.out / name).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
