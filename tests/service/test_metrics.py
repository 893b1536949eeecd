"""What is counted, and under which names."""

from prometheus_client import generate_latest

from service.inference.artifact import Artifact
from service.inference.embedder import Embedded, Timings
from service.inference.reading import Item
from service.inference.runner import BatchReport
from service.metrics import Metrics


def samples(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_each_service_counts_for_itself() -> None:
    first, second = Metrics(), Metrics()
    first.count_rejected("overloaded")
    assert samples(first, "berth_rejected_requests_total", reason="overloaded") == 1
    assert samples(second, "berth_rejected_requests_total", reason="overloaded") is None


def test_request_is_counted_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.count_request("/v1/embeddings", 200, 0.25)
    assert samples(metrics, "berth_requests_total", route="/v1/embeddings", status="200") == 1
    assert samples(metrics, "berth_stage_seconds_sum", stage="total") == 0.25


def test_texts_are_counted_with_their_stages() -> None:
    metrics = Metrics()
    items = [Item([], tokens, truncated, None) for tokens, truncated in ((3, False), (30, True), (7, False))]
    metrics.count_texts(Embedded([*items], tokens=40, cached=2, timings=Timings(0.5, 0.25, 2.0)))
    assert samples(metrics, "berth_texts_total") == 3
    assert samples(metrics, "berth_tokens_total") == 40
    assert samples(metrics, "berth_cached_units_total") == 2
    assert samples(metrics, "berth_truncated_texts_total") == 1
    stages = [samples(metrics, "berth_stage_seconds_sum", stage=stage) for stage in ("tokenize", "queue", "encode")]
    assert stages == [0.5, 0.25, 2.0]


def test_batch_is_counted() -> None:
    metrics = Metrics()
    metrics.count_batch(BatchReport(units=3, tokens=40, errors=2, seconds=0.5))
    assert samples(metrics, "berth_batch_units_sum") == 3
    assert samples(metrics, "berth_batch_tokens_sum") == 40
    assert samples(metrics, "berth_batch_seconds_sum") == 0.5
    assert samples(metrics, "berth_encoder_errors_total") == 2


def test_queue_and_readiness_are_read_when_asked() -> None:
    metrics = Metrics()
    depth = [1, 2]
    metrics.watch(units=lambda: depth[0], tokens=lambda: depth[1], ready=lambda: depth[0] > 5)
    assert (samples(metrics, "berth_queue_units"), samples(metrics, "berth_queue_tokens")) == (1, 2)
    assert samples(metrics, "berth_ready") == 0
    depth[:] = 7, 8
    assert (samples(metrics, "berth_queue_units"), samples(metrics, "berth_queue_tokens")) == (7, 8)
    assert samples(metrics, "berth_ready") == 1


def test_model_is_described(artifact: Artifact) -> None:
    metrics = Metrics()
    metrics.describe_model("tug", artifact.manifest)
    text = generate_latest(metrics.registry).decode()
    [line] = [line for line in text.splitlines() if line.startswith("berth_model_info{")]
    for label in ('name="tug"', 'family="bert"', 'precision="fp32"', 'target="cpu"', 'max_tokens="256"', 'layers="6"'):
        assert label in line
