"""The models, one file each: a frozen dataclass of hyper-parameters and the NumPyro program it stands for."""

from bayesunmix.models.gaussian_mixture import GaussianMixture
from bayesunmix.models.hidden_markov_model import HiddenMarkovModel
from bayesunmix.models.linear_unmixing import LinearUnmixing
from bayesunmix.models.markov_chain import MarkovChain
from bayesunmix.models.probabilistic_pca import ProbabilisticPCA
from bayesunmix.models.von_mises_mixture import VonMisesMixture

__all__ = [
    "GaussianMixture",
    "HiddenMarkovModel",
    "LinearUnmixing",
    "MarkovChain",
    "ProbabilisticPCA",
    "VonMisesMixture",
]
