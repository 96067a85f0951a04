"""One order of exchangeable labels for all draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

_ROUNDS = 20


def match_labels(model: Any, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws (chain, draw, ...) of a model with ``label_dims``: labels matched, then in the order of ``model.order``."""
    axes = getattr(model, "label_dims", ())
    if not axes:
        return values
    values = aligned(values, model.dims, axes)
    return permuted(values, model.dims, axes, model.order({n: v.mean((0, 1)) for n, v in values.items()}))


def aligned(
    values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str]
) -> dict[str, np.ndarray]:
    """Draws with their labels permuted so that every label means the same in all of them.

    Every draw is matched to a reference by assignment (Stephens' relabelling with squared distance): parameters are
    compared in units of their spread, the reference starts at the draw with the least typical spread of labels and is
    then the mean of the matched draws.

    Parameters
    ----------
    values : mapping of name to array (chain, draw, ...)
    dims : mapping of name to the names of the axes after chain and draw
    axes : names of the dims that carry the label, such as ("state", "next_state")

    Returns
    -------
    dict of name to array
        Everything that carries the label permuted along, nothing else changed.

    References
    ----------
    Stephens, "Dealing with label switching in mixture models", J. R. Stat. Soc. B 62, 795 (2000).
    """
    count = next((v.shape[2 + dims[n].index(a)] for n, v in values.items() for a in axes if a in dims[n]), 1)
    if count == 1:
        return dict(values)
    chains, draws = next(iter(values.values())).shape[:2]
    table = _profiles(values, dims, axes, count)
    order = np.tile(np.arange(count), (len(table), 1))
    reference = table[len(table) // 2]
    for _ in range(_ROUNDS):
        cost = ((table[:, :, None, :] - reference[None, None]) ** 2).sum(-1)  # (draw, label, reference)
        new = np.stack([np.argsort(linear_sum_assignment(one)[1]) for one in cost])
        matched = np.take_along_axis(table, new[:, :, None], axis=1)
        reference = matched.mean(0)
        if (new == order).all():
            break
        order = new
    return {name: _take(value, dims[name], axes, order.reshape(chains, draws, count)) for name, value in values.items()}


def permuted(
    values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str], order: np.ndarray
) -> dict[str, np.ndarray]:
    """All draws in the one ``order`` of labels."""
    return {
        name: _take(value, dims[name], axes, np.broadcast_to(order, (*value.shape[:2], len(order))))
        for name, value in values.items()
    }


def _take(value: np.ndarray, dims: Sequence[str], axes: Sequence[str], order: np.ndarray) -> np.ndarray:
    """Every axis of a label taken in the draw's own order, ``order`` (chain, draw, label)."""
    for axis in axes:
        if axis in dims:
            at = 2 + list(dims).index(axis)
            shape = [*order.shape[:2], *[1] * (value.ndim - 2)]
            shape[at] = order.shape[2]
            value = np.take_along_axis(value, order.reshape(shape), axis=at)
    return value


def _profiles(values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str], count: int):
    """What every label looks like in every draw, (chain * draw, label, feature), in units of the spread.

    A square array over two label axes enters through its diagonal, which does not depend on the other labels.
    """
    parts = []
    for name, value in values.items():
        own = [a for a in axes if a in dims[name]]
        if not own:
            continue
        flat = value.reshape(-1, *value.shape[2:])
        if len(own) == 2:
            first, second = (1 + list(dims[name]).index(a) for a in own)
            profile = np.diagonal(flat, axis1=first, axis2=second)[..., None].reshape(len(flat), -1, count)
            profile = np.swapaxes(profile, 1, 2)
        else:
            profile = np.moveaxis(flat, 1 + list(dims[name]).index(own[0]), 1).reshape(len(flat), count, -1)
        if (profile > 0).all():
            profile = np.log(profile)  # scales and rates differ by factors
        # Spread over draws and labels of one feature: no feature decides by its unit.
        parts.append((profile - profile.mean((0, 1))) / (profile.std((0, 1)) + 1e-12) / np.sqrt(profile.shape[2]))
    return np.concatenate(parts, axis=2)
