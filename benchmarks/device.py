"""The engine on this machine's accelerator or processor: time per step, share of the memory's bandwidth, agreement.

    python -m benchmarks.device                      # 128 x 128 x 256, 4 endmembers, on what JAX finds
    JAX_PLATFORMS=cpu python -m benchmarks.device    # the float64 reference, kept for the other to be compared with
    python -m benchmarks.device --side 256 --channels 1024 --endmembers 6 --no-fit

A step is the log density of all pixels and its gradient, with integration points frozen. It must read the image twice,
forward and back: that many bytes over its time is the bandwidth it achieves, beside that of a copy of an array of the
same size. The fit is ``bu.fit`` with its defaults. Posterior means are compared in posterior standard deviations.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bayesunmix as bu
from bayesunmix.inference.context import computing
from bayesunmix.inference.program import compile_model, unconstrain
from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules
from benchmarks import simulated
from benchmarks.__main__ import commit

_LONG = ("gradient", "mean", "sd")  # kept for comparison, not shown


def timed(fn, repeats: int) -> float:
    """Median seconds."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(fn())
        found.append(time.perf_counter() - start)
    return float(np.median(found))


def steps(cube: np.ndarray, endmembers: int, repeats: int) -> dict[str, float]:
    """Time and bandwidth of a step, and the gradient at a fixed place."""
    y = cube.reshape(-1, cube.shape[-1])
    model = bu.models.LinearUnmixing(endmembers).bind(y)
    with computing():
        program, numbers = compile_model(model, jnp.asarray(y[:2]))
        data = as_device_data(program, numbers, y, {})
        z = unconstrain(program, data.numbers, model.initial(y), data.y[:2], {})
        ruled = with_rules(program, z, data, jax.random.key(0), jnp.arange(len(y)))
        start = time.perf_counter()
        value, gradient = jax.block_until_ready(value_and_grad(program, z, ruled))
        compiled = time.perf_counter() - start
        seconds = timed(lambda: value_and_grad(program, z, ruled), repeats)
        copy = jax.jit(lambda x: x + 1.0)
        jax.block_until_ready(copy(data.y))
        copied = timed(lambda: copy(data.y), repeats)
    size = data.y.nbytes
    return {
        "compilation_s": compiled,
        "step_ms": 1e3 * seconds,
        "bandwidth_GB_s": 2 * size / seconds / 1e9,
        "copy_GB_s": 2 * size / copied / 1e9,
        "value": float(value),
        "gradient": np.asarray(gradient, np.float64).tolist(),
    }


def agreement(run: dict, reference: dict) -> dict[str, float | list[float]]:
    """Gradient, posterior means and sds against those of a processor in double precision."""
    gradient = np.array(reference["gradient"])
    found: dict = {"gradient_error": float(np.abs(run["gradient"] - gradient).max() / np.abs(gradient).max())}
    if "mean" in run and "mean" in reference:
        sd = np.array(reference["sd"])
        ratio = run["sd"] / sd
        found["largest_shift_sd"] = float((np.abs(np.array(run["mean"]) - reference["mean"]) / sd).max())
        found["sd_ratio"] = [float(ratio.min()), float(ratio.max())]
    return found


def table(folder: Path) -> None:
    """All runs that are kept in the folder, side by side."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("device_*.json"))]
    references = {run["size"]: run for run in runs if run["device"] == "cpu"}
    for run in runs:
        if run["device"] != "cpu" and run["size"] in references:
            run |= agreement(run, references[run["size"]])
    names = list(dict.fromkeys(name for run in runs for name in run if name not in _LONG))

    def shown(x) -> str:
        if isinstance(x, list):
            return ", ".join(map(shown, x))
        return f"{x:.4g}" if isinstance(x, float) else str(x)

    rows = ["| " + " | ".join([name, *(shown(run.get(name, "")) for run in runs)]) + " |" for name in names]
    lines = [f"`python -m benchmarks.device`, version {bu.__version__}", "", rows[0], "|" + "---|" * (len(runs) + 1)]
    (folder / "device.md").write_text("\n".join([*lines, *rows[1:]]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--endmembers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-fit", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    device = jax.devices()[0]
    cube = simulated.cube(0, args.side, args.channels, args.endmembers).image.values
    found: dict = {
        "device": device.device_kind,
        "size": f"{args.side} x {args.side} x {args.channels}, n={args.endmembers}",
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }
    found |= steps(cube, args.endmembers, args.repeats)
    if not args.no_fit:
        for name in ("fit_cold_s", "fit_warm_s"):
            start = time.perf_counter()
            fit = bu.fit(bu.models.LinearUnmixing(args.endmembers), cube, seed=0, progress=False)
            found[name] = time.perf_counter() - start
        start = time.perf_counter()
        fit.latent()
        found["latent_s"] = time.perf_counter() - start
        draws = fit.posterior["endmembers"].values
        found |= {"verdict": fit.diagnostics.attrs["verdict"], "converged": fit.converged}
        found |= {"mean": draws.mean((0, 1)).tolist(), "sd": draws.std((0, 1)).tolist()}
    stem = f"device_{jax.default_backend()}_{args.side}x{args.side}x{args.channels}_n{args.endmembers}"
    (args.out / f"{stem}.json").write_text(json.dumps(found))
    table(args.out)
    print({name: value for name, value in found.items() if name not in _LONG})


if __name__ == "__main__":
    main()
