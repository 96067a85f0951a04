"""Coordinates made in view of the posterior that a first search has found."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bayesunmix.inference.curvature import expansions_of_all
from bayesunmix.inference.mode import Mode
from bayesunmix.inference.program import Program, numbers_of
from bayesunmix.inference.target import values_at


class View(NamedTuple):
    """A place, and the numbers of the same program in other coordinates."""

    numbers: tuple[Any, ...]
    values: dict[str, Any]  # of the sites


def in_view(program: Program, model: Any, mode: Mode) -> View | None:
    """Coordinates of the same globals that suit what the data say of them; None where no mode was found.

    The model makes them: ``model.adapted(values, slope, curvature)`` gets the values of the sites at the mode, and
    slope (row, column) and second derivatives (column, row, row) of the log likelihood in its parameter
    ``model.adapts_to``.
    """
    if not mode.found:
        return None
    place, name = mode.z, model.adapts_to
    values = {site: np.asarray(x) for site, x in values_at(program, place, mode.data.alone).items()}
    seen = expansions_of_all(program, place, mode.data)["y"]
    better = model.adapted(values, np.asarray(seen.slope[name]), seen.by_column(name))
    return View(tuple(np.asarray(x, jnp.result_type(float)) for x in numbers_of(better)), values)
