"""Integrals of many units, some at a time: what is held does not grow with the image.

Arrays are units last but for ``base``, the points that all share.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

KEPT = "kept"  # of what is made anew backwards: sums over channels, which are few numbers and dear
_WALKED = 32  # numbers that are made of a point where parts are walked over
_BLOCKS = 32  # at most, of units that need points
_LEAST = 32  # units in a block: a few take as long
_CELLS = 2**20  # numbers made of a chunk of units at a time, which then stay in a cache


def in_stages(closed: Callable, fn: Callable, hard, *arrays):
    """``closed`` of all units, and ``fn`` instead of those that are ``hard``, (units,).

    Both take ``arrays``, eta, held, base, shift and any more, units last but for ``base``, and give arrays, units last.
    """
    base, size = arrays[2], min(len(hard), max(_LEAST, -(-len(hard) // _BLOCKS)))
    hard_first = jnp.argsort(~hard)

    def block(i, found):
        at = jax.lax.dynamic_slice(hard_first, (i * size,), (size,))  # the last block reaches back
        again = fn(*(x if x is base else x[..., at] for x in arrays))
        # Those that fill the last block keep their closed form.
        kept = lambda old, new: old.at[..., at].set(jnp.where(hard[at], new, old[..., at]))  # noqa: E731
        return jax.tree_util.tree_map(kept, found, again)

    return jax.lax.fori_loop(0, -(-hard.sum() // size), block, closed(*arrays))


def in_chunks(fn: Callable, eta, held, base, shift, least: int = 1):
    """``fn`` over chunks of the units, so that what it holds at a time does not grow with the image.

    More than one chunk also keeps XLA from computing ``fn`` anew in everything that uses its results.
    """
    count = max(least, -(-eta.shape[1] * base.shape[1] * _WALKED // _CELLS))
    if count == 1:
        return fn(eta, held, base, shift)
    return _map_units(lambda e, h, s, _: fn(e, h, base, s), (eta, held, shift), (), count)


def over_chunks(fn: Callable, arrays, own, channels: int, least: int = 1):
    """The same for what works on every channel at every point; ``own`` has a leading unit axis."""
    eta, held, base, shift, order = arrays
    count = max(least, -(-eta.shape[1] * base.shape[1] * channels // _CELLS))
    if count == 1:
        return fn(eta, held, base, shift, order, own)
    return _map_units(lambda e, h, s, o, y: fn(e, h, base, s, o, y), (eta, held, shift, order), own, count)


def over_units(fn: Callable, frame, own, channels: int, at_points: int):
    """``fn(frame, own)``, (units,), over chunks of units that have ``channels``, ``at_points`` of them at every point.

    ``own`` has a leading unit axis. Backwards a chunk is made anew but for what is named ``KEPT``, so that no more than
    one chunk is held: in memory that is used again and fits in a cache.
    """
    keeping = partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
    cells = max(channels, frame.base.shape[1] * max(at_points, _WALKED))
    count = -(-frame.shift.shape[1] * cells // _CELLS)
    if count == 1:
        return keeping(fn)(frame, own)
    lanes = (frame.order, frame.centre, frame.shift, frame.force)

    def one(order, centre, shift, force, own):
        return fn(frame._replace(order=order, centre=centre, shift=shift, force=force), own)

    return _map_units(one, lanes, own, count, keeping)


def apart(fn: Callable, shift, *arrays):
    """``fn(*arrays)`` as a branch that is always taken, for no ``shift`` is negative, which XLA does not know.

    On CPU it would fuse the slices that a loop reads and writes into all that is computed of them, entry by entry:
    that took up to four times as long.
    """
    like = jax.eval_shape(fn, *arrays)
    zeros = lambda *_: jax.tree_util.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), like)  # noqa: E731
    return jax.lax.cond(shift[0, 0] >= 0.0, fn, zeros, *arrays)


def _map_units(fn: Callable, lanes_last, units_first, count: int, keeping: Callable = lambda fn: fn):
    """``fn`` over ``count`` chunks; the third of ``lanes_last`` are the shifts of the points."""
    n_units = lanes_last[0].shape[1]
    size = -(-n_units // count)
    count = -(-n_units // size)
    extra = count * size - n_units
    ahead = lambda x: ((0, extra), *((0, 0),) * (x.ndim - 1))  # noqa: E731
    first = lambda x: jnp.pad(x, ahead(x), mode="edge").reshape(count, size, *x.shape[1:])  # noqa: E731
    last = lambda x: jnp.moveaxis(  # noqa: E731
        jnp.pad(x, ((0, 0), (0, extra)), mode="edge").reshape(len(x), count, size), 1, 0
    )
    own = jax.tree_util.tree_map(first, units_first)
    one = keeping(lambda lanes, own: apart(fn, lanes[2], *lanes, own))
    found = jax.lax.map(lambda x: one(*x), (tuple(map(last, lanes_last)), own))
    join = lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], count * size)[..., :n_units]  # noqa: E731
    return jax.tree_util.tree_map(join, found)
