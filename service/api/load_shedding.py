"""Load shedding: requests are turned away while the queue is full, before anything is read or made of them.

Under a load many times what can be served, almost all of the work is refusing. The same 429 through the application
would take the encoder more time than it has left.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Mapping

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from berth.errors import OverloadedError
from service.api.errors import ErrorFormat, failure_of, retry_after
from service.api.middleware import request_id
from service.api.state import State

REPORT_SECONDS = 1.0

logger = logging.getLogger("berth.requests")


class LoadShedding:
    """Outermost of ours: knows the routes that use the encoder, each with the format of its errors."""

    def __init__(self, app: ASGIApp, state: State, formats: Mapping[str, ErrorFormat]) -> None:
        self._app = app
        self._state = state
        self._formats = formats
        self._cors = bool(state.settings.cors_origins)
        self._refused: Counter[str] = Counter()
        """In the last second, by route."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Refuse one request, or hand it on."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self._formats:
            overload = None if self._state.draining or self._is_of_a_page(scope) else self._state.overload()
            if overload is not None:
                return self._refuse(scope, send, overload)
        return self._app(scope, receive, send)

    def _is_of_a_page(self, scope: Scope) -> bool:
        """Say whether a web page of another origin asks: what it is told has headers that are added further in."""
        return self._cors and any(name == b"origin" for name, _ in scope["headers"])

    async def _refuse(self, scope: Scope, send: Send, overload: OverloadedError) -> None:
        started = time.perf_counter()
        self._count(scope["path"], str(overload))
        body = orjson.dumps(self._formats[scope["path"]](failure_of(overload))[1])
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", retry_after(overload).encode()),
            (b"x-request-id", request_id(Headers(scope=scope).get("x-request-id", "")).encode()),
            (b"server-timing", b"total;dur=%.2f" % ((time.perf_counter() - started) * 1e3)),
        ]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _count(self, route: str, reason: str) -> None:
        """Have all that are refused in a second counted, and one line logged for them."""
        if not self._refused:
            asyncio.get_running_loop().call_later(REPORT_SECONDS, self._report, reason)
        self._refused[route] += 1

    def _report(self, reason: str) -> None:
        refused, self._refused = self._refused, Counter()
        logger.warning("%d requests turned away unread in the last second: %s", refused.total(), reason)
        for route, number in refused.items():
            self._state.metrics.count_unread(route, number)
