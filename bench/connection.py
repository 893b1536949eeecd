"""One kept-alive HTTP/1.1 connection, as little of it as a load generator needs, so that it costs little itself."""

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """What of an answer's head says where its body ends."""

    status: int
    length: int | None
    chunked: bool
    close: bool


def read_head(head: bytes) -> Head:
    """Read an answer's head, without the empty line that ends it."""
    first, *lines = head.split(b"\r\n")
    version, status = first.split(b" ", 2)[:2]
    fields = {name.lower(): value.strip().lower() for name, _, value in (line.partition(b":") for line in lines)}
    length = fields.get(b"content-length")
    return Head(
        status=int(status),
        length=None if length is None else int(length),
        chunked=b"chunked" in fields.get(b"transfer-encoding", b""),
        close=fields.get(b"connection", b"close" if version == b"HTTP/1.0" else b"") == b"close",
    )


def read_chunks(data: bytes) -> bytes | None:
    """Join a chunked body; None where it is not whole yet."""
    parts: list[bytes] = []
    place = 0
    while (end := data.find(b"\r\n", place)) >= 0:
        size = int(data[place:end].partition(b";")[0], 16)
        start = end + 2
        if len(data) < start + size + 2:
            return None
        if not size:
            return b"".join(parts)
        parts.append(data[start : start + size])
        place = start + size + 2
    return None


class Connection(asyncio.Protocol):
    """A connection on which one request at a time is on the way."""

    def __init__(self) -> None:
        self.open = False
        self._buffer = bytearray()
        self._head: Head | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport

    @classmethod
    async def to(cls, base: str) -> "Connection":
        """Open a connection to a server; raises `OSError`."""
        parts = urlsplit(base)
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, parts.hostname or "127.0.0.1", parts.port or 80)
        return connection

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        """Send a request; its answer may fail with `ConnectionError`."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Hang up."""
        self.open = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note that the connection is open."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.open = transport, True
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, error: Exception | None) -> None:
        """End the answer: by what has come where nothing says how long it is, else by an error."""
        self.open = False
        if self._head is not None and self._head.length is None and not self._head.chunked:
            self._finish(bytes(self._buffer))
        elif self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"closed before the answer was whole: {error}"))

    def data_received(self, data: bytes) -> None:
        """Collect the answer, and hand it over once it is whole."""
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(END_OF_HEAD)
            if end < 0:
                return
            self._head = read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + len(END_OF_HEAD)]
        head = self._head
        if head.length is not None:
            if len(self._buffer) >= head.length:
                self._finish(bytes(self._buffer[: head.length]))
        elif head.chunked and self._buffer.endswith(END_OF_HEAD):
            body = read_chunks(bytes(self._buffer))
            if body is not None:
                self._finish(body)

    def _finish(self, body: bytes) -> None:
        assert self._head is not None
        answer, self._answer = self._answer, None
        head, self._head = self._head, None
        self._buffer.clear()
        if head.close and self.open:
            self.close()
        if answer is not None and not answer.done():
            answer.set_result(Answer(head.status, body))


def post(base: str, path: str, body: bytes, accept: str = "application/json") -> bytes:
    """Write a POST request of JSON; `accept` is the media type of its answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(base).netloc}\r\nContent-Type: application/json\r\n"
    return f"{head}Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
