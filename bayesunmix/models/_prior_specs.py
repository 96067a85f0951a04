"""Priors that a user gives, as plain values that can be compiled, saved and written into a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist

from bayesunmix.distributions.chain_priors import InverseWishart

_OWN = {"InverseWishart": InverseWishart}


@jax.tree_util.register_pytree_node_class
class PriorSpec(Mapping[str, Any]):
    """``{"kind": "Normal", "loc": ..., "scale": ...}``: the name of a distribution, and its numbers."""

    def __init__(self, kind: str, parameters: Mapping[str, Any]):
        self.kind, self.parameters = kind, dict(parameters)

    def __getitem__(self, key: str) -> Any:
        return self.kind if key == "kind" else self.parameters[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("kind", *self.parameters))

    def __len__(self) -> int:
        return 1 + len(self.parameters)

    def tree_flatten(self):
        names = sorted(self.parameters)
        return [self.parameters[n] for n in names], (self.kind, tuple(names))

    @classmethod
    def tree_unflatten(cls, aux, children):
        return cls(aux[0], dict(zip(aux[1], children, strict=True)))

    def distribution(self) -> dist.Distribution:
        """The NumPyro distribution."""
        return (_OWN.get(self.kind) or getattr(dist, self.kind))(**self.parameters)

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{key}={_number(value)}' for key, value in self.parameters.items())})"


def as_spec(name: str, prior: Any) -> PriorSpec:
    """The spec of a NumPyro distribution, or of a mapping with ``kind`` and the distribution's parameters.

    Raises
    ------
    TypeError, ValueError
        For what is neither, or no distribution of NumPyro with these parameters.
    """
    if isinstance(prior, PriorSpec):
        return prior
    if isinstance(prior, dist.Distribution):
        parameters = {key: getattr(prior, key) for key in prior.arg_constraints if hasattr(prior, key)}
        prior = {"kind": type(prior).__name__, **parameters}
    if not isinstance(prior, Mapping) or "kind" not in prior:
        raise TypeError(
            f"priors[{name!r}]: expected a NumPyro distribution such as dist.Normal(0, 1), or "
            f'{{"kind": "Normal", "loc": 0, "scale": 1}}; got {prior!r}'
        )
    parameters = {key: np.asarray(value, dtype=np.float64) for key, value in prior.items() if key != "kind"}
    spec = PriorSpec(str(prior["kind"]), parameters)
    if spec.kind not in _OWN and not isinstance(getattr(dist, spec.kind, None), type):
        raise ValueError(f"priors[{name!r}]: NumPyro has no distribution {spec.kind!r}")
    try:
        spec.distribution()
    except TypeError as error:
        raise ValueError(f"priors[{name!r}]: {spec.kind} with {sorted(parameters)}: {error}") from None
    return spec


def _number(value: Any) -> str:
    array = np.asarray(value)
    return f"{array.item():.3g}" if array.ndim == 0 else np.array2string(array, precision=3, separator=", ")
