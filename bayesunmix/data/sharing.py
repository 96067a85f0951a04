"""Units that have parts in common, as the vectors of two atoms that share a neighbour: which are independent."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.sparse import csr_array


def sharing(members: np.ndarray) -> csr_array:
    """Ones (unit, unit) where two different units have a member in common.

    Parameters
    ----------
    members : (unit, k) of int
        What each unit is made of.
    """
    n_units, k = members.shape
    _, column = np.unique(members, return_inverse=True)
    row = np.repeat(np.arange(n_units), k)
    held = csr_array((np.ones(row.size), (row, column.ravel())))
    both = (held @ held.T).tocoo()
    other = both.row != both.col
    return csr_array((np.ones(other.sum()), (both.row[other], both.col[other])), shape=(n_units, n_units))


def independent(members: np.ndarray) -> np.ndarray:
    """A large set of units no two of which have a member in common, as booleans (unit,).

    Units with the fewest rivals still in play are taken first (the minimum-degree rule), which packs lattices densely.

    Parameters
    ----------
    members : (unit, k) of int
        What each unit is made of.
    """
    shared = sharing(members)
    rivals = np.split(shared.indices, shared.indptr[1:-1])
    degree = np.diff(shared.indptr)
    waiting = [(int(d), i) for i, d in enumerate(degree)]
    heapq.heapify(waiting)
    in_play = np.ones(len(members), dtype=bool)
    chosen = np.zeros(len(members), dtype=bool)
    while waiting:
        seen, one = heapq.heappop(waiting)
        if not in_play[one] or seen != degree[one]:
            continue
        chosen[one] = True
        in_play[one] = False
        gone = [other for other in rivals[one] if in_play[other]]
        in_play[gone] = False
        for other in gone:
            for third in rivals[other]:
                if in_play[third]:
                    degree[third] -= 1
                    heapq.heappush(waiting, (int(degree[third]), int(third)))
    return chosen


def sum_error(values: np.ndarray, shared: csr_array | None = None) -> float:
    """Standard error of the sum of ``values`` (unit,), of units of which those ``shared`` depend on each other.

    Never less than that of independent units: with few units the products of neighbours are noise.
    """
    away = values - values.mean()
    single = away @ away
    return float(np.sqrt(single if shared is None else max(single, single + away @ (shared @ away))))
