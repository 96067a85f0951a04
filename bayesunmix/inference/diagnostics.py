"""Whether an answer can be used, and why not in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bayesunmix.inference.guide_check import GuideCheck
from bayesunmix.inference.mode import MC_SHIFT_LIMIT, Mode

RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 50
DIVERGENT_SHARE = 0.01
_NEAR = 1.1  # R-hat that longer chains bring down


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Arrays by name with their dims, the failures found, and remarks that do not spoil the answer."""

    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]]
    failures: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    per_parameter: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    nearly_mixed: bool = False  # all that is wrong, longer chains would mend

    def thinned(self, every: int) -> Diagnostics:
        """What there is one of per draw, for every second, third, ... draw; the judgement is that of all."""
        kept = {n: (dims, a[:, ::every] if dims == ("chain", "draw") else a) for n, (dims, a) in self.arrays.items()}
        return replace(self, arrays=kept)

    def stopped(self) -> Diagnostics:
        """The same of a run that did not come to its end."""
        return replace(self, failures=("it was stopped before its end", *self.failures))

    def doubted(self, reasons: Sequence[str]) -> Diagnostics:
        """The same of a model that knows reasons why such draws are no posterior of it."""
        return replace(self, failures=(*self.failures, *reasons))

    def remarked(self, remark: str) -> Diagnostics:
        """The same with one more remark."""
        return replace(self, remarks=(*self.remarks, remark))

    @property
    def converged(self) -> bool:
        """Passed every test."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        if self.failures:
            return "Do not use this fit as it is: " + "; ".join(self.failures) + "."
        return "Usable: the fit passed its own checks" + "".join(f"; {r}" for r in self.remarks) + "."


def of_guide(mode: Mode, elbo: np.ndarray, settled: bool, checked: GuideCheck, faults: list[str]) -> Diagnostics:
    """Judge a Gaussian guide: ELBO settled, right along every parameter and random directions."""
    remarks = []
    if not settled:
        remarks.append("the ELBO was still moving at the last step (raise SVI(steps=...) for a little more)")
    failures = [*_of_mode(mode), *faults]
    return Diagnostics(_of_elbo(elbo, checked) | _shift(mode), tuple(failures), tuple(remarks))


def of_weighted_guide(
    mode: Mode, elbo: np.ndarray, checked: GuideCheck, faults: list[str], shape: float, effective: float
) -> Diagnostics:
    """Judge a guide's draws weighted to the posterior: shape of the tail of the weights, and what they are worth."""
    why = "the guide alone falls short of the posterior, so the" if faults else "the"
    remark = f"{why} guide's draws were weighted to the posterior, and are worth {effective:.0f} independent ones"
    return Diagnostics(
        _of_elbo(elbo, checked) | _of_weights(shape, effective) | _shift(mode), tuple(_of_mode(mode)), (remark,)
    )


def of_sampled_guide(
    mode: Mode,
    elbo: np.ndarray,
    checked: GuideCheck,
    faults: list[str],
    values: dict[str, np.ndarray],
    statistics: dict[str, np.ndarray],
) -> Diagnostics:
    """Judge the draws of NUTS that replaced a guide which failed."""
    sampled = of_sampler(mode, values, statistics)
    remark = f"{' and '.join(faults)}, so the posterior was sampled with NUTS"
    return replace(sampled, arrays=_of_elbo(elbo, checked) | sampled.arrays, remarks=(remark,))


def of_simplex(mode: Mode, elbo: np.ndarray, faults: list[str], shape: float, effective: float) -> Diagnostics:
    """Judge weighted draws that replaced a guide which failed."""
    why = f"{' and '.join(faults)}, so the" if faults else "the"
    remark = f"{why} simplex of the endmembers was drawn by itself, and all draws weighted to the posterior; they are "
    remark += f"worth {effective:.0f} independent ones"
    arrays = {"elbo": (("step",), elbo)} | _of_weights(shape, effective) | _shift(mode)
    return Diagnostics(arrays, tuple(_of_mode(mode)), (remark,))


def _of_weights(shape: float, effective: float) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    return {"pareto_k": ((), np.asarray(shape)), "effective_draws": ((), np.asarray(effective))}


def _of_elbo(elbo: np.ndarray, checked: GuideCheck) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    return {
        "elbo": (("step",), elbo),
        "guide_mean_shift": (("direction",), checked.mean_shift),
        "guide_sd_ratio": (("direction",), checked.sd_ratio),
    }


def of_sampler(mode: Mode, values: dict[str, np.ndarray], statistics: dict[str, np.ndarray]) -> Diagnostics:
    """Judge NUTS: split R-hat, effective draws, divergences."""
    failures = _of_mode(mode)
    chains, draws = next(iter(values.values())).shape[:2]
    per_parameter: dict[str, dict[str, np.ndarray]] = {"rhat": {}, "ess_bulk": {}}
    worst_rhat, worst_ess = 0.0, np.inf
    if draws >= 4:
        for name, value in values.items():
            with np.errstate(invalid="ignore", divide="ignore"):  # what cannot vary is NaN
                rhat = np.asarray(split_gelman_rubin(value))
                ess = np.asarray(effective_sample_size(value))
            per_parameter["rhat"][name], per_parameter["ess_bulk"][name] = rhat, ess
            worst_rhat, worst_ess = max(worst_rhat, np.nanmax(rhat)), min(worst_ess, np.nanmin(ess))
    divergent = statistics["diverging"].mean()
    sound = not failures and draws >= 4 and divergent <= DIVERGENT_SHARE and worst_rhat < _NEAR
    if draws < 4:
        failures.append(f"only {draws} draws a chain: too few to judge")
    if worst_rhat > RHAT_LIMIT:
        failures.append(f"chains disagree (largest R-hat {worst_rhat:.3f}, limit {RHAT_LIMIT}); run longer")
    if worst_ess < ESS_PER_CHAIN * chains:
        failures.append(f"only {worst_ess:.0f} effective draws (limit {ESS_PER_CHAIN * chains}); run longer")
    if divergent > DIVERGENT_SHARE:
        failures.append(f"{divergent:.1%} of the draws diverged; raise NUTS(target_accept=...)")
    arrays = {
        "divergences": (("chain",), statistics["diverging"].sum(1)),
        "tree_steps": (("chain", "draw"), statistics["tree_steps"]),
        "accept": (("chain", "draw"), statistics["accept"]),
        **_shift(mode),
    }
    nearly = sound and bool(failures)
    return Diagnostics(arrays, tuple(failures), per_parameter=per_parameter, nearly_mixed=nearly)


def _of_mode(mode: Mode) -> list[str]:
    shift = np.abs(mode.mc_shift).max(initial=0.0)
    found = []
    if not mode.alone:
        found.append(
            "two starts of the search ended at different places, and a third may end at a higher one: classes overlap "
            "too far to be told apart; take fewer of them, or more vectors"
        )
    if not shift <= MC_SHIFT_LIMIT:
        found.append(
            f"the answer is approximate: integration error moves a parameter by {shift:.2f} posterior sd "
            f"(limit {MC_SHIFT_LIMIT})"
        )
    return found


def _shift(mode: Mode) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    if not mode.mc_shift.size:
        return {}
    return {"mc_shift": (("parameter",), np.abs(mode.mc_shift))}
