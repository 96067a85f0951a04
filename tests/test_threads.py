"""Products of NumPy and SciPy keep to one thread while the engine computes, and to what held before afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from bayesunmix._threads import one_thread
from bayesunmix.inference.context import computing


@pytest.fixture(autouse=True)
def _several() -> Iterator[None]:
    assert scipy.linalg.cholesky(np.eye(2)).any()  # the library is there
    with threadpool_limits(3, user_api="blas"):
        if set(threads()) != {3}:
            pytest.skip("no library whose threads can be limited")
        yield


def threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_one_thread_within_and_as_many_as_before_afterwards() -> None:
    with pytest.raises(ZeroDivisionError), computing():
        with one_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
        _ = 1 / 0
    assert set(threads()) == {3}


def test_a_sampler_that_is_products_alone_keeps_all() -> None:
    with computing(one=False):
        assert set(threads()) == {3}


def test_the_last_one_out_puts_it_back() -> None:
    """As where draws are taken from a generator, which leaves when it is closed."""
    first, second = one_thread(), one_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(threads()) == {1}
    second.__exit__(None, None, None)
    assert set(threads()) == {3}


def test_other_threads_are_left_alone() -> None:
    """What they say is not heard."""
    seen: list[int] = []

    def other() -> None:
        with one_thread():
            seen.extend(threads())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert set(seen) == {3} == set(threads())
