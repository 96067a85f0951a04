"""How many of something: checked the same way wherever a user gives a number of components, states or neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_count(name: str, value: Any, least: int = 1) -> int:
    """``value`` as an integer.

    Raises
    ------
    ValueError
        For anything but an integer of at least ``least``; True and False are none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")
    return int(value)
