"""The priors of linear unmixing in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesunmix.models._endmember_knowledge import in_words

if TYPE_CHECKING:
    from bayesunmix.models.linear_unmixing import LinearUnmixing


def described(model: LinearUnmixing) -> str:
    """The priors of a model, bound or not, a line each."""
    count = f"{model.n_endmembers} endmember" + ("s" if model.n_endmembers > 1 else "")
    lines = [f"Every pixel is a mixture of {count}; its abundances are non-negative and sum to one."]
    if model.concentration == "learned":
        lines.append(
            "Abundances: Dirichlet with a concentration learned for each endmember, between .25 and 4 (95 %) "
            "before the data are seen."
        )
    else:
        alpha = 1.0 if model.concentration is None else model.concentration
        even = "uniform over all mixtures" if alpha == 1 else f"Dirichlet({alpha:g})"
        lines.append(f"Abundances: {even} before the data are seen.")
    if model.brightness:
        lines.append(
            "Brightness: a factor of mean 1 for every pixel, independent of its composition. The relative scale of "
            "the endmembers is known only through that independence; their shapes are not affected."
        )
    if model.endmembers is not None and not isinstance(model.endmembers, tuple):
        lines.append("Endmembers: known, taken as exact.")
    elif not model.bound:
        lines.append(f"Endmembers: {model.endmember_support}, scale taken from the data when the model is fitted.")
    else:
        low, high = np.min(model.endmember_scale), np.max(model.endmember_scale)
        kind = "half-normal (never negative)" if model.sparsity is None else "sparse (never negative)"
        kind = kind if model.endmember_support == "nonnegative" else "normal around zero"
        lines.append(
            f"Endmembers: every channel on its own, {kind}, with the spread of the data in that channel "
            f"({low:.3g} to {high:.3g})."
        )
    if isinstance(model.endmembers, tuple):
        lines.append(f"Of the endmembers {in_words(model.endmembers)}.")
    if model.smoothness is not None:
        how = f"{model.smoothness:g} channels" if model.smoothness != "learned" else "a learned number of channels"
        lines.append(f"Endmembers are smooth: entries of a spectrum hang together over {how}.")
    if model.sparsity is not None:
        how = "learned, .28 to 14 (95 %)" if model.sparsity == "learned" else f"{model.sparsity:g}"
        lines.append(f"Endmembers are sparse: chi variables with 1 / sparsity degrees of freedom; sparsity {how}.")
    if model.likelihood == "poisson":
        lines.append("Noise: Poisson counts, no level of its own.")
    elif model.bound and model.likelihood == "scaled-poisson":
        gain, read = np.asarray(model.noise_level)
        lines.append(
            f"Noise: normal, its variance gain x signal + read noise squared, expected near {gain:.3g} and "
            f"{read:.3g}, each within a factor of 2.7 (95 %)."
        )
    elif model.bound:
        level = float(np.sqrt(np.mean(np.square(model.noise_level))))
        kind = "one standard deviation for all channels"
        kind = kind if model.noise == "isotropic" else "a standard deviation per channel"
        lines.append(f"Noise: normal, {kind}, expected near {level:.3g}, within a factor of 2.7 (95 %).")
    return "\n".join(lines)
