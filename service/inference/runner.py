"""Runs the scheduler's batches: encoder threads on one side, the event loop's futures on the other.

A thread that is free takes the next batch at once, whatever is there: no timer waits for more. Every future is resolved
on every path: by its vectors, by its own error, or by its caller leaving.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from service.errors import EncoderError, NotReadyError, OverloadedError, TooLargeError
from service.inference.cache import VectorCache
from service.inference.scheduler import Flow, Scheduler, Ticket
from service.inference.types import Unit, Vectors

Encode = Callable[[Sequence[Unit]], list[Vectors]]
"""A batch of units in, one list of arrays a unit out; the contract between runner and encoder."""

Result = Vectors | EncoderError

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch was and what became of it."""

    units: int
    tokens: int
    errors: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's results, one a unit, the seconds they waited and took, and how many came from the cache."""

    results: list[Result]
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    cached: int = 0


@dataclass(slots=True, eq=False)
class Job(Flow):
    """A flow with the results it is waiting for."""

    unanswered: int = 0
    results: dict[int, Result] = field(default_factory=dict)
    started: float = math.inf
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Runner:
    """Owns the queue and the encoder threads; `run` is the way in, from the event loop that called `start`."""

    def __init__(
        self,
        encode: Encode,
        scheduler: Scheduler,
        *,
        threads: int,
        max_queue_tokens: int,
        cache: VectorCache,
        on_batch: Callable[[BatchReport], None],
    ) -> None:
        self._encode = encode
        self._cache = cache
        self._scheduler = scheduler
        self._max_queue_tokens = max_queue_tokens
        self._on_batch = on_batch
        self._threads = threads
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_per_token = 0.0  # of all threads together, smoothed over some fifty batches
        self._workers: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop

    @property
    def queued_units(self) -> int:
        """Units that wait, not those that are being encoded."""
        return self._scheduler.units

    @property
    def queued_tokens(self) -> int:
        """Tokens of the units that wait."""
        return self._scheduler.tokens

    @property
    def max_batch_tokens(self) -> int:
        """Tokens that a batch may hold."""
        return self._scheduler.max_batch_tokens

    @max_batch_tokens.setter
    def max_batch_tokens(self, tokens: int) -> None:
        with self._changed:
            self._scheduler.max_batch_tokens = tokens

    def start(self) -> None:
        """Start the encoder threads; they end with the process or after `stop`."""
        self._loop = asyncio.get_running_loop()
        for number in range(self._threads):
            self._workers.append(threading.Thread(target=self._work, name=f"encoder-{number}", daemon=True))
            self._workers[-1].start()

    def stop(self) -> None:
        """Let each thread end after the batch it is running and whatever still waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait, at most so many seconds a thread, for the threads to end: one inside ONNX Runtime crashes the exit."""
        for worker in self._workers:
            worker.join(seconds)

    def admit(self, tokens: int = 1, seconds: float = math.inf) -> None:
        """Raise where a request of some tokens is not to be queued.

        `OverloadedError`: the queue has no room for it now, or at the present rate it would not be served within
        `seconds`. `TooLargeError`: the queue could never hold it.
        """
        if tokens > self._max_queue_tokens:
            raise TooLargeError("", f"the request has {tokens} tokens, the queue holds {self._max_queue_tokens}")
        excess = self._scheduler.tokens + tokens - self._max_queue_tokens
        if excess > 0:
            raise OverloadedError("the queue is full, try again later", excess * self._seconds_per_token)
        if (self._scheduler.tokens + tokens) * self._seconds_per_token > seconds > 0:
            with self._changed:
                before = self._scheduler.tokens_before(tokens)
            late = (before + tokens) * self._seconds_per_token - seconds
            if late > 0:
                raise OverloadedError("the queue is too long for the request's deadline, try again later", late)

    async def run(
        self, units: Sequence[Unit], *, seconds: float = math.inf, charge: Callable[[int], None] | None = None
    ) -> Encoded:
        """Encode the units of one request, of which there is at least one, if that can be done within `seconds`.

        `charge` is told the tokens that are queued, those in the cache left out, and may raise: then they are not.
        Raises what `admit` raises, and `NotReadyError` after `stop`. A caller that is cancelled takes its waiting units
        out of the queue.
        """
        queued = time.perf_counter()
        job = Job()
        for index, unit in sorted(enumerate(units), key=lambda pair: len(pair[1])):
            ticket = Ticket(job, index, unit)
            if (vectors := self._cache.get(ticket.key)) is not None:
                job.results[index] = vectors
            else:
                job.tickets.append(ticket)
        cached = len(job.results)
        if not job.tickets:
            return Encoded([job.results[index] for index in range(len(units))], cached=cached)
        job.unanswered = len(job.tickets)
        tokens = sum(map(len, job.tickets))
        self.admit(tokens, seconds)
        if charge is not None:
            charge(tokens)
        with self._changed:
            if self._stopping:
                raise NotReadyError("the service is shutting down")
            self._scheduler.add(job)
            self._changed.notify(len(job.tickets))
        try:
            await job.done
        finally:
            with self._changed:
                self._scheduler.remove(job)
        results = [job.results[index] for index in range(len(units))]
        return Encoded(results, job.started - queued, time.perf_counter() - job.started, cached)

    def _work(self) -> None:
        """Run batches until stopped; what goes wrong in one is its units' result, never this loop's end."""
        while batch := self._next_batch():
            started = time.perf_counter()
            results = self._encode_each([ticket.unit for ticket in batch])
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch, results, started, time.perf_counter() - started)
            except RuntimeError:  # the event loop is closed: nobody is left to answer
                return

    def _next_batch(self) -> list[Ticket]:
        """Wait for a batch; empty where the runner was stopped and nothing waits."""
        with self._changed:
            while not (batch := self._scheduler.take_batch()) and not self._stopping:
                self._changed.wait()
            return batch

    def _encode_each(self, units: Sequence[Unit]) -> list[Result]:
        """Encode a batch; where it fails, halve it and try again, so that only a unit that fails alone has an error."""
        try:
            results: list[Result] = list(self._encode(units))
            if len(results) != len(units):
                raise EncoderError(f"{len(results)} results for {len(units)} units")
            return results
        except BaseException:  # whatever it is, this thread must go on
            if len(units) == 1:
                logger.exception("the encoder failed on a unit of %d tokens", len(units[0]))
                return [EncoderError("the encoder failed on this text; the service's log says why")]
        half = len(units) // 2
        return self._encode_each(units[:half]) + self._encode_each(units[half:])

    def _deliver(self, batch: list[Ticket], results: list[Result], started: float, seconds: float) -> None:
        """Hand a batch's results to the requests they belong to; on the event loop."""
        tokens = sum(map(len, batch))
        if 2 * tokens >= self._scheduler.max_batch_tokens:
            self._observe(seconds / tokens / self._threads)
        for ticket, result in zip(batch, results, strict=True):
            if not isinstance(result, EncoderError):
                self._cache.put(ticket.key, result)
            for each in (ticket, *ticket.twins):
                _answer(each, result, started)
        errors = sum(isinstance(result, EncoderError) for result in results)
        self._on_batch(BatchReport(len(batch), tokens, errors, seconds))

    def _observe(self, seconds_per_token: float) -> None:
        """Learn the rate at which a queue is worked off: from full batches, for a near empty one costs much a token."""
        weight = 0.02 if self._seconds_per_token else 1.0
        self._seconds_per_token += weight * (seconds_per_token - self._seconds_per_token)


def _answer(ticket: Ticket, result: Result, started: float) -> None:
    """Give a request one of its results; the last one wakes its caller."""
    job = ticket.flow
    assert isinstance(job, Job), "run() queues jobs only"
    job.started = min(job.started, started)
    job.results[ticket.index] = result
    job.unanswered -= 1
    if not job.unanswered and not job.done.done():
        job.done.set_result(None)
