"""The priors of probabilistic PCA in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bayesunmix.models.probabilistic_pca import ProbabilisticPCA

_FLOORS = {"hidden": "a third of what just stays hidden", "visible": "what just stays hidden"}


def described(model: ProbabilisticPCA) -> str:
    """The priors of a model, bound or not, a line each."""
    count = f"{model.n_components} component" + ("" if model.n_components == 1 else "s")
    lines = [f"Every pixel is a mean spectrum plus {count} with normal scores of unit variance, plus noise."]
    if model.n_components:
        expected = model.component_floor
        floor = _FLOORS[expected] if isinstance(expected, str) else f"{expected:.3g} of it"
        lines.append(
            "Components: normal in every channel with a common covariance that is learned; one that cannot be seen "
            f"in the noise is expected to have about {floor} in variance. No rotation is preferred."
        )
    if not model.bound:
        lines.append("Mean and noise: scale taken from the data when the model is fitted.")
        return "\n".join(lines)
    if model.noise == "poisson":
        lines[0] = f"Counts: every pixel has a brightness and a composition, whose logarithm is a mean plus {count}."
        scale = float(np.asarray(model.mean_scale))
        lines.append(f"Mean: logarithm of the counts, normal about that of the data, standard deviation {scale:.3g}.")
        lines.append("Brightness: gamma with mean 1, its shape log-normal about 10 (1.4 to 71 with 95 %).")
        return "\n".join(lines)
    scale = float(np.max(np.asarray(model.mean_scale)))
    lines.append(f"Mean: normal about the mean of the data, with standard deviation {scale:.3g} in every channel.")
    level = float(np.sqrt(np.mean(np.square(model.noise_level))))
    kind = {
        "isotropic": "one standard deviation for all channels",
        "diagonal": "a standard deviation per channel",
        "two-way": "variance in proportion to the mean counts of pixel and channel, one factor for all",
    }[model.noise]
    lines.append(f"Noise: normal, {kind}, expected near {level:.3g}, between 0.6 and 2.9 times that (95 %).")
    return "\n".join(lines)
