"""Trapezoid sums over the simplex, for oracles."""

from __future__ import annotations

import numpy as np


def _line(lowest: float, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trapezoid nodes of a log-ratio u: log s, log(1 - s) and log(weight du) with s = 1 / (1 + exp(-u)).

    u = sinh(t) puts nodes where the likelihood is sharp and still reaches into the tail exp(-lowest |u|).
    """
    t = np.arange(-1.0, 1.0 + step / 8, step / 8) * np.arcsinh(45.0 / lowest)
    u = np.sinh(t)
    return -np.logaddexp(0, -u), -np.logaddexp(0, u), np.log(np.cosh(t) * (t[1] - t[0]))


def quadrature_nodes(n_parts: int, lowest: float, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Log points (n_parts, node) on the simplex and log weights (node,) of its Lebesgue measure (n_parts 2 or 3).

    Two parts are a line of log-ratios. Three are a plane: the first part by one log-ratio, the split of the
    rest by another.
    """
    log_s, log_rest, log_w = _line(lowest, step)
    if n_parts == 2:
        return np.stack([log_s, log_rest]), log_w + log_s + log_rest
    first, second = (g.ravel() for g in np.meshgrid(np.arange(log_s.size), np.arange(log_s.size)))
    points = [log_s[first], log_rest[first] + log_s[second], log_rest[first] + log_rest[second]]
    # da1 da2 = s1 (1 - s1) * (1 - s1) s2 (1 - s2) du1 du2
    jacobian = log_s[first] + 2 * log_rest[first] + log_s[second] + log_rest[second]
    return np.stack(points), log_w[first] + log_w[second] + jacobian
