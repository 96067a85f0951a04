"""Curvature along the softest directions, measured.

Along a seesaw of two spectra the curvature is a small difference of large numbers, one of which the Hessian knows from
few random combinations, or in expectation only; the gradient is exact for the points it is taken on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import scipy.linalg

from bayesunmix.inference.expansion import Expansion
from bayesunmix.inference.layered import Layers
from bayesunmix.inference.program import Program
from bayesunmix.inference.target import Data, value_and_grad

_AT_A_TIME, _ROUNDS = 8, 3  # directions whose curvature is measured, and times
_REACH = 0.3  # posterior sds over which it is measured
_LET_STAND = 0.1  # error, of the softest curvature
_SOFT, _MOST_SOFT = 0.05, 128  # eigenvalue, with the diagonal scaled to one, of a soft direction
_SOFTEST = 1e-6  # eigenvalue, with the diagonal scaled to one, for a direction that is flat or worse


def measured_softness(program: Program, z: np.ndarray, data: Data, matrix: Any) -> Any:
    """The Hessian ``matrix``, with that along its softest directions replaced by differences of the gradient."""
    if not data.rules:
        return matrix
    precision = -matrix
    size = len(z)
    known = np.zeros((size, 0))
    for _ in range(_ROUNDS):
        values, soft, dual = _softest(precision, min(_AT_A_TIME, size - known.shape[1]), known)
        reach = _REACH / np.sqrt(np.maximum(np.abs(values), _SOFTEST))
        steps = zip(reach, soft.T, strict=True)
        error = np.stack([-_rise(program, z, data, r * d) / r - precision @ d for r, d in steps], axis=1)
        error[:, ~np.isfinite(error).all(0)] = 0.0  # too far for numbers: what is known of the curvature stands
        inner = 0.5 * (soft.T @ error + error.T @ soft)
        zero, eye = np.zeros_like(inner), np.eye(len(inner))
        precision = _plus(precision, np.concatenate([error, dual], axis=1), np.block([[zero, eye], [eye, -inner]]))
        known = np.concatenate([known, dual], axis=1)
        if known.shape[1] == size or (np.abs(np.diag(inner)) < _LET_STAND * np.abs(values)).all():
            break
    return -precision


def without_softness(lacking: Expansion, own: Expansion) -> Expansion:
    """What a sample of units lacks of all, without its curvature along directions that are soft for the sample.

    There what integration points and expectations leave in two Hessians exceeds the difference between sample and all
    units; the sample's own likelihood knows better.
    """
    steepness, soft, dual = _softest(-own.bend, _MOST_SOFT, np.zeros((len(own.bend), 0)))
    soft, dual = soft[:, steepness < _SOFT], dual[:, steepness < _SOFT]
    bent = np.stack([lacking.bend @ d for d in soft.T], axis=1) if soft.size else soft
    eye = np.eye(soft.shape[1])
    core = np.block([[np.zeros_like(eye), -eye], [-eye, soft.T @ bent]])
    return replace(lacking, bend=_plus(lacking.bend, np.concatenate([bent, dual], axis=1), core))


def _rise(program: Program, z: np.ndarray, data: Data, step: np.ndarray) -> np.ndarray:
    """Half the difference of the gradients a step on and a step back."""
    ahead, behind = (np.asarray(value_and_grad(program, at, data)[1], np.float64) for at in (z + step, z - step))
    return 0.5 * (ahead - behind)


def _softest(precision: Any, count: int, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smallest eigenvalues beside a diagonal ``D``, or that of blocks, their directions and ``D`` times these.

    Directions whose products with ``D`` are ``known`` are lifted out of the way: no eigenvalue of a scaled matrix
    exceeds its size.
    """
    lifted = _plus(precision, known, 2.0 * len(known) * np.eye(known.shape[1]))
    if isinstance(lifted, Layers):
        return lifted.softest(count)
    root = np.sqrt(np.abs(np.diag(precision)).clip(1e-12))
    some = [0, min(count, len(root)) - 1]
    values, axes = scipy.linalg.eigh(lifted / np.outer(root, root), subset_by_index=some)
    return values, axes / root[:, None], axes * root[:, None]


def _plus(precision: Any, columns: np.ndarray, core: np.ndarray) -> Any:
    if isinstance(precision, Layers):
        return precision.plus(columns, core)
    return precision + columns @ core @ columns.T
