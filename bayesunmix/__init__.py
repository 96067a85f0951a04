"""Generative models with posteriors for spectrum images.

>>> import bayesunmix as bu
>>> image = bu.load("scan.hspy")
>>> fit = bu.fit(bu.models.LinearUnmixing(n_endmembers=4), image)
>>> fit.latent(prob=0.9)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesunmix._contents import attach

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bayesunmix import models as models
    from bayesunmix import plot as plot
    from bayesunmix.data import load as load

_HOMES = {
    "load": "bayesunmix.data",
}
_MODULES = ("models", "plot")

attach(__name__, _HOMES, _MODULES)
