"""Sheds load: turns requests away while the queue is full, before anything is read or made of them.

Under a load many times what can be served, almost all of the work is refusing. Here a refusal takes some microseconds;
the same 429 through the application would take the encoder more time than it has left.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from service.api.errors import Shape, failure_of, retry_after
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

    def overload(self, inside: int) -> OverloadedError | None:
        """Say why a request that would use the encoder is to be turned away now, if it is.

        `inside` counts the requests that were let in and are not answered yet.
        """
        state = self._state
        if state.draining or state.engine is None:
            return None
        return state.engine.runner.overload(state.settings.request_timeout, inside=inside)

    def refusal(self, path: bytes, overload: OverloadedError) -> Refusal | None:
        """Give the 429 for a POST to a path, or None where that does not use the encoder."""
        if path not in self._shapes:
            return None
        self._note(path, str(overload))
        headers = [(b"content-type", b"application/json"), (b"retry-after", retry_after(overload).encode())]
        return Refusal(headers, self._body(path, overload))

    def _body(self, path: bytes, overload: OverloadedError) -> bytes:
        key = path, str(overload)
        if key not in self._bodies:
            _, shape = self._shapes[path]
            self._bodies[key] = orjson.dumps(shape(failure_of(overload))[1])
        return self._bodies[key]

    def _note(self, path: bytes, reason: str) -> None:
        """Have all that are turned away in a second counted, and one line logged for them."""
        if not self._turned_away:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report, reason)
        self._turned_away[self._shapes[path][0]] += 1

    def _report(self, reason: str) -> None:
        turned_away, self._turned_away = self._turned_away, Counter()
        logger.warning("%d requests turned away unread in the last second: %s", turned_away.total(), reason)
        for route, number in turned_away.items():
            self._state.metrics.count_unread(route, number)
