"""Finished vectors, kept for units that come again."""

from collections import OrderedDict
from collections.abc import Hashable

from service.inference.types import Vectors


class VectorCache:
    """The results of the units used last; one of size 0 keeps nothing. For the event loop alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._results: OrderedDict[Hashable, Vectors] = OrderedDict()

    def get(self, key: Hashable) -> Vectors | None:
        """Look a unit up by its key."""
        if (found := self._results.get(key)) is not None:
            self._results.move_to_end(key)
        return found

    def put(self, key: Hashable, vectors: Vectors) -> None:
        """Keep a unit's result, copied out of its batch, in place of the one used longest ago."""
        if not self._size:
            return
        self._results[key] = [vector.copy() for vector in vectors]
        self._results.move_to_end(key)
        if len(self._results) > self._size:
            self._results.popitem(last=False)
