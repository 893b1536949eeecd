"""What happens to every request on its way in and out: identity, time, count, log line, and work that nobody awaits."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from berth.errors import NotReadyError
from service.api.errors import refusal, unexpected
from service.api.exchange import Exchange
from service.api.state import State
from service.logs import Line

DISCONNECTED = 499
"""The status under which a request is counted whose client left before the answer; nobody sees it sent."""

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")

logger = logging.getLogger("berth.requests")


def request_id(given: str) -> str:
    """Give the id that a request brings, or a new one where it brings none that can be passed on."""
    return given if REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


class Observe:
    """Gives each request its id and timing headers, counts it, logs it, and stops work nobody awaits."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._berth = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = Exchange(request_id(Headers(scope=scope).get("x-request-id", "")))
        scope.setdefault("state", {})["exchange"] = exchange
        channel = Channel(exchange, receive, send, self._berth)
        with self._berth.metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, channel.receive, channel.send)
            except asyncio.CancelledError:
                if not exchange.hung_up and exchange.status is None:  # the shutdown waits no longer
                    ended = refusal(Request(scope), NotReadyError("the service is shutting down"))
                    await ended(scope, channel.receive, channel.send)
            except ClientDisconnect:
                exchange.hung_up = True
            except Exception as error:
                if exchange.status is not None:
                    raise
                await unexpected(Request(scope), error)(scope, channel.receive, channel.send)
            finally:
                channel.close()
        # uvloop writes an answer once the callbacks at hand are done: what is said of it must not hold it up.
        asyncio.get_running_loop().call_soon(self._report, scope, exchange)

    def _report(self, scope: Scope, exchange: Exchange) -> None:
        """Count the request and log it; never its texts."""
        seconds = time.perf_counter() - exchange.started
        route = getattr(scope.get("route"), "path", "unmatched")
        status = DISCONNECTED if exchange.status is None else exchange.status
        rejected = "disconnected" if status == DISCONNECTED else exchange.error_code
        embedded = exchange.embedded if status < 400 else None
        self._berth.metrics.count_request(route, status, seconds, embedded, rejected)
        logger.info(_line(scope["method"], route, status, seconds, exchange))


class Channel:
    """Passes a request's messages on; listens for the client's leaving once its body is whole."""

    def __init__(self, exchange: Exchange, receive: Receive, send: Send, state: State) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send
        self._berth = state
        self._listener: asyncio.Task[None] | None = None
        self._handler = asyncio.current_task()

    async def receive(self) -> Message:
        """Pass on the body; once it is whole, begin to listen for a disconnect."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body") and self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        return message

    async def send(self, message: Message) -> None:
        """Pass on the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            self.close()
            message["headers"] = [*message.get("headers", ()), *self._headers()]
        await self._send(message)

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            self._listener = None  # it refers to this channel, which would be left to the garbage collector

    def _headers(self) -> Iterator[tuple[bytes, bytes]]:
        embedded = self._exchange.embedded
        stages = {"total": time.perf_counter() - self._exchange.started}
        if embedded is not None:
            stages = embedded.stages | stages
        # As W3C's Server Timing has it, in milliseconds.
        timing = ", ".join([f"{name};dur={seconds * 1e3:.2f}" for name, seconds in stages.items()])
        yield b"x-request-id", self._exchange.id.encode()
        yield b"server-timing", timing.encode()
        if embedded is not None and embedded.truncated:
            yield b"x-truncated-inputs", str(embedded.truncated).encode()
        if self._berth.draining:
            yield b"connection", b"close"

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._handler is not None:
            self._exchange.hung_up = True
            self._handler.cancel()


def _line(method: str, route: str, status: int, seconds: float, exchange: Exchange) -> Line:
    """Say what a request was and took, times in milliseconds."""
    line = Line(method=method, route=route, status=status, ms=round(seconds * 1e3, 2), id=exchange.id)
    if (embedded := exchange.embedded) is not None:
        line["texts"] = len(embedded.items)
        line["tokens"] = embedded.tokens
        line |= {f"{stage}_ms": round(seconds * 1e3, 2) for stage, seconds in embedded.stages.items()}
    if exchange.error_code is not None:
        line["error"] = exchange.error_code
    if exchange.api_key is not None:
        line["key"] = exchange.api_key.label
    if exchange.trace_id is not None:
        line["trace_id"] = exchange.trace_id
    return line
