"""Slope and curvature of a normal mixture's log likelihood, in closed form.

With ``a_nk`` the log of weight times density of class k for unit n, and ``r_nk`` the class's probability,

    d log p(y_n)  = sum_k r_nk da_nk
    d2 log p(y_n) = sum_k r_nk d2a_nk + sum_kl r_nk (delta_kl - r_nl) da_nk da_nl'

(Louis's identity). Where all units share the classes' covariances, ``a_nk`` is linear in the products of up to two
features, with the class's natural parameters for coefficients: the second sum is over products of up to four features,
one matrix product for all pairs of classes, and the first is nothing. Where every unit has an error of its own the
derivatives of ``a_nk`` in weight, mean and covariance are written out. Either comes to the parameters of the mixture by
a chain rule class by class.

References
----------
Louis, "Finding the observed information matrix when using the EM algorithm", J. R. Stat. Soc. B 44, 226 (1982).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np

from bayesunmix.distributions import cholesky
from bayesunmix.distributions.inverses import inverse_and_log_det

_LOG_2PI = 1.8378770664093453
_NUMBERS = 2**19  # held at a time
_FEWEST_ROWS = 64
_INDEX = np.int32  # an array used again and again must not change type between precisions, see docs/numerics.md
_NO_DOUBT = 1e-9  # variance of a unit's class, beside sums of ones, below which it is left out

Parts = tuple[jax.Array, jax.Array, jax.Array]  # weights, means, roots


def curvature(
    parts: Parts, y: jax.Array, measurement_cov: jax.Array | None
) -> tuple[tuple[jax.Array, ...], tuple[tuple[jax.Array, ...], ...]]:
    """Gradient and Hessian of the log likelihood of all units, in weights, means and roots.

    Parameters
    ----------
    parts : (component,), (component, feature), (component, feature, feature)
    y : (unit, feature)
    measurement_cov : (unit, feature, feature), optional

    Returns
    -------
    gradient
        Shaped like ``parts``.
    hessian
        For each of them the derivatives of its gradient, shaped (*one, *other).
    """
    to_own: Callable
    if measurement_cov is None:
        # A fixed origin amid the classes, so that nothing large cancels.
        centre = jax.lax.stop_gradient(parts[1].mean(0))
        to_own = partial(_natural, centre=centre)
        natural = to_own(*parts)
        own = _summed(partial(_shared_covariance, natural), (y - centre,), natural.shape[1])
    else:
        to_own = _moments
        own = _summed(partial(_own_covariance, *parts), (y, measurement_cov), _products(y.shape[1])[0].shape[1])
    return _chained(to_own, parts, *own)


# ---------------------------------------------------------------------- classes' covariances shared by all units


def _natural(weights, means, roots, centre):
    """Coefficients of the products of up to two features in the log of weight times density, (component, product)."""
    n_features = centre.shape[0]
    inverse = cholesky.inverse(roots)
    precision = jnp.einsum("...ji,...jk->...ik", inverse, inverse)
    away = means - centre
    linear = (precision @ away[..., None])[..., 0]
    constant = (
        jnp.log(weights) - 0.5 * (away * linear).sum(-1) - 0.5 * cholesky.log_det(roots) - 0.5 * n_features * _LOG_2PI
    )
    i, j = _upper(n_features)
    square = precision[..., i, j] * np.where(i == j, -0.5, -1.0)
    return jnp.concatenate([constant[..., None], linear, square], axis=-1)


def _shared_covariance(natural, kept, y):
    """Sums over some units: gradient (component, product) and Hessian in the natural parameters.

    A unit whose class is beyond doubt adds nothing to the Hessian: only the others are multiplied out.
    """
    n_classes, n_features = len(natural), y.shape[1]
    pairs, place = _products(n_features)
    i, j = _upper(n_features)
    y = y.T  # units last: rows are gathered at a stretch
    features = jnp.concatenate([jnp.ones_like(y[:1]), y, y[i] * y[j]])
    share = jax.nn.softmax(natural @ features, axis=0) * kept
    doubtful = (share * (1.0 - share)).sum(0) > _NO_DOUBT
    count, few = doubtful.sum(), max(_FEWEST_ROWS, _NUMBERS // (4 * pairs.shape[1]))
    order = jnp.flatnonzero(doubtful, size=-(-len(kept) // few) * few, fill_value=len(kept))
    k, l = _upper(n_classes)  # noqa: E741

    def add(state):
        done, total = state
        rows = jax.lax.dynamic_slice(order, (done,), (few,))
        f, r = features.at[:, rows].get(mode="clip"), share.at[:, rows].get(mode="fill", fill_value=0.0)
        weight = r[k] * ((k == l)[:, None] - r[l])
        return done + few, total + weight @ (f[pairs[0]] * f[pairs[1]]).T

    zero = jnp.zeros((len(k), pairs.shape[1]), y.dtype)
    sums = jax.lax.while_loop(lambda state: state[0] < count, add, (jnp.zeros_like(count), zero))[1]
    either = np.zeros((n_classes, n_classes), dtype=int)
    either[k, l] = either[l, k] = np.arange(len(k))
    return share @ features.T, sums[either][:, :, place].transpose(0, 2, 1, 3)


@lru_cache
def _products(n_features: int) -> tuple[np.ndarray, np.ndarray]:
    """Every product of up to four features as one of two that are products of up to two, and where those of any two
    are among them."""
    two, four = (
        [c for degree in range(most + 1) for c in itertools.combinations_with_replacement(range(n_features), degree)]
        for most in (2, 4)
    )
    at_two, at_four = ({c: n for n, c in enumerate(listed)} for listed in (two, four))
    pairs = np.array([(at_two[c[:2]], at_two[c[2:]]) for c in four], dtype=_INDEX).T
    place = np.array([[at_four[tuple(sorted(p + q))] for q in two] for p in two], dtype=_INDEX)
    return pairs, place


# ---------------------------------------------------------------------- an error of every unit's own


def _moments(weights, means, roots):
    """Log weight, mean and upper triangle of the covariance, (component, 1 + feature + pair)."""
    i, j = _upper(means.shape[-1])
    covariance = jnp.einsum("...ij,...kj->...ik", roots, roots)
    return jnp.concatenate([jnp.log(weights)[..., None], means, covariance[..., i, j]], axis=-1)


def _own_covariance(weights, means, roots, kept, y, errors):
    """Sums over some units: gradient and Hessian in log weight, mean and upper triangle of the covariance."""
    n_classes, n_features = means.shape
    own = jnp.einsum("kij,klj->kil", roots, roots)
    precision, log_det = inverse_and_log_det(own + errors[:, None])
    away = y[:, None] - means
    pull = jnp.einsum("nkij,nkj->nki", precision, away)
    log_joint = jnp.log(weights) - 0.5 * (away * pull).sum(-1) - 0.5 * log_det
    share = jax.nn.softmax(log_joint, axis=1) * kept[:, None]
    i, j = _upper(n_features)
    twice = np.where(i == j, 1.0, 2.0)
    square = pull[..., i] * pull[..., j]
    slope = 0.5 * twice * (square - precision[..., i, j])
    slopes = jnp.concatenate([jnp.ones_like(share)[..., None], pull, slope], axis=-1)
    size = slopes.shape[-1]
    weighted = (share[..., None] * slopes).reshape(len(y), -1)
    both = -(weighted.T @ weighted).reshape(n_classes, size, n_classes, size)
    alone = jnp.einsum("nkp,nk,nkq->kpq", slopes, share, slopes)
    # What the log density itself bends: means, means with covariances, covariances.
    inner = -jnp.einsum("nk,nkij->kij", share, precision)
    cross = -jnp.einsum("nk,nkia,nkb->kiab", share, precision, pull)
    cross = (cross[:, :, i, j] + cross[:, :, j, i]) * (0.5 * twice)
    flat = precision.reshape(*precision.shape[:2], -1)
    pulled = (pull[..., :, None] * pull[..., None, :]).reshape(flat.shape)
    bend = jnp.einsum("nkp,nk,nkq->kpq", 0.5 * flat - pulled, share, flat)
    bend = bend.reshape(n_classes, *(n_features,) * 4)
    # Were the entries of S free, d2a / dS_ij dS_ab would be (P_ib / 2 - u_i u_b) P_ja.
    free = [
        bend[:, p[:, None], b, q[:, None], a]
        for (p, q), (a, b) in itertools.product(itertools.permutations((i, j)), repeat=2)
    ]
    outer = 0.25 * sum(free) * twice[:, None] * twice
    block = jnp.zeros((n_classes, size, size), y.dtype)
    means_at, pairs_at = slice(1, 1 + n_features), slice(1 + n_features, size)
    block = block.at[:, means_at, means_at].set(inner).at[:, pairs_at, pairs_at].set(outer)
    block = block.at[:, means_at, pairs_at].set(cross).at[:, pairs_at, means_at].set(cross.transpose(0, 2, 1))
    classes = np.arange(n_classes)
    return weighted.sum(0).reshape(n_classes, size), both.at[classes, :, classes].add(alone + block)


# ---------------------------------------------------------------------- sums and chain rule


@lru_cache
def _upper(size: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.triu_indices(size)
    return rows.astype(_INDEX), columns.astype(_INDEX)


def _summed(sums: Callable, units: tuple[jax.Array, ...], numbers: int):
    """``sums(kept, *units)`` over all units, some rows at a time, each of so many ``numbers``."""
    n_units = len(units[0])
    rows = max(_FEWEST_ROWS, _NUMBERS // numbers)
    if n_units <= rows:
        return sums(jnp.ones(n_units, units[0].dtype), *units)
    lacking = -n_units % rows
    # The last rows repeat the last unit without counting it.
    padded = [jnp.pad(x, [(0, lacking)] + [(0, 0)] * (x.ndim - 1), mode="edge") for x in units]
    kept = jnp.arange(n_units + lacking) < n_units
    parts = [x.reshape(-1, rows, *x.shape[1:]) for x in (kept.astype(units[0].dtype), *padded)]

    def add(total, part):
        return jax.tree_util.tree_map(jnp.add, total, sums(*part)), None

    shapes = jax.eval_shape(sums, *(part[0] for part in parts))
    zero = jax.tree_util.tree_map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zero, tuple(parts))[0]


def _chained(to_own: Callable, parts: Parts, gradient, hessian):
    """From the own parameters of every class to ``parts``."""
    n_classes, n_features = parts[1].shape
    flat = jnp.concatenate([part.reshape(n_classes, -1) for part in parts], axis=1)

    def own(one):
        weight, mean, root = one[0], one[1 : 1 + n_features], one[1 + n_features :]
        return to_own(weight, mean, root.reshape(n_features, n_features))

    jacobian = jax.vmap(jax.jacfwd(own))(flat)
    bend = jax.vmap(jax.hessian(lambda one, weights: (weights * own(one)).sum()))(flat, gradient)
    slope = jnp.einsum("kp,kpa->ka", gradient, jacobian)
    matrix = jnp.einsum("kpa,kplq,lqb->kalb", jacobian, hessian, jacobian, optimize="optimal")
    classes = np.arange(n_classes)
    matrix = matrix.at[classes, :, classes].add(bend)
    ends = np.cumsum([0, 1, n_features, n_features**2])
    each = [slice(a, b) for a, b in itertools.pairwise(ends)]
    shapes = [part.shape for part in parts]
    found = tuple(slope[:, a].reshape(shape) for a, shape in zip(each, shapes, strict=True))
    blocks = tuple(
        tuple(matrix[:, a, :, b].reshape(*one, *other) for b, other in zip(each, shapes, strict=True))
        for a, one in zip(each, shapes, strict=True)
    )
    return found, blocks
