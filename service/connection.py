"""uvicorn's HTTP/1.1 on one connection, with the bounds that it lacks.

uvicorn takes headers and trailers without end, waits for ever for a request to begin or its headers to arrive, and for
ever for a client that takes nothing of its answer. docs/security.md promises bounds for each, and that no request
hides in another. An override here serves one of these promises; its docstring names it and the file of its tests.
"""

import logging
import re
from collections.abc import Sized
from itertools import chain
from typing import Any

import orjson
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.errors import ErrorSpec, Failure, openai_format
from service.settings import Settings

INVALID = ErrorSpec(400, "invalid_request_error", "invalid_http")
TOO_SLOW = ErrorSpec(408, "invalid_request_error", "headers_too_slow")
TOO_LARGE = ErrorSpec(431, "invalid_request_error", "headers_too_large")

FIELD_BYTES = 4
"""What stands around a header's name and value: colon, space, end of line."""

logger = logging.getLogger("berth")

UPGRADE = re.compile(rb"\r\nu(?=pgrade[ \t]*:)", re.IGNORECASE)
END_OF_HEAD = b"\r\n\r\n"


class UnwantedHeadError(Exception):
    """Raised inside the parser to stop it: the head is too large, or announces another protocol and a body."""


class Flow(FlowControl):
    """Keeps reading paused while pipelined requests wait: one read may bring ten thousand (tests/service)."""

    def __init__(self, transport: Any, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, unless pipelined requests wait."""
        if not self._pipeline:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One connection; the server asks it twice a second whether its client is late."""

    def __init__(self, *, settings: Settings, **named: Any) -> None:
        super().__init__(**named)
        self._settings = settings
        self._head: int | None = 0
        """Header or trailer bytes received so far (a lower bound); 0 while idle, None while a body is read."""
        self._is_inside = False
        """Whether a request's head has been parsed and its end has not: the application answers it, or has done so."""
        self._too_large = False
        self._idle = False
        """Whether it waits for a further request. The rest of a body that was answered early may still arrive.

        The server looks at all connections twice a second; uvicorn would start and cancel a timer for each request.
        """
        self._awaited_since = 0.0
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Start the time in which a request must begin: --header-timeout (test_slow_clients.py)."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._awaited_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse; refuse heads over --max-header-bytes (test_slow_clients.py), ignore Upgrade (test_connections.py)."""
        if self._head == 0:
            data = data.lstrip(b"\r\n")  # empty lines between requests, which RFC 9112, 2.2, allows
            if not data:
                return
        if self._idle and self._head is not None:  # not the rest of a body that was answered before
            self._idle, self._awaited_since = False, self.loop.time()
        if self._head is not None:
            self._head += len(data)
        if self._head is not None or not self._is_answering:
            data = _without_upgrade(data)
        super().data_received(data)
        if self._head is not None and self._head > self._settings.max_header_bytes:
            self._too_large = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Start to count the head's bytes; of a head that arrived with the request before it, at least 1 is known."""
        super().on_message_begin()
        self._head = self._head or 1
        self._idle, self._awaited_since = False, self.loop.time()

    def on_headers_complete(self) -> None:
        """Check the head's exact size, and that no second request can hide behind it (test_connections.py)."""
        self._head = None
        size = sum(map(len, chain.from_iterable(self.headers))) + FIELD_BYTES * len(self.headers)
        if size + len(self.url) > self._settings.max_header_bytes:
            self._too_large = True
            raise UnwantedHeadError
        if self.parser.should_upgrade() and self._may_hide_a_request():
            raise UnwantedHeadError
        super().on_headers_complete()
        self._is_inside = True

    def _may_hide_a_request(self) -> bool:
        """Return whether a head asks for another protocol and has a body, which httptools would parse as a request.

        That happens with CONNECT, and with an Upgrade header split over two reads, which `_without_upgrade` misses.
        """
        announced = {name for name, value in self.headers if value != b"0"} & {b"content-length", b"transfer-encoding"}
        return bool(announced) or self.parser.get_method() == b"CONNECT"

    def on_chunk_header(self) -> None:
        """Start to count: the last chunk has no body, and what follows it are trailers (test_slow_clients.py)."""
        self._head = 1

    def on_body(self, body: bytes) -> None:
        """Stop counting: this is a body, which the application bounds."""
        self._head = None
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Go back to waiting where the answer was sent before the body had arrived (test_connections.py)."""
        self._head = 0
        self._is_inside = False
        super().on_message_complete()
        if not self._is_answering:  # the answer came before the body did
            self._wait()

    def on_response_complete(self) -> None:
        """Start the next pipelined request, or wait for one: --idle-timeout (test_slow_clients.py)."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait()
        self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, as JSON (test_slow_clients.py)."""
        if self._too_large:
            limit = self._settings.max_header_bytes
            self._refuse(TOO_LARGE, f"the request's first line and headers are larger than {limit} bytes")
        else:
            self._refuse(INVALID, msg)

    def end_if_late(self, now: float) -> None:
        """End it where nothing or no head has come in time or an answer is not taken; `now` is by the loop's clock."""
        limit = self._settings.idle_timeout if self._idle else self._settings.header_timeout
        if not self._is_answering and now - self._awaited_since > limit and not self.transport.is_closing():
            if self._head:
                self._refuse(TOO_SLOW, f"the headers did not arrive within {limit:g} seconds")
            self.transport.close()
        unsent = self.transport.get_write_buffer_size()
        if unsent != self._unsent or not unsent:
            self._unsent, self._unsent_since = unsent, now
        elif now - self._unsent_since > self._settings.idle_timeout:
            logger.warning(
                "a connection was ended: its client took nothing of an answer for %g seconds",
                self._settings.idle_timeout,
            )
            self.transport.abort()

    def _wait(self) -> None:
        """Start the time in which the next request must begin; `end_if_late` checks it."""
        self._idle, self._awaited_since = True, self.loop.time()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _write(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        fields = [*self.server_state.default_headers, *headers, (b"content-length", b"%d" % len(content))]
        lines = [b"%b: %b\r\n" % field for field in fields]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", content]))

    def _refuse(self, spec: ErrorSpec, message: str) -> None:
        """Answer with an error, in the shape of all others, and close; only close where the request has an answer."""
        if self.transport.is_closing():
            return
        logger.warning("a connection was ended: %s", message)
        if not self._is_answering and not self._is_inside:
            status, body = openai_format(Failure(spec, message, None))
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            self._write(status, headers, orjson.dumps(body))
        self.transport.close()


def _without_upgrade(data: bytes) -> bytes:
    """Rename the header Upgrade to xpgrade, so that it is ignored, as RFC 9110, 7.8, allows; Java's client sends it.

    With the header, httptools would stop at the end of the head and leave the body to another protocol. The new name
    is as long as the old one: these bytes may be part of a body, whose length must not change.
    """
    end = data.find(END_OF_HEAD)
    if UPGRADE.search(data, 0, max(end, 0) or len(data)) is None:
        return data
    head, rest = (data, b"") if end < 0 else (data[:end], data[end:])
    return UPGRADE.sub(b"\r\nx", head) + rest
