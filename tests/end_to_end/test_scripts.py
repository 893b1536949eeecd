"""Nothing of a request comes back in a way in which a browser would run it."""

from typing import Any

import httpx
import pytest

SCRIPT = "<script>alert(1)</script>"
MODELS = [
    ("/v1/embeddings", {"input": "a"}),
    ("/v1/features", {"inputs": ["a"]}),
    ("/v1/similarity", {"source": "a", "target": "b"}),
    ("/v1/tokenize", {"inputs": ["a"]}),
    ("/v1/detokenize", {"ids": [[101, 102]]}),
    ("/embed", {"inputs": "a"}),
    ("/embed_all", {"inputs": "a"}),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
    ("/tokenize", {"inputs": "a"}),
    ("/decode", {"ids": [101, 102]}),
    ("/", {"inputs": "a"}),
    ("/encode", {"texts": ["a"]}),
]
FIELDS = ("truncate", "model", "prompt_name", "encoding_format", "features", "metric", "merge", "dimensions", "inputs")


def bodies(good: dict[str, Any]) -> list[Any]:
    """Put the script wherever something is said of a request."""
    nested: dict[str, Any] = {SCRIPT: {SCRIPT: [SCRIPT]}}
    spoiled: list[Any] = [SCRIPT, [SCRIPT], nested, good | nested, good | {f"{SCRIPT * 20_000}": 1}]
    spoiled += [good | {name: SCRIPT * 100} for name in (*good, *FIELDS)]
    spoiled += [good | {name: nested} for name in (*good, *FIELDS)]
    spoiled += [good | {name: [nested, SCRIPT]} for name in (*good, *FIELDS)]
    return spoiled


def harmless(answer: httpx.Response) -> None:
    """Check that no browser takes an answer for a page, and that no error repeats at length what it was sent."""
    assert answer.headers["content-type"] == "application/json", answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    if answer.status_code >= 400:
        assert len(answer.content) < 3000
    for name, value in answer.headers.items():
        assert "<script" not in value, name


@pytest.mark.parametrize(("path", "good"), MODELS)
def test_script_in_a_body(http: httpx.Client, path: str, good: dict[str, Any]) -> None:
    refused = 0
    for body in bodies(good):
        answer = http.post(path, json=body)
        harmless(answer)
        refused += answer.status_code >= 400
        assert answer.status_code < 500
    assert refused > 5


@pytest.mark.parametrize("path", [path for path, _ in MODELS])
@pytest.mark.parametrize("header", ["content-type", "content-encoding", "x-request-timeout", "accept", "authorization"])
def test_script_in_a_header(http: httpx.Client, path: str, header: str) -> None:
    headers = {"content-type": "application/json"} | {header: SCRIPT}
    harmless(http.post(path, content=b"<script>", headers=headers))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [f"/{SCRIPT}", f"/v1/models/{SCRIPT}", f"/v1/embeddings/{SCRIPT}", f"/v1/{SCRIPT}?{SCRIPT}={SCRIPT}"],
    ids=["nowhere", "model", "below a route", "query"],
)
def test_script_in_a_path(http: httpx.Client, method: str, path: str) -> None:
    answer = http.request(method, path)
    harmless(answer)
    assert answer.status_code in {404, 405}
    assert "script" not in answer.text


def test_script_as_the_host_of_a_redirect(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings/", json={}, headers={"host": "evil.example/<script>"}, follow_redirects=False)
    assert "<script" not in answer.text + str(answer.headers)


def test_script_as_a_request_id_is_no_part_of_an_error(http: httpx.Client) -> None:
    """The header comes back as it is, which is what it is for, unless it is no token of visible characters."""
    answer = http.post("/v1/embeddings", json={}, headers={"x-request-id": f"{SCRIPT} x"})
    assert "script" not in answer.headers["x-request-id"]
    assert "script" not in answer.text
