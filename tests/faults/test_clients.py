"""Clients stop half-way or leave: the others are answered rightly, and nothing is left of those that have gone."""

import json
import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.end_to_end.conftest import Service, Start
from tests.faults.conftest import Load, Readiness, Right, check, descriptors, embed, text

LEAVING = int(os.environ.get("FAULTS_LEAVING", "1000"))
"""Clients that leave; `make faults` has more of them."""


def request(body: bytes, length: int | None = None) -> bytes:
    """Write a request whose body is longer than what is sent, where a length is given."""
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {length or len(body)}\r\n\r\n".encode() + body


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), 30)


def idle(service: Service) -> bool:
    """Say whether nothing is being done but the reading of the metrics."""
    return service.metric("berth_requests_in_flight") == 1 and service.metric("berth_queue_units") == 0


def test_half_bodies_that_stop_harm_nobody(start: Start, tiny_artifact: str, right: Right) -> None:
    service = start(tiny_artifact, "--request-timeout", "2")
    before = descriptors(service.process.pid)
    with Readiness(service) as ready, Load(service, right) as load:
        load.until_answered(20)
        halves = [connect(service) for _ in range(200)]
        for half in halves:
            half.sendall(request(b'{"input": "half of', 1000))
        load.until_answered(100)
        answers = [half.recv(4096) for half in halves]
        for half in halves:
            half.close()
    assert {answer.split(b" ")[1] for answer in answers} == {b"504"}
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    assert set(ready.said) == {200}
    service.until(lambda: idle(service))
    service.until(lambda: descriptors(service.process.pid) <= before + 2)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_clients_that_leave_take_their_work_with_them(start: Start, tiny_artifact: str, right: Right, how: str) -> None:
    service = start(tiny_artifact)
    check(right, embed(service, words := text()), words)
    before = descriptors(service.process.pid)

    def leave(number: int) -> None:
        body = json.dumps({"input": [f"{text()} {place}" for place in range(1 + number % 64)]}).encode()
        sent = request(body)
        with connect(service) as connection:
            connection.sendall(sent[: len(sent) - (number % 3 == 0) * (number % len(body))])
            if how == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with Readiness(service) as ready, Load(service, right, clients=2) as load:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(leave, range(LEAVING)))
        load.until_answered(20)
    assert load.outcomes.keys() == {200}
    assert not load.wrong
    assert set(ready.said) == {200}
    service.until(lambda: idle(service))
    service.until(lambda: descriptors(service.process.pid) <= before + 2)
    assert "Traceback" not in service.log
    check(right, embed(service, words := text()), words)
