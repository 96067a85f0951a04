"""What is believed of components that cannot be seen: how many are counted above noise, by the prior's floor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from pca_tables import Kept, table, write

import bayesunmix as bu
from bayesunmix.models import ProbabilisticPCA

# As a share of the variance that just stays hidden, but for the first, of the noise.
FLOORS = {"0.01": None, "a tenth": 0.1, "a third, 'hidden'": 1 / 3, "'visible'": 1.0}
SPARE = 2  # components more than there are


def one(image: Any, n: int, share: float | None, seed: int) -> list[float]:
    """Mean number above noise less the true one, probability of that, and the fit's worst R-hat."""
    visible = ProbabilisticPCA(n + SPARE, component_floor="visible").bind(image.values).component_floor
    floor = 0.01 if share is None else share * float(visible)
    fit = bu.fit(ProbabilisticPCA(n + SPARE, component_floor=floor), image, progress=False, seed=seed)
    above = fit.posterior["n_above_noise"].values
    return [float(above.mean() - n), float((above == n).mean()), float(np.nanmax(fit.diagnostics["rhat"]))]


def floors(count: int, simulated: Callable[[int], tuple[int, Any, Any]]) -> None:
    """Fits with components to spare to images of 2 to 6, for every floor."""
    kept, rows = Kept("floors"), []
    for seed in range(count):
        if str(seed) not in kept.rows:
            n, image, _ = simulated(seed)
            kept.add(seed, {name: one(image, n, share, seed) for name, share in FLOORS.items()})
            print(seed, kept.rows[str(seed)], flush=True)
    for name in FLOORS:
        found = np.array([kept.rows[str(seed)][name] for seed in range(count)])
        most = [f"{found[:, 0].mean():+.3f}", f"{found[:, 0].min():+.2f} to {found[:, 0].max():+.2f}"]
        rows.append([name, *most, f"{found[:, 1].mean():.3f}", f"{(found[:, 2] > 1.01).sum()}"])
    write(
        "floors",
        f"floors --count {count}",
        [
            f"{count} images of `selection` (24 x 24 pixels, 32 channels, 2 to 6 components), fitted with {SPARE} "
            "components too many. Posterior of the number above noise, by `component_floor` (as a share of the "
            "variance that just stays hidden, but for the first).",
            "",
            *table(["floor", "mean excess", "range", "probability of the true number", "R-hat above 1.01"], rows),
        ],
    )
