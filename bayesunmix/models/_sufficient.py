"""Of a mixture of known endmembers, what the data say of abundances and noise: a few numbers a pixel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpyro

from bayesunmix.distributions.unmixing import NormalUnmixing
from bayesunmix.models._hyperparameters import hyperparameters
from bayesunmix.models._pooled import Pooled, pool

_CHUNK_BYTES = 2**22  # of values worked on at a time, which stay in a cache
_LOST = 1e-8  # share of a square that is left, below which a difference of squares has lost digits


@hyperparameters
@dataclass(frozen=True, eq=False)
class KnownMixture:
    """The program of a model with known endmembers and one noise level, for data as :func:`summarised` gives them.

    Globals, their priors and the latents are those of the model, and so is the posterior: the likelihoods differ by
    nothing.
    """

    model: Any
    endmembers: Any  # (K, K + 1)
    n_channels: int = field(metadata={"static": True})  # of the data as they were measured
    pooled: Pooled | None = None  # pixels beside those of the data

    label = None

    def __call__(self, y=None, *, n_units: int) -> None:
        """As the model's own program."""
        _, alpha, _, noise = self.model.globals()
        channels = self.n_channels - len(self.endmembers)
        likelihood = NormalUnmixing(self.endmembers, alpha, noise["noise_scale"], n_pooled=channels)
        if self.pooled is not None:
            numpyro.sample("pooled", self.pooled.law(noise["noise_scale"]), obs=self.pooled.square)
        with numpyro.plate("unit", n_units):
            numpyro.sample("y", likelihood, obs=y)

    def initial(self, data) -> dict[str, np.ndarray]:
        """As of the model, or as pixels that were taken together have it."""
        if self.pooled is None:
            return self.model.initial(data)
        return {"noise_scale": np.asarray(self.pooled.noise_scale)}

    def for_globals(self, values: np.ndarray) -> tuple[KnownMixture, np.ndarray]:
        """The same globals with most pixels of a large image taken together, and the values of the others."""
        if self.model.concentration not in (None, 1):
            return self, values
        together, kept = pool(self.endmembers, values, self.n_channels)
        return replace(self, pooled=together), values[kept]


def summarised(endmembers: np.ndarray, values: Any) -> tuple[np.ndarray, np.ndarray]:
    """Endmembers (K, K + 1) and data (unit, K + 1) with the same likelihood under normal noise of one level.

    The first K numbers of a unit are its coordinates in the space that the endmembers span, the last one its distance
    from that space. ``values`` (unit, channel) are read a chunk at a time.
    """
    basis = np.linalg.qr(np.asarray(endmembers, np.float64).T)[0]
    n_units, n_channels = values.shape
    found = np.empty((n_units, len(endmembers) + 1))
    step = max(1, _CHUNK_BYTES // (8 * n_channels))
    for start in range(0, n_units, step):
        part = slice(start, start + step)
        spectra = np.array(values[part], np.float64)
        inside = spectra @ basis
        square = _squares(spectra)
        outside = square - _squares(inside)
        if (outside < _LOST * square).any():
            spectra -= inside @ basis.T
            outside = _squares(spectra)
        found[part, :-1], found[part, -1] = inside, np.sqrt(outside)
    return np.pad(endmembers @ basis, ((0, 0), (0, 1))), found


def _squares(rows: np.ndarray) -> np.ndarray:
    return np.einsum("np,np->n", rows, rows)
