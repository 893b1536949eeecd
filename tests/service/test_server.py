"""The signals' meaning; tests/end_to_end stops real processes."""

import asyncio
import signal
import time
from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from service.server import Server
from service.settings import Settings


def make_server(grace: float) -> Server:
    app = FastAPI()
    app.state.berth = SimpleNamespace(draining=False)
    return Server(app, Settings(shutdown_grace=grace))


def ends(server: Server) -> bool:
    """Say whether the main loop would be left now."""
    return asyncio.run(server.on_tick(1))


def test_runs_until_told() -> None:
    server = make_server(0)
    assert not ends(server)
    assert (server.should_exit, server.failed) == (False, False)


def test_sigterm_drains_for_the_grace_period_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    server = make_server(100)
    server.handle_exit(signal.SIGTERM, None)
    assert server._berth.draining
    assert not ends(server)
    monkeypatch.setattr(time, "monotonic", lambda: now + 99)
    assert not ends(server)
    monkeypatch.setattr(time, "monotonic", lambda: now + 101)
    assert ends(server)


def test_second_sigterm_does_not_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    server = make_server(100)
    server.handle_exit(signal.SIGTERM, None)
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    server.handle_exit(signal.SIGTERM, None)
    monkeypatch.setattr(time, "monotonic", lambda: now + 101)
    assert ends(server)
    assert not server.force_exit


def test_sigint_leaves_out_the_grace_and_a_second_one_the_waiting() -> None:
    server = make_server(100)
    server.handle_exit(signal.SIGINT, None)
    assert ends(server)
    assert (server._berth.draining, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


def test_failure_ends_at_once() -> None:
    server = make_server(100)
    server.fail()
    assert ends(server)
    assert server.failed
