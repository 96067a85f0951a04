"""Where a mixture may start: expectation and maximisation from several seedings, without measurement errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_ROUND = ("spherical", "tied-spherical")
_SEEDINGS = 8
_CANDIDATES = 4  # for every centre
_SAMPLE = 4000  # units that seedings compete on
_ENOUGH = 16000  # for the best of them: a start is to lie near the mode, not on it
_STEPS = (40, 100)  # of expectation and maximisation: while seedings compete, and for the best
_SETTLED = 1e-6  # gain of log-likelihood per unit at which it ends
_FLOOR = 1e-3  # smallest standard deviation of a class, in that of the data: no class on a single point


class Clusters(NamedTuple):
    """A fitted mixture."""

    weights: np.ndarray  # (component,)
    means: np.ndarray  # (component, feature)
    covariances: np.ndarray  # (component, feature, feature)
    score: float  # log-likelihood per unit


def clusters(values: np.ndarray, n_components: int, kind: str, *, equal: bool = False, seed: int = 0) -> Clusters:
    """Best of several runs of expectation and maximisation.

    Parameters
    ----------
    values : (unit, feature)
    n_components : int
    kind : str
        "full", "diagonal", "spherical", "tied" or "tied-spherical" covariances.
    equal : bool
        Keep the weights equal.
    seed : int
        Of the seedings, which are spread as greedy k-means++ spreads them: of a few candidates for every centre the
        one that leaves the least to explain, or two clouds often share a centre that EM does not divide.
    """
    rng = np.random.default_rng(seed)
    values = values[rng.permutation(len(values))[:_ENOUGH]]
    scale = np.maximum(values.std(axis=0), 1e-12 * (1.0 + np.abs(values).max()))
    white = (values - values.mean(axis=0)) / (scale if kind not in _ROUND else scale.max())
    few = white[:_SAMPLE]
    # Round classes while seedings compete: free covariances of a few thousand units follow their noise.
    simple = kind if kind in _ROUND else "spherical"
    best = None
    for _ in range(_SEEDINGS if n_components > 1 else 1):
        found = _climb(few, _seeded(few, n_components, rng), simple, equal, _STEPS[0])
        if best is None or found.score > best.score:
            best = found
    assert best is not None
    best = _climb(white, best._replace(score=-np.inf), kind, equal, _STEPS[1])
    unit = scale if kind not in _ROUND else np.full_like(scale, scale.max())
    return Clusters(
        best.weights,
        values.mean(axis=0) + best.means * unit,
        best.covariances * np.outer(unit, unit),
        best.score - float(np.log(unit).sum()),
    )


def _seeded(white: np.ndarray, n_components: int, rng: np.random.Generator) -> Clusters:
    centres = [white[rng.integers(len(white))]]
    distance = ((white - centres[0]) ** 2).sum(1)
    for _ in range(n_components - 1):
        total = distance.sum()
        share = distance / total if total > 0 else None
        picks = white[rng.choice(len(white), _CANDIDATES, p=share)]
        left = np.minimum(distance, ((white - picks[:, None]) ** 2).sum(-1))
        best = left.sum(1).argmin()
        centres.append(picks[best])
        distance = left[best]
    cov = np.eye(white.shape[1]) * max(distance.mean() / white.shape[1], _FLOOR**2)
    weights = np.full(n_components, 1.0 / n_components)
    return Clusters(weights, np.array(centres), np.repeat(cov[None], n_components, axis=0), -np.inf)


def _climb(white: np.ndarray, start: Clusters, kind: str, equal: bool, steps: int) -> Clusters:
    now = start
    for _ in range(steps):
        log_joint = _log_joint(white, now)
        top = log_joint.max(axis=1, keepdims=True)
        share = np.exp(log_joint - top)
        total = share.sum(axis=1, keepdims=True)
        score = float((np.log(total) + top).mean())
        if score - now.score < _SETTLED:
            break
        now = _maximise(white, share / total, kind, equal, score)
    return now


def _log_joint(white: np.ndarray, now: Clusters) -> np.ndarray:
    columns = []
    for weight, mean, cov in zip(now.weights, now.means, now.covariances, strict=True):
        root = np.linalg.cholesky(cov)
        away = (white - mean) @ np.linalg.inv(root).T
        density = -0.5 * (away**2).sum(1) - np.log(np.diag(root)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
        columns.append(np.log(max(weight, 1e-300)) + density)
    return np.stack(columns, axis=1)


def _maximise(white: np.ndarray, share: np.ndarray, kind: str, equal: bool, score: float) -> Clusters:
    n_features, floor = white.shape[1], _FLOOR**2
    # A tenth of a unit of every class at the middle of the data keeps empty classes defined.
    count = share.sum(axis=0) + 0.1
    means = share.T @ white / count[:, None]
    eye = np.eye(n_features)
    covs = np.empty((len(count), n_features, n_features))
    for k, mean in enumerate(means):
        away = white - mean
        covs[k] = ((share[:, k, None] * away).T @ away + 0.1 * eye) / count[k]
    if kind.startswith("tied"):
        covs[:] = np.tensordot(count, covs, axes=1) / count.sum()
    if kind == "diagonal":
        covs = covs * eye
    elif kind in _ROUND:
        covs = (np.trace(covs, axis1=1, axis2=2) / n_features)[:, None, None] * eye
    weights = np.full(len(count), 1.0 / len(count)) if equal else count / count.sum()
    return Clusters(weights, means, covs + floor * eye, score)
