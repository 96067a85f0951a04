"""One evaluation of the log posterior and its slope, against the number of pixels and of channels."""

from __future__ import annotations

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import cube


def of_size(more_pixels: int, more_channels: int) -> Contender:
    """A contender that evaluates its own image at the truth, so many times as large as the smallest."""

    def set_up(size: tuple[int, int]):
        import jax
        import jax.numpy as jnp

        import bayesunmix as bu
        from bayesunmix.inference.context import computing
        from bayesunmix.inference.program import compile_model, unconstrain
        from bayesunmix.inference.target import as_device_data, value_and_grad, with_rules

        side, channels = size
        own = cube(0, side * round(more_pixels**0.5), channels * more_channels, 4)
        with computing():
            program, numbers = compile_model(bu.models.LinearUnmixing(4).bind(own.pixels), own.pixels)
            data = as_device_data(program, numbers, own.pixels, {})
            start = {"endmembers": own.endmembers, "noise_scale": own.noise}
            z = unconstrain(program, data.numbers, start, data.y, {})
            data = with_rules(program, z, data, jax.random.key(0), jnp.arange(len(own.pixels)))

        def run(_: tuple[int, int], seed: int) -> None:
            with computing():
                value_and_grad(program, z, data)[1].block_until_ready()

        return run

    return Contender(f"bayesunmix, {more_pixels} x pixels, {more_channels} x channels", set_up, headline=False)


WORKLOAD = Workload(
    title="One step: log posterior and slope, n=4",
    problem=lambda seed, side, channels: (side, channels),
    contenders=tuple(of_size(*size) for size in ((1, 1), (1, 4), (1, 16), (4, 4), (16, 4))),
    score=lambda problem, answer: {},
    sizes={"full": {"side": 64, "channels": 64}},  # of small images a step costs the same, whatever their size
)
