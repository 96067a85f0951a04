"""Whether an answer can be used, and why not in one sentence."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bayesunmix.inference.mode import MC_SHIFT_LIMIT, Mode
from bayesunmix.inference.program import Program
from bayesunmix.inference.settings import NUTS

GUIDE_SHIFT_LIMIT = 0.25  # posterior sds
GUIDE_RATIO_LIMITS = (0.8, 1.25)
RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 50
DIVERGENT_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """Arrays by name with their dims, the failures found, and remarks that do not spoil the answer."""

    arrays: dict[str, tuple[tuple[str, ...], np.ndarray]]
    failures: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    per_parameter: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

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


def of_guide(
    program: Program, mode: Mode, elbo: np.ndarray, settled: bool, checked: dict[str, np.ndarray]
) -> Diagnostics:
    """Judge a Gaussian guide: mode found, ELBO settled, right along every parameter and random directions."""
    failures, remarks = _of_mode(mode)
    shift, ratio = checked["mean_shift"], checked["sd_ratio"]
    if not settled:
        remarks.append("the ELBO was still moving at the last step (raise SVI(steps=...) for a little more)")
    if np.abs(shift).max() > GUIDE_SHIFT_LIMIT:
        failures.append(
            f"the Gaussian guide is off by {np.abs(shift).max():.2f} posterior sd in its worst direction "
            f"(limit {GUIDE_SHIFT_LIMIT}); use NUTS()"
        )
    low, high = ratio.min(), ratio.max()
    if low < GUIDE_RATIO_LIMITS[0] or high > GUIDE_RATIO_LIMITS[1]:
        failures.append(
            f"the posterior is {low:.2f} to {high:.2f} times as wide as the Gaussian guide "
            f"(limits {GUIDE_RATIO_LIMITS[0]} to {GUIDE_RATIO_LIMITS[1]}); use NUTS()"
        )
    arrays = {
        "elbo": (("step",), elbo),
        "guide_mean_shift": (("direction",), shift),
        "guide_sd_ratio": (("direction",), ratio),
        **_shift(mode),
    }
    return Diagnostics(arrays, tuple(failures), tuple(remarks))


def of_sampler(
    mode: Mode, values: dict[str, np.ndarray], statistics: dict[str, np.ndarray], method: NUTS
) -> Diagnostics:
    """Judge NUTS: split R-hat, effective draws, divergences."""
    failures, remarks = _of_mode(mode, mode_matters=False)
    chains, draws = next(iter(values.values())).shape[:2]
    per_parameter: dict[str, dict[str, np.ndarray]] = {"rhat": {}, "ess_bulk": {}}
    worst_rhat, worst_ess = 0.0, np.inf
    if draws >= 4:
        for name, value in values.items():
            rhat = np.asarray(split_gelman_rubin(value))
            ess = np.asarray(effective_sample_size(value))
            per_parameter["rhat"][name], per_parameter["ess_bulk"][name] = rhat, ess
            worst_rhat, worst_ess = max(worst_rhat, np.nanmax(rhat)), min(worst_ess, np.nanmin(ess))
    divergent = statistics["diverging"].mean()
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
    return Diagnostics(arrays, tuple(failures), tuple(remarks), per_parameter)


def _of_mode(mode: Mode, mode_matters: bool = True) -> tuple[list[str], list[str]]:
    failures, remarks = [], []
    if mode_matters and not mode.found:
        failures.append("the search for the posterior mode did not end; the data may hold fewer components than asked for")
    if mode.mc_shift.size and np.abs(mode.mc_shift).max() > MC_SHIFT_LIMIT:
        failures.append(
            f"the answer is approximate: integration error moves a parameter by {np.abs(mode.mc_shift).max():.2f} posterior sd "
            f"(limit {MC_SHIFT_LIMIT})"
        )
    return failures, remarks


def _shift(mode: Mode) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    if not mode.mc_shift.size:
        return {}
    return {"mc_shift": (("parameter",), np.abs(mode.mc_shift))}
