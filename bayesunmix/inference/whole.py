"""All units of a large image, a chunk at a time, and samples of them that stand for all.

The log likelihood of a sample, each unit weighted by how many it stands for, differs from that of all units by a smooth
function, which a second-order expansion near the mode takes up (:class:`~bayesunmix.inference.target.Rest`): value,
slope and curvature there are those of all units, and only higher derivatives come from the sample. So nothing that is
done many times visits all units, and a file is read a handful of times.

References
----------
Quiroz, Kohn, Villani and Tran, "Speeding up MCMC by efficient data subsampling", J. Am. Stat. Assoc. 114, 831 (2019):
control variates of second order at the mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.linalg

from bayesunmix._keys import generator
from bayesunmix._memory import hand_back
from bayesunmix.data.rows import let_go
from bayesunmix.distributions.one_face import NEAR
from bayesunmix.inference.curvature import assembled, expanded, units_curvature
from bayesunmix.inference.expansion import Expansion
from bayesunmix.inference.program import Array, Program, at_units
from bayesunmix.inference.target import (
    Data,
    Rest,
    as_device_data,
    has_rules,
    prior_value_and_grad,
    slopes_at,
    value_and_grad,
    with_rules,
)
from bayesunmix.inference.units import dividing, kind_of_likelihood

_NUMBERS = 2**17  # in a chunk of units without integration points: what is made of them stays in a cache
_BATCHES = 4  # in a chunk of those, at most
_FEWEST_CHUNKS, _LOOKS = 8, 4  # behind a Hessian, and between looks at what is known of it
_ENOUGH = 0.1  # relative error of the Hessian in its worst direction, half as much of a posterior sd
_MOST_NEAR = 8  # batches of units near a face; more of small ones
_MOST_UNITS_NEAR = 2**15  # of these
_NONE = np.zeros(0, np.int64)
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


class AtPoint(NamedTuple):
    """The log density of all units at a point."""

    z: np.ndarray
    value: float
    slope: np.ndarray  # (size,)

    def corrected(self, program: Program, ruled: Data, lacking: dict[str, Expansion]) -> Data:
        """A sample whose rules were made at the point, with what it lacks there: ``lacking``, and what that misses."""
        units = jax.device_put(lacking)  # in the current precision
        so_far = ruled._replace(rest=Rest(units, self.z, np.zeros(()), np.zeros(len(self.z))))
        value, slope = jax.device_get(value_and_grad(program, self.z, so_far))
        return ruled._replace(rest=Rest(units, self.z, self.value - value, self.slope - slope))


class Around(NamedTuple):
    """The slope of all units at opposite points of a guide."""

    points: np.ndarray  # (n, size)
    slopes: np.ndarray  # (n, size)

    def lacking(self, program: Program, data: Data) -> np.ndarray:
        """What the slopes of a sample lack at each of the points."""
        return self.slopes - slopes_at(program, self.points, data)[1]

    def corrected(self, program: Program, data: Data) -> Data:
        """A corrected sample, its slope now that of all units on average over the points."""
        rest: Any = data.rest
        return data._replace(rest=rest._replace(slope=rest.slope + self.lacking(program, data).mean(0)))


@dataclass(frozen=True, eq=False)
class Whole:
    """All units, from which chunks and samples of one size are taken.

    Attributes
    ----------
    values
        ``(unit, channel)``: an array, or anything of its shape that gives arrays for slices and for sorted indices.
    batch : int
        Most units to a chunk, but for small ones.
    parts : int
        Chunks to a sample.
    """

    program: Program
    numbers: tuple[Any, ...]
    values: Any
    covariates: dict[str, Any]
    batch: int
    parts: int = 1

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.values)

    @cached_property
    def size(self) -> int:
        """Units to a chunk or sample: the batch, or more where a unit is a few numbers and needs no points.

        A call takes its time, whatever the units.
        """
        few = self.few
        numbers = sum(np.size(leaf) for leaf in jax.tree_util.tree_leaves((few.y, few.covariates))) / 2
        most = self.batch
        if not has_rules(self.program, few):
            most = max(most, min(_BATCHES * most, int(_NUMBERS / numbers)))
        return dividing(self.n_units, most)

    @cached_property
    def kind(self) -> type:
        """Class of the distribution of the units."""
        return kind_of_likelihood(self.program, self.numbers, self.values, self.covariates)

    @property
    def in_file(self) -> bool:
        """Whether values are read when they are asked for."""
        return not isinstance(self.values, np.ndarray)

    @property
    def few(self) -> Data:
        """Two of them, for a look."""
        return self._data(slice(2), self.values[:2], 1.0)

    def sample(self, key: jax.Array, near: np.ndarray = _NONE, held: bool = False) -> tuple[Data, Array]:
        """Units chosen at random, each standing for as many as there are more; and which the first part holds.

        Those that are ``near`` are added as they are, and stand for themselves; not if they are ``held`` already.
        """
        far = np.delete(np.arange(self.n_units), near)
        chosen = generator(key).choice(far, self.parts * self.size, replace=False)
        rows = np.sort((chosen if held else np.concatenate([chosen, near])).reshape(-1, self.size), axis=1)
        return self._together((part, len(far) / len(chosen) if i < self.parts else 1.0) for i, part in enumerate(rows))

    def near(self, z: np.ndarray) -> np.ndarray:
        """The units whose abundances are near a face of the simplex, and the next ones up to a multiple of the size."""
        # Waited for one by one: chunks that are worked on are held.
        room = np.concatenate([np.asarray(_room(self.program, z, chunk)) for _, chunk in self._read()])
        most = max(_MOST_NEAR, min(_MOST_NEAR * self.parts, _MOST_UNITS_NEAR // self.size))
        most = min(most, self.n_units // self.size - self.parts)
        parts = min(most, -(-int((~(room >= NEAR)).sum()) // self.size))
        return np.argsort(room, kind="stable")[: parts * self.size]

    def every(self) -> tuple[Data, Array]:
        """All units, each standing for itself, as a sample of many parts, and which the first part holds.

        A last part that is smaller is compiled for.
        """
        starts = range(0, self.n_units, self.size)
        return self._together((np.arange(start, min(start + self.size, self.n_units)), 1.0) for start in starts)

    def _together(self, parts: Iterable[tuple[np.ndarray, float]]) -> tuple[Data, Array]:
        """Parts, each with the weight of its units, and which units the first one holds."""
        (data, index), *others = ((self._data(part, self.values[part], weight), part) for part, weight in parts)
        let_go(self.values)  # before programs for them are compiled
        return data._replace(others=tuple(others)), index

    def slope(self, z: np.ndarray, key: jax.Array, more: int) -> tuple[float, np.ndarray]:
        """Log density and gradient with all units, integration points made at ``z``."""
        ((value, gradient),) = self.slopes([(z, key)], more)
        return value, gradient

    def slopes(self, places: Sequence[tuple[np.ndarray, jax.Array]], more: int) -> list[tuple[float, np.ndarray]]:
        """The same at every place, with a key each, from one reading of all units."""
        values, gradients, count = np.zeros(len(places)), np.zeros((len(places), self.program.size)), 0
        for part, chunk in self._read():
            for i, (z, key) in enumerate(places):
                found = value_and_grad(self.program, z, self._ruled(chunk, part, z, key, more))
                value, gradient = jax.device_get(found)
                values[i], gradients[i] = values[i] + value, gradients[i] + gradient
            count += 1
        for i, (z, _) in enumerate(places):  # not with every chunk
            prior, gradient = jax.device_get(prior_value_and_grad(self.program, z, chunk))
            values[i], gradients[i] = values[i] - (count - 1) * prior, gradients[i] - (count - 1) * gradient
        return list(zip(values.tolist(), gradients, strict=True))

    def expansions(self, z: np.ndarray, key: jax.Array, more: int) -> tuple[dict[str, Expansion], Data]:
        """The log likelihood of all units to second order, by observed site; and a chunk to assemble it with.

        Chunks are taken from all over the units until two halves of them agree in every direction, or all were. Units
        that were not, and those that do not fill a chunk, count as if they were like the others.
        """
        halves, seen = [None, None], [0, 0]

        def of_all(sums: Any, seen: int) -> dict[str, Expansion]:
            total = jax.tree_util.tree_map(lambda x: x * (self.n_units / seen), sums)
            return expanded(self.program, z, chunk, total)

        for turn, chunk in enumerate(self.chunks(z, key, more, _scattered(self.n_units // self.size))):
            own, half = jax.tree_util.tree_map(np.array, units_curvature(self.program, z, chunk)), turn % 2
            halves[half] = own if seen[half] == 0 else jax.tree_util.tree_map(_add, halves[half], own)
            seen[half] += self.size
            if (turn + 1) % _LOOKS == 0 and turn + 1 >= _FEWEST_CHUNKS:
                both = [of_all(one, count) for one, count in zip(halves, seen, strict=True)]
                if _agree(*(assembled(self.program, z, chunk, one)[1] for one in both)):
                    break
        total = halves[0] if seen[1] == 0 else jax.tree_util.tree_map(_add, *halves)
        return of_all(total, sum(seen)), chunk

    def chunks(self, z: Any, key: jax.Array, more: int, order: np.ndarray | None = None) -> Iterator[Data]:
        """Chunks with integration rules, all or those of some numbers; the next one is read while one is worked on."""
        for part, chunk in self._read(order):
            yield self._ruled(chunk, part, z, key, more)

    def _ruled(self, chunk: Data, part: slice, z: Any, key: jax.Array, more: int) -> Data:
        return with_rules(self.program, z, chunk, key, np.arange(part.start, part.stop), more)

    def _read(self, order: np.ndarray | None = None) -> Iterator[tuple[slice, Data]]:
        starts = self.size * (np.arange(-(-self.n_units // self.size)) if order is None else order)
        parts = [slice(int(start), min(int(start) + self.size, self.n_units)) for start in starts]
        hand_back()
        with ThreadPoolExecutor(1) as reader:
            read = [reader.submit(self.values.__getitem__, parts[0])]
            for part, following in zip(parts, [*parts[1:], None], strict=True):
                values = read.pop().result()
                if following is not None:
                    read.append(reader.submit(self.values.__getitem__, following))
                yield part, self._data(part, values, 1.0)

    def _data(self, part: Any, values: np.ndarray, weight: float) -> Data:
        covariates = at_units(self.covariates, part, self.n_units)
        return as_device_data(self.program, self.numbers, values, covariates, weight, self.kind)


def _scattered(count: int) -> np.ndarray:
    """The numbers below ``count``, every stretch of them spread evenly."""
    return np.argsort((np.arange(count) * _GOLDEN) % 1.0)


def _agree(one: Any, other: Any) -> bool:
    """Whether the mean of two Hessians is known well enough in every direction: half their difference beside it."""
    if not (isinstance(one, np.ndarray) and isinstance(other, np.ndarray)):
        return False
    try:
        error = scipy.linalg.eigh(one - other, -(one + other), eigvals_only=True)
    except np.linalg.LinAlgError:
        return False
    return bool(np.abs(error).max() < _ENOUGH)


def _add(total: np.ndarray, more: np.ndarray) -> np.ndarray:
    return np.add(total, more, out=total)


@partial(jax.jit, static_argnames="program")
def _room(program: Program, z: Array, data: Data) -> jax.Array:
    """By how many of its standard deviations a unit's latent is away from the nearest end of its domain."""
    fn = program.evaluate(data.numbers, z, data.y, data.covariates).observed["y"][0]
    return fn.without_faces(data.y).room.min(1)
