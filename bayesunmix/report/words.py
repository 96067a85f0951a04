"""What the numbers say, in the words of the laboratory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from bayesunmix.plot.style import member_names

from .facts import PROB, Facts, finite

_DIAGNOSTICS = {
    "elbo": "ELBO (nats)",
    "guide_mean_shift": "Offset of the Gaussian guide along test directions (posterior sd, within 0.25)",
    "guide_sd_ratio": "Posterior width over the guide's along test directions (between 0.8 and 1.25)",
    "pareto_k": "Tail of the weights of the guide's draws (Pareto k, below 0.7)",
    "effective_draws": "Independent draws that the weighted ones are worth",
    "mc_shift": "Shift by integration error (posterior sd, below 0.25)",
    "rhat": "R-hat, the worst of each parameter (below 1.01)",
    "ess_bulk": "Effective draws, the fewest of each parameter",
    "divergences": "Divergent transitions",
    "tree_steps": "Leapfrog steps a draw",
    "accept": "Acceptance probability",
}
_PROVENANCE = {"wall_s": "seconds", "n_units": "units fitted"}


@dataclass(frozen=True)
class Finding:
    """One line of the verdict: `level` is ``good``, ``look`` or ``bad``."""

    level: str
    text: str


def nothing_to_click(facts: Facts) -> str:
    """Why a page has no unit by unit: its data are names."""
    why = f"There is no {facts.parts[0]} to click here: every {facts.parts[1]} is the name of a state, and names have "
    why += "no predictive mean and no band."
    return f"{why} The longest {facts.parts[0]} is drawn under States." if "state" in facts.latent else why


def verdict(facts: Facts) -> list[Finding]:
    """The first things to know, the gravest doubt first where there is one."""
    fit = facts.fit
    found = [Finding("good" if fit.converged else "bad", str(fit.diagnostics.attrs["verdict"]))]
    if not fit.finished:
        found.insert(0, Finding("bad", "The fit was stopped before its end: what follows is provisional."))
    found.append(_fit_quality(facts))
    found.append(_precision(facts))
    if facts.abundance_coverage is not None:
        found.append(_against_truth(facts))
    return found


def headline(facts: Facts) -> Finding:
    """The verdict in one line."""
    if not facts.fit.finished:
        return Finding("bad", "Stopped early: do not use these numbers yet.")
    if not facts.fit.converged:
        return Finding("bad", "The fit failed its own diagnostics: do not use these numbers yet.")
    if _fit_quality(facts).level != "good":
        return Finding("look", "The fit converged, but the model misses part of the data.")
    return Finding("good", "The fit converged and the model accounts for the data.")


def doubts(facts: Facts) -> list[str]:
    """What could be wrong: what these data show first, then what every such fit assumes."""
    return [*_seen(facts), *_assumed(facts)]


def size(value: float) -> str:
    """A number with three digits."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """A share in percent, with a no-break space."""
    return f"{100 * share:.1f}\u00a0%" if 0 < share < 0.0995 else f"{100 * share:.0f}\u00a0%"


def _fit_quality(facts: Facts) -> Finding:
    text = str(facts.checked.attrs["verdict"])
    if facts.accounts_for_data:
        return Finding("good", text)
    place, rms = facts.worst_channel
    level = "look" if facts.checked.attrs["small_p_share"] < 0.2 else "bad"
    return Finding(level, f"{text} The largest residuals are at {place}: {size(rms)} standard deviations.")


def _precision(facts: Facts) -> Finding:
    text = (
        f"{percent(facts.epistemic_share)} of the predictive variance is uncertainty that more data would reduce; "
        "the rest is noise."
    )
    if facts.mixes:
        sd = float(np.median(finite(facts.abundance.sel(statistic="sd"))))
        text = f"The median standard deviation of an abundance is {size(sd)}. {text}"
    components = facts.components
    if components:
        sure = sum(one["above_noise"] > 0.95 for one in components)
        text = f"{sure} of {len(components)} components are above the noise with more than 95 % probability. {text}"
    return Finding("good", text)


def _against_truth(facts: Facts) -> Finding:
    covered = [facts.abundance_coverage or 0.0]
    text = f"The {percent(PROB)} intervals hold {percent(covered[0])} of the true abundances"
    if facts.endmember_coverage is not None:
        covered.append(facts.endmember_coverage)
        text += f" and {percent(facts.endmember_coverage)} of the true endmember channels"
    return Finding("good" if min(covered) >= 0.8 else "look", f"The truth is known here. {text}.")


def _seen(facts: Facts) -> list[str]:
    found = []
    if facts.endmembers_inferred:
        names = member_names(facts.abundance.coords["endmember"].values)
        mixed = [f"{n} ({size(p)})" for n, p in zip(names, facts.purest, strict=True) if p < 0.9]
        if mixed:
            found.append(
                f"No pixel is nearly pure in {', '.join(mixed)} (largest abundance in brackets): the "
                "spectrum is an extrapolation beyond the data and depends on the priors; a reference "
                "spectrum would settle it."
            )
    pure, expected = facts.pure_share if facts.mixes else (0.0, 1.0)
    concentration = getattr(facts.fit.model, "concentration", None) or 1.0
    even = not isinstance(concentration, str) and concentration >= 1
    if facts.endmembers_inferred and pure > expected + 0.1 and even:
        found.append(
            f"{percent(pure)} of the pixels are almost one phase, where the prior on abundances expects "
            f"{percent(expected)}. Endmembers are then pulled outward by about the noise, and their bands "
            "are too narrow; a smaller concentration describes such images better."
        )
    if facts.memory is not None and facts.memory.attrs["outside"] > 0.25:
        found.append(
            f"{percent(facts.memory.attrs['outside'])} of the hops over several steps lie beyond the band of a chain "
            "with one step of memory: a state may stand for two that are left at different rates, or the rates may "
            "drift."
        )
    alike = 0.0 if facts.hops else facts.neighbours_alike
    n = finite(facts.checked["chi2"]).size
    if alike > max(0.1, 3 / np.sqrt(n)):
        found.append(
            f"Misfit is shared between neighbouring pixels (correlation {size(alike)}): look at the "
            "chi-square map for a phase the model lacks, drift, or a change of thickness."
        )
    place, rms = facts.worst_channel
    dark, bright = facts.residual_by_signal
    if bright > 1.2 * dark and getattr(facts.fit.model, "noise", "") == "isotropic":
        found.append(
            f"Residuals are {size(dark)} noise standard deviations in the dark channels and {size(bright)} in the "
            'bright ones: the noise grows with the signal. noise="diagonal" gives every channel its own level.'
        )
    if rms > 1.3 and not facts.hops:
        found.append(
            f"Residuals around {place} are {size(rms)} times the noise. A missing edge or peak, an energy "
            "shift or noise that grows with the signal would do this."
        )
    return found


def _assumed(facts: Facts) -> list[str]:
    model = facts.fit.model
    if facts.hops:
        return _assumed_of_chains(facts)
    if not facts.mixes:
        found = ["The size of the model was chosen, not found. Fit one fewer and one more, and compare them."]
        if facts.components:
            found.append(
                "Components are orthogonal and may be negative: they span what varies together, and are not the "
                "spectra of phases. Where two explain about the same variance, their directions are uncertain, and "
                "only the plane that they span means something."
            )
        found.append("Error bars hold noise and the model's own uncertainty, not errors of calibration.")
        return found
    found = ["The number of endmembers was chosen, not found. Fit one fewer and one more, and compare them."]
    if facts.endmembers_inferred:
        found.append(
            "Endmembers and abundances trade against each other: a smaller mixing region with purer "
            "pixels can describe the same data. The bands contain this only as far as the priors allow "
            "it."
        )
    else:
        found.append("The endmembers were given: where they are wrong, so are the abundances and their bars.")
    if not getattr(model, "brightness", False):
        found.append(
            "Abundances sum to one in every pixel. Changes of thickness or beam current between pixels "
            "appear as misfit or as a false change of composition."
        )
    if getattr(model, "likelihood", "normal") == "normal":
        found.append(
            "The noise is taken as normal, independent between pixels and channels, and as strong in "
            "bright pixels as in dark ones. Counts follow a Poisson law, and detectors correlate "
            "neighbouring channels."
        )
    found.append("Error bars hold noise and the model's own uncertainty, not errors of calibration.")
    return found


def _assumed_of_chains(facts: Facts) -> list[str]:
    found = []
    if getattr(facts.fit.model, "latent", None):
        found.append("The number of states was chosen, not found. Fit one fewer and one more, and compare them.")
        found.append(
            "Frames are taken as independent given their states. A detector or filter that correlates neighbouring "
            "frames makes states look longer-lived and their number larger: average or thin the frames first."
        )
    found.append(
        "All sequences share one transition matrix that does not change in time, and a frame that is missing says "
        "nothing about its state."
    )
    found.append("A dwell time shorter than a frame, or longer than the sequences, is an extrapolation of the model.")
    return found


def diagnostics_rows(diagnostics: xr.Dataset) -> list[tuple[str, str]]:
    """Name and summary of each diagnostic: its value, or its range when it is an array.

    Where a diagnostic is there for every parameter, only its summary by parameter is listed.
    """
    rows = []
    for name, values in diagnostics.data_vars.items():
        if str(name).startswith(("rhat_", "ess_bulk_")):
            continue
        label = _DIAGNOSTICS.get(str(name), str(name).replace("_", " "))
        array = finite(values) if values.dtype.kind in "fiub" else np.array([])
        if name == "divergences":
            rows.append((label, f"{array.sum():.0f}"))
        elif "site" in values.dims:
            rows.append(
                (
                    label,
                    ", ".join(
                        f"{site} {size(v.item())}" for site, v in zip(values["site"].values, values, strict=True)
                    ),
                )
            )
        elif array.size == 1:
            rows.append((label, size(float(array[0]))))
        elif array.size > 1 and "step" in values.dims:
            rows.append((label, f"{array[0]:.6g} at the first of {array.size} steps, {array[-1]:.6g} at the last"))
        elif array.size > 1:
            low, middle, high = np.quantile(array, [0, 0.5, 1])
            rows.append((label, f"median {size(middle)}, from {size(low)} to {size(high)}"))
    return rows


def provenance_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """Provenance as name and text, one row a leaf."""
    rows = []
    for name, value in provenance.items():
        if isinstance(value, dict):
            rows += [(f"{name} {inner}", text) for inner, text in provenance_rows(value)]
        else:
            text = f"{value:.4g}" if isinstance(value, float) else str(value)
            rows.append((_PROVENANCE.get(str(name), str(name).replace("_", " ")), text))
    return rows
