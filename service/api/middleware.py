"""What happens to every request on its way in and out: identity, time, count, log line, and the watch for a hang-up."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import shut_down, unexpected
from service.api.state import State
from service.inference.embedder import Embedded
from service.logs import Line

DISCONNECTED = 499
"""The status under which a request is counted whose client left before the answer; nobody sees it sent."""

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

logger = logging.getLogger("berth.requests")


def request_id(given: str) -> str:
    """Give the id that a request brings, or a new one where it brings none that can be passed on."""
    return given if REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


class Observe:
    """Outermost: gives each request its id and timing headers, counts it, logs it, and stops work nobody awaits."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._berth = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, self._berth)
        self._berth.inside += 1
        with self._berth.metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except asyncio.CancelledError:
                if not exchange.hung_up and exchange.status is None:
                    await shut_down(Request(scope))(scope, exchange.receive, exchange.send)
            except ClientDisconnect:
                exchange.hung_up = True
            except Exception as error:
                if exchange.status is not None:
                    raise
                await unexpected(Request(scope), error)(scope, exchange.receive, exchange.send)
            finally:
                self._berth.inside -= 1
                exchange.close()
        # uvloop writes an answer once the callbacks at hand are done: what is said of it must not hold it up.
        asyncio.get_running_loop().call_soon(exchange.report)


class Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, state: State) -> None:
        self.status: int | None = None
        self.hung_up = False
        self._scope = scope
        self._receive = receive
        self._send = send
        self._berth = state
        self._started = time.perf_counter()
        self._watcher: asyncio.Task[None] | None = None
        self._handler = asyncio.current_task()
        self._id = request_id(Headers(scope=scope).get("x-request-id", ""))
        scope.setdefault("state", {})

    async def receive(self) -> Message:
        """Pass on the body; once it is whole, begin to watch for the client's leaving."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and self._watcher is None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        """Pass on the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.close()
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def _headers(self) -> Iterator[tuple[bytes, bytes]]:
        yield b"x-request-id", self._id.encode()
        yield b"server-timing", self._server_timing().encode()
        embedded = self._embedded()
        if embedded is not None and embedded.truncated:
            yield b"x-truncated-inputs", str(embedded.truncated).encode()
        if self._berth.draining:
            yield b"connection", b"close"

    def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # it refers to this exchange, which would be left to the garbage collector

    def report(self) -> None:
        """Count the request and log it; never its texts."""
        seconds = time.perf_counter() - self._started
        route = getattr(self._scope.get("route"), "path", "unmatched")
        status = DISCONNECTED if self.status is None else self.status
        metrics, embedded = self._berth.metrics, self._embedded()
        metrics.count_request(route, status, seconds)
        if embedded is not None and status < 400:
            metrics.count_texts(embedded)
        if status == DISCONNECTED:
            metrics.count_rejected("disconnected")
        elif code := self._scope["state"].get("error_code"):
            metrics.count_rejected(code)
        logger.info(self._line(route, status, seconds))

    def _line(self, route: str, status: int, seconds: float) -> Line:
        """Say what the request was and took, times in milliseconds."""
        state, embedded = self._scope["state"], self._embedded()
        line = Line(method=self._scope["method"], route=route, status=status, ms=round(seconds * 1e3, 2), id=self._id)
        if embedded is not None:
            timings = embedded.timings
            line["texts"] = len(embedded.items)
            line["tokens"] = embedded.tokens
            line["tokenize_ms"] = round(timings.tokenize * 1e3, 2)
            line["queue_ms"] = round(timings.queue * 1e3, 2)
            line["encode_ms"] = round(timings.encode * 1e3, 2)
        if (code := state.get("error_code")) is not None:
            line["error"] = code
        if (holder := state.get("holder")) is not None:
            line["key"] = holder.label
        if (trace_id := state.get("trace_id")) is not None:
            line["trace_id"] = trace_id
        return line

    def _embedded(self) -> Embedded | None:
        embedded: Embedded | None = self._scope["state"].get("embedded")
        return embedded

    def _server_timing(self) -> str:
        """Spell the stages as W3C's Server Timing does, in milliseconds."""
        stages = {"total": time.perf_counter() - self._started}
        if (embedded := self._embedded()) is not None:
            timings = embedded.timings
            stages = {"tokenize": timings.tokenize, "queue": timings.queue, "encode": timings.encode} | stages
        return ", ".join(f"{name};dur={seconds * 1e3:.2f}" for name, seconds in stages.items())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._handler is not None:
            self.hung_up = True
            self._handler.cancel()
