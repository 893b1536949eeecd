"""Whether answers are right: their cosine to reference vectors, and their length."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.dialects import Dialect
from bench.workloads import Workload
from berth.types import Float32Array

LENGTH_TOLERANCE = 0.05
"""Of a vector's length, which a cosine does not see: int8's is up to 4 % off, that of one not normalised far more."""

Reference = Callable[[Sequence[int]], Float32Array]
"""Gives the right vectors [texts, width] of some texts of a workload, by their places."""


class Sample:
    """Answers chosen at random from all that come, each with equal chance."""

    def __init__(self, size: int) -> None:
        self.kept: list[tuple[int, bytes]] = []
        self._size = size
        self._seen = 0

    def offer(self, request: int, answer: bytes) -> None:
        """Keep an answer, or don't."""
        self._seen += 1
        place = len(self.kept) if len(self.kept) < self._size else random.randrange(self._seen)  # noqa: S311
        if place < self._size:
            self.kept[place : place + 1] = [(request, answer)]


@dataclass(frozen=True, slots=True)
class Check:
    """How many vectors were held against the reference, the lowest cosine, and what could not be read."""

    texts: int
    lowest: float
    wrong: int
    unreadable: str | None = None

    @property
    def right(self) -> bool:
        """Whether there was something to look at, and all of it right."""
        return self.texts > 0 and not self.wrong and self.unreadable is None


def check(workload: Workload, sample: Sample, dialect: Dialect, reference: Reference, *, lowest: float) -> Check:
    """Hold a sample against the reference; a cosine of `lowest` or less is wrong, and so is a missing vector."""
    size = workload.shape.texts
    found, unreadable = [np.zeros(0)], None
    for request, answer in sample.kept:
        expected = reference(range(request * size, (request + 1) * size))
        try:
            found.append(cosines(dialect.read(answer), expected, lengths=not dialect.own_lengths))
        except ValueError as error:
            unreadable = str(error)
            found.append(np.zeros(size))
    values = np.concatenate(found)
    return Check(len(values), float(values.min(initial=1)), int((values <= lowest).sum()), unreadable)


def cosines(vectors: Float32Array, expected: Float32Array, *, lengths: bool = True) -> np.typing.NDArray[np.float64]:
    """Give each row's cosine; 0 where it is not finite, the shapes differ or, if they count, the lengths by far."""
    if vectors.shape != expected.shape:
        return np.zeros(len(expected))
    ours, theirs = vectors.astype(np.float64), expected.astype(np.float64)
    length, right = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    norms = length * right
    values = (ours * theirs).sum(axis=1) / np.where(norms > 0, norms, np.inf)
    as_long = abs(length - right) <= LENGTH_TOLERANCE * right
    return np.where(np.isfinite(values) & (as_long | (not lengths)), values, 0.0)
