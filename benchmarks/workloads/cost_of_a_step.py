"""One evaluation of the log posterior and its slope, against the number of pixels and of channels."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Contender, Workload
from benchmarks.simulated import cube

STEP = 2e-3  # of the difference, of fourth order: shorter ones meet the rounding of points


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
            direction = jax.random.normal(jax.random.key(1), z.shape, z.dtype)
            at = {k: float(value_and_grad(program, z + k * STEP * direction, data)[0]) for k in (-2, -1, 1, 2)}
        known = (direction, (8 * (at[1] - at[-1]) - at[2] + at[-2]) / (12 * STEP))

        def run(_: tuple[int, int], seed: int) -> tuple[Any, Any, float]:
            with computing():
                return value_and_grad(program, z, data)[1].block_until_ready(), *known

        return run

    return Contender(f"bayesunmix, {more_pixels} x pixels, {more_channels} x channels", set_up, headline=False)


def score(_: tuple[int, int], answer: tuple[Any, Any, float]) -> dict[str, float]:
    """How far the slope along a random direction is off a difference of values, by the size of its terms."""
    slope, direction, difference = answer
    return {"slope off a difference": abs(float(slope @ direction) - difference) / float(abs(slope) @ abs(direction))}


WORKLOAD = Workload(
    title="One step: log posterior and slope, n=4",
    problem=lambda seed, side, channels: (side, channels),
    contenders=tuple(of_size(*size) for size in ((1, 1), (1, 4), (1, 16), (4, 4), (16, 4))),
    score=score,
    sizes={"full": {"side": 64, "channels": 64}},  # of small images a step costs the same, whatever their size
)
