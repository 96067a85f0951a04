"""Integrals of many units, some at a time: what is held does not grow with the image.

Arrays are units last but for ``base``, the points that all share.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

KEPT = "kept"  # of what is made anew backwards: sums over channels, which are few numbers and dear
_LANES = 2**18  # points times units that are worked on together
_BLOCKS = 32  # at most, of units that need points
_CELLS = 2**21  # points times units times channels, where a likelihood is evaluated at every point


def in_stages(closed: Callable, fn: Callable, hard, *arrays):
    """``closed`` of all units, and ``fn`` instead of those that are ``hard``, (units,).

    Both take ``arrays``, eta, held, base, shift and any more, units last but for ``base``, and give arrays, units last.
    """
    base, size = arrays[2], -(-len(hard) // _BLOCKS)
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
    count = max(least, -(-eta.shape[1] * base.shape[1] // _LANES))
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


def over_units(fn: Callable, frame, own, cells: int):
    """``fn(frame, own)``, (units,), over chunks of the units, each of them worked on in ``cells`` numbers at a time.

    ``own`` has a leading unit axis. Backwards a chunk is made anew but for what is named ``KEPT``, so that what is held
    is that of one chunk: in memory that is used again and fits in a cache.
    """
    again = jax.checkpoint(fn, policy=jax.checkpoint_policies.save_only_these_names(KEPT))
    count = -(-frame.shift.shape[1] * cells // _CELLS)
    if count == 1:
        return again(frame, own)
    lanes = (frame.order, frame.centre, frame.force, frame.shift)

    def one(order, centre, force, shift, own):
        return again(frame._replace(order=order, centre=centre, force=force, shift=shift), own)

    return _map_units(one, lanes, own, count)


def _map_units(fn: Callable, lanes_last, units_first, count: int):
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
    found = jax.lax.map(lambda x: fn(*x[0], x[1]), (tuple(map(last, lanes_last)), own))
    join = lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], count * size)[..., :n_units]  # noqa: E731
    return jax.tree_util.tree_map(join, found)
