"""Runs the scheduler's batches: encoder threads on one side, the event loop's futures on the other.

A thread that is free takes the next batch at once, whatever is there: no timer waits for more. One thread more, the
express, takes short requests while all the others are at bulk: a batch that runs cannot be stopped, but it can be made
to share its core. Every future is resolved on every path: by its vectors, by its own error, or by its caller leaving.
"""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.errors import (
    DeviceLostError,
    EncoderError,
    NotReadyError,
    OutOfMemoryError,
    OverloadedError,
    TooLargeError,
)
from service.inference.cache import VectorCache
from service.inference.jobs import Job, Result, Run, answer
from service.inference.scheduler import Scheduler, Ticket
from service.inference.types import Unit, Vectors

Encode = Callable[[Sequence[Unit]], list[Vectors]]
"""A batch of units in, one list of arrays a unit out; the contract between runner and encoder."""

Take = Callable[[Encode], list[Ticket]]
"""Waits for a batch that an encoder is to run; empty where its thread is to end."""

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a batch was and what became of it."""

    units: int
    tokens: int
    errors: int
    seconds: float
    out_of_memory: int = 0
    """How many runs of it, or of parts of it, the device had no memory for."""
    lost: bool = False
    """Whether the device has failed for good."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request's results, one a unit, the seconds they waited and took, and how many came from the cache."""

    results: list[Result]
    queue_seconds: float = 0.0
    encode_seconds: float = 0.0
    cached: int = 0


class Runner:
    """Owns the queue and the encoder threads; `run` is the way in, from the event loop that called `start`.

    Each of the encoders has `threads` threads, and all serve the one queue; `express` adds one more to the first of
    them, for short requests. `longest` is the tokens that one text may have: less than that a batch is never bounded
    to, however little memory there is. `on_batch` is called, on the event loop, after each batch.
    """

    def __init__(
        self,
        encoders: Sequence[Encode],
        scheduler: Scheduler,
        *,
        threads: int,
        express: bool = False,
        longest: int = 1,
        max_queue_tokens: int,
        cache: VectorCache,
        on_batch: Callable[[BatchReport], None],
    ) -> None:
        self._encoders = encoders
        self._cache = cache
        self._scheduler = scheduler
        self._max_queue_tokens = max_queue_tokens
        self._on_batch = on_batch
        self._threads = threads
        self._express = express
        self._longest = longest
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._overtaking = threading.Condition(lock)
        """Where the express waits."""
        self._at_bulk: set[int] = set()  # the threads whose batch is of bulk
        self._stopping = False
        self._seconds_per_token = 0.0  # of all threads together, smoothed over some fifty batches
        self._workers: list[threading.Thread] = []
        self._lost: set[int] = set()  # the encoders whose device has failed for good
        self.requests = 0
        """Requests whose units wait or are being encoded."""
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
        for number, encode in enumerate(encode for encode in self._encoders for _ in range(self._threads)):
            self._start_thread(f"encoder-{number}", encode, self._next_batch)
        if self._express:
            self._start_thread("encoder-express", self._encoders[0], self._next_short)

    def _start_thread(self, name: str, encode: Encode, take: Take) -> None:
        self._workers.append(threading.Thread(target=self._work, args=[encode, take], name=name, daemon=True))
        self._workers[-1].start()

    def stop(self) -> None:
        """Let each thread end after the batch it is running and whatever still waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._overtaking.notify()

    def join(self, seconds: float) -> None:
        """Wait, at most so many seconds a thread, for the threads to end: one inside ONNX Runtime crashes the exit."""
        for worker in self._workers:
            worker.join(seconds)

    def admit(self, tokens: int, seconds: float = math.inf, *, expected: int = 0) -> None:
        """Raise where a request of some tokens is not to be queued, behind what waits and what is expected.

        `OverloadedError`: the queue is full, or at the present rate the request would not be served within `seconds`.
        While it is not full, a request is taken whole, for under a load of short ones a long one would never find room.
        `TooLargeError`: the request alone would be more than the queue holds.
        """
        if tokens > self._max_queue_tokens:
            raise TooLargeError("", f"the request has {tokens} tokens, the queue holds {self._max_queue_tokens}")
        excess = self._scheduler.tokens + expected - self._max_queue_tokens
        if excess >= 0:
            raise OverloadedError("the queue is full, try again later", (excess + tokens) * self._seconds_per_token)
        late = (self._scheduler.tokens_before(tokens) + expected + tokens) * self._seconds_per_token - seconds
        if late > 0:
            raise OverloadedError("the queue is too long for the request's deadline, try again later", late)

    def admit_unread(self, seconds: float, others: int = 0) -> None:
        """Raise `OverloadedError` where a request that has not been read yet is not to be queued.

        It counts as one text as long as those that wait, and so does each of the others that are being read now: what
        comes at once would otherwise all be let in by the room for one, and be turned away when the work is done.
        """
        length = min(max(1, self._scheduler.tokens // max(1, self._scheduler.units)), self._max_queue_tokens)
        self.admit(length, seconds, expected=others * length)

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
        tickets: list[Ticket] = []  # the job's own, and a cycle, once it is queued
        for index, unit in sorted(enumerate(units), key=lambda pair: len(pair[1])):
            ticket = Ticket(job, index, unit)
            if (vectors := self._cache.get(ticket.key)) is not None:
                job.results[index] = vectors
            else:
                tickets.append(ticket)
        cached = len(job.results)
        if not tickets:
            return Encoded([job.results[index] for index in range(len(units))], cached=cached)
        job.unanswered = len(tickets)
        tokens = sum(map(len, tickets))
        self.admit(tokens, seconds)
        if charge is not None:
            charge(tokens)
        with self._changed:
            if self._stopping:
                raise NotReadyError("the service is shutting down")
            job.tickets.extend(tickets)
            self._scheduler.add(job)
            self._changed.notify(len(tickets))
            if job.short and self._all_at_bulk:
                self._overtaking.notify()
        self.requests += 1
        try:
            await job.done
        finally:
            self.requests -= 1
            with self._changed:
                self._scheduler.remove(job)
                if self._all_at_bulk:
                    self._overtaking.notify()  # bulk that went before short requests may have left
        results = [job.results[index] for index in range(len(units))]
        return Encoded(results, job.started - queued, time.perf_counter() - job.started, cached)

    def _work(self, encode: Encode, take: Take) -> None:
        """Run batches until stopped; what goes wrong in one is its units' result, never this loop's end."""
        while batch := take(encode):
            run = Run()
            results = self._encode_each(encode, run, [ticket.unit for ticket in batch])
            run.seconds = time.perf_counter() - run.started
            if run.lost:
                with self._changed:
                    self._lost.add(id(encode))
                    self._changed.notify_all()  # its other threads, which may be waiting, are to end
            try:
                self._loop.call_soon_threadsafe(self._deliver, batch, results, run)
            except RuntimeError:  # the event loop is closed: nobody is left to answer
                return

    def _next_batch(self, encode: Encode) -> list[Ticket]:
        """Wait for a batch; empty where the runner was stopped and nothing waits, or others are to do this one's."""
        thread = threading.get_ident()
        with self._changed:
            self._at_bulk.discard(thread)
            while id(encode) not in self._lost or len(self._lost) == len(self._encoders):
                batch = self._scheduler.take_batch()
                if batch and not batch[0].flow.short:
                    self._at_bulk.add(thread)
                    self._overtaking.notify()  # of short requests that had to let bulk go first
                if batch or self._stopping:
                    return batch
                self._changed.wait()
            return []

    def _next_short(self, _: Encode) -> list[Ticket]:
        """Wait for a batch of short requests that all other threads are too busy for; empty where stopped."""
        with self._overtaking:
            while not self._stopping:
                if self._all_at_bulk and (batch := self._scheduler.take_batch(short_only=True)):
                    return batch
                self._overtaking.wait()
            return []

    @property
    def _all_at_bulk(self) -> bool:
        return len(self._at_bulk) == self._threads * len(self._encoders)

    def _encode_each(self, encode: Encode, run: Run, units: Sequence[Unit]) -> list[Result]:
        """Encode a batch; where it fails, halve it and try again, so that only a unit that fails alone has an error."""
        try:
            results: list[Result] = list(encode(units))
            if len(results) != len(units):
                raise EncoderError(f"{len(results)} results for {len(units)} units")
            return results
        except BaseException as error:  # whatever it is, this thread must go on
            if isinstance(error, OutOfMemoryError):
                run.out_of_memory += 1
                self._spare_memory(sum(map(len, units)) // 2)
            if isinstance(error, DeviceLostError):
                run.lost = True
                logger.error("%s", error)
                return [EncoderError("the encoder's device has failed")] * len(units)
            if len(units) == 1:
                logger.exception("the encoder failed on a unit of %d tokens", len(units[0]))
                return [EncoderError("the encoder failed on this text; the service's log says why")]
        half = len(units) // 2
        return self._encode_each(encode, run, units[:half]) + self._encode_each(encode, run, units[half:])

    def _spare_memory(self, tokens: int) -> None:
        """Bound all batches from now on to some tokens, or to one text's most."""
        tokens = max(tokens, self._longest)
        with self._changed:
            if tokens < self._scheduler.max_batch_tokens:
                self._scheduler.max_batch_tokens = tokens
                logger.warning("the encoder ran out of memory: batches of %d tokens from now on", tokens)

    def _deliver(self, batch: list[Ticket], results: list[Result], run: Run) -> None:
        """Hand a batch's results to the requests they belong to; on the event loop."""
        tokens = sum(map(len, batch))
        if 2 * tokens >= self._scheduler.max_batch_tokens:
            self._observe(run.seconds / tokens / (self._threads * len(self._encoders)))
        for ticket, result in zip(batch, results, strict=True):
            if not isinstance(result, EncoderError):
                self._cache.put(ticket.key, result)
            for each in (ticket, *ticket.twins):
                answer(each, result, run.started)
        errors = sum(isinstance(result, EncoderError) for result in results)
        report = BatchReport(len(batch), tokens, errors, run.seconds, run.out_of_memory, run.lost)
        self._loop.call_soon(self._on_batch, report)  # after those whom the results have woken

    def _observe(self, seconds_per_token: float) -> None:
        """Learn the rate at which a queue is worked off: from full batches, for a near empty one costs much a token."""
        weight = 0.02 if self._seconds_per_token else 1.0
        self._seconds_per_token += weight * (seconds_per_token - self._seconds_per_token)
