"""What nobody should send: each is a 4xx that names the field, and the next request is answered."""

import json
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.end_to_end.conftest import HANGING

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Faulty, Service, Start

EMBEDDINGS = "/v1/embeddings"
FEATURES = "/v1/features"
SIMILARITY = "/v1/similarity"
TOKENIZE = "/v1/tokenize"
DETOKENIZE = "/v1/detokenize"
POSTS = [EMBEDDINGS, FEATURES, SIMILARITY, TOKENIZE, DETOKENIZE]
JSON = {"content-type": "application/json"}
DEEP = "[" * 50_000 + "]" * 50_000
BOUND = 60.0
"""Seconds to wait for an answer."""


@pytest.fixture(autouse=True)
def _next_request_is_answered(http: httpx.Client) -> Iterator[None]:
    yield
    answer = http.post(EMBEDDINGS, json={"input": "next"})
    assert answer.status_code == 200
    assert len(answer.json()["data"][0]["embedding"]) == 384


def refusal(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Check an error's shape, OpenAI's; gives its content."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    assert isinstance(body["error"]["message"], str)
    assert body["error"]["message"]
    assert answer.headers["x-request-id"]
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": ""}, "input"),
        ({"input": [""]}, "input[0]"),
        ({"input": ["a", ""]}, "input[1]"),
        ({}, "input"),
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": 3.5}, "input"),
        ({"input": True}, "input"),
        ({"input": {}}, "input"),
        ({"input": {"text": "a"}}, "input"),
        ({"input": [None]}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": ["a", ["b"]]}, "input"),
        ({"input": [["a"]]}, "input"),
        ({"input": [[["a"]]]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [[101, 102], []]}, "input"),
        ({"input": [[101, 102], "a"]}, "input"),
        ({"input": [True, False]}, "input"),
        ({"input": [101, True, 102]}, "input"),
        ({"input": [101, 10**30, 102]}, "input"),
        ({"input": [101, 2**63, 102]}, "input"),
        ({"input": [101, -(2**63), 102]}, "input"),
        ({"input": [101, 7.0, 102]}, "input"),
        ({"input": [101, None, 102]}, "input"),
        ({"input": [101, -1, 102]}, "input"),
        ({"input": [101, 30522, 102]}, "input"),
        ({"input": [7592, 2088]}, "input"),
        ({"input": [[101, 102], [7592, 2088]]}, "input[1]"),
        ({"input": [[101, 102], [101, 30522, 102]]}, "input[1]"),
        ({"input": "a" * 20_001}, "input"),
        ({"input": ["a", "a" * 20_001]}, "input[1]"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": ["a"] * 100_000}, "input"),
        ({"input": [[101, 102]] * 100_000}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": -1}, "dimensions"),
        ({"input": "a", "dimensions": 385}, "dimensions"),
        ({"input": "a", "dimensions": 10**30}, "dimensions"),
        ({"input": "a", "dimensions": True}, "dimensions"),
        ({"input": "a", "dimensions": "3"}, "dimensions"),
        ({"input": "a", "dimensions": 3.5}, "dimensions"),
        ({"input": "a", "dimensions": [3]}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "encoding_format": 1}, "encoding_format"),
        ({"input": "a", "encoding_format": None}, "encoding_format"),
        ({"input": "a", "model": 3}, "model"),
        ({"input": "a", "model": ["x"]}, "model"),
        ({"input": "a", "truncate": "sideways"}, "truncate"),
        ({"input": "a " * 300, "truncate": "error"}, "input"),
        ({"input": "a", "prompt_name": "query"}, "prompt_name"),
        ({"input": "a", "prompt_name": 1}, "prompt_name"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_embeddings_refuse(http: httpx.Client, fields: dict[str, object], param: str) -> None:
    error = refusal(http.post(EMBEDDINGS, json=fields), 400)
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(param)


@pytest.mark.parametrize(
    ("route", "fields", "param"),
    [
        (SIMILARITY, {"source": "a"}, "target"),
        (SIMILARITY, {"target": "a"}, "source"),
        (SIMILARITY, {"source": [], "target": "a"}, "source"),
        (SIMILARITY, {"source": "a", "target": ["b", ""]}, "target[1]"),
        (SIMILARITY, {"source": "a", "target": 3}, "target"),
        (SIMILARITY, {"source": "a", "target": [[101, 102]]}, "target"),
        (SIMILARITY, {"source": "a", "target": ["b", "b" * 20_001]}, "target[1]"),
        (SIMILARITY, {"source": "a", "target": "b", "metric": "hamming"}, "metric"),
        (SIMILARITY, {"source": "a", "target": "b", "metric": 1}, "metric"),
        (SIMILARITY, {"source": "a", "target": "b", "top_k": 0}, "top_k"),
        (SIMILARITY, {"source": "a", "target": "b", "top_k": True}, "top_k"),
        (SIMILARITY, {"source": "a", "target": "b", "top_k": "1"}, "top_k"),
        (SIMILARITY, {"source": "a", "target": "b", "pairwise": 1}, "pairwise"),
        (SIMILARITY, {"source": "a", "target": ["b", "c"], "pairwise": True}, "pairwise"),
        (SIMILARITY, {"source": "a", "target": "b", "pairwise": True, "top_k": 1}, "top_k"),
        (SIMILARITY, {"source": "a", "target": "b", "invented": 1}, "invented"),
        (SIMILARITY, {"source": ["a"] * 1500, "target": ["b"] * 1500}, "target"),
        (SIMILARITY, {"source": "a", "target": ["b"] * 2048}, "source"),
        (TOKENIZE, {}, "inputs"),
        (TOKENIZE, {"inputs": []}, "inputs"),
        (TOKENIZE, {"inputs": [""]}, "inputs[0]"),
        (TOKENIZE, {"inputs": 7}, "inputs"),
        (TOKENIZE, {"inputs": ["a"] * 2049}, "inputs"),
        (TOKENIZE, {"inputs": "a" * 20_001}, "inputs"),
        (TOKENIZE, {"inputs": "a", "add_special_tokens": "yes"}, "add_special_tokens"),
        (TOKENIZE, {"inputs": "a", "invented": 1}, "invented"),
        (DETOKENIZE, {}, "ids"),
        (DETOKENIZE, {"ids": []}, "ids"),
        (DETOKENIZE, {"ids": [[]]}, "ids"),
        (DETOKENIZE, {"ids": [101]}, "ids"),
        (DETOKENIZE, {"ids": "a"}, "ids"),
        (DETOKENIZE, {"ids": [[True]]}, "ids"),
        (DETOKENIZE, {"ids": [[10**30]]}, "ids"),
        (DETOKENIZE, {"ids": [[101], [-1]]}, "ids[1]"),
        (DETOKENIZE, {"ids": [[30522]]}, "ids[0]"),
        (DETOKENIZE, {"ids": [[101]], "skip_special_tokens": 1}, "skip_special_tokens"),
        (DETOKENIZE, {"ids": [[101]], "invented": 1}, "invented"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_native_routes_refuse(http: httpx.Client, route: str, fields: dict[str, object], param: str) -> None:
    error = refusal(http.post(route, json=fields), 400)
    assert error["param"] == param
    assert error["message"].startswith(param)


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{]",
        b"null",
        b"3",
        b'"input"',
        b"[]",
        b'{"input": NaN}',
        b'{"input": Infinity}',
        b'{"input": "a",}',
        b"{'input': 'a'}",
        b'{"input": "\xff"}',
        b'{"input": "\xed\xa0\x80"}',
        b'{"input": "\\ud800"}',
        b'{"input": ["fine", "\\udc00 alone"]}',
        b'{"input": "a\x00b"}',
        DEEP.encode(),
        b'{"input": ' + DEEP.encode() + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        '{"input": "a"}'.encode("utf-16"),
        b'{"input": "a"}{"input": "b"}',
    ],
    ids=lambda body: repr(body)[:40],
)
def test_body_that_is_no_json_object_is_refused_as_a_body(http: httpx.Client, route: str, body: bytes) -> None:
    error = refusal(http.post(route, content=body, headers=JSON), 400)
    assert error["param"] is None
    assert error["message"].startswith("the body")


@pytest.mark.parametrize("place", ["input", "extra"])
def test_nesting_the_parser_takes_is_refused_or_ignored(http: httpx.Client, place: str) -> None:
    nested = json.loads("[" * 500 + "]" * 500)
    answer = http.post(EMBEDDINGS, json={"input": "a"} | {place: nested})
    if place == "extra":
        assert answer.status_code == 200
    else:
        assert refusal(answer, 400)["param"] == "input"


def test_unknown_fields_are_ignored_on_openais_route(http: httpx.Client) -> None:
    assert http.post(EMBEDDINGS, json={"input": "a", "invented": 1, "user": "me"}).status_code == 200


@pytest.mark.parametrize("route", [EMBEDDINGS, SIMILARITY])
@pytest.mark.parametrize("name", ["text-embedding-3-small", "", " "])
def test_another_model_is_not_found(http: httpx.Client, route: str, name: str) -> None:
    fields = {"input": "a"} if route == EMBEDDINGS else {"source": "a", "target": "b"}
    error = refusal(http.post(route, json=fields | {"model": name}), 404)
    assert (error["code"], error["type"]) == ("model_not_found", "invalid_request_error")
    assert "sentence-transformers/all-MiniLM-L6-v2" in error["message"]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "json", ""])
@pytest.mark.parametrize("route", POSTS)
def test_another_content_type_is_refused(http: httpx.Client, route: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    error = refusal(http.post(route, content=b'{"input": "a"}', headers=headers), 400)
    assert error["param"] == "Content-Type"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"]
)
def test_spellings_of_json_are_taken(http: httpx.Client, content_type: str) -> None:
    answer = http.post(EMBEDDINGS, content=b'{"input": "a"}', headers={"content-type": content_type})
    assert answer.status_code == 200


@pytest.mark.parametrize("route", POSTS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_another_method_is_not_allowed(http: httpx.Client, method: str, route: str) -> None:
    answer = http.request(method, route)
    assert refusal(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("route", ["/v1/models", "/info", "/health", "/health/ready", "/metrics"])
def test_posts_to_what_is_read_are_not_allowed(http: httpx.Client, route: str) -> None:
    assert refusal(http.post(route, json={}), 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize("route", ["/v1", "/v1/nothing", "/v2/embeddings", "/nowhere", "/%00", "/" + "a" * 5000])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_route_is_not_found(http: httpx.Client, method: str, route: str) -> None:
    assert refusal(http.request(method, route), 404)["code"] == "not_found"


def test_unknown_model_route_is_not_found(http: httpx.Client) -> None:
    assert refusal(http.get("/v1/models/other/model"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "-inf", "1s", "0x10"])
def test_bad_timeout_is_refused(http: httpx.Client, value: str) -> None:
    answer = http.post(EMBEDDINGS, json={"input": "a"}, headers={"X-Request-Timeout": value})
    assert refusal(answer, 400)["param"] == "X-Request-Timeout"


@pytest.mark.parametrize("value", ["30", "0.5e2", "inf", "1e300"])
def test_good_timeout_is_taken(http: httpx.Client, value: str) -> None:
    answer = http.post(EMBEDDINGS, json={"input": "a"}, headers={"X-Request-Timeout": value})
    assert answer.status_code == 200


def test_deadline_that_passes_is_told_and_frees_the_queue(service: "Service", http: httpx.Client) -> None:
    answer = http.post(EMBEDDINGS, json={"input": ["tide " * 250] * 2048}, headers={"X-Request-Timeout": "0.3"})
    assert refusal(answer, 504)["code"] == "deadline_exceeded"
    service.until(lambda: service.metric("berth_queue_units") == 0)


def test_body_over_the_limit_is_refused_by_its_announcement(http: httpx.Client) -> None:
    answer = http.post(EMBEDDINGS, content=b" " * 4_000_001, headers=JSON)
    error = refusal(answer, 413)
    assert (error["code"], error["param"]) == ("too_large", None)
    assert "body" in error["message"]


def test_announcement_alone_is_enough(service: "Service") -> None:
    """The answer comes before a byte of the body was sent."""
    request = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999"
    assert raw(service, f"{request}\r\n\r\n".encode()).startswith(b"HTTP/1.1 413 ")


def test_body_over_the_limit_is_refused_where_it_is_not_announced(service: "Service") -> None:
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = raw(service, f"{head}\r\n\r\n".encode() + chunk * 62)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too_large"' in answer


def test_chunked_body_within_the_limit_is_taken(http: httpx.Client) -> None:
    parts = (part for part in [b'{"inp', b'ut": "a', b' ship"}'])
    assert http.post(EMBEDDINGS, content=parts, headers=JSON).status_code == 200


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "0x10", "99999999999999999999999999"])
def test_length_that_is_none_is_refused(service: "Service", length: str) -> None:
    request = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}"
    assert raw(service, f"{request}\r\n\r\n{{}}".encode()).split()[1] in {b"400", b"413"}


@pytest.mark.parametrize("sent", [b"GET", b"G", b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Le"], ids=repr)
def test_half_a_head_has_no_answer(service: "Service", sent: bytes) -> None:
    """It is waited for until its sender is done, and then the connection is closed."""
    assert exchange(service, sent) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00",
        b"\0" * 100,
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    ],
    ids=lambda sent: repr(sent)[:40],
)
def test_what_is_no_http_is_told_so_and_the_connection_closed(service: "Service", sent: bytes) -> None:
    answer = exchange(service, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert json.loads(body)["error"]["code"] == "invalid_http"


def exchange(service: "Service", sent: bytes) -> bytes:
    """Send bytes and nothing more; gives all that comes until the service closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), BOUND) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """Read until the service closes the connection."""
    answer = b""
    while more := connection.recv(65536):
        answer += more
    return answer


def raw(service: "Service", sent: bytes) -> bytes:
    """Send bytes; gives the answer's head and body as far as they come at once."""
    with socket.create_connection(("127.0.0.1", service.port), BOUND) as connection:
        connection.sendall(sent)
        answer = connection.recv(65536)
        while b"\r\n\r\n" not in answer or not answer.partition(b"\r\n\r\n")[2]:
            more = connection.recv(65536)
            if not more:
                break
            answer += more
        return answer


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}"
    return f"{head}\r\n\r\n".encode() + body


def disconnected(service: "Service") -> float:
    return service.metric("berth_requests_total", route=EMBEDDINGS, status="499")


def test_half_a_body_and_then_the_end_is_counted_as_left(service: "Service") -> None:
    before = disconnected(service)
    assert exchange(service, post(b'{"input": "a', 1000)) == b""
    service.until(lambda: disconnected(service) == before + 1)
    assert service.metric("berth_requests_in_flight") == 1  # the reading of the metrics itself


def test_client_that_leaves_frees_its_sequences(faulty: "Faulty") -> None:
    """It is bulk, of which a batch hangs and the rest waits."""
    service = faulty.start("--threads", "1")
    body = json.dumps({"input": [f"{number} " + f"{HANGING} " * 38 for number in range(600)]}).encode()
    with socket.create_connection(("127.0.0.1", service.port), BOUND) as connection:
        connection.sendall(post(body))
        service.until(lambda: service.metric("berth_queue_units") > 500)
        assert service.metric("berth_queue_tokens") > 20_000
    service.until(lambda: disconnected(service) == 1)
    assert service.metric("berth_queue_units") == 0
    assert service.metric("berth_queue_tokens") == 0
    assert service.metric("berth_rejected_requests_total", reason="disconnected") == 1
    faulty.release.touch()
    with service.client() as http:
        assert http.post(EMBEDDINGS, json={"input": "next"}).status_code == 200


def test_slow_body_meets_its_deadline(start: "Start", tiny_artifact: str) -> None:
    service = start(tiny_artifact, "--request-timeout", "0.5")
    answer = raw(service, post(b'{"input": "a', 1000))
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b'"code":"deadline_exceeded"' in answer


def test_windows_that_would_flood_the_queue_are_not_made(http: httpx.Client) -> None:
    """9,000 tokens in windows of 256, each a token after the last: 8,747 of them."""
    answer = http.post("/v1/embeddings", json={"input": "a " * 9000, "truncate": {"window": 256, "stride": 1}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert answer.json()["error"]["message"] == "the request has 2239232 tokens, the queue holds 1048576"


def test_compressed_body_is_refused_by_name(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/embeddings", content=b"{}", headers={"content-type": "application/json", "content-encoding": "gzip"}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Content-Encoding")


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live"])
def test_balancers_may_ask_by_head(http: httpx.Client, path: str) -> None:
    assert http.head(path).status_code == 200


def test_deadline_ends_tokenizing_too(http: httpx.Client) -> None:
    body = {"inputs": ["a " * 9000] * 200}
    answer = http.post("/v1/tokenize", json=body, headers={"X-Request-Timeout": "0.05"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
