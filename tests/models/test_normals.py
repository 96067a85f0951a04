"""Normal numbers of whole arrays at once."""

from __future__ import annotations

import numpy as np
from scipy import stats

from bayesunmix.models._normals import normals


def test_they_are_normal_and_independent() -> None:
    """Law and tail of 600 000, and correlation, also of squares, of the two that a pair of uniform numbers makes."""
    found = normals(np.random.default_rng(0), (3, 200_000)).astype(np.float64)
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    first, second = found.reshape(2, -1)
    for power in (1, 2):
        # A correlation of n independent pairs has a standard deviation of one over root n.
        assert abs(np.corrcoef(first**power, second**power)[0, 1]) < 4.0 / np.sqrt(len(first))
    tail = (np.abs(found) > 4.0).sum()
    assert abs(tail - 600_000 * 2 * stats.norm.sf(4.0)) < 4.0 * np.sqrt(600_000 * 2 * stats.norm.sf(4.0))


def test_any_shape_and_the_seed_decides() -> None:
    one, same = (normals(np.random.default_rng(3), (5, 3, 7)) for _ in range(2))
    assert one.shape == (5, 3, 7) and np.isfinite(one).all()
    np.testing.assert_array_equal(one, same)
    assert normals(np.random.default_rng(3), (0, 4)).shape == (0, 4)
