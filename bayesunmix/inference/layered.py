"""Precisions of many globals as a small block per channel and a few columns, and their roots.

    Lambda = D + U M U'        D: a block for every group of globals, and a number for each of the others
                               U: (size, r) with r of some tens, M: (r, r)

A linear mixture has a block of K x K for every channel, from abundances that are known, and K^2 columns for what
remains unknown of them. Everything costs ``size * (K + r)``, where a matrix costs its square, or cube. Products are
written with ``@``, so that a root stands wherever a triangular factor does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

_SOFTEST = 1e-6  # eigenvalue beside the blocks at which a direction is taken for flat


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Layers:
    """A symmetric matrix ``D + U M U'``.

    Attributes
    ----------
    group : (groups, K) of int
        Positions of the blocks.
    rest : (n,) of int
        Positions outside of the blocks.
    block : (groups, K, K)
    number : (n,)
        Entries outside of the blocks.
    columns : (size, r)
    core : (r, r)
    """

    group: Any
    rest: Any
    block: Any
    number: Any
    columns: Any
    core: Any

    __array_ufunc__ = None  # NumPy leaves products and sums to this class

    def __matmul__(self, x: Any) -> Any:
        own = _by_groups(self, x, self.block, self.number, "gij,...gj->...gi")
        return own + self.columns @ (self.core @ (self.columns.T @ x))

    def __len__(self) -> int:
        return len(self.columns)

    def __neg__(self) -> Layers:
        return replace(self, block=-self.block, number=-self.number, core=-self.core)

    def __add__(self, other: Layers) -> Layers:
        own = replace(self, block=self.block + other.block, number=self.number + other.number)
        return own.plus(other.columns, other.core)

    def __sub__(self, other: Layers) -> Layers:
        return self + (-other)

    def damped(self, more: np.ndarray) -> Layers:
        """With so much (size,) more on the diagonal."""
        block = self.block + np.eye(self.block.shape[-1]) * more[self.group][:, :, None]
        return replace(self, block=block, number=self.number + more[self.rest])

    def plus(self, columns: np.ndarray, core: np.ndarray) -> Layers:
        """With ``columns core columns'`` more."""
        zero = np.zeros((len(self.core), len(core)))
        joined = np.block([[self.core, zero], [zero.T, core]])
        return replace(self, columns=np.concatenate([self.columns, columns], axis=1), core=joined)

    @property
    def diagonal(self) -> np.ndarray:
        """(size,) of ``D``."""
        found = np.empty(len(self.columns))
        found[self.group] = np.diagonal(self.block, axis1=1, axis2=2)
        found[self.rest] = self.number
        return found

    @property
    def whole_blocks(self) -> np.ndarray:
        """(groups, K, K) of the whole matrix, with what the columns add."""
        own = self.columns[self.group]
        return self.block + np.einsum("gir,rs,gjs->gij", own, self.core, own)

    def inverse_root(self) -> tuple[LayeredRoot, bool]:
        """A root of the inverse, and whether the matrix was positive definite as it came.

        Where it was not, eigenvalues of the blocks, and then those beside ``D``, are taken without their signs.
        """
        block = _positive(self.block)
        steepness, own = self._beside(block)
        as_it_came = block is self.block and bool((self.number > 0).all())
        definite = as_it_came and bool((steepness > 0).all())
        shrink = np.maximum(np.abs(steepness), _SOFTEST) ** -0.5 - 1.0
        return replace(own, shrink=shrink), definite

    def softest(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The smallest eigenvalues beside ``D``, their directions (size, count), and ``D`` times these."""
        steepness, own = self._beside(_positive(self.block))
        axes = own.axes[:, np.argsort(steepness)[:count]]
        return np.sort(steepness)[:count], own.place(axes.T).T, own.push(axes.T).T

    def _beside(self, block: np.ndarray) -> tuple[np.ndarray, LayeredRoot]:
        """Eigenvalues of the whole beside ``D``, with their axes in a root of ``D`` alone."""
        lower = np.linalg.cholesky(block)
        inverse = np.linalg.inv(lower)
        scale = np.abs(self.number) ** -0.5
        white = self.columns.copy()
        white[self.group] = np.einsum("gij,gjr->gir", inverse, white[self.group])
        white[self.rest] *= scale[:, None]
        axes, triangle = np.linalg.qr(white)
        values, turn = np.linalg.eigh(triangle @ self.core @ triangle.T)
        plain, stretch = np.zeros(len(values)), np.ones(len(white))
        return 1.0 + values, LayeredRoot(self.group, self.rest, inverse, lower, scale, axes @ turn, plain, stretch)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class LayeredRoot:
    """A root ``F`` of the covariance ``F F'``: ``F = stretch L'^-1 (1 + axes shrink axes')``, with ``D = L L'``."""

    group: Any
    rest: Any
    inverse: Any  # (groups, K, K), of L
    lower: Any  # (groups, K, K), L
    scale: Any
    axes: Any  # (size, r), orthonormal
    shrink: Any  # (r,)
    stretch: Any  # (size,)

    __array_ufunc__ = None  # NumPy leaves products to this class

    def __matmul__(self, white: Any) -> Any:
        return self.place(white)

    def __rmatmul__(self, slope: Any) -> Any:
        return self.pull(slope)

    @property
    def T(self) -> _Transposed:
        """``F'``."""
        return _Transposed(self)

    def place(self, white: Any) -> Any:
        """``F white`` for white (..., size)."""
        inner = white + ((white @ self.axes) * self.shrink) @ self.axes.T
        return self.stretch * _by_groups(self, inner, self.inverse, self.scale, "gji,...gj->...gi")

    def pull(self, slope: Any) -> Any:
        """``F' slope`` for slopes (..., size)."""
        inner = _by_groups(self, self.stretch * slope, self.inverse, self.scale, "gij,...gj->...gi")
        return inner + ((inner @ self.axes) * self.shrink) @ self.axes.T

    def push(self, white: Any) -> Any:
        """``F'^-1 white``, a slope, for white (..., size)."""
        inner = white + ((white @ self.axes) * (1.0 / (1.0 + self.shrink) - 1.0)) @ self.axes.T
        return _by_groups(self, inner, self.lower, 1.0 / self.scale, "gij,...gj->...gi") / self.stretch

    def whitened(self, away: Any) -> Any:
        """``F^-1 away`` for away (..., size)."""
        inner = _by_groups(self, away / self.stretch, self.lower, 1.0 / self.scale, "gji,...gj->...gi")
        return inner + ((inner @ self.axes) * (1.0 / (1.0 + self.shrink) - 1.0)) @ self.axes.T

    @property
    def log_det(self) -> Any:
        """Log of the determinant."""
        diagonal = self.inverse.diagonal(axis1=1, axis2=2)
        return sum(_sum_of_logs(x) for x in (diagonal, self.stretch, self.scale, 1.0 + self.shrink))

    @property
    def sds(self) -> np.ndarray:
        """(size,), standard deviations."""
        moved = _by_groups(self, np.asarray(self.axes).T, self.inverse, self.scale, "gji,...gj->...gi").T
        variance = (moved**2 * ((1.0 + self.shrink) ** 2 - 1.0)).sum(1)
        own = np.zeros(len(variance))
        own[self.group] = (np.asarray(self.inverse) ** 2).sum(1)
        own[self.rest] = np.asarray(self.scale) ** 2
        return np.asarray(self.stretch) * np.sqrt(own + variance)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Inverse:
    """``F^-1`` of a root ``F``."""

    root: LayeredRoot

    __array_ufunc__ = None  # NumPy leaves products to this class

    def __matmul__(self, away: Any) -> Any:
        return self.root.whitened(away)


def _positive(block: np.ndarray) -> np.ndarray:
    """Blocks (groups, K, K) whose eigenvalues, with the diagonal scaled to one, have lost their signs; the same where
    they have none to lose."""
    scale = np.sqrt(np.abs(np.diagonal(block, axis1=1, axis2=2)).clip(np.finfo(float).tiny))
    scales = scale[:, :, None] * scale[:, None, :]
    values, axes = np.linalg.eigh(block / scales)
    if (values > 0).all():
        return block
    values = np.maximum(np.abs(values), _SOFTEST)
    return np.einsum("gij,gj,gkj->gik", axes, values, axes) * scales


def _by_groups(layers: Layers | LayeredRoot, x: Any, block: Any, number: Any, subscripts: str) -> Any:
    """Blocks times groups of ``x`` (..., size), and numbers times what is outside of them."""
    xp: Any = np if isinstance(x, np.ndarray) else jnp
    inside = xp.einsum(subscripts, block, x[..., layers.group])
    joined = xp.concatenate([inside.reshape(*x.shape[:-1], -1), number * x[..., layers.rest]], axis=-1)
    order = xp.argsort(xp.concatenate([layers.group.ravel(), layers.rest]))
    return joined[..., order]


@dataclass(frozen=True, eq=False)
class _Transposed:
    root: LayeredRoot

    __array_ufunc__ = None

    def __matmul__(self, slope: Any) -> Any:
        return self.root.pull(slope)

    def __rmatmul__(self, white: Any) -> Any:
        return self.root.place(white)


def log_det(root: Any) -> Any:
    """Log of the determinant of a root, triangular or layered."""
    if isinstance(root, LayeredRoot):
        return root.log_det
    return _sum_of_logs(root.diagonal())


def _sum_of_logs(x: Any) -> Any:
    xp: Any = np if isinstance(x, np.ndarray) else jnp  # nothing is compiled for it
    return xp.log(xp.abs(x)).sum()


def sds(root: Any) -> np.ndarray:
    """Standard deviations (size,) of the covariance ``F F'``."""
    return root.sds if isinstance(root, LayeredRoot) else np.sqrt((np.asarray(root) ** 2).sum(1))


def push(root: Any, white: Any) -> Any:
    """``F'^-1 white`` for white (..., size)."""
    if isinstance(root, LayeredRoot):
        return root.push(white)
    return jax.scipy.linalg.solve_triangular(root, white.T, lower=False, trans=1).T


def inverse(root: Any) -> Any:
    """``F^-1``, with products only: inside compiled functions nothing is solved."""
    if isinstance(root, LayeredRoot):
        return Inverse(root)
    return inverse_of_upper(np.asarray(root))


def inverse_of_upper(root: np.ndarray) -> np.ndarray:
    """Of an upper triangular matrix, in a quarter of the time that it takes to solve for the columns of one."""
    found, singular = scipy.linalg.lapack.dtrtri(root)
    if singular:
        raise np.linalg.LinAlgError("a triangular matrix has zeros on its diagonal, and no inverse")
    return found


def stretched(root: Any, stretch: Any) -> Any:
    """``diag(stretch) F``."""
    if isinstance(root, LayeredRoot):
        return replace(root, stretch=root.stretch * stretch)
    return stretch[:, None] * root
