"""Clients that send too much of a head, or nothing, or take nothing: real sockets, and others are served meanwhile."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.conftest import HANGING

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Faulty, Service, Start

LINE = b"POST /v1/embeddings HTTP/1.1\r\n"
HEAD = LINE + b"Host: x\r\nContent-Type: application/json\r\n"
BODY = b'{"input": "a b"}'
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
BOUND = 20.0
"""Seconds within which what is to end has ended; the limits of the service below are one second, and three."""


@pytest.fixture(scope="module")
def service(start_once: "Start", tiny_artifact: Path) -> "Service":
    """Give a service of little patience."""
    limits = ("--header-timeout", "1", "--idle-timeout", "1", "--request-timeout", "3")
    return start_once(tiny_artifact, *limits, "--max-header-bytes", "8192")


@contextmanager
def connected(service: "Service") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), BOUND) as connection:
        yield connection


def one_answer(connection: socket.socket) -> bytes:
    """Read an answer whole, as far as it says that it goes."""
    answer = b""
    while not (length := re.search(rb"content-length: (\d+)\r\n(?:.*\r\n)*\r\n", answer)):
        answer += connection.recv(65536)
    while len(answer) < length.end() + int(length[1]):
        answer += connection.recv(65536)
    return answer


def all_of(connection: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:  # it closed with something unread, which is its right
        pass
    return answer


def is_refused(connection: socket.socket) -> bool:
    """Send 200 MB; says whether the service did not wait for all of it."""
    try:
        for _ in range(200):
            connection.sendall(b"a" * 1_000_000)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def error_of(answer: bytes) -> tuple[bytes, str]:
    """Give an error's status line and code; it looks as every other one does."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json\r\n" in head
    assert b"x-content-type-options: nosniff\r\n" in head
    assert b"connection: close" in head
    error: dict[str, Any] = json.loads(body)["error"]
    assert error["type"] == "invalid_request_error"
    return head.partition(b"\r\n")[0], error["code"]


def memory(service: "Service") -> int:
    """Give the most bytes that the service has ever had in memory."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def answers(service: "Service") -> None:
    with service.client() as http:
        assert http.post("/v1/embeddings", json={"input": "a b"}).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X-Large: " + b"a" * 1_000_000 + b"\r\nContent-Length: 16\r\n\r\n" + BODY,
        HEAD + b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(60_000)) + b"\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + b"X" * 1_000_000,
    ],
    ids=["one header", "many headers", "path", "name that does not end"],
)
def test_a_megabyte_of_headers_is_refused(service: "Service", sent: bytes) -> None:
    with connected(service) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before the end
            connection.sendall(sent)
        assert error_of(all_of(connection)) == (
            b"HTTP/1.1 431 Request Header Fields Too Large",
            "headers_too_large",
        )
    answers(service)
    assert "Traceback" not in service.log


def test_headers_that_never_end_cost_no_memory(service: "Service") -> None:
    before = memory(service)
    with connected(service) as connection:
        connection.sendall(HEAD + b"X-Large: ")
        assert is_refused(connection)
    assert memory(service) - before < 50_000_000
    answers(service)


def test_trailers_that_never_end_cost_no_memory(service: "Service") -> None:
    before = memory(service)
    with connected(service) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX-Large: ")
        assert is_refused(connection)
    assert memory(service) - before < 50_000_000
    answers(service)


@pytest.mark.parametrize("size", [7000, 9000])
def test_headers_are_counted_without_the_body_that_comes_with_them(service: "Service", size: int) -> None:
    """All of it in one piece, and again on the same connection."""
    body = json.dumps({"input": ["a b"] * 3000}).encode()
    padding = b"X-Padding: " + b"a" * size + b"\r\n"
    request = HEAD + padding + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connected(service) as connection:
        connection.sendall(request)
        status = connection.recv(65536).partition(b"\r\n")[0]
    assert status.split()[1] == (b"400" if size == 7000 else b"431"), "3,000 texts are too many, but for another reason"


def test_chunks_and_trailers_of_a_usual_size_are_taken(service: "Service") -> None:
    """A body in pieces as large as the limit of the headers, with trailers."""
    body = json.dumps({"input": "a b", "user": "x" * 40_000}).encode()
    pieces = [body[start : start + 9000] for start in range(0, len(body), 9000)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    with connected(service) as connection:
        for _ in range(2):
            connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            for start in range(0, len(chunks), 5000):
                connection.sendall(chunks[start : start + 5000])
            connection.sendall(b"0\r\nX-Sum: 1\r\n\r\n")
            assert one_answer(connection).startswith(b"HTTP/1.1 200 ")


def test_header_byte_by_byte_is_ended(service: "Service") -> None:
    began = time.monotonic()
    with connected(service) as connection:
        connection.sendall(HEAD + b"X-Slow: ")
        connection.settimeout(0.1)
        answer = b""
        while not answer:
            assert time.monotonic() - began < BOUND
            connection.sendall(b"a")
            answers(service)
            try:
                answer = connection.recv(65536)
            except TimeoutError:
                continue
    assert error_of(answer) == (b"HTTP/1.1 408 Request Timeout", "headers_too_slow")
    assert "the headers did not arrive within 1 seconds" in service.log


@pytest.mark.parametrize(
    "first", [b"", b"\r\n", REQUEST, REQUEST + b"\r\n"], ids=["nothing", "an empty line", "idle", "idle, then a line"]
)
def test_connection_without_a_request_is_closed(service: "Service", first: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(first)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 200 ") == first.startswith(LINE)
    assert b" 408 " not in answer


def test_empty_line_after_an_answer_is_no_late_head(service: "Service") -> None:
    with connected(service) as connection:
        connection.sendall(REQUEST)
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert all_of(connection) == b""


def test_request_that_was_answered_before_its_body_has_no_second_answer(service: "Service") -> None:
    with connected(service) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert one_answer(connection).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"5\r\n")
        assert all_of(connection) == b""


def test_idle_connection_that_sends_empty_lines_is_closed(service: "Service") -> None:
    began = time.monotonic()
    with connected(service) as connection:
        connection.sendall(REQUEST)
        assert one_answer(connection).startswith(b"HTTP/1.1 200 ")
        connection.settimeout(0.2)
        while True:
            assert time.monotonic() - began < BOUND
            try:
                connection.sendall(b"\r\n")
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break


def test_half_a_body_and_then_silence_is_ended(service: "Service") -> None:
    with connected(service) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n" + b'{"input": "a')
        answers(service)
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b'"code":"deadline_exceeded"' in answer
    service.until(lambda: service.metric("berth_requests_in_flight") == 1, 10)


def test_body_that_goes_on_after_its_refusal_is_ended(service: "Service") -> None:
    """A byte now and then of a body that nobody reads would keep a connection open."""
    began = time.monotonic()
    with connected(service) as connection:
        connection.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        connection.settimeout(0.2)
        while True:
            assert time.monotonic() - began < BOUND
            try:
                connection.sendall(b"a")
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except (BrokenPipeError, ConnectionResetError):
                break


def test_answer_that_nobody_takes_is_dropped(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--idle-timeout", "1")
    body = json.dumps({"inputs": ["a b c d e f g h"] * 2048, "features": [{"pooling": "none"}]}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", service.port))
        head = b"POST /v1/features HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % len(body) + body)
        service.until(lambda: "its client took nothing of an answer for 1 seconds" in service.written, BOUND)
        answers(service)
        answer = all_of(connection)
    announced = re.search(rb"content-length: (\d+)", answer)
    assert announced
    assert len(answer) < int(announced[1]), "what was not taken is gone"


def test_slow_answer_is_not_a_slow_client(faulty: "Faulty") -> None:
    """A request that takes longer than all these limits is served, and so is the one sent behind it."""
    service = faulty.start("--header-timeout", "0.2", "--idle-timeout", "0.2")
    body = json.dumps({"input": HANGING}).encode()
    one = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    last = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with connected(service) as connection:
        connection.sendall(one + last)
        service.until(lambda: service.metric("berth_requests_in_flight") == 2)
        time.sleep(2)  # the service looks for late clients twice a second
        faulty.release.touch()
        answer = all_of(connection)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert answer.endswith(b"}")
    [seconds, _] = re.findall(r"/v1/embeddings 200 ms=(\d+)", service.log)
    assert int(seconds) > 400, "else this test shows nothing"


@pytest.mark.parametrize("sent", [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"<script>\r\n\r\n"])
def test_what_is_no_http_is_told_so_in_json(service: "Service", sent: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(sent)
        answer = all_of(connection)
    assert error_of(answer) == (b"HTTP/1.1 400 Bad Request", "invalid_http")
    assert b"<script>" not in answer


def test_what_is_no_http_behind_a_request_disturbs_no_answer(faulty: "Faulty") -> None:
    """An error written now would be read as the answer to the request before it."""
    service = faulty.start()
    body = json.dumps({"input": HANGING}).encode()
    with connected(service) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        service.until(lambda: service.metric("berth_requests_in_flight") == 2)
        connection.sendall(b"no http at all\r\n\r\n")
        assert all_of(connection) == b""
    faulty.release.touch()
    answers(service)
