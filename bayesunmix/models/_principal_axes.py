"""Principal axes of loadings, and the most likely loadings of a covariance."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from bayesunmix.data.moments import Moments

_ITERATIONS = 1000


def principal_axes(components: np.ndarray, reference: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Loadings (..., component, channel) turned to orthogonal ones, the longest first, and the turn.

    The turn (..., component, component) takes scores along: ``score @ turn``. Signs are those of ``reference``
    (..., component, channel), or make the entry of largest size positive where there is none.
    """
    gram = components @ np.swapaxes(components, -1, -2)
    turn = np.linalg.eigh(gram).eigenvectors[..., ::-1]
    if reference is None:
        turned = np.swapaxes(turn, -1, -2) @ components
        at = np.abs(turned).argmax(-1)[..., None]
        along = np.take_along_axis(turned, at, axis=-1)[..., 0]
    else:
        along = (turn * (components @ np.swapaxes(reference, -1, -2))).sum(-2)
    turn = turn * np.where(along < 0, -1.0, 1.0)[..., None, :]
    return np.swapaxes(turn, -1, -2) @ components, turn


def normal_axes(values: dict[str, Any], reference: np.ndarray | None) -> dict[str, Any]:
    """Draws turned to principal axes, with their variances; scores are taken along."""
    components, turn = principal_axes(np.asarray(values["components"]), reference)
    found = {
        **values,
        "components": components,
        "explained_variance": np.einsum("...kp,...kp->...k", components, components),
    }
    if "score" in values:
        found["score"] = np.asarray(values["score"]) @ turn
    return found


def most_likely(
    found: Moments, n_components: int, diagonal: bool = False, tolerance: float = 1e-8
) -> dict[str, np.ndarray]:
    """Maximum-likelihood components, mean and noise_scale of normal factors.

    Isotropic noise in closed form (Tipping and Bishop 1999). For diagonal noise, the closed form at the noise
    found so far and the noise left by it, in turn, until no noise variance changes by more than ``tolerance``
    of itself.
    """
    variances = np.diag(found.covariance)
    if not diagonal:
        rest = found.eigenvalues[n_components:].mean()
        strength = np.sqrt((found.eigenvalues[:n_components] - rest).clip(0.0))
        components = (found.eigenvectors[:, :n_components] * strength).T
        return {"components": components, "mean": found.mean, "noise_scale": np.sqrt(rest)}
    smallest = 1e-12 * variances.max()
    noise = np.maximum(variances, smallest)
    components = np.zeros((n_components, len(noise)))
    for _ in range(_ITERATIONS if n_components else 0):
        scale = np.sqrt(noise)
        values, vectors = scipy.linalg.eigh(
            found.covariance / np.outer(scale, scale), subset_by_index=(len(noise) - n_components, len(noise) - 1)
        )
        components = (vectors * np.sqrt((values - 1.0).clip(0.0))).T[::-1] * scale
        left = np.maximum(variances - (components**2).sum(0), smallest)
        moved = np.abs(left / noise - 1.0).max()
        noise = left
        if moved < tolerance:
            break
    return {"components": components, "mean": found.mean, "noise_scale": np.sqrt(noise)}


def directions(values: dict[str, Any]) -> np.ndarray:
    """Unit vectors along the principal axes."""
    return np.asarray(values["components"]) / np.sqrt(np.asarray(values["explained_variance"]))[..., None]


def largest_positive(components: np.ndarray) -> np.ndarray:
    """The same axes with a positive largest entry."""
    if not len(components):
        return components
    largest = np.take_along_axis(components, np.abs(components).argmax(-1)[:, None], axis=-1)
    return components * np.where(largest < 0, -1.0, 1.0)
