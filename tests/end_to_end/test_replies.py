"""What comes back: numbers exact, headers, and metrics that move as they should."""

import base64
import re
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service

NAMES = {
    "berth_requests_total",
    "berth_requests_in_flight",
    "berth_stage_seconds_bucket",
    "berth_texts_total",
    "berth_tokens_total",
    "berth_truncated_texts_total",
    "berth_rejected_requests_total",
    "berth_batch_units_bucket",
    "berth_batch_tokens_bucket",
    "berth_batch_seconds_bucket",
    "berth_encoder_errors_total",
    "berth_queue_units",
    "berth_queue_tokens",
    "berth_ready",
    "berth_model_info",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
}


def embed(http: httpx.Client, **fields: object) -> Any:
    answer = http.post("/v1/embeddings", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def decoded(reply: Any) -> list[bytes]:
    return [base64.b64decode(item["embedding"]) for item in reply["data"]]


def test_float_replies_round_trip_float32_exactly(http: httpx.Client) -> None:
    texts = [f"ship number {number}" for number in range(50)]
    floats = embed(http, input=texts, encoding_format="float")["data"]
    exact = decoded(embed(http, input=texts, encoding_format="base64"))
    for item, raw in zip(floats, exact, strict=True):
        assert np.array(item["embedding"], dtype="<f4").tobytes() == raw


@pytest.mark.parametrize("dimensions", [1, 5, 383, 384])
def test_base64_and_float_are_one_with_dimensions_too(http: httpx.Client, dimensions: int) -> None:
    fields = {"input": "a ship", "dimensions": dimensions}
    [raw] = decoded(embed(http, **fields, encoding_format="base64"))
    [item] = embed(http, **fields)["data"]
    assert np.array(item["embedding"], dtype="<f4").tobytes() == raw
    assert len(item["embedding"]) == dimensions


def test_large_replies_are_whole_and_in_order(http: httpx.Client) -> None:
    texts = [f"berth {number}" for number in range(2000)]
    data = embed(http, input=texts)["data"]
    assert [item["index"] for item in data] == list(range(2000))
    few = embed(http, input=[texts[0], texts[1234], texts[1999]])["data"]
    for place, item in zip((0, 1234, 1999), few, strict=True):
        np.testing.assert_allclose(data[place]["embedding"], item["embedding"], atol=1e-5)


def test_reply_is_openais_to_the_field(http: httpx.Client) -> None:
    reply = embed(http, input="a ship")
    assert sorted(reply) == ["data", "model", "object", "usage"]
    assert (reply["object"], reply["model"]) == ("list", "sentence-transformers/all-MiniLM-L6-v2")
    assert [sorted(item) for item in reply["data"]] == [["embedding", "index", "object"]]
    assert reply["data"][0]["object"] == "embedding"
    assert reply["usage"] == {"prompt_tokens": 4, "total_tokens": 4}


@pytest.mark.parametrize(
    ("texts", "tokens"), [("hello", 3), (["hello", "hello world"], 7), (" ", 2), ("hello " * 400, 256)]
)
def test_usage_counts_the_tokens_that_were_encoded(http: httpx.Client, texts: object, tokens: int) -> None:
    assert embed(http, input=texts)["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize(
    ("texts", "truncated"),
    [
        ("short", None),
        (["hello " * 254, "hello"], None),
        ("hello " * 255, "1"),
        (["hello " * 300, "a", "b " * 999], "2"),
    ],
)
def test_header_counts_the_texts_that_were_cut(http: httpx.Client, texts: object, truncated: str | None) -> None:
    answer = http.post("/v1/embeddings", json={"input": texts})
    assert answer.headers.get("x-truncated-inputs") == truncated


def test_truncation_takes_the_end_or_the_start(http: httpx.Client) -> None:
    head, tail = "ship " * 254, "tide " * 254
    vectors = {
        truncate: embed(http, input=head + tail, truncate=truncate)["data"][0]["embedding"]
        for truncate in ("end", "start")
    }
    alone = [item["embedding"] for item in embed(http, input=[head, tail])["data"]]
    np.testing.assert_allclose(vectors["end"], alone[0], atol=1e-5)
    np.testing.assert_allclose(vectors["start"], alone[1], atol=1e-5)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/nothing", "/health/live", "/metrics"])
def test_request_id_is_given_back_or_made(http: httpx.Client, path: str) -> None:
    given = http.get(path, headers={"x-request-id": "my-id_1"})
    made = [http.get(path).headers["x-request-id"] for _ in range(2)]
    assert given.headers["x-request-id"] == "my-id_1"
    assert made[0] != made[1]
    assert all(re.fullmatch("[0-9a-f]{32}", id_) for id_ in made)


@pytest.mark.parametrize(
    "bad", ["", "two words", "a" * 129, "caf\u00e9".encode()], ids=["empty", "space", "long", "utf-8"]
)
def test_request_id_that_could_forge_a_log_line_is_replaced(http: httpx.Client, bad: str | bytes) -> None:
    answer = http.get("/health/live", headers=[(b"x-request-id", bad if isinstance(bad, bytes) else bad.encode())])
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_server_timing_tells_the_stages(http: httpx.Client) -> None:
    timing = http.post("/v1/embeddings", json={"input": "a ship"}).headers["server-timing"]
    stages = dict(re.findall(r"(\w+);dur=(\d+\.\d+)", timing))
    assert list(stages) == ["tokenize", "queue", "encode", "total"]
    parts = sum(float(stages[name]) for name in ("tokenize", "queue", "encode"))
    assert float(stages["encode"]) > 0
    assert parts <= float(stages["total"]) + 0.05  # rounded to hundredths


def test_server_timing_of_an_error_is_its_total(http: httpx.Client) -> None:
    timing = http.post("/v1/embeddings", json={"input": ""}).headers["server-timing"]
    assert re.fullmatch(r"total;dur=\d+\.\d+", timing)


def test_request_is_logged_without_its_text(service: "Service", http: httpx.Client) -> None:
    http.post("/v1/embeddings", json={"input": "a secret harbour"}, headers={"x-request-id": "log-me"})
    [line] = [line for line in service.log.splitlines() if "id=log-me" in line]
    assert "POST /v1/embeddings 200" in line
    assert "texts=1 tokens=5" in line
    assert "secret" not in service.log


def test_metrics_have_the_documented_names(http: httpx.Client) -> None:
    http.post("/v1/embeddings", json={"input": ""})
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {re.split(r"[{ ]", line)[0] for line in answer.text.splitlines() if not line.startswith("#")}
    assert names >= NAMES


def test_model_is_described_in_the_metrics(service: "Service") -> None:
    labels = {"name": "sentence-transformers/all-MiniLM-L6-v2", "precision": "fp32", "hidden_size": "384"}
    assert service.metric("berth_model_info", **labels) == 1
    assert service.metric("berth_ready") == 1


def sample(service: "Service") -> dict[str, float]:
    """Read what one request moves."""
    route = "/v1/embeddings"
    return {
        "ok": service.metric("berth_requests_total", route=route, status="200"),
        "bad": service.metric("berth_requests_total", route=route, status="400"),
        "unmatched": service.metric("berth_requests_total", route="unmatched", status="404"),
        "rejected": service.metric("berth_rejected_requests_total", reason="invalid_value"),
        "texts": service.metric("berth_texts_total"),
        "tokens": service.metric("berth_tokens_total"),
        "truncated": service.metric("berth_truncated_texts_total"),
        "batches": service.metric("berth_batch_units_count"),
        "batch sequences": service.metric("berth_batch_units_sum"),
        "batch tokens": service.metric("berth_batch_tokens_sum"),
        "batch times": service.metric("berth_batch_seconds_count"),
        "encode": service.metric("berth_stage_seconds_count", stage="encode"),
        "tokenize": service.metric("berth_stage_seconds_count", stage="tokenize"),
        "queue": service.metric("berth_stage_seconds_count", stage="queue"),
        "errors": service.metric("berth_encoder_errors_total"),
    }


def moved(service: "Service", http: httpx.Client, path: str, body: object) -> dict[str, float]:
    before = sample(service)
    http.post(path, json=body)
    after = sample(service)
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


def test_answer_moves_its_metrics(service: "Service", http: httpx.Client) -> None:
    assert moved(service, http, "/v1/embeddings", {"input": ["hello " * 300, "world " * 400]}) == {
        "ok": 1,
        "texts": 2,
        "tokens": 512,
        "truncated": 2,
        "batches": 2,
        "batch sequences": 2,
        "batch tokens": 512,
        "batch times": 2,
        "encode": 1,
        "tokenize": 1,
        "queue": 1,
    }


def test_refusal_moves_its_metrics(service: "Service", http: httpx.Client) -> None:
    assert moved(service, http, "/v1/embeddings", {"input": ""}) == {"bad": 1, "rejected": 1}


def test_unknown_routes_share_one_label(service: "Service", http: httpx.Client) -> None:
    assert moved(service, http, "/v1/made-up", {}) == {"unmatched": 1}


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/health/live"])
def test_health(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 200


def test_process_has_loaded_neither_torch_nor_transformers(service: "Service") -> None:
    maps = f"/proc/{service.process.pid}/maps"
    try:
        with open(maps, encoding="utf-8") as file:  # noqa: PTH123  # a pseudo-file
            mapped = file.read()
    except OSError:
        pytest.skip("this system has no /proc")
    assert "onnxruntime" in mapped
    assert not re.search(r"/(torch|transformers|onnx|sentence_transformers)/", mapped)
