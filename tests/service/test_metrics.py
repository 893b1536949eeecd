"""What is counted, and under which names."""

from prometheus_client import generate_latest

from berth.artifact import Artifact
from berth.batching.run import BatchRun
from berth.embedder import Embedded
from berth.text.prepared import Item
from service.metrics import Metrics


def samples(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_each_service_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.count_request("/v1/embeddings", 429, 0.01, rejected="overloaded")
    assert samples(first, "berth_rejected_requests_total", reason="overloaded") == 1
    assert samples(second, "berth_rejected_requests_total", reason="overloaded") is None


def test_request_is_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.count_request("/v1/embeddings", 200, 0.25)
    assert samples(metrics, "berth_requests_total", route="/v1/embeddings", status="200") == 1
    assert samples(metrics, "berth_stage_seconds_sum", stage="total") == 0.25
    assert samples(metrics, "berth_request_seconds_sum", route="/v1/embeddings") == 0.25


def test_texts_are_counted_with_their_stages() -> None:
    metrics = Metrics()
    items = [Item([], tokens, truncated, None) for tokens, truncated in ((3, False), (30, True), (7, False))]
    embedded = Embedded(
        [*items], items, tokens=40, truncated=1, cached=2, stages={"tokenize": 0.5, "queue": 0.25, "encode": 2.0}
    )
    metrics.count_request("/v1/embeddings", 200, 3.0, embedded)
    assert samples(metrics, "berth_texts_total") == 3
    assert samples(metrics, "berth_tokens_total") == 40
    assert samples(metrics, "berth_cached_units_total") == 2
    assert samples(metrics, "berth_truncated_texts_total") == 1
    stages = [samples(metrics, "berth_stage_seconds_sum", stage=stage) for stage in ("tokenize", "queue", "encode")]
    assert stages == [0.5, 0.25, 2.0]


def test_what_is_turned_away_unread_is_counted_and_not_timed() -> None:
    metrics = Metrics()
    metrics.count_unread("/embed", 3)
    assert samples(metrics, "berth_requests_total", route="/embed", status="429") == 3
    assert samples(metrics, "berth_rejected_requests_total", reason="overloaded") == 3
    assert samples(metrics, "berth_request_seconds_count", route="/embed") is None
    assert samples(metrics, "berth_stage_seconds_count", stage="total") is None


def test_batch_is_counted() -> None:
    metrics = Metrics()
    metrics.count_batch(BatchRun(sequences=3, tokens=40, errors=2, seconds=0.5, out_of_memory=4))
    assert samples(metrics, "berth_batch_units_sum") == 3
    assert samples(metrics, "berth_batch_tokens_sum") == 40
    assert samples(metrics, "berth_batch_seconds_sum") == 0.5
    assert samples(metrics, "berth_encoder_errors_total") == 2
    assert samples(metrics, "berth_out_of_memory_total") == 4


def test_queue_and_readiness_are_read_when_asked() -> None:
    metrics = Metrics()
    depth = [1, 2]
    metrics.watch(
        queue_units=lambda: depth[0],
        queue_tokens=lambda: depth[1],
        max_queue_tokens=lambda: 100,
        max_batch_tokens=lambda: 10 * depth[1],
        ready=lambda: depth[0] > 5,
    )
    assert (samples(metrics, "berth_queue_units"), samples(metrics, "berth_queue_tokens")) == (1, 2)
    assert (samples(metrics, "berth_max_queue_tokens"), samples(metrics, "berth_max_batch_tokens")) == (100, 20)
    assert samples(metrics, "berth_ready") == 0
    depth[:] = 7, 8
    assert samples(metrics, "berth_max_batch_tokens") == 80
    assert (samples(metrics, "berth_queue_units"), samples(metrics, "berth_queue_tokens")) == (7, 8)
    assert samples(metrics, "berth_ready") == 1


def test_model_is_described(artifact: Artifact) -> None:
    metrics = Metrics()
    metrics.describe_model("tug", artifact.manifest)
    text = generate_latest(metrics.registry).decode()
    [line] = [line for line in text.splitlines() if line.startswith("berth_model_info{")]
    for label in ('name="tug"', 'family="bert"', 'precision="fp32"', 'target="cpu"', 'max_tokens="256"', 'layers="6"'):
        assert label in line
