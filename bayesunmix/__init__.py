"""Generative models with posteriors for spectrum images::

import bayesunmix as bu

image = bu.load("scan.hspy")
fit = bu.fit(bu.models.LinearUnmixing(n_endmembers=4), image)
fit.latent(prob=0.9)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bayesunmix._contents import attach

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bayesunmix import descriptors as descriptors
    from bayesunmix import models as models
    from bayesunmix import plot as plot
    from bayesunmix.calibrate import calibrate as calibrate
    from bayesunmix.check import check as check
    from bayesunmix.compare import compare as compare
    from bayesunmix.data import load as load
    from bayesunmix.descriptors import atoms as atoms
    from bayesunmix.dynamics import chapman_kolmogorov as chapman_kolmogorov
    from bayesunmix.dynamics import dwell_times as dwell_times
    from bayesunmix.dynamics import implied_timescales as implied_timescales
    from bayesunmix.dynamics import mean_first_passage_times as mean_first_passage_times
    from bayesunmix.dynamics import stationary_distribution as stationary_distribution
    from bayesunmix.dynamics import transition_matrix as transition_matrix
    from bayesunmix.dynamics import viterbi as viterbi
    from bayesunmix.elpd import Elpd as Elpd
    from bayesunmix.elpd import loo as loo
    from bayesunmix.elpd import waic as waic
    from bayesunmix.fit import Fit as Fit
    from bayesunmix.fit import fit as fit
    from bayesunmix.fit import load_fit as load_fit
    from bayesunmix.heldout import heldout as heldout
    from bayesunmix.inference import NUTS as NUTS
    from bayesunmix.inference import SVI as SVI
    from bayesunmix.inference import Gibbs as Gibbs
    from bayesunmix.information import relative_entropy as relative_entropy
    from bayesunmix.interop.estimator import Estimator as Estimator
    from bayesunmix.interop.hyperspy_signals import from_hyperspy as from_hyperspy
    from bayesunmix.interop.hyperspy_signals import to_hyperspy as to_hyperspy
    from bayesunmix.interop.sidpy_datasets import from_sidpy as from_sidpy
    from bayesunmix.interop.sidpy_datasets import to_sidpy as to_sidpy
    from bayesunmix.predict import log_likelihood as log_likelihood
    from bayesunmix.predict import posterior_predictive as posterior_predictive
    from bayesunmix.predict import prior_predictive as prior_predictive
    from bayesunmix.predict import simulate as simulate
    from bayesunmix.report import report as report
    from bayesunmix.subspace import subspace_angle as subspace_angle
    from bayesunmix.sweep import sweep as sweep
    from bayesunmix.uncertainty import uncertainty as uncertainty

_HOMES = {
    "calibrate": "bayesunmix.calibrate",
    "check": "bayesunmix.check",
    "compare": "bayesunmix.compare",
    "Elpd": "bayesunmix.elpd",
    "loo": "bayesunmix.elpd",
    "waic": "bayesunmix.elpd",
    "load": "bayesunmix.data",
    "atoms": "bayesunmix.descriptors",
    "chapman_kolmogorov": "bayesunmix.dynamics",
    "dwell_times": "bayesunmix.dynamics",
    "implied_timescales": "bayesunmix.dynamics",
    "mean_first_passage_times": "bayesunmix.dynamics",
    "stationary_distribution": "bayesunmix.dynamics",
    "transition_matrix": "bayesunmix.dynamics",
    "viterbi": "bayesunmix.dynamics",
    "Fit": "bayesunmix.fit",
    "fit": "bayesunmix.fit",
    "load_fit": "bayesunmix.fit",
    "heldout": "bayesunmix.heldout",
    "NUTS": "bayesunmix.inference",
    "SVI": "bayesunmix.inference",
    "Gibbs": "bayesunmix.inference",
    "relative_entropy": "bayesunmix.information",
    "Estimator": "bayesunmix.interop.estimator",
    "from_hyperspy": "bayesunmix.interop.hyperspy_signals",
    "to_hyperspy": "bayesunmix.interop.hyperspy_signals",
    "from_sidpy": "bayesunmix.interop.sidpy_datasets",
    "to_sidpy": "bayesunmix.interop.sidpy_datasets",
    "log_likelihood": "bayesunmix.predict",
    "posterior_predictive": "bayesunmix.predict",
    "prior_predictive": "bayesunmix.predict",
    "simulate": "bayesunmix.predict",
    "report": "bayesunmix.report",
    "subspace_angle": "bayesunmix.subspace",
    "sweep": "bayesunmix.sweep",
    "uncertainty": "bayesunmix.uncertainty",
}
_MODULES = ("descriptors", "models", "plot")

attach(__name__, _HOMES, _MODULES)
