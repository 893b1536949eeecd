"""Sheds load: turns requests away while the queue is full, before anything is read or made of them.

Under a load many times what can be served, almost all of the work is refusing. Here a refusal takes some microseconds;
the same 429 through the application would take the encoder more time than it has left.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from service.api.errors import Shape, failure_of
from service.api.state import State
from service.errors import OverloadedError

REPORT_SECONDS = 1.0

logger = logging.getLogger("berth.requests")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is sent with a 429, but for what every answer has."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class Shedder:
    """Knows the routes that use the encoder, each with the dialect of its errors."""

    def __init__(self, state: State, shapes: Mapping[str, Shape]) -> None:
        self._state = state
        self._shapes = {path.encode(): (path, shape) for path, shape in shapes.items()}
        self._turned_away: Counter[str] = Counter()
        """Of the last second, by route."""
        self._bodies: dict[tuple[bytes, str], bytes] = {}
        """Of the refusals; they have few messages."""

    def refusal(self, path: bytes, inside: int) -> Refusal | None:
        """Say what to answer to a POST to a path, or None where it may come in.

        `inside` counts the requests that were let in and are not answered yet.
        """
        state = self._state
        if path not in self._shapes or state.draining or state.engine is None:
            return None
        started = time.perf_counter()
        runner = state.engine.runner
        try:
            runner.admit_unread(state.settings.request_timeout, others=max(0, inside - runner.requests))
        except OverloadedError as error:
            self._note(path, str(error))
            headers = [
                (b"content-type", b"application/json"),
                (b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))),
                (b"server-timing", b"total;dur=%.2f" % ((time.perf_counter() - started) * 1e3)),
            ]
            return Refusal(headers, self._body(path, error))
        return None

    def _body(self, path: bytes, error: OverloadedError) -> bytes:
        key = path, str(error)
        if key not in self._bodies:
            _, shape = self._shapes[path]
            self._bodies[key] = orjson.dumps(shape(failure_of(error))[1])
        return self._bodies[key]

    def _note(self, path: bytes, reason: str) -> None:
        """Have all that are turned away in a second counted, and one line logged for them."""
        if not self._turned_away:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report, reason)
        self._turned_away[self._shapes[path][0]] += 1

    def _report(self, reason: str) -> None:
        for route, number in self._turned_away.items():
            self._state.metrics.count_unread(route, number)
        logger.warning("%d requests turned away unread in the last second: %s", self._turned_away.total(), reason)
        self._turned_away.clear()
