"""Load shedding: real connections to an application whose queue is full."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from starlette.types import Message
from uvicorn.server import ServerState

from service.connection import Connection
from tests.service.api.gate import Gate, fill_queue

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

EMBEDDINGS = "/v1/embeddings"
PAGE = {"origin": "https://a.example"}


def request_bytes(path: str, body: bytes, *, method: str = "POST", version: str = "1.1", **headers: str) -> bytes:
    """Write a request as it is sent; `_` in a header's name stands for `-`."""
    fields = {"host": "berth", "content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/{version}", *(f"{name.replace('_', '-')}: {text}" for name, text in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


TOKENIZE = request_bytes("/v1/tokenize", b'{"inputs": "ship"}')


class Answer:
    """An answer, taken apart."""

    def __init__(self, status: int, headers: dict[str, str], body: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Client:
    """A client's side of a connection; `other` is the service's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: Connection) -> None:
        self._reader = reader
        self._writer = writer
        self.other = other

    async def ask(self, path: str, body: bytes, **how: str) -> Answer:
        """Send a request and read its answer."""
        self.write(request_bytes(path, body, **how))
        return await self.answer()

    def write(self, data: bytes) -> None:
        """Send some bytes."""
        self._writer.write(data)

    async def answer(self) -> Answer:
        """Read an answer."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = dict(line.split(": ", 1) for line in head[1:-1])
        body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(head[0].split()[1]), headers, json.loads(body))


@asynccontextmanager
async def connected(api: "Api") -> AsyncIterator[Client]:
    """Serve an application on a port of its own and connect to it."""
    config = uvicorn.Config(api.app, log_config=None, access_log=False)
    state, loop = ServerState(), asyncio.get_running_loop()
    other = Connection(config=config, server_state=state, app_state={}, settings=api.state.settings)
    server = await loop.create_server(lambda: other, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield Client(reader, writer, other)
    finally:
        writer.close()
        server.close()


def play(api: "Api", gate: Gate, scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario with a full queue, and see that what was in the queue is answered afterwards."""

    async def scene() -> None:
        accepted = await fill_queue(api, gate)
        await scenario
        gate.open.set()
        assert [(await task).status_code for task in accepted] == [200, 200]

    api.run(scene())


def counted(api: "Api", route: str) -> float:
    return api.sample("berth_requests_total", route=route, status="429")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (EMBEDDINGS, {"code": "overloaded", "type": "rate_limit_error", "param": None}),
        (f"{EMBEDDINGS}?user=me", {"code": "overloaded"}),
        ("/v1/features", {"code": "overloaded"}),
        ("/v1/similarity", {"code": "overloaded"}),
        ("/encode", {"code": "overloaded"}),
    ],
)
def test_what_is_turned_away_is_told_so_and_when_to_return(
    make_api: "MakeApi", gate: Gate, path: str, body: dict[str, object]
) -> None:
    api = make_api(gate, max_queue_tokens=100)
    route = path.partition("?")[0]

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask(path, b'{"input": "a"}', x_request_id="mine")
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["x-request-id"] == "mine"
            assert refused.headers["content-type"] == "application/json"
            assert refused.headers["server-timing"].startswith("total;dur=")
            assert refused.body["error"].items() >= body.items()
        while not counted(api, route):
            await asyncio.sleep(0.05)

    play(api, gate, scenario())
    assert counted(api, route) == 1
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 1


@pytest.mark.parametrize("path", ["/embed", "/embed_all", "/similarity", "/"])
def test_teis_routes_have_teis_errors(make_api: "MakeApi", gate: Gate, path: str) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask(path, b'{"inputs": "a"}')
            assert (refused.status, refused.body["error_type"]) == (429, "Overloaded")
            assert sorted(refused.body) == ["error", "error_type"]

    play(api, gate, scenario())


def test_a_refusal_without_an_id_is_given_one(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = [await connection.ask(EMBEDDINGS, b"{}", **given) for given in ({}, {"x_request_id": "a b"}, {})]
        ids = {answer.headers["x-request-id"] for answer in refused}
        assert len(ids) == 3
        assert "a b" not in ids

    play(api, gate, scenario())


def test_what_does_not_need_the_encoder_is_answered(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.write(TOKENIZE)
            assert (await connection.answer()).status == 200
            for path, status in ("/health/ready", 200), ("/v1/models", 200), (EMBEDDINGS, 405), ("/nowhere", 404):
                assert (await connection.ask(path, b"", method="GET")).status == status
            assert (await connection.ask("/nowhere", b"{}")).status == 404

    play(api, gate, scenario())
    assert not api.sample("berth_rejected_requests_total", reason="overloaded")


def test_body_behind_a_refusal_is_dropped_and_the_next_request_answered(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            for _ in range(3):
                assert (await connection.ask(EMBEDDINGS, b'{"input": "' + b"a" * 3_000_000 + b'"}')).status == 429
            connection.write(TOKENIZE)
            answer = await connection.answer()
            assert (answer.status, answer.body["data"][0]["tokens"][1]["text"]) == (200, "ship")

    play(api, gate, scenario())


def test_the_body_is_not_waited_for(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.write(request_bytes(EMBEDDINGS, b"", **{"content-length": "1000"}))
            assert (await connection.answer()).status == 429

    play(api, gate, scenario())


def test_next_request_may_come_in_one_piece_with_the_rest_of_an_unwanted_body(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)
    unwanted = request_bytes(EMBEDDINGS, b"{}")  # a body, whatever it looks like

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.write(request_bytes(EMBEDDINGS, b"", **{"content-length": str(2 * len(unwanted))}))
            assert (await connection.answer()).status == 429
            connection.write(unwanted)
            await asyncio.sleep(0.05)  # so that it comes in a piece of its own; the test holds if it does not
            connection.write(unwanted + TOKENIZE)
            answer = await connection.answer()
            assert (answer.status, answer.body["data"][0]["tokens"][1]["text"]) == (200, "ship")

    play(api, gate, scenario())


def test_client_that_takes_no_answers_gets_no_more_of_them(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.other.pause_writing()  # as the transport does where more than 64 KiB wait
            connection.write(request_bytes(EMBEDDINGS, b"{}"))
            while connection.other.cycle is None:  # until it has come in
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert not connection.other.cycle.response_started
            connection.other.resume_writing()
            assert (await connection.answer()).status == 429

    play(api, gate, scenario())


@pytest.mark.parametrize(
    ("how", "kept"),
    [
        ({}, True),
        ({"expect": "100-continue"}, True),
        ({"version": "1.0"}, False),
        ({"connection": "close"}, False),
    ],
    ids=str,
)
def test_however_it_is_asked(make_api: "MakeApi", gate: Gate, how: dict[str, str], kept: bool) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            refused = await connection.ask(EMBEDDINGS, b'{"input": "a"}', **how)
            assert (refused.status, refused.body["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            connection.write(TOKENIZE)
            if kept:
                assert (await connection.answer()).status == 200
            else:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await connection.answer()
        while not counted(api, EMBEDDINGS):
            await asyncio.sleep(0.05)

    play(api, gate, scenario())
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 1


def test_a_web_page_is_told_inside_where_answers_have_what_lets_it_read_them(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100, cors_origins=["https://a.example"])

    async def scenario() -> None:
        async with connected(api) as connection:
            for headers, allowed in (PAGE, PAGE["origin"]), ({}, None):
                refused = await connection.ask(EMBEDDINGS, b'{"input": "a"}', **headers)
                assert (refused.status, refused.body["error"]["code"]) == (429, "overloaded")
                assert refused.headers.get("access-control-allow-origin") == allowed
        while counted(api, EMBEDDINGS) < 2:
            await asyncio.sleep(0.05)

    play(api, gate, scenario())
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 2


def test_where_no_page_may_call_an_origin_changes_nothing(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.write(request_bytes(EMBEDDINGS, b"", **PAGE, **{"content-length": "1000"}))
            refused = await connection.answer()  # before its body
            assert refused.status == 429
            assert "access-control-allow-origin" not in refused.headers

    play(api, gate, scenario())


def test_what_is_being_read_counts_for_those_that_come_after_it(make_api: "MakeApi", gate: Gate) -> None:
    gate.open.set()
    api = make_api(gate, max_queue_tokens=100)
    for inside, status in (50, 200), (200, 429), (0, 200):
        api.state.inside = inside
        assert api.post(EMBEDDINGS, {"input": "a"}).status_code == status


def test_nothing_is_shed_while_draining(make_api: "MakeApi", gate: Gate) -> None:
    """What still arrives is refused further in, so that its answer can say that the connection ends."""
    gate.open.set()
    api = make_api(gate, max_queue_tokens=100)
    api.state.inside = 200
    assert api.post(EMBEDDINGS, {"input": "a"}).status_code == 429
    api.state.draining = True
    answer = api.post(EMBEDDINGS, {"input": "a"})
    assert (answer.status_code, answer.headers["connection"]) == (429, "close")
    api.state.inside = 0
    answer = api.post(EMBEDDINGS, {"input": "a"})
    assert (answer.status_code, answer.headers["connection"]) == (200, "close")


def test_answers_keep_the_order_of_their_requests(make_api: "MakeApi", gate: Gate) -> None:
    """A request that comes while another of its connection is being answered waits for its turn."""
    api = make_api(gate, max_queue_tokens=100)

    async def scenario() -> None:
        async with connected(api) as connection:
            connection.write(TOKENIZE + request_bytes(EMBEDDINGS, b'{"input": "a"}'))
            assert [(await connection.answer()).status for _ in range(2)] == [200, 429]

    play(api, gate, scenario())


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
    statuses: list[int] = []

    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def scenario() -> None:
        for number in range(357):  # nothing suspends, so all are refused in one turn of the loop
            path = "/embed" if number % 10 == 0 else EMBEDDINGS
            await api.app({"type": "http", "method": "POST", "path": path, "headers": []}, receive, send)
        while not any(message.startswith("357 ") for message in caplog.messages):
            await asyncio.sleep(0.05)

    with caplog.at_level("WARNING", logger="berth.requests"):
        play(api, gate, scenario())
    assert statuses == [429] * 357
    line = "357 requests turned away unread in the last second: the queue is full, try again later"
    assert caplog.messages.count(line) == 1
    assert counted(api, EMBEDDINGS) == 321
    assert counted(api, "/embed") == 36
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 357
