"""A cube on the disk fitted where it lies, its maps, and draws of them written to a file a chunk at a time.

    python -m benchmarks.cube_on_disk                # 512 x 512 x 1024, 1 GiB: minutes, and as much on the disk
    python -m benchmarks.cube_on_disk --side 128 --channels 256
    python -m benchmarks.cube_on_disk --loaded       # for comparison, of a cube that is in memory whole

The cube is made in tiles and never whole. A process of its own opens it lazily and fits it; what it holds at most in
each step is the kernel's own count of its resident set, so this runs on Linux. The batch is the block of pixels that is
read at a time, or all of them.

Dask and pandas load what they find: numba and pyarrow, which come with HyperSpy, are 190 MiB more. For what a user of
this package holds, run it where only the package, its extra ``io`` and zarr are installed.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import simulated
from benchmarks.__main__ import commit, machine
from benchmarks.harness import forget_peak, memory

TILE, DRAWS = 64, 20
STEPS = "fit", "maps", "draws"
BESIDE = "numba", "pyarrow"  # what dask and pandas load where it is installed
RESULTS = Path(__file__).parent / "results"


def write(path: Path, side: int, channels: int, n_endmembers: int, seed: int) -> None:
    """Tiles of mixed spectra with noise, 25 dB, to a zarr store, and the truth beside it."""
    import zarr

    rng = np.random.default_rng(seed)
    spectra = simulated.random_spectra(n_endmembers, channels, rng)
    shape = (side, side, channels)
    store = zarr.create_array(path / "image", shape=shape, chunks=(TILE, TILE, channels), dtype="float32")
    shares = rng.dirichlet(np.ones(n_endmembers), (side, side))
    noise = float((shares[:TILE, :TILE] @ spectra).std() * 10 ** (-25 / 20))
    for y in range(0, side, TILE):
        for x in range(0, side, TILE):
            clean = shares[y : y + TILE, x : x + TILE] @ spectra
            store[y : y + TILE, x : x + TILE] = clean + noise * rng.standard_normal(clean.shape)
    np.savez(path / "truth.npz", endmembers=spectra, abundance=shares, noise=noise)


def fitted(path: Path, n_endmembers: int, seed: int, loaded: bool, pipe) -> None:
    """Fit and maps, in a process of its own; sends what they took and what they say."""
    import dask.array
    import jax
    import xarray as xr

    import bayesunmix as bu
    from bayesunmix._memory import hand_back
    from bayesunmix.data.rows import BLOCK_BYTES

    image = xr.DataArray(dask.array.from_zarr(path / "image"), dims=("y", "x", "energy"))
    found: dict = {"libraries_MiB": memory("VmRSS"), "batch_MiB": (image.nbytes if loaded else BLOCK_BYTES) / 2**20}
    if loaded:
        image = image.load()
        hand_back()  # what reading took
    for step in STEPS:
        forget_peak()
        wall, work = time.perf_counter(), time.process_time()
        if step == "fit":
            fit = bu.fit(bu.models.LinearUnmixing(n_endmembers), image, seed=seed, progress=False)
        elif step == "maps":
            maps = fit.latent()
        else:
            fit.sample_latent(DRAWS, path=path / "draws.nc").close()
        found |= {f"{step}_wall_s": time.perf_counter() - wall, f"{step}_cpu_s": time.process_time() - work}
        found[f"{step}_peak_MiB"] = memory("VmHWM")
        gc.collect()
        hand_back()
        found[f"{step}_held_MiB"] = memory("VmRSS")  # no less is ever held, with nothing under way
    with np.load(path / "truth.npz") as truth:
        found |= simulated.scored_fit(simulated.Cube(image, **truth), fit, maps)
    held = memory("VmRSS")
    jax.clear_caches()
    gc.collect()
    hand_back()
    found["programs_MiB"] = held - memory("VmRSS")
    beside = [name for name in BESIDE if name in sys.modules]
    pipe.send(found | {"verdict": fit.diagnostics.attrs["verdict"], "loaded_beside": ", ".join(beside) or "nothing"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--channels", type=int, default=1024)
    parser.add_argument("--endmembers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loaded", action="store_true", help="read the cube before the fit")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write(path, args.side, args.channels, args.endmembers, args.seed)
        context = multiprocessing.get_context("spawn")
        theirs, ours = context.Pipe()
        process = context.Process(target=fitted, args=(path, args.endmembers, args.seed, args.loaded, ours))
        process.start()
        ours.close()
        found = theirs.recv()
        process.join()
    found |= {
        "cube_MiB": args.side**2 * args.channels * 4 / 2**20,
        "beyond_batch_MiB": max(found[f"{step}_peak_MiB"] for step in STEPS) - found["batch_MiB"],
    }
    size = f"{args.side} x {args.side} x {args.channels}, n={args.endmembers}"
    cached = "JAX_COMPILATION_CACHE_DIR" in os.environ
    about = {"date": datetime.date.today().isoformat(), "size": size, "seed": args.seed, "commit": commit()}
    about |= {"machine": machine(), "programs_kept": cached}
    where = "in_memory" if args.loaded else "on_disk"
    stem = f"cube_{where}_{args.side}x{args.side}x{args.channels}_n{args.endmembers}"
    args.out.mkdir(exist_ok=True)
    (args.out / f"{stem}.json").write_text(json.dumps(about | found, indent=1) + "\n")
    told = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in found.items()}
    computer = about["machine"]
    lines = [
        f"`python -m benchmarks.cube_on_disk{' --loaded' * args.loaded}`, {size}, seed {args.seed}, {about['date']}, "
        f"commit {about['commit']}, {computer['processor']}, {computer['cores']} cores, programs "
        f"{'kept' if cached else 'not kept'} from earlier processes.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in told.items()),
    ]
    (args.out / f"{stem}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
