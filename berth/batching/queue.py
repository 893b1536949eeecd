"""What the next batch is: decided here, in plain synchronous code, without an event loop, a clock or a thread.

A request is short (one text, or at most a batch of them) or bulk. A batch holds entries of one priority and of one
model; who takes it says which priority, so that small batches of short requests can run beside large ones of bulk.
Short requests are served in the order they came. Bulk's tokens are shared out by fair queueing (Demers, Keshav and
Shenker 1989): a request's tag grows by the tokens it is served, and the request with the least tag fills the next batch
first; a newcomer starts at the largest tag of the others.

The rest of a batch are sequences of near length from any request, because lengths that differ cost padding. A request
of odd lengths therefore falls behind the others for a while.
"""

import logging
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from berth.types import TokenSequence

logger = logging.getLogger("berth")

MAX_PADDING = 1.3
"""The most that a batch's padded area (sequences x longest) may be of its tokens: only the attention is padded."""


class Priority(Enum):
    """Which requests go first."""

    SHORT = "short"
    BULK = "bulk"


@dataclass(slots=True, eq=False)
class Lane:
    """What belongs to one model: its entries share batches with no other's.

    `longest` is the tokens that one text may have: a batch is never bounded to less, however little memory there is.
    """

    max_batch_tokens: int
    longest: int = 1

    def spare_memory(self, tokens: float) -> None:
        """Bound all batches from now on to some tokens, or to one text's most."""
        if max(tokens, self.longest) < self.max_batch_tokens:
            self.max_batch_tokens = max(int(tokens), self.longest)
            logger.warning("the encoder ran out of memory: batches of %d tokens from now on", self.max_batch_tokens)


@dataclass(slots=True, eq=False)
class Request:
    """The entries of one request that wait, and how far it has been served."""

    lane: Lane
    entries: deque["QueueEntry"] = field(default_factory=deque)
    waiting: int = 0
    priority: Priority = Priority.SHORT
    tag: int = 0
    """Tokens served so far, counted from where it joined; orders bulk, the least first."""


@dataclass(slots=True, eq=False)
class QueueEntry:
    """A sequence in the queue; `indices` are its places in its request, several where a text comes more than once."""

    request: Request
    sequence: TokenSequence
    length: int
    indices: tuple[int, ...] = (0,)
    waiting: bool = False


class Waiting:
    """What waits of one priority, by model and length."""

    def __init__(self, priority: Priority) -> None:
        self.requests: dict[Request, None] = {}
        self.sequences = 0
        self.tokens = 0
        self._in_order = priority is Priority.SHORT
        self._by_length: dict[Lane, dict[int, dict[Request, dict[QueueEntry, None]]]] = {}
        self._lengths: dict[Lane, list[int]] = {}  # the keys of `_by_length`'s dicts, sorted

    def add(self, request: Request) -> None:
        """Queue a request's entries."""
        if not self._in_order:
            request.tag = max((other.tag for other in self.requests), default=0)
        self.requests[request] = None
        for entry in request.entries:
            self._put(entry)

    def first(self) -> QueueEntry | None:
        """Give the entry that is to be served next, if any waits."""
        request = self._first(self.requests)
        if request is None:
            return None
        while not request.entries[0].waiting:
            request.entries.popleft()
        return request.entries[0]

    def first_of_length(self, lane: Lane, length: int) -> QueueEntry | None:
        """Give that of a model's entries of one length."""
        requests = self._by_length[lane].get(length, {})
        request = self._first(requests)
        return None if request is None else next(iter(requests[request]))

    def nearest(self, lane: Lane, length: int) -> Iterator[int]:
        """Yield the lengths that wait of a model, nearest first."""
        lengths = self._lengths[lane].copy()
        above = bisect_left(lengths, length)
        below = above - 1
        while below >= 0 or above < len(lengths):
            if above == len(lengths) or (below >= 0 and length - lengths[below] <= lengths[above] - length):
                yield lengths[below]
                below -= 1
            else:
                yield lengths[above]
                above += 1

    def take(self, entry: QueueEntry) -> None:
        """Take an entry out."""
        request, length = entry.request, entry.length
        by_length = self._by_length[request.lane]
        requests = by_length[length]
        del requests[request][entry]
        if not requests[request]:
            del requests[request]
        if not requests:
            del by_length[length]
            lengths = self._lengths[request.lane]
            del lengths[bisect_left(lengths, length)]
        entry.waiting = False
        request.waiting -= 1
        request.tag += length
        if not request.waiting:
            del self.requests[request]
        self.sequences -= 1
        self.tokens -= length

    def _first(self, requests: dict[Request, dict[QueueEntry, None]] | dict[Request, None]) -> Request | None:
        if self._in_order or len(requests) < 2:
            return next(iter(requests), None)
        return min(requests, key=lambda request: request.tag)

    def _put(self, entry: QueueEntry) -> None:
        request, length = entry.request, entry.length
        by_length = self._by_length.setdefault(request.lane, {})
        if length not in by_length:
            by_length[length] = {}
            insort(self._lengths.setdefault(request.lane, []), length)
        by_length[length].setdefault(request, {})[entry] = None
        entry.waiting = True
        request.waiting += 1
        self.sequences += 1
        self.tokens += length


class Queue:
    """A queue that gives out batches; not safe for threads by itself."""

    def __init__(self) -> None:
        self.waiting = {priority: Waiting(priority) for priority in Priority}

    @property
    def sequences(self) -> int:
        """Count the sequences that wait."""
        return sum(waiting.sequences for waiting in self.waiting.values())

    @property
    def tokens(self) -> int:
        """Count the tokens that wait."""
        return sum(waiting.tokens for waiting in self.waiting.values())

    def add(self, request: Request, priority: Priority) -> None:
        """Queue a request, of at least one entry."""
        request.priority = priority
        self.waiting[priority].add(request)

    def remove(self, request: Request) -> None:
        """Drop what still waits of a request, if anything does, and let go of its entries, which refer to it."""
        if request.waiting:
            for entry in request.entries:
                if entry.waiting:
                    self.waiting[request.priority].take(entry)
        request.entries.clear()

    def take_batch(self, priority: Priority) -> list[QueueEntry]:
        """Take the next batch of a priority, all of it of one model; empty where none waits.

        It holds at most the model's `max_batch_tokens`, or one longer sequence alone.
        """
        waiting = self.waiting[priority]
        first = waiting.first()
        if first is None:
            return []
        lane = first.request.lane
        waiting.take(first)
        batch, tokens, longest = [first], first.length, first.length
        for length in waiting.nearest(lane, longest):
            while (
                tokens + length <= lane.max_batch_tokens
                and (len(batch) + 1) * max(longest, length) <= MAX_PADDING * (tokens + length)
                and (entry := waiting.first_of_length(lane, length)) is not None
            ):
                waiting.take(entry)
                batch.append(entry)
                tokens += length
                longest = max(longest, length)
        return batch


def entries_of(request: Request, sequences: Sequence[TokenSequence]) -> list[QueueEntry]:
    """Make an entry of each different sequence, the shortest first: what comes twice is encoded once."""
    places: dict[Hashable, list[int]] = {}
    for index, sequence in enumerate(sequences):
        places.setdefault(sequence.key, []).append(index)
    different = [(sequences[indices[0]], tuple(indices)) for indices in places.values()]
    entries = [QueueEntry(request, sequence, len(sequence.encoding.ids), indices) for sequence, indices in different]
    return sorted(entries, key=lambda entry: entry.length)
