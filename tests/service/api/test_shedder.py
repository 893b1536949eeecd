"""Load shed before a request costs anything: real connections to an application whose encoder stands still."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import uvicorn
from uvicorn.server import ServerState

from service.connection import Connection
from service.inference.types import Unit, Vectors

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

EMBEDDINGS = "/v1/embeddings"


class Gate:
    """An encoder that stands still until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        self.entered.set()
        assert self.open.wait(20), "the test opens the gate"
        return [[np.ones(384, dtype=np.float32)] for _ in units]


def spelled(path: str, body: bytes, *, version: str = "1.1", **headers: str) -> bytes:
    """Spell a request as it is sent."""
    fields = {"host": "berth", "content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [f"POST {path} HTTP/{version}", *(f"{name.replace('_', '-')}: {text}" for name, text in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Client:
    """A client's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: Connection) -> None:
        self._reader = reader
        self._writer = writer
        self.other = other

    async def ask(self, path: str, body: bytes, *, version: str = "1.1", **headers: str) -> "Answer":
        """Send a request and read its answer."""
        self.send(path, body, version=version, **headers)
        return await self.answer()

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        self._writer.write(data)

    def send(self, path: str, body: bytes, *, version: str = "1.1", **headers: str) -> None:
        """Send a request."""
        self.write(spelled(path, body, version=version, **headers))

    async def answer(self) -> "Answer":
        """Read an answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:-1])
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, json.loads(body))


class Answer:
    """An answer, taken apart."""

    def __init__(self, status: int, headers: dict[str, str], body: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Give an encoder that stands still, and let it go at the end."""
    gate = Gate()
    yield gate
    gate.open.set()


@asynccontextmanager
async def connected(api: "Api") -> AsyncIterator[Client]:
    """Serve an application on a port of its own and connect to it."""
    config = uvicorn.Config(api.app, log_config=None, access_log=False)
    state, loop = ServerState(), asyncio.get_running_loop()
    other = Connection(
        config=config, server_state=state, app_state={}, settings=api.state.settings, shedder=api.app.state.shedder
    )
    server = await loop.create_server(lambda: other, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield Client(reader, writer, other)
    finally:
        writer.close()
        server.close()


async def fill(api: "Api", gate: Gate) -> list["asyncio.Task[Any]"]:
    """Have one request encoded and as much queued as there is room for."""
    engine = api.state.engine
    assert engine is not None
    tasks = []
    for full in (gate.entered.is_set, lambda: engine.runner.queued_tokens >= 100):
        tasks.append(asyncio.ensure_future(api.client.post(EMBEDDINGS, json={"input": "ship " * 98})))
        while not full():
            await asyncio.sleep(0.001)
    return tasks


def play(api: "Api", gate: Gate, scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario with a full queue, and see that what was in the queue is answered afterwards."""

    async def scene() -> None:
        accepted = await fill(api, gate)
        await scenario
        gate.open.set()
        assert [(await task).status_code for task in accepted] == [200, 200]

    api.run(scene())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBEDDINGS, {"code": "overloaded", "type": "rate_limit_error", "param": None}),
        (f"{EMBEDDINGS}?user=me", {"code": "overloaded"}),
        ("/v1/features", {"code": "overloaded"}),
        ("/encode", {"code": "overloaded"}),
    ],
)
def test_what_is_turned_away_is_told_so_and_when_to_return(
    make_api: "MakeApi", gate: Gate, path: str, body: dict[str, object]
) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask(path, b'{"input": "a"}', x_request_id="mine")
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-request-id"] == "mine"
            assert refused.headers["content-type"] == "application/json"
            assert refused.headers["server-timing"].startswith("total;dur=")
            assert refused.body["error"].items() >= body.items()
        while not api.sample("berth_requests_total", route=route, status="429"):
            await asyncio.sleep(0.05)

    route = path.partition("?")[0]
    play(api, gate, scenario())
    assert api.sample("berth_requests_total", route=route, status="429") == 1
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 1


def test_teis_routes_have_teis_errors(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask("/embed", b'{"inputs": "a"}')
            assert (refused.status, refused.body["error_type"]) == (429, "Overloaded")

    play(api, gate, scenario())


def test_body_behind_a_refusal_is_dropped_and_the_next_request_answered(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            for _ in range(3):
                assert (await connection.ask(EMBEDDINGS, b'{"input": "' + b"a" * 3_000_000 + b'"}')).status == 429
            answer = await connection.ask("/v1/tokenize", b'{"inputs": "ship"}')
            assert (answer.status, answer.body["data"][0]["tokens"][1]["text"]) == (200, "ship")

    play(api, gate, scenario())


def test_next_request_may_come_in_one_piece_with_the_rest_of_an_unwanted_body(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)
    unwanted = spelled(EMBEDDINGS, b"{}")  # a body, whatever it looks like

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.send(EMBEDDINGS, b"", **{"content-length": str(2 * len(unwanted))})
            assert (await connection.answer()).status == 429
            connection.write(unwanted)
            await asyncio.sleep(0.05)
            connection.write(unwanted + spelled("/v1/tokenize", b'{"inputs": "ship"}'))
            answer = await connection.answer()
            assert (answer.status, answer.body["data"][0]["tokens"][1]["text"]) == (200, "ship")

    play(api, gate, scenario())


def test_client_that_takes_no_answers_gets_no_more_of_them(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.other.pause_writing()  # as the transport does where more than 64 KiB wait
            connection.send(EMBEDDINGS, b"{}")
            await asyncio.sleep(0.2)
            assert connection.other.server_state.total_requests == 0
            connection.other.resume_writing()
            assert (await connection.answer()).status == 429

    play(api, gate, scenario())


@pytest.mark.parametrize(
    "headers",
    [{"version": "1.0"}, {"connection": "close"}, {"expect": "100-continue"}],
    ids=str,
)
def test_what_cannot_be_shed_at_once_is_told_inside(make_api: "MakeApi", gate: Gate, headers: dict[str, str]) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask(EMBEDDINGS, b'{"input": "a"}', **headers)
            assert (refused.status, refused.body["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1

    play(api, gate, scenario())
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 1


def test_what_is_being_read_counts_for_those_that_come_after_it(make_api: "MakeApi", gate: Gate) -> None:
    gate.open.set()
    api = make_api(gate, max_queue_tokens=100)
    for inside, status in (50, 200), (200, 429), (0, 200):
        api.state.inside = inside
        assert api.run(api.client.post(EMBEDDINGS, json={"input": "a"})).status_code == status


def test_answers_keep_the_order_of_their_requests(make_api: "MakeApi", gate: Gate) -> None:
    """A request that comes while another of its connection is being answered waits for its turn."""
    api = make_api(gate, max_queue_tokens=100)

    async def scene() -> None:
        accepted = await fill(api, gate)
        async with connected(api) as connection:
            connection.send("/v1/tokenize", b'{"inputs": "ship"}')
            connection.send(EMBEDDINGS, b'{"input": "a"}')
            assert [(await connection.answer()).status for _ in range(2)] == [200, 429]
        gate.open.set()
        assert [(await task).status_code for task in accepted] == [200, 200]

    api.run(scene())


def test_with_room_everything_comes_in(make_api: "MakeApi", gate: Gate) -> None:
    gate.open.set()
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            for _ in range(3):
                assert (await connection.ask(EMBEDDINGS, b'{"input": "a"}')).status == 200

    api.run(scenario())


def test_all_that_are_turned_away_in_a_second_are_counted_and_logged_in_one_line(
    make_api: "MakeApi", gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        shedder = api.app.state.shedder
        for number in range(357):  # in one turn of the loop; other tests' lines may come while this one's is awaited
            path = "/embed" if number % 10 == 0 else EMBEDDINGS
            assert shedder.refusal(path.encode(), shedder.overload(inside=0)) is not None
        while not any(message.startswith("357 ") for message in caplog.messages):
            await asyncio.sleep(0.05)

    with caplog.at_level("WARNING", logger="berth.requests"):
        play(api, gate, scenario())
    line = "357 requests turned away unread in the last second: the queue is full, try again later"
    assert caplog.messages.count(line) == 1
    assert api.sample("berth_requests_total", route=EMBEDDINGS, status="429") == 321
    assert api.sample("berth_requests_total", route="/embed", status="429") == 36
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 357
