"""What happens to every request on its way: identity, count, and the watch for a hang-up."""

import asyncio
import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from berth.batching.queue import Priority
from berth.contract import FakeEncoder
from berth.text.tokenizer import Tokenizer
from berth.types import TokenSequence, Vectors
from tests.service.api.gate import Gate

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

BODY = b'{"input": ["a ship", "a boat"]}'
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "path": "/v1/embeddings",
    "raw_path": b"/v1/embeddings",
    "query_string": b"",
    "root_path": "",
    "scheme": "http",
    "headers": [(b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 2),
}


class Connection:
    """A client that sends messages and then stays or leaves."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self._messages = list(messages)
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))


def counted(api: "Api", status: str) -> float:
    return api.sample("berth_requests_total", route="/v1/embeddings", status=status)


def test_hang_up_ends_the_work_and_is_counted(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, max_batch_tokens=4)  # one text a batch: the other waits

    async def scenario() -> None:
        connection = Connection({"type": "http.request", "body": BODY})
        request = asyncio.ensure_future(api.app({**SCOPE}, connection.receive, connection.send))
        while api.worker.queue.sequences != 1:
            await asyncio.sleep(0.001)
        connection.leaves.set()
        await request
        assert api.worker.queue.sequences == 0
        assert connection.sent == []
        assert api.worker.requests == 0

    api.run(scenario())
    assert counted(api, "499") == 1
    assert api.sample("berth_rejected_requests_total", reason="disconnected") == 1
    assert api.sample("berth_requests_in_flight") == 0


def test_client_that_has_left_costs_no_tokenizing_where_there_are_others(
    make_api: "MakeApi", gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = make_api(gate)
    tokenized: list[object] = []
    encode = Tokenizer.encode

    def note(*given: Any, **named: Any) -> Any:
        tokenized.append(given)
        return encode(*given, **named)

    monkeypatch.setattr(Tokenizer, "encode", note)

    async def scenario() -> None:
        stays = asyncio.ensure_future(api.client.post("/v1/embeddings", json={"input": "a ship"}))
        while not tokenized:
            await asyncio.sleep(0.001)
        connection = Connection({"type": "http.request", "body": BODY})
        connection.leaves.set()
        await api.app({**SCOPE}, connection.receive, connection.send)
        gate.open.set()
        assert (await stays).status_code == 200

    api.run(scenario())
    assert len(tokenized) == 1
    assert counted(api, "499") == 1
    assert api.state.inside == 0


def test_hang_up_before_the_body_is_whole_is_one_too(make_api: "MakeApi") -> None:
    api = make_api(FakeEncoder(width=384))

    async def scenario() -> None:
        connection = Connection({"type": "http.request", "body": BODY[:9], "more_body": True})
        connection.leaves.set()
        await api.app({**SCOPE}, connection.receive, connection.send)

    api.run(scenario())
    assert counted(api, "499") == 1
    assert api.sample("berth_rejected_requests_total", reason="disconnected") == 1


def test_draining_closes_connections(make_api: "MakeApi") -> None:
    api = make_api(FakeEncoder(width=384))
    assert "connection" not in api.get("/health/live").headers
    api.state.draining = True
    assert api.get("/health/live").headers["connection"] == "close"
    assert api.get("/health/ready").status_code == 503
    assert api.post("/v1/embeddings", {"input": "late"}).status_code == 200


def test_failing_encoder_is_500_with_the_texts_place(make_api: "MakeApi", caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == 7 for sequence in sequences):
            raise RuntimeError("seven")
        return [[np.ones(384, dtype=np.float32)] for _ in sequences]

    api = make_api(FakeEncoder(encode))
    answer = api.post("/v1/embeddings", {"input": ["one", "two", "one two three four five"]})
    assert answer.status_code == 500
    assert answer.json()["error"]["message"].startswith("input[2]: ")
    assert answer.json()["error"]["code"] == "encoder_error"
    assert api.post("/v1/embeddings", {"input": ["one", "two"]}).status_code == 200
    assert api.sample("berth_encoder_errors_total") == 1


@pytest.mark.parametrize(
    ("fields", "headers", "status"),
    [
        ({"input": ["a ship", "a boat"]}, {}, 200),
        ({"input": []}, {}, 400),
        ({"input": ["a ship", ""]}, {}, 400),
        ({"input": [[101, 2911, 102], [1]]}, {}, 400),
        ({"input": ["a ship", "a boat " * 60]}, {}, 413),
        ({"input": ["a ship", "ten tokens with the two special ones"]}, {}, 500),
        ({"input": ["a ship", "a boat"]}, {"x-request-timeout": "1"}, 429),
        ({"input": "a ship", "model": "other"}, {}, 404),
        ({"input": "a ship"}, {"x-request-timeout": "1e-9"}, 504),
    ],
)
def test_nothing_of_a_request_is_left_to_the_garbage_collector(
    make_api: "MakeApi", caplog: pytest.LogCaptureFixture, fields: object, headers: dict[str, str], status: int
) -> None:
    """A collection stops everything, so it is had seldom: cycles would pile up until then, vectors and all."""
    caplog.set_level("CRITICAL")

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == 10 for sequence in sequences):
            raise RuntimeError("ten")
        return [[np.ones(384, dtype=np.float32)] for _ in sequences]

    api = make_api(FakeEncoder(encode), max_queue_tokens=100)
    if status == 429:
        api.worker.admission.observe(Priority.SHORT, 0.1, full=True)  # seconds a token
        api.worker.queue.waiting[Priority.SHORT].tokens = 20  # seem to wait

    async def send() -> None:
        body = orjson.dumps(fields)
        given = [*SCOPE["headers"], *((name.encode(), value.encode()) for name, value in headers.items())]
        connection = Connection({"type": "http.request", "body": body})
        await api.app({**SCOPE, "headers": given}, connection.receive, connection.send)
        assert connection.sent[0]["status"] == status
        await asyncio.sleep(0.01)  # the end of the watch, the report

    api.run(send())
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        api.run(send())
        gc.collect()
        left = [type(each) for each in gc.garbage if type(each).__module__.startswith(("berth", "service"))]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert left == []
