"""Whether a request may be queued: limits, and whether it would be served in time; without a clock, lock or thread."""

import math

from berth.batching.queue import Lane, Priority, Queue
from berth.errors import OverloadedError, TooLargeError

RATE_WEIGHT = 0.02
"""Of the last batch in the rate, which so is the mean of some fifty."""


class Admission:
    """Knows the queue and how fast it is worked off.

    `max_queue_tokens` of each priority may wait: bulk that fills its part leaves short requests theirs.
    """

    def __init__(self, queue: Queue, max_queue_tokens: int) -> None:
        self._queue = queue
        self._max_queue_tokens = max_queue_tokens
        self._seconds_per_token = dict.fromkeys(Priority, 0.0)

    def check(self, lane: Lane, sequences: int, tokens: int, seconds: float = math.inf) -> Priority:
        """Give the priority of a request that may be queued; raise where it may not be.

        `OverloadedError`: the queue is full of its priority, or at the last rate the request would not be served within
        `seconds`. While the queue is not full, a request is taken whole, because among smaller ones a large one would
        never find room. Where none of its priority waits it is taken whatever the rate: only what is taken teaches the
        rate. `TooLargeError`: as `check_size`.
        """
        self.check_size(tokens)
        priority = Priority.SHORT if sequences == 1 or tokens <= lane.max_batch_tokens else Priority.BULK
        waiting = self._queue.waiting[priority]
        ahead = waiting.tokens
        if priority is Priority.BULK:  # of each other request as much, at least: those that fell behind catch up first
            ahead = min(ahead, len(waiting.requests) * tokens)
        if (overload := self._overload(priority, waiting.tokens, ahead, tokens, seconds)) is not None:
            raise overload
        return priority

    def check_size(self, tokens: int) -> None:
        """Raise `TooLargeError` where a request of so many tokens alone is more than the queue holds."""
        if tokens > self._max_queue_tokens:
            raise TooLargeError("", f"the request has {tokens} tokens, the queue holds {self._max_queue_tokens}")

    def overload(self, seconds: float, *, expected: int = 0) -> OverloadedError | None:
        """Say why a request whose body has not been read is not to be queued, if it is not.

        It counts as a short one, of one text as long as those that wait; so does each of the `expected` others that
        were let in and are not queued yet: else all that come at once would be let in by the room for one.
        """
        waiting = self._queue.waiting[Priority.SHORT]
        length = max(1, waiting.tokens // max(1, waiting.sequences))
        tokens = waiting.tokens + expected * length
        return self._overload(Priority.SHORT, tokens, tokens, min(length, self._max_queue_tokens), seconds)

    def _overload(
        self, priority: Priority, queued: int, ahead: int, tokens: int, seconds: float
    ) -> OverloadedError | None:
        rate = self._seconds_per_token[priority]
        excess = queued - self._max_queue_tokens
        if excess >= 0:
            return OverloadedError("the queue is full, try again later", (excess + tokens) * rate)
        late = (ahead + tokens) * rate - seconds
        if ahead and late > 0:
            return OverloadedError("the queue is too long for the request's deadline, try again later", late)
        return None

    def observe(self, priority: Priority, seconds_per_token: float, *, full: bool) -> None:
        """Learn from a batch; `full` says whether it was at least half full, with all threads counted as at work.

        A near empty batch costs much a token. But after what was once far slower no full one might come together any
        more, so one that costs less even so counts too.
        """
        usual = self._seconds_per_token[priority]
        if full or seconds_per_token < usual:
            weight = RATE_WEIGHT if usual else 1.0
            self._seconds_per_token[priority] = usual + weight * (seconds_per_token - usual)
