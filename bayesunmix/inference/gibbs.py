"""Sampling by a model's own Gibbs sampler: warm-up, thinning until the chains agree, and the verdict."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bayesunmix.align import match_labels
from bayesunmix.inference.diagnostics import ESS_PER_CHAIN, RHAT_LIMIT, Diagnostics
from bayesunmix.inference.progress import Progress
from bayesunmix.inference.run import Result
from bayesunmix.inference.settings import SVI, Gibbs

_FEWEST = 4  # draws of a chain that was interrupted, to be told anything from
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

    Every round keeps ``draws`` of each chain. Where chains disagree, or draws depend on one another too much,
    the round becomes warm-up of the next one, which keeps every second, fourth, ... sweep instead.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    sampler = model.gibbs(y, covariates)
    identified = getattr(model, "identified", lambda values: values)
    state, thin = sampler.start(rng, method.chains), 1
    kept: list[dict[str, np.ndarray]] = []
    finished = True
    try:
        for done in range(method.warmup):
            state = sampler.sweep(state, rng)
            progress.step(done + 1, method.warmup, "warm-up")
        while True:
            kept = []
            for done in range(method.draws):
                for _ in range(thin):
                    state = sampler.sweep(state, rng)
                kept.append(identified(sampler.values(state)))
                progress.step(done + 1, method.draws, f"sampling, one in {thin}" if thin > 1 else "sampling")
            judged = _judge(model, kept, thin)
            if judged.converged or 2 * thin > method.most_thin:
                break
            thin *= 2
    except KeyboardInterrupt:
        finished = False
        if len(kept) < _FEWEST:
            raise
        judged = _judge(model, kept, thin)
    return Result(match_labels(model, _stacked(kept)), judged, finished)


def _stacked(kept: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Draws by name, (chain, draw, ...)."""
    return {name: np.stack([one[name] for one in kept], axis=1) for name in kept[0]}


def _judge(model: Any, kept: list[dict[str, np.ndarray]], thin: int) -> Diagnostics:
    """Split R-hat and effective draws, of the parameters that the model names in ``judged`` where it does."""
    names = getattr(model, "judged", tuple(kept[0]))
    values = match_labels(model, _stacked([{name: one[name] for name in names} for one in kept]))
    rhat = {name: np.asarray(split_gelman_rubin(value)) for name, value in values.items()}
    ess = {name: np.asarray(effective_sample_size(value)) for name, value in values.items()}
    chains = len(next(iter(values.values())))
    failures = []
    worst = max(float(np.nanmax(r)) for r in rhat.values())
    fewest = min(float(np.nanmin(e)) for e in ess.values())
    if worst > RHAT_LIMIT:
        failures.append(f"chains disagree (largest R-hat {worst:.3f}, limit {RHAT_LIMIT}); raise Gibbs(most_thin=...)")
    if fewest < ESS_PER_CHAIN * chains:
        failures.append(
            f"only {fewest:.0f} effective draws (limit {ESS_PER_CHAIN * chains}); raise Gibbs(draws=..., most_thin=...)"
        )
    return Diagnostics(
        {"thinning": ((), np.asarray(float(thin)))}, tuple(failures), per_parameter={"rhat": rhat, "ess_bulk": ess}
    )
