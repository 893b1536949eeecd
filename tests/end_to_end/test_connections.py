"""What connections go through: an upgrade that is offered, an answer before its body, a shutdown while many wait."""

import json
import re
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service, Start

BODY = b'{"input": "ship"}'
CONNECTIONS = 400


def connect(service: "Service") -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer; its status and body."""
    [found] = answers(connection, 1)
    return found


def answers(connection: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """Read so many answers, after which none comes for now."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            headers = {}
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            found.append((status, file.read(int(headers["content-length"]))))
    return found


def post(*headers: str) -> bytes:
    lines = ["POST /v1/embeddings HTTP/1.1", "Host: berth", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(BODY)}"]).encode() + b"\r\n\r\n"


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "body apart"])
def test_offer_of_http_2_is_ignored(service: "Service", apart: bool) -> None:
    """Java's HttpClient makes it with its first request to an address without TLS."""
    head = post(
        "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA"
    )
    with connect(service) as connection:
        for _ in range(2):
            connection.sendall(head if apart else head + BODY)
            if apart:
                time.sleep(0.2)
                connection.sendall(BODY)
            status, body = answer(connection)
            assert status == 200
            assert len(json.loads(body)["data"][0]["embedding"]) == 384


def test_offers_without_a_body_are_ignored_one_behind_the_other(service: "Service") -> None:
    offer = b"GET /health/live HTTP/1.1\r\nHost: berth\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with connect(service) as connection:
        connection.sendall(post() + BODY + offer)
        assert [status for status, _ in answers(connection, 2)] == [200, 200]


def test_half_a_request_behind_another_is_waited_for(service: "Service") -> None:
    with connect(service) as connection:
        connection.sendall(post() + BODY + post() + BODY[:5])
        assert answer(connection)[0] == 200
        connection.sendall(BODY[5:] + post() + BODY)
        assert [status for status, _ in answers(connection, 2)] == [200, 200]


def test_a_body_that_looks_like_offers_of_http_2_is_no_longer_for_it(service: "Service") -> None:
    """Were it, its end would be read as the next request: one that a proxy in between has not seen."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: berth\r\n\r\n"
    body = b"{}" + b"\r\nupgrade:" * (len(hidden) // 2) + hidden
    head = post().replace(b"Content-Length: %d" % len(BODY), b"Content-Length: %d" % len(body))
    with connect(service) as connection:
        connection.sendall(head[:-2])
        time.sleep(0.2)
        connection.sendall(head[-2:] + body)
        assert answer(connection)[0] == 400
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: berth\r\n\r\n")
        assert answer(connection)[0] == 200


@pytest.mark.parametrize("before", [b"", b"GET /health/live HTTP/1.1\r\nHost: berth\r\n\r\n"], ids=["first", "behind"])
def test_an_offer_that_comes_in_two_pieces_ends_the_connection(service: "Service", before: bytes) -> None:
    """Its body would be taken for another protocol's, and what is in it for the next request."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\n"
    hidden = b"GET /hidden HTTP/1.1\r\nHost: berth\r\n\r\n"
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: berth\r\n" + offer + b"Content-Length: %d\r\n" % len(hidden)
    with connect(service) as connection:
        connection.sendall(before + head)
        time.sleep(0.2)
        connection.sendall(b"Upgrade: h2c\r\n\r\n" + hidden)
        with connection.makefile("rb") as file:
            statuses = re.findall(rb"HTTP/1.1 (\d+)", file.read())
    assert statuses == [b"200"] * bool(before) + [b"400"]


@pytest.mark.parametrize("line", [b"CONNECT berth:443 HTTP/1.1", b"GET http://berth HTTP/1.1"])
def test_what_asks_for_no_path_is_400(service: "Service", line: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(line + b"\r\nHost: berth\r\n\r\n")
        assert answer(connection)[0] == 400


def test_answer_before_the_body_leaves_the_connection_open(start: "Start", tiny_artifact: Path) -> None:
    """The body that comes behind a 401 is dropped, and then the connection is idle, not late with a head."""
    service = start(tiny_artifact, "--header-timeout", "1", BERTH_API_KEYS="tester: a-key-of-some-length")
    with connect(service) as connection:
        connection.sendall(post())
        assert answer(connection)[0] == 401
        connection.sendall(BODY)
        time.sleep(3)
        connection.sendall(post("Authorization: Bearer a-key-of-some-length") + BODY)
        assert answer(connection)[0] == 200


def test_shutdown_takes_in_what_waits(start: "Start", tiny_artifact: Path) -> None:
    """Connections that wait to be accepted when the signal comes, their requests sent: the process is stopped then."""
    service = start(tiny_artifact)
    with ExitStack() as stack:
        service.process.send_signal(signal.SIGSTOP)
        connections = []
        for _ in range(CONNECTIONS):
            connections.append(stack.enter_context(connect(service)))
            connections[-1].sendall(b"GET /v1/models HTTP/1.1\r\nHost: berth\r\n\r\n")
        service.process.send_signal(signal.SIGINT)
        service.process.send_signal(signal.SIGCONT)
        assert [answer(connection)[0] for connection in connections] == [200] * CONNECTIONS
    assert service.end() == 0
