"""Sheds load: turns requests away while the queue is full, before anything is read or made of them.

Under a load many times what can be served, almost all of the work is refusing. Here a refusal takes some microseconds;
the same 429 through the application would take the encoder more time than it has left.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping

import orjson

from service.api.errors import Shape, failure_of
from service.api.state import State
from service.errors import OverloadedError

REPORT_SECONDS = 1.0

logger = logging.getLogger("berth.requests")


class Shedder:
    """Knows the routes that use the encoder, each with the dialect of its errors."""

    def __init__(self, state: State, shapes: Mapping[str, Shape]) -> None:
        self._state = state
        self._shapes = {path.encode(): (path, shape) for path, shape in shapes.items()}
        self._turned_away = 0
        self._bodies: dict[tuple[bytes, str], bytes] = {}
        """Of the refusals; they have few messages."""

    def refusal(self, path: bytes, inside: int) -> tuple[dict[str, str], bytes] | None:
        """Give the headers and the body of the 429 for a POST to a path, or None where it may come in.

        `inside` counts the requests that were let in and are not answered yet.
        """
        if path not in self._shapes or self._state.draining or self._state.engine is None:
            return None
        started = time.perf_counter()
        runner = self._state.engine.runner
        try:
            runner.admit_unread(self._state.settings.request_timeout, others=max(0, inside - runner.requests))
        except OverloadedError as error:
            route, shape = self._shapes[path]
            failure = failure_of(error)
            body = self._bodies.get((path, failure.message))
            if body is None:
                body = self._bodies[path, failure.message] = orjson.dumps(shape(failure)[1])
            seconds = time.perf_counter() - started
            self._state.metrics.count_request(route, failure.kind.status, seconds)
            self._state.metrics.count_rejected(failure.kind.code)
            self._note(error)
            headers = {
                "content-type": "application/json",
                "retry-after": str(max(1, math.ceil(error.retry_after))),
                "server-timing": f"total;dur={seconds * 1e3:.2f}",
            }
            return headers, body
        return None

    def _note(self, error: OverloadedError) -> None:
        """Have one line logged for all that are turned away in a second."""
        if not self._turned_away:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report, str(error))
        self._turned_away += 1

    def _report(self, reason: str) -> None:
        logger.warning("%d requests turned away unread in the last second: %s", self._turned_away, reason)
        self._turned_away = 0
