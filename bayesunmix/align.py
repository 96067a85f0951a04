"""One order of exchangeable labels for all draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

_ROUNDS = 20
Groups = Sequence[Sequence[int]]  # labels that may change places with each other, every label in one group


def match_labels(model: Any, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Draws (chain, draw, ...) of a model with ``label_dims``: labels matched, then in the order of ``model.order``.

    Labels only change places within the model's ``label_groups``.
    """
    axes = getattr(model, "label_dims", ())
    if not axes:
        return values
    groups = model.label_groups
    flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
    count = len(next(iter(flat.values())))
    ordered = (model.order({name: value[i] for name, value in flat.items()}) for i in range(count))
    start = np.stack([within(order, groups) for order in ordered])
    values = aligned(values, model.dims, axes, start, groups)
    last = within(model.order({n: v.mean((0, 1)) for n, v in values.items()}), groups)
    return permuted(values, model.dims, axes, last)


def within(order: np.ndarray, groups: Groups) -> np.ndarray:
    """The order of labels (label,) that is nearest to ``order`` and keeps every group on its own places."""
    found = np.array(order)
    for group in groups:
        found[list(group)] = [label for label in order if label in group]
    return found


def assigned(cost: np.ndarray, groups: Groups) -> np.ndarray:
    """The column of every row at the least total cost (label, label), rows and columns of the same group paired."""
    found = np.arange(len(cost))
    for group in groups:
        own = np.array(group)
        found[own] = own[linear_sum_assignment(cost[np.ix_(own, own)])[1]]
    return found


def aligned(
    values: Mapping[str, np.ndarray],
    dims: Mapping[str, Sequence[str]],
    axes: Sequence[str],
    start: np.ndarray,
    groups: Groups,
) -> dict[str, np.ndarray]:
    """Draws with their labels permuted so that every label means the same in all of them.

    Every draw is matched by assignment to the mean of the matched draws (Stephens' relabelling with squared distance),
    each number in units of its spread within the matched labels, so that what tells labels apart decides.

    Parameters
    ----------
    values : mapping of name to array (chain, draw, ...)
    dims : mapping of name to the names of the axes after chain and draw
    axes : names of the dims that carry the label, such as ("state", "next_state")
    start : (chain * draw, label), a first guess of every draw's order
    groups : sequence of sequences of int
        Labels that may change places with each other; every label is in one of them.

    Returns
    -------
    dict of name to array
        Everything that carries the label permuted along, nothing else changed.

    References
    ----------
    Stephens, "Dealing with label switching in mixture models", J. R. Stat. Soc. B 62, 795 (2000).
    """
    table, order = profiles(values, dims, axes, start.shape[1]), start
    for _ in range(_ROUNDS):
        matched = np.take_along_axis(table, order[:, :, None], axis=1)
        reference = matched.mean(0)
        spread = np.sqrt(((matched - reference) ** 2).mean((0, 1)))
        away = (table[:, :, None, :] - reference[None, None]) / np.where(spread > 0.0, spread, 1.0)
        new = np.stack([np.argsort(assigned(one, groups)) for one in (away**2).sum(-1)])
        if (new == order).all():
            break
        order = new
    chains, draws = next(iter(values.values())).shape[:2]
    by_draw = order.reshape(chains, draws, -1)
    return {name: _take(value, dims[name], axes, by_draw) for name, value in values.items()}


def permuted(
    values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str], order: np.ndarray
) -> dict[str, np.ndarray]:
    """All draws in the one ``order`` of labels."""
    return {
        name: _take(value, dims[name], axes, np.broadcast_to(order, (*value.shape[:2], len(order))))
        for name, value in values.items()
    }


def sorted_labels(
    values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str], by: str
) -> dict[str, np.ndarray]:
    """Draws (chain, draw, ...) with the labels of every draw in increasing order of the parameter ``by``."""
    order = np.argsort(values[by], axis=-1)
    return {name: _take(value, dims[name], axes, order) for name, value in values.items()}


def _take(value: np.ndarray, dims: Sequence[str], axes: Sequence[str], order: np.ndarray) -> np.ndarray:
    """Every axis of a label taken in the draw's own order, ``order`` (chain, draw, label)."""
    for axis in axes:
        if axis in dims:
            at = 2 + list(dims).index(axis)
            shape = [*order.shape[:2], *[1] * (value.ndim - 2)]
            shape[at] = order.shape[2]
            value = np.take_along_axis(value, order.reshape(shape), axis=at)
    return value


def profiles(values: Mapping[str, np.ndarray], dims: Mapping[str, Sequence[str]], axes: Sequence[str], count: int):
    """What every label looks like in every draw, (chain * draw, label, number).

    A square array over two label axes enters through its diagonal, which does not depend on the other labels.
    """
    parts = []
    for name, value in values.items():
        own = [1 + list(dims[name]).index(axis) for axis in axes if axis in dims[name]]
        flat = value.reshape(-1, *value.shape[2:])
        if len(own) == 2:
            flat, own = np.diagonal(flat, axis1=own[0], axis2=own[1]), [flat.ndim - 2]
        if own:
            profile = np.moveaxis(flat, own[0], 1).reshape(len(flat), count, -1)
            # Scales and rates differ by factors.
            parts.append(np.log(profile) if (profile > 0).all() else profile)
    return np.concatenate(parts, axis=2)
