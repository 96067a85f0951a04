"""One evaluation of the log posterior and its slope, against the number of pixels and of channels."""

from __future__ import annotations

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import Cube, cube

SIZES = ((64, 64), (64, 256), (64, 1024), (128, 256), (256, 256))


def of_size(side: int, channels: int) -> Contender:
    """A contender that evaluates an image of its own at the truth, whatever the problem's."""

    def set_up(problem: Cube):
        import jax
        import jax.numpy as jnp

        import bayesunmix as bu
        from bayesunmix.inference.precision import native_precision
        from bayesunmix.inference.program import compile_model, unconstrain
        from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules

        own = cube(0, side, channels, len(problem.endmembers))
        with native_precision():
            program, numbers = compile_model(bu.models.LinearUnmixing(len(own.endmembers)).bind(own.pixels), own.pixels)
            data = as_device_data(program, numbers, own.pixels, {})
            start = {"endmembers": own.endmembers, "noise_scale": own.noise}
            z = unconstrain(program, data.numbers, start, data.y, {})
            data = with_rules(program, z, data, jax.random.key(0), jnp.arange(len(own.pixels)))

        def run(problem: Cube, seed: int):
            with native_precision():
                return float(value_and_grad(program, z, data)[0])

        return run

    return Contender(f"{side} x {side} pixels, {channels} channels", set_up)


WORKLOAD = Workload(
    title="One step: log posterior and slope",
    problem=cube,
    contenders=tuple(of_size(*size) for size in SIZES),
    score=lambda problem, answer: {},
    sizes={kind: {"side": 8, "channels": 8, "n_endmembers": 4} for kind in ("full", "short")},
)
