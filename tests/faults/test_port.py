"""The port is taken: one line says so, and the status is 1."""

import socket

from tests.end_to_end.conftest import Launch


def test_port_that_is_taken_is_said_in_one_line(launch: Launch, tiny_artifact: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = launch(tiny_artifact, "--port", str(port))
        assert service.end() == 1
    [line] = [line for line in service.log.splitlines() if " INFO " not in line]
    assert str(port) in line
    assert "address already in use" in line
