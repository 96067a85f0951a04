"""The models, one file each: a frozen dataclass of hyper-parameters and the NumPyro program it stands for."""

from bayesunmix.models.linear_unmixing import LinearUnmixing

__all__ = ["LinearUnmixing"]
