"""Runs the queue's batches: encoder threads on one side, the event loop's futures on the other.

A thread that is free takes the next batch at once, whatever is there: no timer waits for more. Each priority has its
own threads: a batch that runs cannot be stopped, but it can be made to share its core, and the threads' niceness says
which goes first; `BulkShare` says when a short batch waits even so. Every future is resolved on every path: by its
vectors, by its own error, or by its caller leaving.
"""

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from berth.batching.admission import SHORT_TEXT, Admission
from berth.batching.cache import VectorCache
from berth.batching.queue import Lane, Priority, Queue, QueueEntry, Request, entries_of
from berth.batching.run import BatchRun, Result
from berth.batching.share import BulkShare
from berth.contract import Backend
from berth.cores import core_limit
from berth.errors import EncoderError, NotReadyError
from berth.types import TokenSequence

NICENESS = {Priority.SHORT: 3, Priority.BULK: 13}
"""Added to the process's niceness, for the threads of a priority. A short request every 100 ms beside bulk has 1.2 x
the p95 that it has alone, without niceness 1.9, and 7.2 with one set of threads for both (bench/RESULTS.md, The dial).
Where they compete for a core, the event loop, which must be quick to turn away what is too much, has twice the share of
short requests, and those nine times bulk's. It does not help with the interpreter's lock: a thread that holds it is
waited for, whatever its niceness."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's results, one a sequence, the seconds they waited and took, and how many came from the cache."""

    results: list[Result]
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    cached: int = 0


@dataclass(slots=True, eq=False)
class ModelLane(Lane):
    """A model's lane, and what encodes its batches: a backend for each of the worker's devices."""

    backends: Sequence[Backend] = ()
    cache: VectorCache | None = None


@dataclass(slots=True, eq=False)
class _Pending(Request):
    """A request with the results it is waiting for."""

    results: dict[int, Result] = field(default_factory=dict)
    missing: int = 0
    started: float = math.inf
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Worker:
    """Owns the queue and the encoder threads; `run` is the way in, from the event loop that called `start`.

    Each of the `devices` has `threads` threads for each priority; all serve the one queue. `bulk_share` is of the CPU's
    time, and kept on Linux alone, as niceness is. `on_batch` is called, on the event loop, after each batch, `on_lost`
    where a device has failed for good.
    """

    def __init__(
        self,
        *,
        threads: int,
        devices: int = 1,
        max_queue_tokens: int,
        bulk_share: float = 0.0,
        on_batch: Callable[[BatchRun], None] = lambda _: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = Queue()
        self.admission = Admission(self.queue, max_queue_tokens)
        self.requests = 0
        """Requests whose sequences wait or are being encoded."""
        self.bulk_share = bulk_share if sys.platform == "linux" else 0.0
        """Part of the cores' time that bulk keeps while short requests keep coming."""
        self._share = BulkShare(self.bulk_share, core_limit(), _cpu_seconds)
        self._threads = threads
        self._devices = devices
        self._on_batch = on_batch
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._changed = {priority: threading.Condition(self._lock) for priority in Priority}
        self._stopping = False
        self._started: list[threading.Thread] = []
        self._running: dict[int, tuple[float, float]] = {}
        """When the batch of each thread began, by `perf_counter`, and how many batches its tokens would fill."""
        self._lost: set[int] = set()  # the devices that have failed for good
        self._loop: asyncio.AbstractEventLoop

    @property
    def most_batches(self) -> int:
        """Batches that may run at once."""
        return self._devices * self._threads * len(Priority)

    def start(self) -> None:
        """Start the encoder threads; they end with the process or after `stop`."""
        self._loop = asyncio.get_running_loop()
        for number, device in enumerate(device for device in range(self._devices) for _ in range(self._threads)):
            for priority in Priority:
                name = f"encoder-{priority.value}-{number}"
                self._started.append(
                    threading.Thread(target=self._work, args=[device, priority], name=name, daemon=True)
                )
                self._started[-1].start()

    def stop(self) -> None:
        """Let each thread end after the batch it is running and whatever still waits of its priority."""
        with self._lock:
            self._stopping = True
            self._wake_all()

    def join(self, seconds: float) -> None:
        """Wait, at most so many seconds, for the threads to end: one inside ONNX Runtime crashes the exit."""
        end = time.monotonic() + seconds
        for thread in self._started:
            thread.join(max(0.0, end - time.monotonic()))

    def oldest_batch(self) -> float:
        """Give the seconds that the batch has taken which runs longest; 0 where none runs.

        Of a text that is longer than a batch, and than `SHORT_TEXT`, they are as many times fewer.
        """
        now = time.perf_counter()
        return max(((now - started) / batches for started, batches in list(self._running.values())), default=0.0)

    async def run(
        self,
        lane: ModelLane,
        sequences: Sequence[TokenSequence],
        *,
        seconds: float = math.inf,
        charge: Callable[[int], None] | None = None,
    ) -> Encoded:
        """Encode the sequences of one request, of which there is at least one, if that can be done within `seconds`.

        A sequence that comes twice is encoded once. `charge` is told the number of tokens to be queued, without those
        found in the cache; where it raises, nothing is queued. Raises what `Admission.check` raises, and
        `NotReadyError` after `stop`. A caller that is cancelled takes its waiting sequences out of the queue.
        """
        queued = time.perf_counter()
        request = _Pending(lane)
        entries, cached = self._entries(request, sequences)
        if not entries:
            return Encoded([request.results[index] for index in range(len(sequences))], cached=cached)
        tokens = sum([entry.length for entry in entries])
        priority = self.admission.check(lane, len(entries), tokens, seconds)
        if charge is not None:
            charge(tokens)
        with self._lock:
            if self._stopping:
                raise NotReadyError("the service is shutting down")
            request.entries.extend(entries)
            request.missing = len(entries)
            self.queue.add(request, priority)
            self._changed[priority].notify(len(entries))
        del entries  # they refer to the request, which refers to them
        self.requests += 1
        try:
            await request.done
        finally:
            self.requests -= 1
            with self._lock:
                self.queue.remove(request)
        results = [request.results[index] for index in range(len(sequences))]
        return Encoded(results, request.started - queued, time.perf_counter() - request.started, cached)

    def _entries(self, request: _Pending, sequences: Sequence[TokenSequence]) -> tuple[list[QueueEntry], int]:
        """Give what is to be queued, the shortest first, and how many sequences were in the cache."""
        cache = request.lane.cache if isinstance(request.lane, ModelLane) else None
        if len(sequences) == 1 and cache is None:
            return [QueueEntry(request, sequences[0], len(sequences[0].encoding.ids))], 0
        entries = entries_of(request, sequences)
        if cache is None:
            return entries, 0
        left: list[QueueEntry] = []
        for entry in entries:
            if (vectors := cache.get(entry.sequence.key)) is not None:
                request.results |= dict.fromkeys(entry.indices, vectors)
            else:
                left.append(entry)
        return left, len(request.results)

    def _work(self, device: int, priority: Priority) -> None:
        """Run batches until stopped; what goes wrong in one is its sequences' result, never this loop's end."""
        if sys.platform == "linux":  # elsewhere it would be of the whole process
            with suppress(OSError):  # a sandbox may forbid it
                os.nice(NICENESS[priority])
        while self._run_next(device, priority):
            pass

    def _run_next(self, device: int, priority: Priority) -> bool:
        """Wait for a batch, run it and hand its results over; false where this thread is to end.

        What it holds is let go of with its return: a thread that waits keeps no request alive.
        """
        batch, held = self._next_batch(device, priority)
        if not batch:
            return False
        lane, run, thread = batch[0].request.lane, BatchRun(held=held), threading.get_ident()
        assert isinstance(lane, ModelLane), "`run` queues such requests only"
        tokens = sum([entry.length for entry in batch])
        self._running[thread] = run.started, max(1.0, tokens / max(lane.max_batch_tokens, SHORT_TEXT))
        results = run.encode(lane.backends[device], [entry.sequence for entry in batch])
        del self._running[thread]
        with self._lock:
            lane.spare_memory(run.most_tokens)
            if priority is Priority.BULK:
                self._share.end(thread, time.perf_counter())
                if self.queue.waiting[Priority.SHORT].sequences and not self.queue.waiting[Priority.BULK].sequences:
                    self._changed[Priority.SHORT].notify_all()  # nothing waits for bulk that is no more
            if run.lost:
                self._lost.add(device)
                self._wake_all()  # its other threads, which may be waiting, are to end
        try:
            self._loop.call_soon_threadsafe(self._deliver, lane, batch, results, run)
        except RuntimeError:  # the event loop is closed: nobody is left to answer
            return False
        return True

    def _next_batch(self, device: int, priority: Priority) -> tuple[list[QueueEntry], float]:
        """Wait for a batch; gives it with the seconds for which bulk's share held it back.

        It is empty where the worker was stopped and nothing waits, or the device is lost.
        """
        since = math.inf
        with self._lock:
            while device not in self._lost or len(self._lost) == self._devices:
                now = time.perf_counter()
                waiting = self.queue.waiting[priority].sequences > 0 and not self._stopping
                if priority is Priority.SHORT and (hold := self._share.hold(now, waiting=waiting)):
                    since = min(since, now)
                    self._changed[priority].wait(hold)
                    continue
                batch = self.queue.take_batch(priority)
                if batch and priority is Priority.BULK:
                    self._share.begin(threading.get_ident(), now)
                if batch or self._stopping:
                    return batch, max(0.0, now - since)
                since = math.inf  # another thread has taken what was held
                self._changed[priority].wait()
            return [], 0.0

    def _wake_all(self) -> None:  # with the lock held
        for changed in self._changed.values():
            changed.notify_all()

    def _deliver(self, lane: ModelLane, batch: list[QueueEntry], results: list[Result], run: BatchRun) -> None:
        """Hand a batch's results to the requests they belong to; on the event loop."""
        for entry, result in zip(batch, results, strict=True):
            request = entry.request
            assert isinstance(request, _Pending), "`run` queues such requests only"
            for index in entry.indices:
                request.results[index] = result
            request.started = min(request.started, run.started)
            request.missing -= 1
            if not request.missing and not request.done.done():
                request.done.set_result(None)
        if not run.errors:
            per_token = (run.held + run.seconds) / run.tokens / (self._threads * self._devices)
            self.admission.observe(batch[0].request.priority, per_token, full=2 * run.tokens >= lane.max_batch_tokens)
        if lane.cache is not None:  # last: nobody's answer depends on there being memory for it
            for entry, result in zip(batch, results, strict=True):
                if not isinstance(result, EncoderError):
                    lane.cache.put(entry.sequence.key, result)
        self._loop.call_soon(self._on_batch, run)  # after those whom the results have woken
        if run.lost:
            self._on_lost()


def _cpu_seconds(thread: int) -> float:
    """Give the CPU time that a running thread has used."""
    return time.clock_gettime(time.pthread_getcpuclockid(thread))
