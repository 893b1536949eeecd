"""What is counted, and under which names."""

from pathlib import Path

import pytest
from prometheus_client import generate_latest, values

from service.inference.artifact import Artifact
from service.inference.embedder import Embedded, Timings
from service.inference.reading import Item
from service.inference.runner import BatchReport
from service.metrics import Metrics, Share


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
    assert samples(metrics, "berth_request_seconds_sum", route="/v1/embeddings") == 0.25


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


def test_what_is_turned_away_unread_is_counted_and_not_timed() -> None:
    metrics = Metrics()
    metrics.count_unread("/embed", 3)
    assert samples(metrics, "berth_requests_total", route="/embed", status="429") == 3
    assert samples(metrics, "berth_rejected_requests_total", reason="overloaded") == 3
    assert samples(metrics, "berth_request_seconds_count", route="/embed") is None
    assert samples(metrics, "berth_stage_seconds_count", stage="total") is None


def test_batch_is_counted() -> None:
    metrics = Metrics()
    metrics.count_batch(BatchReport(units=3, tokens=40, errors=2, seconds=0.5, out_of_memory=4))
    assert samples(metrics, "berth_batch_units_sum") == 3
    assert samples(metrics, "berth_batch_tokens_sum") == 40
    assert samples(metrics, "berth_batch_seconds_sum") == 0.5
    assert samples(metrics, "berth_encoder_errors_total") == 2
    assert samples(metrics, "berth_out_of_memory_total") == 4


def test_queue_and_readiness_are_read_when_asked() -> None:
    metrics = Metrics()
    depth = [1, 2]
    metrics.watch(
        units=lambda: depth[0],
        tokens=lambda: depth[1],
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


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give a folder that workers share, and what prometheus_client was set to back at the end."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def test_workers_count_together(folder: Path) -> None:
    for place in (0, 1):
        metrics = Metrics(Share(folder, place))
        metrics.count_request("/v1/embeddings", 200, 0.25)
        metrics.in_flight.inc()
        metrics.watch(
            units=lambda: 3,
            tokens=lambda: 40,
            max_queue_tokens=lambda: 100,
            max_batch_tokens=lambda: 256,
            ready=lambda: True,
        )
        metrics.refresh()
    assert samples(metrics, "berth_requests_total", route="/v1/embeddings", status="200") == 2
    assert samples(metrics, "berth_stage_seconds_sum", stage="total") == 0.5
    assert samples(metrics, "berth_requests_in_flight") == 2
    assert (samples(metrics, "berth_queue_units"), samples(metrics, "berth_queue_tokens")) == (6, 80)
    assert samples(metrics, "berth_max_queue_tokens") == 200
    assert samples(metrics, "berth_max_batch_tokens") == 256, "each worker's batches have that many, not both together"
    assert samples(metrics, "berth_ready") == 2


def test_follower_counts_on_and_the_present_of_the_dead_is_gone(folder: Path) -> None:
    for expected in (1, 2, 3):
        metrics = Metrics(Share(folder, 0))
        metrics.count_rejected("overloaded")
        metrics.in_flight.inc()
        assert samples(metrics, "berth_rejected_requests_total", reason="overloaded") == expected
        assert samples(metrics, "berth_requests_in_flight") == 1
        files = len(list(folder.iterdir()))
        Share(folder, 0).forget()
        assert samples(metrics, "berth_requests_in_flight") is None
    assert len(list(folder.iterdir())) < files <= 5


def test_figures_of_the_processes_add_up(folder: Path) -> None:
    first = Metrics(Share(folder, 0))
    alone = samples(first, "process_resident_memory_bytes"), samples(first, "process_start_time_seconds")
    both = Metrics(Share(folder, 1))
    assert samples(both, "process_resident_memory_bytes") == pytest.approx(2 * (alone[0] or 0), rel=0.2)
    assert samples(both, "process_start_time_seconds") == alone[1]
    before = samples(both, "process_cpu_seconds_total")
    assert before
    assert (samples(both, "process_cpu_seconds_total") or 0) >= before


def test_model_is_described_by_each_worker(folder: Path, artifact: Artifact) -> None:
    for place in (0, 1):
        metrics = Metrics(Share(folder, place))
        metrics.describe_model("tug", artifact.manifest)
    assert generate_latest(metrics.registry).decode().count("\nberth_model_info{") == 1
