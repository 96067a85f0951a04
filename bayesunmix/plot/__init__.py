"""Figures of a fit, at journal size; matplotlib is imported when the first one is drawn."""

from .abundance import maps
from .atom_maps import atoms, classes, displacements, membership_entropy
from .brightness_maps import brightness
from .calibrating import calibration
from .comparing import comparison
from .convergence import trace
from .criticism import residuals, uncertainty
from .fitted import fitted
from .information_map import information
from .scree import components, scree
from .spectra import endmembers
from .transitions import dwell, memory, states, transition

__all__ = [
    "atoms",
    "brightness",
    "calibration",
    "classes",
    "comparison",
    "components",
    "displacements",
    "dwell",
    "endmembers",
    "fitted",
    "information",
    "maps",
    "membership_entropy",
    "memory",
    "residuals",
    "scree",
    "states",
    "trace",
    "transition",
    "uncertainty",
]
