"""The models, one file each: a frozen dataclass of hyper-parameters and the NumPyro program it stands for."""
