"""Finished vectors, kept for units that come again."""

from collections import OrderedDict
from collections.abc import Hashable

from service.inference.types import Vectors


class VectorCache:
    """The results of the units used last, of at most so many numbers in all; for the event loop alone."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._numbers = 0
        self._results: OrderedDict[Hashable, Vectors] = OrderedDict()

    def get(self, key: Hashable) -> Vectors | None:
        """Look a unit up by its key."""
        if (found := self._results.get(key)) is not None:
            self._results.move_to_end(key)
        return found

    def put(self, key: Hashable, vectors: Vectors) -> None:
        """Keep a unit's result, copied out of its batch, in place of those used longest ago, if it has room at all."""
        if key in self._results or not 0 < _size(vectors) <= self._capacity:  # one of nothing would never be let go of
            return
        self._results[key] = [vector.copy() for vector in vectors]
        self._numbers += _size(vectors)
        while self._numbers > self._capacity:
            _, oldest = self._results.popitem(last=False)
            self._numbers -= _size(oldest)


def _size(vectors: Vectors) -> int:
    return sum(vector.size for vector in vectors)
