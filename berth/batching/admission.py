"""Whether a request may be queued: its limits, and whether it would be served in time; no clock, lock or thread."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from berth.batching.queue import Lane, Priority, Queue
from berth.errors import InvalidInputError, OverloadedError, TooLargeError
from berth.types import Text, TokenIds

RATE_WEIGHT = 0.02
"""Of the last batch in the rate, which so is the mean of some fifty."""

SHORT_TEXT = 1024
"""Tokens of one text up to which it goes before bulk though it is more than a batch: a longer one would keep others."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for; a check raises `InvalidInputError`, naming field and limit."""

    texts: int
    text_chars: int
    reply_numbers: int
    tokens: int | None = None
    table_tokens: int = 1 << 20

    def check_count(self, field: str, count: int) -> None:
        """Raise where a field has too many texts."""
        if count > self.texts:
            raise InvalidInputError(field, f"{count} inputs, at most {self.texts} in one request")

    def check(self, field: str, texts: Sequence[Text], *, report: bool = False) -> None:
        """Raise where a field has too many texts or, unless their errors are reported, an empty or too long one."""
        self.check_count(field, len(texts))
        for text in () if report else texts:
            if (error := self.error_of(text)) is not None:
                raise error

    def error_of(self, text: Text) -> InvalidInputError | None:
        """Return the error of a text that is empty or too long."""
        length = len(text.value)
        if not length:
            return InvalidInputError(text.name, "must not be empty")
        if length > self.text_chars:
            noun = "token ids" if isinstance(text.value, TokenIds) else "characters"
            return InvalidInputError(text.name, f"{length} {noun}, at most {self.text_chars}")
        return None

    def check_tokens(self, field: str, tokens: int, *, table: bool = False) -> None:
        """Raise where the texts of a field come to too many tokens to encode or, in a table, to list."""
        most = self.table_tokens if table else self.tokens
        if most is not None and tokens > most:
            raise InvalidInputError(field, f"more than {most} tokens in one request")

    def check_reply(self, field: str, numbers: int) -> None:
        """Raise where a request's vectors, of windows those of each, would hold too many numbers."""
        if numbers > self.reply_numbers:
            raise InvalidInputError(field, f"the vectors would hold {numbers} numbers, at most {self.reply_numbers}")


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
        short = tokens <= lane.max_batch_tokens or (sequences == 1 and tokens <= SHORT_TEXT)
        priority = Priority.SHORT if short else Priority.BULK
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

    def check_bulk(self, tokens: int) -> None:
        """Raise `OverloadedError` where the queue is full of bulk already, for a request that is still being read."""
        waiting = self._queue.waiting[Priority.BULK].tokens
        if (overload := self._overload(Priority.BULK, waiting, 0, tokens, math.inf)) is not None:
            raise overload

    def overload(self, seconds: float, *, expected: int = 0) -> OverloadedError | None:
        """Return the reason to refuse a request whose body has not been read; None where it may be read.

        It is taken for a short one, of one text of the mean length of those that wait. `expected` is the number of
        requests that were let in and have not reached the queue; each is counted likewise.
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
        """Update the priority's rate by one batch; `seconds_per_token` is its time ÷ (its tokens x all threads).

        A batch that is not half `full` costs more a token and is left out, unless it was faster than the rate even so:
        a rate learnt while the machine was slow may refuse so much that no batch is ever full again.
        """
        usual = self._seconds_per_token[priority]
        if full or seconds_per_token < usual:
            weight = RATE_WEIGHT if usual else 1.0
            self._seconds_per_token[priority] = usual + weight * (seconds_per_token - usual)
