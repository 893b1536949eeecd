"""What the log of a running service says, in text and in JSON, and that no text of a request is ever in it."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Launch, Service, Start

WORDS = ["zanzibar", "quagmire", "flibbertigibbet"]
KEY = "a-key-that-nobody-should-read"
STAGES = ("tokenize_ms", "queue_ms", "encode_ms")


def objects(service: "Service") -> list[dict[str, Any]]:
    """Read the log, every line of which is one object."""
    found = [json.loads(line) for line in service.log.splitlines()]
    for line in found:
        assert {"time", "level", "logger", "process", "message"} <= line.keys()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    return found


def speak(http: httpx.Client) -> None:
    """Send each of the words to every route, in good requests and in bad ones."""
    a, b, c = WORDS
    bodies: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"input": [a, f"{b} {c}"], "user": a},
        "/v1/features": {"inputs": [a, [b, c], {"tokens": [a, c]}], "include_tokens": True},
        "/v1/similarity": {"source": a, "target": [b, c]},
        "/v1/tokenize": {"inputs": WORDS},
        "/embed": {"inputs": WORDS},
        "/embed_all": {"inputs": a},
        "/similarity": {"inputs": {"source_sentence": a, "sentences": [b]}},
        "/tokenize": {"inputs": a},
        "/": {"inputs": WORDS},
        "/encode": {"id": a, "texts": WORDS},
    }
    for path, body in bodies.items():
        assert http.post(path, json=body).status_code == 200, path
        for bad in (body | {a: b}, body | {"truncate": b, "inputs": {a: c}, "input": {a: c}}):
            http.post(path, json=bad)
        http.post(path, content=json.dumps(body)[:-5].encode(), headers={"content-type": "application/json"})
        http.post(path, content=a.encode(), headers={"content-type": b, "x-request-timeout": c})
        http.post(f"{path}?{a}={b}", json=body, headers={"accept": c, "x-request-timeout": "1e-9"})
    http.get(f"/{a}/{b}?q={c}")
    http.get(f"/v1/models/{a}")
    http.request(a.upper(), "/v1/embeddings")


@pytest.mark.parametrize("format_", ["text", "json"])
def test_no_text_is_ever_in_the_log(start: "Start", tiny_artifact: Path, format_: str) -> None:
    service = start(tiny_artifact, BERTH_LOG_FORMAT=format_, BERTH_API_KEYS=f"alice: {KEY}")
    with httpx.Client(base_url=service.url, trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as http:
        speak(http)
    assert service.stop() == 0
    log = service.log.lower()
    assert log.count("/v1/embeddings") >= 6
    assert not [word for word in (*WORDS, KEY) if word in log]
    assert "traceback" not in log


def test_request_is_one_line_of_text(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact)
    with service.client() as http:
        http.post("/v1/embeddings", json={"input": ["a b", "c"]}, headers={"x-request-id": "mine"})
        http.post("/v1/embeddings", json={"input": []}, headers={"x-request-id": "bad"})
        http.get("/health/live", headers={"x-request-id": "live"})
    service.until(lambda: "id=live" in service.written)
    [good] = [line for line in service.log.splitlines() if "id=mine" in line]
    [bad] = [line for line in service.log.splitlines() if "id=bad" in line]
    [live] = [line for line in service.log.splitlines() if "id=live" in line]
    stages = " ".join(rf"{stage}=[\d.]+" for stage in STAGES)
    assert re.search(rf"berth\.requests: POST /v1/embeddings 200 ms=[\d.]+ id=mine texts=2 tokens=7 {stages}$", good)
    assert re.search(r"POST /v1/embeddings 400 ms=[\d.]+ id=bad error=invalid_request$", bad)
    assert re.search(r"GET /health/live 200 ms=[\d.]+ id=live$", live)


def test_request_is_one_object(start: "Start", tiny_artifact: Path) -> None:
    service = start(tiny_artifact, "--log-format", "json", BERTH_TYPO="1", BERTH_API_KEYS=f"alice: {KEY}")
    headers = {"x-request-id": "mine", "api-key": KEY}
    with service.client() as http:
        http.post("/v1/embeddings", json={"input": ["a b", "c"]}, headers=headers)
    service.until(lambda: '"id":"mine"' in service.written)
    log = objects(service)
    [line] = [line for line in log if line.get("id") == "mine"]
    expected = {"method": "POST", "route": "/v1/embeddings", "status": 200, "texts": 2, "tokens": 7, "key": "alice"}
    assert expected.items() <= line.items()
    assert (line["logger"], line["level"], line["message"]) == ("berth.requests", "info", "request")
    assert 0 < sum(line[stage] for stage in STAGES) <= line["ms"]
    [warning] = [line for line in log if line["level"] == "warning"]
    assert "BERTH_TYPO" in warning["message"]


def test_start_that_fails_is_one_object(launch: "Launch", tmp_path: Path) -> None:
    service = launch(tmp_path / "nowhere", "--log-format", "json")
    assert service.end() == 1
    [line] = objects(service)
    assert line["level"] == "critical"
    assert "is not an artifact" in line["message"]
