"""uvicorn's HTTP/1.1 on one connection, with the bounds that it lacks.

Its parser takes headers and trailers without end; a connection on which no request ever begins, or whose headers come a
byte at a time, stays open for ever, and so does one whose client never takes its answer.
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
    """Stops the parser at a head that is over the limit, or would have it take the body for another protocol's."""


class Flow(FlowControl):
    """Reading stays paused while requests wait behind the one that is answered: each read may bring ten thousand."""

    def __init__(self, transport: Any, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, but where requests wait."""
        if not self._pipeline:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """One connection; the server asks it about once a second whether its client is late."""

    def __init__(self, *, settings: Settings, **named: Any) -> None:
        super().__init__(**named)
        self._settings = settings
        self._head: int | None = 0
        """Header or trailer bytes received so far (a lower bound); 0 while idle, None while a body is read."""
        self._is_inside = False
        """Whether a head is behind it whose request is not: the application answers that, or has."""
        self._too_large = False
        self._idle = False
        """Whether it waits for a request after another; uvicorn has a timer made and dropped for that, each time.

        The rest of a body whose answer went out before it may come first.
        """
        self._awaited_since = 0.0
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request."""
        super().connection_made(transport)
        self.flow = Flow(transport, self.pipeline)
        self._awaited_since = self.loop.time()

    def data_received(self, data: bytes) -> None:
        """Parse, and give up on a head that does not end."""
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
        """Begin to count a head's bytes; of those that came in one piece with the request before it one, for all."""
        super().on_message_begin()
        self._head = self._head or 1
        self._idle, self._awaited_since = False, self.loop.time()

    def on_headers_complete(self) -> None:
        """Count the head again, exactly: it may have come in one piece with a body."""
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
        """Say whether a head that asks for another protocol has a body, which would be taken for what comes next.

        So it is with an Upgrade that did not come in one piece with its head and was not renamed, and with CONNECT.
        """
        announced = {name for name, value in self.headers if value != b"0"} & {b"content-length", b"transfer-encoding"}
        return bool(announced) or self.parser.get_method() == b"CONNECT"

    def on_chunk_header(self) -> None:
        """Begin to count: after the last chunk, which has no body, come trailers."""
        self._head = 1

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._head = None
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the body, or of the trailers."""
        self._head = 0
        self._is_inside = False
        super().on_message_complete()
        if not self._is_answering:  # the answer came before the body did
            self._wait()

    def on_response_complete(self) -> None:
        """Go on to the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._wait()
        self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take."""
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
        """Wait for a request; how long, `end_if_late` knows."""
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
    """Rename the header Upgrade in a head: it is ignored, as RFC 9110, 7.8, allows; Java's client sends it at first.

    httptools would take the request's body for another protocol's. Nothing becomes longer or shorter: in a body that
    comes in one piece with the head's last line it would be taken for the next request.
    """
    end = data.find(END_OF_HEAD)
    if UPGRADE.search(data, 0, max(end, 0) or len(data)) is None:
        return data
    head, rest = (data, b"") if end < 0 else (data[:end], data[end:])
    return UPGRADE.sub(b"\r\nx", head) + rest
