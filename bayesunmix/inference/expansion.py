"""A log likelihood to second order, in the parameters of its distribution."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.layered import Layers


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Expansion:
    """Slope and curvature of a log likelihood at a place; expansions at one place add up.

    Attributes
    ----------
    at : dict of str to array
        Parameters where it was expanded.
    slope : dict of str to array
        Derivatives there, of the same shapes.
    bend : (size, size), or Layers
        Second derivatives, of all parameters, ravelled in the order of ``at``.
    """

    at: dict[str, Any]
    slope: dict[str, Any]
    bend: Any

    def __add__(self, other: Expansion) -> Expansion:
        slope = {p: x + other.slope[p] for p, x in self.slope.items()}
        return replace(self, slope=slope, bend=self.bend + other.bend)

    def __sub__(self, other: Expansion) -> Expansion:
        slope = {p: x - other.slope[p] for p, x in self.slope.items()}
        return replace(self, slope=slope, bend=self.bend - other.bend)

    @property
    def parts(self) -> dict[str, slice]:
        """Where the entries of every parameter are among those of all."""
        ends = np.cumsum([np.size(x) for x in self.at.values()])
        return {p: slice(end - np.size(x), end) for (p, x), end in zip(self.at.items(), ends, strict=True)}

    def by_column(self, name: str) -> np.ndarray:
        """Second derivatives among the entries of a parameter (row, column) that share a column: (column, row, row)."""
        if isinstance(self.bend, Layers):  # whose blocks are these
            return self.bend.whole_blocks
        at = self.parts[name].start + np.arange(self.at[name].size).reshape(self.at[name].shape).T
        return np.asarray(self.bend)[at[:, :, None], at[:, None, :]]

    def value(self, parameters: dict[str, Any]) -> Any:
        """How much higher the parabola is at other parameters than where it was expanded."""
        away = {p: parameters[p] - at for p, at in self.at.items()}
        bent = self._bent(away)
        return sum(((self.slope[p] + 0.5 * bent[p]) * x).sum() for p, x in away.items())

    def moved(self, parameters: dict[str, Any]) -> Expansion:
        """The same parabola, expanded at other parameters."""
        bent = self._bent({p: parameters[p] - at for p, at in self.at.items()})
        at, slope = {p: parameters[p] for p in bent}, {p: self.slope[p] + x for p, x in bent.items()}
        return replace(self, at=at, slope=slope)

    def _bent(self, away: dict[str, Any]) -> dict[str, Any]:
        """The curvature times a step of all parameters."""
        xp: Any = jnp if any(isinstance(x, jax.Array) for x in away.values()) else np
        bent = self.bend @ xp.concatenate([x.ravel() for x in away.values()])
        return {p: bent[part].reshape(away[p].shape) for p, part in self.parts.items()}
