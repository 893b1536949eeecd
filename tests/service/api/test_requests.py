"""How a request comes in: what turns it away before its body is read, and the body's bounds."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from berth.contract import FakeEncoder
from tests.service.api.gate import Gate, fill_queue

if TYPE_CHECKING:
    from berth.backends.cpu.encoder import CpuEncoder
    from tests.service.api.conftest import Api, MakeApi

EMBEDDINGS = "/v1/embeddings"
ENCODER_ROUTES = ["/v1/embeddings", "/v1/features", "/v1/similarity"]
POSTS = [*ENCODER_ROUTES, "/v1/tokenize", "/v1/detokenize"]
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("route", POSTS)
def test_nothing_is_answered_before_the_model_is_loaded(make_api: "MakeApi", route: str) -> None:
    answer = make_api(None).post(route, content=b"not even json")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_ready"


@pytest.mark.parametrize("route", ENCODER_ROUTES)
def test_full_queue_turns_away_before_the_body_is_read(make_api: "MakeApi", gate: Gate, route: str) -> None:
    api = make_api(gate, max_queue_tokens=100)

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def scenario() -> None:
        accepted = await fill_queue(api, gate)
        refused = await api.client.post(route, content=unread(), headers=JSON)
        tokenized = await api.client.post("/v1/tokenize", json={"inputs": "a"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "overloaded"
        assert tokenized.status_code == 200
        gate.open.set()
        assert [(await answer).status_code for answer in accepted] == [200, 200]
        assert (await api.client.post(EMBEDDINGS, json={"input": "a"})).status_code == 200
        while not api.sample("berth_rejected_requests_total", reason="overloaded"):  # within a second
            await asyncio.sleep(0.05)

    api.run(scenario())
    assert api.sample("berth_rejected_requests_total", reason="overloaded") == 1


def test_request_beyond_the_queue_is_413(make_api: "MakeApi") -> None:
    api = make_api(FakeEncoder(), max_queue_tokens=100)
    answer = api.post(EMBEDDINGS, {"input": ["ship " * 60, "boat " * 60]})
    assert answer.status_code == 413
    assert "retry-after" not in answer.headers


def test_deadline_is_the_sooner_of_header_and_setting(make_api: "MakeApi", gate: Gate) -> None:
    api = make_api(gate, request_timeout=0.1)
    answer = api.post(EMBEDDINGS, {"input": "a"}, headers={"X-Request-Timeout": "1000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    patient = make_api(gate, request_timeout=1000)
    answer = patient.post(EMBEDDINGS, {"input": "a"}, headers={"X-Request-Timeout": "0.1"})
    assert answer.status_code == 504


async def slowly() -> AsyncIterator[bytes]:
    yield b'{"input": '
    await asyncio.sleep(20)
    yield b'"a"}'


@pytest.mark.parametrize("route", POSTS)
def test_body_that_is_too_slow_meets_the_deadline(make_api: "MakeApi", route: str) -> None:
    answer = make_api(FakeEncoder(), request_timeout=0.1).post(route, content=slowly(), headers=JSON)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


async def in_parts() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b" " * 100


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_body_beyond_the_limit_is_413(make_api: "MakeApi", route: str, announced: bool) -> None:
    api = make_api(FakeEncoder(), max_body_bytes=1000)
    content = b" " * 1001 if announced else in_parts()
    answer = api.post(route, content=content, headers=JSON)
    assert answer.status_code == 413
    assert answer.json()["error"] == {
        "message": "the body is larger than 1000 bytes",
        "type": "invalid_request_error",
        "param": None,
        "code": "too_large",
    }


def test_body_of_just_the_limit_is_taken(make_api: "MakeApi") -> None:
    body = b'{"input": "a"}'.ljust(1000)
    api = make_api(FakeEncoder(), max_body_bytes=1000)
    assert api.post(EMBEDDINGS, content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("size", [10, 1 << 19], ids=["small", "parsed in a thread"])
def test_body_that_is_no_json_says_why(api: "Api", size: int) -> None:
    answer = api.post("/v1/tokenize", content=b"{" + b" " * size, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the body is not valid JSON: ")


MANY_TEXTS = ["a", "b", "c", 3]


@pytest.mark.parametrize(
    ("route", "body", "param"),
    [
        ("/v1/embeddings", {"input": MANY_TEXTS}, "input"),
        ("/v1/embeddings", {"input": [[101, 102]] * 4}, "input"),
        ("/v1/features", {"inputs": MANY_TEXTS}, "inputs"),
        ("/v1/similarity", {"source": MANY_TEXTS, "target": "a"}, "source"),
        ("/v1/similarity", {"source": "a", "target": MANY_TEXTS}, "target"),
        ("/v1/tokenize", {"inputs": MANY_TEXTS}, "inputs"),
        ("/v1/detokenize", {"ids": [[101], [101], [101], "a"]}, "ids"),
        ("/encode", {"texts": MANY_TEXTS}, "texts"),
        ("/encode", {"texts": [["a"]] * 4, "is_tokenized": True}, "texts"),
    ],
)
def test_too_many_texts_are_told_before_any_is_looked_at(
    make_api: "MakeApi", route: str, body: dict[str, object], param: str
) -> None:
    """A body has room for ten million; the last one here, which is wrong, is not what the error is about."""
    answer = make_api(FakeEncoder(), max_texts=3).post(route, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["param"], error["message"]) == (param, f"{param}: 4 inputs, at most 3 in one request")


@pytest.mark.parametrize("route", ["/embed", "/embed_all", "/tokenize", "/decode", "/similarity", "/"])
def test_too_many_texts_are_told_as_tei_does(make_api: "MakeApi", route: str) -> None:
    body: dict[str, object] = {"inputs": MANY_TEXTS}
    if route == "/decode":
        body = {"ids": [[101], [101], [101], "a"]}
    if route == "/similarity":
        body = {"inputs": {"source_sentence": "a", "sentences": MANY_TEXTS}}
    answer = make_api(FakeEncoder(), max_texts=3).post(route, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (413, "Validation")
    field = {"/decode": "ids", "/similarity": "inputs.sentences"}.get(route, "inputs")
    assert answer.json()["error"] == f"{field}: 4 inputs, at most 3 in one request"


def test_token_ids_are_no_texts_to_be_counted(make_api: "MakeApi", encoder: "CpuEncoder") -> None:
    answer = make_api(encoder, max_texts=3).post(EMBEDDINGS, json={"input": [101, 2911, 2911, 2911, 102]})
    assert answer.status_code == 200


@pytest.mark.parametrize(("route", "param"), [("/v1/detokenize", "ids[1]"), ("/decode", "ids")])
def test_too_many_ids_are_told(make_api: "MakeApi", route: str, param: str) -> None:
    answer = make_api(FakeEncoder(), max_text_chars=3).post(route, json={"ids": [[101], [101] * 4]})
    message = f"{param}: 4 token ids, at most 3"
    if route == "/decode":
        assert (answer.status_code, answer.json()["error"]) == (413, message)
    else:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert answer.json()["error"]["message"] == message


def test_page_of_another_origin_is_turned_away_before_its_body_is_read(make_api: "MakeApi", gate: Gate) -> None:
    """Not by the outermost layer, which knows nothing of the headers that a page is to have."""
    api = make_api(gate, max_queue_tokens=100, cors_origins=["https://a.example"])

    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def scenario() -> None:
        accepted = await fill_queue(api, gate)
        refused = await api.client.post(EMBEDDINGS, content=unread(), headers=JSON | {"origin": "https://a.example"})
        assert refused.status_code == 429
        assert refused.headers["access-control-allow-origin"] == "https://a.example"
        gate.open.set()
        assert [(await answer).status_code for answer in accepted] == [200, 200]

    api.run(scenario())


def test_length_of_five_thousand_digits_is_a_length(api: "Api") -> None:
    body = b'{"input": "a"}'
    answer = api.post(EMBEDDINGS, content=body, headers=JSON | {"content-length": f"{len(body):05000}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["texts", "ids", "source"])
def test_lists_in_fields_that_a_route_ignores_are_not_counted(
    make_api: "MakeApi", encoder: "CpuEncoder", name: str
) -> None:
    api = make_api(encoder, max_texts=3)
    assert api.post(EMBEDDINGS, {"input": "a", name: ["b"] * 4}).status_code == 200
    assert api.post(EMBEDDINGS, {"input": ["b"] * 4}).status_code == 400


def test_flat_list_of_too_many_ids_is_told_by_its_length(make_api: "MakeApi") -> None:
    api = make_api(FakeEncoder(), max_text_chars=100)
    answer = api.post(EMBEDDINGS, {"input": [101] * 101})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "input: 101 token ids, at most 100"
