"""Finished vectors, kept for sequences that come again."""

from collections.abc import Hashable

from cachetools import LRUCache

from berth.types import Vectors


class VectorCache(LRUCache[Hashable, Vectors]):
    """The results of the sequences used last, of at most so many numbers in all; for the event loop alone."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, getsizeof=lambda vectors: sum(vector.size for vector in vectors))

    def put(self, key: Hashable, vectors: Vectors) -> None:
        """Keep a result, copied out of its batch, if it has room at all."""
        if 0 < self.getsizeof(vectors) <= self.maxsize:  # one of nothing would never be let go of
            self[key] = [vector.copy() for vector in vectors]
