"""The metrics: the only file that names them. docs/metrics.md says what each tells an operator."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector

from service.inference.artifact import Manifest
from service.inference.embedder import Embedded
from service.inference.runner import BatchReport

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


class Metrics:
    """Everything the service counts, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._model = Info("berth_model", "The model that is served", registry=registry)
        self._requests = Counter("berth_requests", "Requests answered", ["route", "status"], registry=registry)
        self.in_flight = Gauge("berth_requests_in_flight", "Requests being answered", registry=registry)
        self._stages = Histogram(
            "berth_stage_seconds", "Time of a request by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._texts = Counter("berth_texts", "Texts encoded", registry=registry)
        self._tokens = Counter("berth_tokens", "Tokens of the texts encoded, padding not counted", registry=registry)
        self._truncated = Counter("berth_truncated_texts", "Texts cut to the model's maximum", registry=registry)
        self._cached = Counter("berth_cached_units", "Units answered from the cache", registry=registry)
        self._rejected = Counter("berth_rejected_requests", "Requests turned away", ["reason"], registry=registry)
        self._batch_units = Histogram("berth_batch_units", "Units in a batch", buckets=UNITS, registry=registry)
        self._batch_tokens = Histogram("berth_batch_tokens", "Tokens in a batch", buckets=TOKENS, registry=registry)
        self._batch_seconds = Histogram(
            "berth_batch_seconds", "Time of a batch in the encoder", buckets=SECONDS, registry=registry
        )
        self._encoder_errors = Counter("berth_encoder_errors", "Units on which the encoder failed", registry=registry)
        self._queue_units = Gauge("berth_queue_units", "Units that wait for the encoder", registry=registry)
        self._queue_tokens = Gauge("berth_queue_tokens", "Tokens that wait for the encoder", registry=registry)
        self._ready = Gauge("berth_ready", "1 while the service is ready", registry=registry)

    def describe_model(self, name: str, manifest: Manifest) -> None:
        """Say what is served."""
        fields = ("family", "target", "precision", "pooling", "hidden_size", "layers", "max_tokens")
        self._model.info({"name": name, **{field: str(getattr(manifest, field)) for field in fields}})

    def watch(self, *, units: Callable[[], int], tokens: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Read the queue's depth and the readiness whenever the metrics are read."""
        self._queue_units.set_function(units)
        self._queue_tokens.set_function(tokens)
        self._ready.set_function(ready)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests.labels(route, str(status)).inc()
        self._stages.labels("total").observe(seconds)

    def count_texts(self, embedded: Embedded) -> None:
        """Count what one request had encoded, and how long each stage took."""
        self._texts.inc(len(embedded.items))
        self._tokens.inc(embedded.tokens)
        self._truncated.inc(embedded.truncated)
        self._cached.inc(embedded.cached)
        for stage in ("tokenize", "queue", "encode"):
            self._stages.labels(stage).observe(getattr(embedded.timings, stage))

    def count_rejected(self, reason: str) -> None:
        """Count one request that was turned away."""
        self._rejected.labels(reason).inc()

    def count_batch(self, batch: BatchReport) -> None:
        """Count one run of the encoder."""
        self._batch_units.observe(batch.units)
        self._batch_tokens.observe(batch.tokens)
        self._batch_seconds.observe(batch.seconds)
        self._encoder_errors.inc(batch.errors)
