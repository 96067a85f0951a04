"""From a model and data to draws of the posterior."""

from bayesunmix.inference.settings import NUTS, SVI, Gibbs

__all__ = ["NUTS", "SVI", "Gibbs"]
