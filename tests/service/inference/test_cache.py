"""Finished vectors that are kept."""

import numpy as np

from service.inference.cache import VectorCache


def vectors(value: float) -> list[np.ndarray[tuple[int], np.dtype[np.float32]]]:
    return [np.full(3, value, dtype=np.float32)]


def test_the_one_used_longest_ago_goes_first() -> None:
    cache = VectorCache(2)
    for key in "ab":
        cache.put(key, vectors(ord(key)))
    assert cache.get("a") is not None
    cache.put("c", vectors(3))
    assert [cache.get(key) is None for key in "abc"] == [False, True, False]


def test_size_0_keeps_nothing() -> None:
    cache = VectorCache(0)
    cache.put("a", vectors(1))
    assert cache.get("a") is None


def test_what_is_kept_does_not_hold_its_batch() -> None:
    batch = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache = VectorCache(1)
    cache.put("a", [batch[1]])
    batch[:] = 0
    [kept] = cache.get("a") or []
    assert (kept.base, kept.tolist()) == (None, [3.0, 4.0, 5.0])
