"""The batches that the service's queue would make of some requests."""

import sys
from collections.abc import Iterator, Sequence
from itertools import cycle

from berth.batching.admission import Admission
from berth.batching.queue import Lane, Priority, Queue, QueueEntry, Request
from berth.types import TokenSequence

Batch = list[TokenSequence]


class Batches:
    """A queue of one model whose batches hold at most so many tokens."""

    def __init__(self, max_batch_tokens: int) -> None:
        self._lane = Lane(max_batch_tokens)
        self._queue = Queue()
        self._admission = Admission(self._queue, sys.maxsize)

    def add(self, sequences: Sequence[TokenSequence]) -> Request:
        """Queue a request as the worker does, the shortest sequence first."""
        request = Request(self._lane)
        request.entries.extend(QueueEntry(request, each, len(each)) for each in sorted(sequences, key=len))
        self._queue.add(request, self._admission.check(self._lane, len(sequences), sum(map(len, sequences))))
        return request

    def take(self) -> list[QueueEntry]:
        """Take the next batch, one of short requests before one of bulk; empty where nothing waits."""
        return self._queue.take_batch(Priority.SHORT) or self._queue.take_batch(Priority.BULK)


def all_batches(requests: Sequence[Sequence[TokenSequence]], budget: int) -> Iterator[Batch]:
    """Yield the batches of requests that all wait at once."""
    batches = Batches(budget)
    for sequences in requests:
        batches.add(sequences)
    while entries := batches.take():
        yield [entry.sequence for entry in entries]


def endless_batches(requests: Sequence[Sequence[TokenSequence]], concurrency: int, budget: int) -> Iterator[Batch]:
    """Yield batches for ever, with so many requests always waiting or under way."""
    batches, source = Batches(budget), cycle(requests)
    left: dict[Request, int] = {}

    def add() -> None:
        sequences = next(source)
        left[batches.add(sequences)] = len(sequences)

    for _ in range(concurrency):
        add()
    while True:
        entries = batches.take()
        yield [entry.sequence for entry in entries]
        for entry in entries:
            left[entry.request] -= 1
            if not left[entry.request]:
                del left[entry.request]
                add()
