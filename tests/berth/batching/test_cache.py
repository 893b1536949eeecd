"""Finished vectors that are kept."""

import numpy as np
import pytest

from berth.batching.cache import VectorCache


def vectors(value: float) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return [np.full(3, value, dtype=np.float32)]


def test_the_one_used_longest_ago_goes_first() -> None:
    cache = VectorCache(6)
    for key in "ab":
        cache.put(key, vectors(ord(key)))
    assert cache.get("a") is not None
    cache.put("c", vectors(3))
    assert [cache.get(key) is None for key in "abc"] == [False, True, False]


def test_size_0_keeps_nothing() -> None:
    cache = VectorCache(0)
    cache.put("a", vectors(1))
    assert cache.get("a") is None


@pytest.mark.parametrize("capacity", [0, 3])
def test_a_result_of_nothing_is_not_kept(capacity: int) -> None:
    """It takes no room, so that it would never be let go of: the words of a text without any, say."""
    cache = VectorCache(capacity)
    cache.put("a", [np.zeros((0, 384), dtype=np.float32)])
    assert cache.get("a") is None


def test_what_is_kept_does_not_hold_its_batch() -> None:
    batch = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache = VectorCache(3)
    cache.put("a", [batch[1]])
    batch[:] = 0
    [kept] = cache.get("a") or []
    assert (kept.base, kept.tolist()) == (None, [3.0, 4.0, 5.0])


def test_it_is_numbers_that_are_bounded_not_results() -> None:
    """A result may be a vector, or a vector a token of each layer."""
    cache = VectorCache(9)
    for key in "abc":
        cache.put(key, vectors(ord(key)))
    cache.put("large", [np.zeros((2, 2), dtype=np.float32), np.zeros(2, dtype=np.float32)])
    assert [cache.get(key) is None for key in ("a", "b", "c", "large")] == [True, True, False, False]
    cache.put("too large", [np.zeros(10, dtype=np.float32)])
    assert [cache.get(key) is None for key in ("c", "large", "too large")] == [False, False, True]


def test_a_result_that_is_kept_already_takes_no_more_room() -> None:
    cache = VectorCache(6)
    for _ in range(3):
        cache.put("a", vectors(1))
    cache.put("b", vectors(2))
    assert [cache.get(key) is None for key in "ab"] == [False, False]
