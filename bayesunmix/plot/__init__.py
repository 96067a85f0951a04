"""Figures of a fit, at journal size; matplotlib is imported when the first one is drawn."""

from .abundance import maps
from .comparing import comparison
from .convergence import trace
from .criticism import residuals, uncertainty
from .scree import scree
from .spectra import endmembers

__all__ = ["comparison", "endmembers", "maps", "residuals", "scree", "trace", "uncertainty"]
