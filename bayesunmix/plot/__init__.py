"""Figures of a fit, at journal size; matplotlib is imported when the first one is drawn."""

from .abundance import maps
from .atoms import classes, displacements, membership_entropy
from .calibrating import calibration
from .comparing import comparison
from .convergence import trace
from .criticism import residuals, uncertainty
from .scree import components, scree
from .spectra import endmembers
from .transitions import memory, states, transitions

__all__ = [
    "calibration",
    "classes",
    "comparison",
    "components",
    "displacements",
    "endmembers",
    "maps",
    "membership_entropy",
    "memory",
    "residuals",
    "scree",
    "states",
    "trace",
    "transitions",
    "uncertainty",
]
