"""Sampling by a model's own Gibbs sampler: warm-up, thinning until the chains agree, and the verdict."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bayesunmix._keys import generator
from bayesunmix.align import match_labels
from bayesunmix.inference.diagnostics import ESS_PER_CHAIN, RHAT_LIMIT, Diagnostics
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.run import Result
from bayesunmix.inference.settings import FEWEST_DRAWS, SVI, Gibbs

_BLOCK = 16  # draws made and finished at once, sweeps of warm-up made at once
_BLOCK_BYTES = 2**22  # of what they are told by, at most
_DOUBLE_BYTES = 2**23  # of one parameter in double precision; more draws are kept in single precision
_JUDGED = 2**17  # values of draws that are told at a time whether they agree
_ENOUGH = 250  # draws a chain, for R-hat to see small disagreement


def gibbs_settings(model: Any, method: Any) -> Gibbs | None:
    """Settings where the model's own sampler serves ``method``; None where the engine's methods do.

    It is the default of a model that has one. ``SVI()`` samples where no Gaussian fits the posterior; a model that
    knows this beforehand (``gaussian`` is False, as for components that can be turned) is sampled at once.
    """
    if not hasattr(model, "gibbs"):
        return None
    if method is None:
        return Gibbs()
    if isinstance(method, SVI) and method.sample_if_needed and not getattr(model, "gaussian", True):
        return Gibbs(draws=max(_ENOUGH, -(-method.draws // 4)))
    return method if isinstance(method, Gibbs) else None


def infer_by_gibbs(
    model: Any, y: np.ndarray, covariates: dict[str, Any], method: Gibbs, key: jax.Array, progress: Progress
) -> Result:
    """Run ``model.gibbs(y, covariates)``, which has ``start(rng, chains)``, ``sweep(state, rng)``, ``values(state)``.

    It may have ``finished(values)``, which takes values of many states, (chain, draw, ...), to those of the
    program's sites at once, and ``sweeps(state, rng, thin, count)`` where many sweeps cost less than as many calls: the
    state after them, and ``values`` of ``count`` states with ``thin`` sweeps between them, (chain, draw, ...).

    Every round keeps ``draws`` of each chain. Where chains disagree, or draws depend on one another too much,
    the round becomes warm-up of the next one, which after the second keeps every second, fourth, ... sweep instead.
    R-hat of so few draws is noisy, and the largest of hundreds misses its limit by chance: a round that does is judged
    together with the one before, and a second one like the first is all that chance needs.
    """
    rng = generator(key)
    sampler = model.gibbs(y, covariates)
    state, thin = sampler.start(rng, method.chains), 1
    kept = _Kept(model, sampler, method.draws)
    finished, block, earlier = True, 1, None
    try:
        for done in range(0, method.warmup, _BLOCK):
            state, _ = _swept(sampler, state, rng, 1, min(_BLOCK, method.warmup - done))
            progress.step(min(done + _BLOCK, method.warmup), method.warmup, "warm-up")
        while True:
            kept = _Kept(model, sampler, method.draws)
            while kept.count < method.draws:
                state, values = _swept(sampler, state, rng, thin, min(block, method.draws - kept.count))
                block = _fitting(values)
                kept.append(values)
                progress.step(kept.count, method.draws, f"sampling, one in {thin}" if thin > 1 else "sampling")
            values = kept.values()
            judged = _judge(model, values, thin)
            if not judged.converged and earlier is not None:
                judged, values = _with_earlier(model, earlier, values, judged, thin)
            if judged.converged or 2 * thin > method.most_thin:
                break
            earlier, thin = values, thin if earlier is None else 2 * thin
    except KeyboardInterrupt:
        finished = False
        if kept.count >= FEWEST_DRAWS:
            values = kept.values()
            judged = _judge(model, values, thin)
        elif earlier is None:  # else values and judgement are those of the round before
            raise
    return Result(values, judged, finished)


def _swept(
    sampler: Any, state: Any, rng: np.random.Generator, thin: int, count: int
) -> tuple[Any, dict[str, np.ndarray]]:
    """The state after ``thin * count`` sweeps, and the values of ``count`` states on the way, (chain, draw, ...)."""
    if hasattr(sampler, "sweeps"):
        return sampler.sweeps(state, rng, thin, count)
    kept = []
    for _ in range(count):
        for _ in range(thin):
            state = sampler.sweep(state, rng)
        kept.append(sampler.values(state))
    return state, {name: np.stack([one[name] for one in kept], axis=1) for name in kept[0]}


def _with_earlier(
    model: Any, earlier: dict[str, np.ndarray], values: dict[str, np.ndarray], alone: Diagnostics, thin: int
) -> tuple[Diagnostics, dict[str, np.ndarray]]:
    """Judgement of two rounds together and every second of their draws where it is good; else the last round's own."""
    both = match_labels(model, {name: np.concatenate([earlier[name], value], axis=1) for name, value in values.items()})
    judged = _judge(model, both, thin)
    return (judged, {name: value[:, ::2] for name, value in both.items()}) if judged.converged else (alone, values)


def _fitting(values: dict[str, np.ndarray]) -> int:
    """How many draws to take at once, by how much there is to each."""
    draws = next(iter(values.values())).shape[1]
    return int(np.clip(_BLOCK_BYTES * draws // max(1, sum(value.nbytes for value in values.values())), 1, _BLOCK))


class _Kept:
    """Draws by name, (chain, draw, ...), finished a block at a time; those of large parameters in single precision.

    What the model can derive from others is left out.
    """

    def __init__(self, model: Any, sampler: Any, most: int):
        self._finish = getattr(sampler, "finished", lambda values: values)
        self._identify = getattr(model, "identified", lambda values: values)
        self._model, self._most = model, most
        self._arrays: dict[str, np.ndarray] = {}
        self.count = 0

    def append(self, values: dict[str, np.ndarray]) -> None:
        """Take in draws (chain, draw, ...)."""
        before = self.count
        for name, block in self._identify(self._finish(values)).items():
            if name not in self._arrays:
                shape = (len(block), self._most, *block.shape[2:])
                large = 8 * int(np.prod(shape)) > _DOUBLE_BYTES
                self._arrays[name] = np.empty(shape, np.float32 if large else np.float64)
            self.count = before + block.shape[1]
            self._arrays[name][:, before : self.count] = block

    def values(self) -> dict[str, np.ndarray]:
        """What there is, labels matched between draws."""
        return match_labels(self._model, {name: array[:, : self.count] for name, array in self._arrays.items()})


def _element(values: np.ndarray) -> str:
    """Where the largest of them is, as an index."""
    return str([int(i) for i in np.unravel_index(np.nanargmax(values), values.shape)]) if values.ndim else ""


def _in_parts(tell: Any, value: np.ndarray) -> np.ndarray:
    """``tell`` of (chain, draw, ...) for some of the trailing values at a time: it takes many times their memory."""
    flat = value.reshape(*value.shape[:2], -1)
    size = max(1, _JUDGED // (flat.shape[0] * flat.shape[1]))
    parts = [tell(flat[..., start : start + size]) for start in range(0, flat.shape[-1], size)]
    return np.concatenate(parts).reshape(value.shape[2:])


def _judge(model: Any, values: dict[str, np.ndarray], thin: int) -> Diagnostics:
    """Split R-hat and effective draws, of the parameters that the model names in ``judged`` where it does."""
    values = {name: values[name] for name in getattr(model, "judged", values)}
    with np.errstate(invalid="ignore", divide="ignore"):  # what cannot vary, such as a forbidden transition, is NaN
        rhat = {name: _in_parts(split_gelman_rubin, value) for name, value in values.items()}
        ess = {name: _in_parts(effective_sample_size, value) for name, value in values.items()}
    chains = len(next(iter(values.values())))
    failures = []
    most = {name: float(np.nanmax(r)) for name, r in rhat.items()}
    at = max(most, key=most.__getitem__)
    worst = most[at]
    fewest = min(float(np.nanmin(e)) for e in ess.values())
    if worst > RHAT_LIMIT:
        advice = getattr(model, "unmixed", {}).get(at, "")
        failures.append(
            f"chains disagree (largest R-hat {worst:.3f}, of {at}{_element(rhat[at])}, limit {RHAT_LIMIT}); "
            f"{advice}raise Gibbs(most_thin=...)"
        )
    if fewest < ESS_PER_CHAIN * chains:
        failures.append(
            f"only {fewest:.0f} effective draws (limit {ESS_PER_CHAIN * chains}); raise Gibbs(draws=..., most_thin=...)"
        )
    return Diagnostics(
        {"thinning": ((), np.asarray(float(thin)))}, tuple(failures), per_parameter={"rhat": rhat, "ess_bulk": ess}
    )
