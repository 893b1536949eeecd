"""The metrics: the only file that names them. docs/metrics.md says what each tells an operator.

Several workers count together through files that they map, which is prometheus_client's multiprocess mode. It keeps
numbers only: the model's description, the same in all of them, is each worker's own to show, and what is read when
asked (the queue's depth, the process' memory) is written down by `refresh`, often.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

if TYPE_CHECKING:  # so that the supervisor, which only tidies up, loads no encoder
    from service.inference.artifact import Manifest
    from service.inference.embedder import Embedded
    from service.inference.runner import BatchReport

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
UNITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part in what all workers count: their folder, and the worker's place, at which one follows another.

    Files are named by the place and not by the process, so that a worker counts on from where its predecessor died and
    a thousand restarts leave no thousand files.
    """

    folder: Path
    place: int

    def open(self) -> None:
        """Have all metrics that are made from now on in this process kept in the folder."""
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(self.folder)
        values.ValueClass = values.MultiProcessValue(lambda: self.place)  # type: ignore[no-untyped-call]

    def reserve(self) -> None:
        """Have the files' blocks allocated: a mapped page for which a full disk has no block ends the process."""
        for path in self.folder.glob(f"*_{self.place}.db"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)

    def forget(self) -> None:
        """Drop what a worker that has died said of its present; what it counted stays."""
        mark_process_dead(self.place, str(self.folder))  # type: ignore[no-untyped-call]


class Metrics:
    """Everything the service counts, in a registry of its own; with a share, it shows what all workers count."""

    def __init__(self, share: Share | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self._figures: ProcessFigures | None = None
        PlatformCollector(registry=registry)
        self._model = Info("berth_model", "The model that is served", registry=registry)
        if share is None:
            ProcessCollector(registry=registry)
        else:
            share.open()
            registry.register(SharedCollector(share.folder, self.refresh))
            registry = CollectorRegistry()  # this worker's own, which nobody reads
            self._figures = ProcessFigures(registry)
        requests = Counter("berth_requests", "Requests answered", ["route", "status"], registry=registry)
        seconds = Histogram(
            "berth_request_seconds", "Time of a request by route", ["route"], buckets=SECONDS, registry=registry
        )
        self.in_flight = _gauge("berth_requests_in_flight", "Requests being answered", registry)
        stages = Histogram(
            "berth_stage_seconds", "Time of a request by stage", ["stage"], buckets=SECONDS, registry=registry
        )
        self._texts = Counter("berth_texts", "Texts encoded", registry=registry)
        self._tokens = Counter("berth_tokens", "Tokens of the texts encoded, padding not counted", registry=registry)
        self._truncated = Counter("berth_truncated_texts", "Texts cut to the model's maximum", registry=registry)
        self._cached = Counter("berth_cached_units", "Units answered from the cache", registry=registry)
        rejected = Counter("berth_rejected_requests", "Requests turned away", ["reason"], registry=registry)
        # Looked up for every request: the library's own way, with a lock and checks, takes seven times as long.
        self._requests, self._seconds = cache(requests.labels), cache(seconds.labels)
        self._stages, self._rejected = cache(stages.labels), cache(rejected.labels)
        self._batch_units = Histogram("berth_batch_units", "Units in a batch", buckets=UNITS, registry=registry)
        self._batch_tokens = Histogram("berth_batch_tokens", "Tokens in a batch", buckets=TOKENS, registry=registry)
        self._batch_seconds = Histogram(
            "berth_batch_seconds", "Time of a batch in the encoder", buckets=SECONDS, registry=registry
        )
        self._encoder_errors = Counter("berth_encoder_errors", "Units on which the encoder failed", registry=registry)
        self._out_of_memory = Counter(
            "berth_out_of_memory", "Runs of the encoder for which the device had no memory", registry=registry
        )
        self._stalls = Counter("berth_encoder_stalls", "Times the encoder hung", registry=registry)
        self._queue_units = _gauge("berth_queue_units", "Units that wait for the encoder", registry)
        self._queue_tokens = _gauge("berth_queue_tokens", "Tokens that wait for the encoder", registry)
        self._queue_limit = _gauge("berth_max_queue_tokens", "Tokens that may wait for the encoder", registry)
        self._batch_limit = Gauge(
            "berth_max_batch_tokens", "Tokens that a batch may hold", registry=registry, multiprocess_mode="livemax"
        )
        self._ready = _gauge("berth_ready", "Processes that are ready", registry)
        self._watched: dict[Gauge, Callable[[], float]] = {}
        if share is not None:
            share.reserve()

    def describe_model(self, name: str, manifest: "Manifest") -> None:
        """Say what is served."""
        fields = ("family", "target", "precision", "pooling", "hidden_size", "layers", "max_tokens")
        self._model.info({"name": name, **{field: str(getattr(manifest, field)) for field in fields}})

    def watch(
        self,
        *,
        units: Callable[[], int],
        tokens: Callable[[], int],
        max_queue_tokens: Callable[[], int],
        max_batch_tokens: Callable[[], int],
        ready: Callable[[], bool],
    ) -> None:
        """Read queue, limits and readiness whenever the metrics are read; shared ones, at `refresh`.

        The batches' limit is read too, for the calibration changes it.
        """
        self._watched = {
            self._queue_units: units,
            self._queue_tokens: tokens,
            self._queue_limit: max_queue_tokens,
            self._batch_limit: max_batch_tokens,
            self._ready: ready,
        }
        if self._figures is None:
            for gauge, read in self._watched.items():
                gauge.set_function(read)

    def refresh(self) -> None:
        """Write down, where other workers show it, what is read otherwise."""
        if self._figures is not None:
            self._figures.refresh()
            for gauge, read in self._watched.items():
                gauge.set(read())

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self._requests(route, status).inc()
        self._seconds(route).observe(seconds)
        self._stages("total").observe(seconds)

    def count_texts(self, embedded: "Embedded") -> None:
        """Count what one request had encoded, and how long each stage took."""
        self._texts.inc(len(embedded.items))
        self._tokens.inc(embedded.tokens)
        self._truncated.inc(embedded.truncated)
        self._cached.inc(embedded.cached)
        for stage in ("tokenize", "queue", "encode"):
            self._stages(stage).observe(getattr(embedded.timings, stage))

    def count_rejected(self, reason: str) -> None:
        """Count one request that was turned away."""
        self._rejected(reason).inc()

    def count_unread(self, route: str, number: int) -> None:
        """Count requests that were turned away unread; their time says nothing, and is not counted."""
        self._requests(route, 429).inc(number)
        self._rejected("overloaded").inc(number)

    def count_batch(self, batch: "BatchReport") -> None:
        """Count one run of the encoder."""
        self._batch_units.observe(batch.units)
        self._batch_tokens.observe(batch.tokens)
        self._batch_seconds.observe(batch.seconds)
        self._encoder_errors.inc(batch.errors)
        self._out_of_memory.inc(batch.out_of_memory)

    def count_stall(self) -> None:
        """Count a batch that takes far longer than usual."""
        self._stalls.inc()


class SharedCollector(Collector):
    """What all workers have written down; this one does so first."""

    def __init__(self, folder: Path, refresh: Callable[[], None]) -> None:
        self._files = MultiProcessCollector(None, str(folder))  # type: ignore[no-untyped-call]
        self._refresh = refresh

    def collect(self) -> Iterable[Metric]:
        """Read the files."""
        self._refresh()
        metrics: Iterable[Metric] = self._files.collect()  # type: ignore[no-untyped-call]
        return metrics


class ProcessFigures:
    """What ProcessCollector says of this process, as metrics that add up over workers; the start is the oldest's."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._process = ProcessCollector(registry=None)
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._counted: dict[str, float] = {}
        for family in self._process.collect():
            name, text = family.name, family.documentation
            if family.type == "counter":
                self._counters[name] = Counter(name, text, registry=registry)
            elif name == "process_start_time_seconds":
                self._gauges[name] = Gauge(name, text, registry=registry, multiprocess_mode="livemin")
            else:
                self._gauges[name] = _gauge(name, text, registry)

    def refresh(self) -> None:
        """Write the figures down."""
        for family in self._process.collect():
            value = family.samples[0].value
            if counter := self._counters.get(family.name):
                counter.inc(value - self._counted.get(family.name, 0.0))
                self._counted[family.name] = value
            elif gauge := self._gauges.get(family.name):
                gauge.set(value)


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    """Make a gauge that adds up over the workers that are alive."""
    return Gauge(name, text, registry=registry, multiprocess_mode="livesum")
