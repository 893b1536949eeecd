"""Tells whether the encoder hangs: whether a batch takes far longer than batches have taken.

A thread inside ONNX Runtime cannot be stopped, so a batch that never ends keeps its thread for good. The requests in it
are answered at their deadlines; that the service is not what it was has to be seen from outside the thread.
"""

import threading
import time
from collections.abc import Callable, Sequence

from service.inference.runner import Encode
from service.inference.types import Unit, Vectors

LEAST_SECONDS = 1.0
"""What any batch may take, so that a processor that was busy with something else for a moment is no hang."""
SLACK = 60.0
"""Times longer than usual that a batch may take: beside the event loop, the tokenizer and short requests, all of them
at work all the time, bulk has a forty-seventh of a core."""
HOPELESS = 10.0
"""Times longer still until there is no hope for it."""
LEAST_TOKENS = 64
"""A batch of fewer takes as long as one of these, nearly."""
WEIGHT = 0.1
"""Of the last batch in what is usual."""


class Watch:
    """An encoder, and how long its batches take; may be asked from any thread while it runs in others."""

    def __init__(self, encode: Encode, *, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.encode = encode
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._running: dict[object, tuple[float, float]] = {}  # when each batch was begun, and the seconds it may take
        self._seconds_per_token = 0.0

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        """Encode a batch; raises what the encoder raises."""
        batch, tokens, started = object(), max(LEAST_TOKENS, sum(map(len, units))), self._clock()
        with self._lock:
            # By what is usual now: slower batches later would excuse one that was reported, and it would be so twice.
            longest = max(LEAST_SECONDS, SLACK * self._seconds_per_token * tokens)
            self._running[batch] = started, longest
        try:
            return self.encode(units)
        finally:
            with self._lock:
                del self._running[batch]
                self._learn(self._clock() - started, longest, tokens)

    @property
    def stalled(self) -> bool:
        """Whether a batch takes far longer than was usual when it was begun."""
        return self._any_beyond(1.0, 0.0)

    @property
    def hung(self) -> bool:
        """Whether one has for so long, and for at least `patience` seconds, that it will hardly ever end."""
        return self._any_beyond(HOPELESS, self._patience)

    def _any_beyond(self, times: float, least: float) -> bool:
        with self._lock:
            now = self._clock()
            return any(now - started > max(least, times * seconds) for started, seconds in self._running.values())

    def _learn(self, taken: float, longest: float, tokens: int) -> None:
        if not self._seconds_per_token:
            self._seconds_per_token = taken / tokens
        else:
            # A hang teaches no more than what makes it one, or the next would be allowed as long.
            self._seconds_per_token += WEIGHT * (min(taken, longest) / tokens - self._seconds_per_token)
