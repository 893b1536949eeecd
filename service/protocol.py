"""uvicorn's HTTP/1.1 protocol, with a door: what is turned away there never becomes a task, a scope or a body."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.door import Door
from service.api.middleware import request_id


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, door: Door, **options: Any) -> None:
        super().__init__(*args, **options)
        self._door = door
        self._refused = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._refused = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Ask at the door. A body that follows a refusal is read and dropped, for the next request comes behind it."""
        path = self.url.partition(b"?")[0]
        refusal = self._door.refusal(path, len(self.tasks)) if self._is_plain() else None
        if refusal is None:
            super().on_headers_complete()
            return
        self._refused = True
        headers, body = refusal
        given = next((value for name, value in self.headers if name == b"x-request-id"), b"")
        headers |= {"x-request-id": request_id(given.decode("latin-1")), "content-length": str(len(body))}
        lines = [
            *self.server_state.default_headers,
            *((name.encode(), text.encode()) for name, text in headers.items()),
        ]
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[429], head, body))
        self.on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        if not self._refused:
            super().on_message_complete()

    def _is_plain(self) -> bool:
        """Say whether an answer may be written at once: nothing is being answered, and the connection is to stay."""
        return (
            self.parser.get_method() == b"POST"
            and (self.cycle is None or self.cycle.response_complete)
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and self.parser.get_http_version() == "1.1"
            and bool(self.parser.should_keep_alive())
        )
