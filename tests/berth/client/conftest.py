"""A server on loopback that answers what a test wants and counts, and both Python clients to ask it."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from berth import AsyncClient, Client

BOUND = 20.0
"""Seconds after which a test's threads count as stuck."""
ERROR = {"message": "input[1]: must not be empty", "type": "invalid_request_error", "param": "input[1]", "code": "x"}

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def vectors(asked: Asked) -> Reply:
    """Answer each text, a number in these tests, with that number twice."""
    numbers = np.array([[float(text)] * 2 for text in asked.body["input"]], dtype="<f4")
    headers = {"x-shape": ",".join(map(str, numbers.shape)), "x-dtype": "float32"}
    return 200, {"content-type": "application/octet-stream", **headers}, numbers.tobytes()


def refusal(status: int, **headers: str) -> Reply:
    return status, {"content-type": "application/json", **headers}, json.dumps({"error": ERROR}).encode()


class Fake:
    """A server, what it was asked, and the most requests that it had at one time."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Reply] = vectors
        self.asked: list[Asked] = []
        self.answered = 0
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def one_after_the_other(self, *replies: Reply) -> None:
        """Give these answers, and then vectors."""
        left = list(replies)
        self.answer = lambda asked: left.pop(0) if left else vectors(asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self.answer(asked)
        finally:
            with self._lock:
                self._now -= 1
                self.answered += 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, json.loads(content) if content else None)
                status, more, body = fake.serve(asked)
                self.send_response(status)
                for name, value in {**more, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815  # http.server's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
                pass

        return Handler


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Fake()
    yield server
    server.close()


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, fake: Fake) -> Ask:
    """Give a function that calls a method of a client of the fake server: of one client, then of the other."""

    def of_client(method: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        with Client(fake.url, **(options or {})) as client:
            return getattr(client, method)(*args, **kwargs)

    def of_async_client(method: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(fake.url, **(options or {})) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    return of_client if request.param == "sync" else of_async_client


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the seconds that the clients have slept; they do not really."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            seconds.append(timeout)
            return self.is_set()

    monkeypatch.setattr("berth.client.blocking.Event", Impatient)
    monkeypatch.setattr("berth.client.asynchronous.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return seconds
