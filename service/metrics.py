"""The metrics: the only file that names them. docs/metrics.md says what each tells an operator."""

from collections.abc import Callable
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from berth.artifact import Manifest
from berth.batching.run import BatchRun
from berth.embedder import Embedded

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
WATCHED = {
    "queue_units": "Sequences that wait for the encoder",
    "queue_tokens": "Tokens that wait for the encoder",
    "max_queue_tokens": "Tokens that may wait for the encoder",
    "max_batch_tokens": "Tokens that a batch may hold",
    "ready": "Whether the process is ready",
}
"""Gauges that are read from the service whenever the metrics are."""


class Metrics:
    """Everything the service counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        PlatformCollector(registry=registry)
        ProcessCollector(registry=registry)
        self._model = Info("berth_model", "The model that is served", registry=registry)
        requests = Counter("berth_requests", "Requests answered", ["route", "status"], registry=registry)
        seconds = Histogram(
            "berth_request_seconds", "Time of a request by route", ["route"], buckets=SECONDS, registry=registry
        )
        self.in_flight = Gauge("berth_requests_in_flight", "Requests being answered", registry=registry)
        stages = Histogram(
            "berth_stage_seconds", "Time of a request by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._texts = Counter("berth_texts", "Texts encoded", registry=registry)
        self._tokens = Counter("berth_tokens", "Tokens of the texts encoded, padding not counted", registry=registry)
        self._truncated = Counter("berth_truncated_texts", "Texts cut to the model's maximum", registry=registry)
        self._cached = Counter("berth_cached_units", "Sequences answered from the cache", registry=registry)
        rejected = Counter("berth_rejected_requests", "Requests turned away", ["reason"], registry=registry)
        # Looked up for every request: the library's own way, with a lock and checks, takes seven times as long.
        self._requests, self._seconds = cache(requests.labels), cache(seconds.labels)
        self._stages, self._rejected = cache(stages.labels), cache(rejected.labels)
        self._batch_sequences = Histogram("berth_batch_units", "Sequences in a batch", buckets=UNITS, registry=registry)
        self._batch_tokens = Histogram("berth_batch_tokens", "Tokens in a batch", buckets=TOKENS, registry=registry)
        self._batch_seconds = Histogram(
            "berth_batch_seconds", "Time of a batch in the encoder", buckets=SECONDS, registry=registry
        )
        self._encoder_errors = Counter(
            "berth_encoder_errors", "Sequences on which the encoder failed", registry=registry
        )
        self._out_of_memory = Counter(
            "berth_out_of_memory", "Runs of the encoder for which the device had no memory", registry=registry
        )
        self.stalls = Counter("berth_encoder_stalls", "Times the encoder hung", registry=registry)
        self._watched = {name: Gauge(f"berth_{name}", help_, registry=registry) for name, help_ in WATCHED.items()}

    def describe_model(self, name: str, manifest: Manifest) -> None:
        """Say what is served."""
        fields = ("family", "target", "precision", "pooling", "hidden_size", "layers", "max_tokens")
        self._model.info({"name": name, **{field: str(getattr(manifest, field)) for field in fields}})

    def watch(self, **values: Callable[[], float]) -> None:
        """Have gauges read their values whenever the metrics are read, each by its name without `berth_`."""
        for name, value in values.items():
            self._watched[name].set_function(value)

    def count_request(
        self, route: str, status: int, seconds: float, embedded: Embedded | None = None, rejected: str | None = None
    ) -> None:
        """Count one answered request, what it had encoded, how long each stage took, and why it was turned away."""
        self._requests(route, status).inc()
        self._seconds(route).observe(seconds)
        self._stages("total").observe(seconds)
        if rejected is not None:
            self._rejected(rejected).inc()
        if embedded is None:
            return
        self._texts.inc(len(embedded.items))
        self._tokens.inc(embedded.tokens)
        self._truncated.inc(embedded.truncated)
        self._cached.inc(embedded.cached)
        for stage, taken in embedded.stages.items():
            self._stages(stage).observe(taken)

    def count_unread(self, route: str, number: int) -> None:
        """Count requests that were turned away unread; their time says nothing, and is not counted."""
        self._requests(route, 429).inc(number)
        self._rejected("overloaded").inc(number)

    def count_batch(self, batch: BatchRun) -> None:
        """Count one run of the encoder."""
        self._batch_sequences.observe(batch.sequences)
        self._batch_tokens.observe(batch.tokens)
        self._batch_seconds.observe(batch.seconds)
        self._encoder_errors.inc(batch.errors)
        self._out_of_memory.inc(batch.out_of_memory)
