"""Units that share parts: which do, which are independent, and the error of a sum over them."""

from __future__ import annotations

import numpy as np

from bayesunmix.data.sharing import independent, sharing, sum_error


def test_who_shares_with_whom() -> None:
    found = sharing(np.array([[0, 1], [1, 7], [3, 4], [5, 5], [4, 6]])).toarray()
    expected = np.zeros((5, 5))
    expected[0, 1] = expected[1, 0] = expected[2, 4] = expected[4, 2] = 1.0
    np.testing.assert_array_equal(found, expected)


def test_no_two_share_a_member_and_none_could_be_added() -> None:
    rng = np.random.default_rng(0)
    members = np.array([rng.choice(60, 4, replace=False) for _ in range(80)])
    chosen = independent(members)
    used, count = np.unique(members[chosen], return_counts=True)
    assert count.max() == 1
    for unit in np.flatnonzero(~chosen):
        assert np.isin(members[unit], used).any()


def test_the_error_of_a_sum_counts_what_units_share() -> None:
    """Units are sums of two of a row of numbers: the sum of all has four times a number's variance, not twice."""
    rng, n = np.random.default_rng(0), 4000
    members = np.stack([np.arange(n), np.arange(1, n + 1)], axis=1)
    numbers = rng.normal(size=n + 1)
    values = numbers[:-1] + numbers[1:]
    # The variance estimate scatters by sqrt(2 * 3 / n) of itself, four pairs of products a unit: .04; 4 of them.
    np.testing.assert_allclose(sum_error(values) / np.sqrt(2 * n), 1.0, atol=0.08)
    np.testing.assert_allclose(sum_error(values, sharing(members)) / np.sqrt(4 * n), 1.0, atol=0.08)
    # What units have in opposition makes no sum surer than independence would.
    values = numbers[:-1] - numbers[1:]
    assert sum_error(values, sharing(members)) == sum_error(values)
