"""Runs the scheduler's batches: encoder threads on one side, the event loop's futures on the other.

A thread that is free takes the next batch at once, whatever is there: no timer waits for more. Short requests have
threads of their own and so has bulk: a batch that runs cannot be stopped, but it can be made to share its core, and the
threads' niceness says who goes first. Every future is resolved on every path: by its vectors, by its own error, or by
its caller leaving.
"""

import asyncio
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from service.errors import (
    DeviceLostError,
    EncoderError,
    NotReadyError,
    OutOfMemoryError,
    OverloadedError,
    TooLargeError,
)
from service.inference.beat import Beat
from service.inference.cache import VectorCache
from service.inference.jobs import Job, Result, Run, answer
from service.inference.scheduler import Kind, Scheduler, Ticket
from service.inference.types import Unit, Vectors

Encode = Callable[[Sequence[Unit]], list[Vectors]]
"""A batch of units in, one list of arrays a unit out; the contract between runner and encoder."""

NICENESS = {Kind.SHORT: 3, Kind.BULK: 13}
"""Of a kind's threads, added to the process's. Where they compete for a core, the event loop, which must be quick to
turn away what is too much, has twice the part of short requests, and those nine times bulk's. That ends at the
interpreter's lock: whoever holds it is waited for, however nice."""

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

    Each of the encoders has `threads` threads for each kind of request, and all serve the one queue, in which
    `max_queue_tokens` of each kind may wait: bulk that fills its part leaves short requests theirs. `longest` is the
    tokens that one text may have: less than that a batch is never bounded to, however little memory there is.
    `on_batch` is called, on the event loop, after each batch. `one_core` says that all threads share one.
    """

    def __init__(
        self,
        encoders: Sequence[Encode],
        scheduler: Scheduler,
        *,
        threads: int,
        longest: int = 1,
        max_queue_tokens: int,
        cache: VectorCache,
        on_batch: Callable[[BatchReport], None],
        one_core: bool = False,
    ) -> None:
        self._encoders = encoders
        self._cache = cache
        self._scheduler = scheduler
        self._max_queue_tokens = max_queue_tokens
        self._on_batch = on_batch
        self._one_core = one_core
        self._beat = Beat(self._both_under_way)
        self._threads = threads
        self._longest = longest
        self._lock = threading.Lock()
        self._changed = {kind: threading.Condition(self._lock) for kind in Kind}
        self._stopping = False
        self._under_way = dict.fromkeys(Kind, 0)
        """Batches of each kind."""
        self._seconds_per_token = dict.fromkeys(Kind, 0.0)
        """With all threads of a kind at work, smoothed over some fifty batches."""
        self._workers: list[threading.Thread] = []
        self._lost: set[int] = set()  # the encoders whose device has failed for good
        self.requests = 0
        """Requests whose units wait or are being encoded."""
        self._loop: asyncio.AbstractEventLoop

    @property
    def most_batches(self) -> int:
        """Batches that may be under way at once."""
        return len(self._encoders) * self._threads * len(Kind)

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
        with self._lock:
            self._scheduler.max_batch_tokens = tokens

    def start(self) -> None:
        """Start the encoder threads; they end with the process or after `stop`."""
        self._loop = asyncio.get_running_loop()
        if self._one_core:
            self._beat.start()
        for number, encode in enumerate(encode for encode in self._encoders for _ in range(self._threads)):
            for kind in Kind:
                name = f"encoder-{kind.value}-{number}"
                self._workers.append(threading.Thread(target=self._work, args=[encode, kind], name=name, daemon=True))
                self._workers[-1].start()

    def stop(self) -> None:
        """Let each thread end after the batch it is running and whatever still waits of its kind."""
        with self._lock:
            self._stopping = True
            self._wake_all()

    def join(self, seconds: float) -> None:
        """Wait, at most so many seconds, for the threads to end: one inside ONNX Runtime crashes the exit."""
        end = time.monotonic() + seconds
        for worker in self._workers:
            worker.join(max(0.0, end - time.monotonic()))

    def admit(self, units: int, tokens: int, seconds: float = math.inf) -> None:
        """Raise where a request of some units and tokens is not to be queued.

        `OverloadedError`: the queue is full of its kind, or at its kind's last rate the request would not be served
        within `seconds`. While it is not full, a request is taken whole, for among smaller ones a large one would never
        find room. Where none of its kind waits it is taken whatever the rate: only what is taken teaches the rate.
        `TooLargeError`: the request alone would be more than the queue holds.
        """
        if tokens > self._max_queue_tokens:
            raise TooLargeError("", f"the request has {tokens} tokens, the queue holds {self._max_queue_tokens}")
        if (overload := self._overload(self._scheduler.kind_of(units, tokens), tokens, seconds)) is not None:
            raise overload

    def overload(self, seconds: float, *, inside: int = 0) -> OverloadedError | None:
        """Say why a request that has not been read yet is not to be queued, if it is not.

        It counts as a short request, of one text as long as theirs that wait, for nobody knows better yet; so does each
        of the others that are being read now, those of the `inside` that are not queued: what comes at once would
        otherwise all be let in by the room for one, and be turned away when the work is done.
        """
        others = max(0, inside - self.requests)
        length = min(self._scheduler.mean_length(Kind.SHORT), self._max_queue_tokens)
        return self._overload(Kind.SHORT, length, seconds, expected=others * length)

    def _overload(self, kind: Kind, tokens: int, seconds: float, *, expected: int = 0) -> OverloadedError | None:
        rate = self._seconds_per_token[kind]
        excess = self._scheduler.tokens_of(kind) + expected - self._max_queue_tokens
        if excess >= 0:
            return OverloadedError("the queue is full, try again later", (excess + tokens) * rate)
        ahead = self._scheduler.tokens_before(kind, tokens) + expected
        late = (ahead + tokens) * rate - seconds
        if ahead and late > 0:
            return OverloadedError("the queue is too long for the request's deadline, try again later", late)
        return None

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
        self.admit(len(tickets), tokens, seconds)
        if charge is not None:
            charge(tokens)
        with self._lock:
            if self._stopping:
                raise NotReadyError("the service is shutting down")
            job.tickets.extend(tickets)
            self._scheduler.add(job)
            self._changed[job.kind].notify(len(tickets))
        self.requests += 1
        try:
            await job.done
        finally:
            self.requests -= 1
            with self._lock:
                self._scheduler.remove(job)
        results = [job.results[index] for index in range(len(units))]
        return Encoded(results, job.started - queued, time.perf_counter() - job.started, cached)

    def _work(self, encode: Encode, kind: Kind) -> None:
        """Run batches until stopped; what goes wrong in one is its units' result, never this loop's end."""
        if sys.platform == "linux":  # elsewhere it would be of the whole process
            with suppress(OSError):  # a sandbox may forbid it
                os.nice(NICENESS[kind])
        while self._run_next(encode, kind):
            pass

    def _run_next(self, encode: Encode, kind: Kind) -> bool:
        """Wait for a batch, run it and hand its results over; false where this thread is to end.

        What it holds is let go of with its return: a thread that waits keeps no request alive.
        """
        batch = self._next_batch(encode, kind)
        if not batch:
            return False
        if self._one_core and self._both_under_way():
            self._beat.begin()
        run = Run()
        results = self._encode_each(encode, run, [ticket.unit for ticket in batch])
        run.seconds = time.perf_counter() - run.started
        with self._lock:
            self._under_way[kind] -= 1
            if run.lost:
                self._lost.add(id(encode))
                self._wake_all()  # its other threads, which may be waiting, are to end
        try:
            self._loop.call_soon_threadsafe(self._deliver, kind, batch, results, run)
        except RuntimeError:  # the event loop is closed: nobody is left to answer
            return False
        return True

    def _next_batch(self, encode: Encode, kind: Kind) -> list[Ticket]:
        """Wait for a batch; empty where the runner was stopped and nothing waits, or the encoder's device is lost."""
        with self._lock:
            while id(encode) not in self._lost or len(self._lost) == len(self._encoders):
                batch = self._scheduler.take_batch(kind)
                if batch or self._stopping:
                    self._under_way[kind] += bool(batch)
                    return batch
                self._changed[kind].wait()
            return []

    def _both_under_way(self) -> bool:
        return all(self._under_way.values())

    def _wake_all(self) -> None:  # with the lock held
        for changed in self._changed.values():
            changed.notify_all()

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
        with self._lock:
            if tokens < self._scheduler.max_batch_tokens:
                self._scheduler.max_batch_tokens = tokens
                logger.warning("the encoder ran out of memory: batches of %d tokens from now on", tokens)

    def _deliver(self, kind: Kind, batch: list[Ticket], results: list[Result], run: Run) -> None:
        """Hand a batch's results to the requests they belong to; on the event loop."""
        tokens = sum(map(len, batch))
        errors = sum(isinstance(result, EncoderError) for result in results)
        seconds_per_token = run.seconds / tokens / (self._threads * len(self._encoders))
        full = 2 * tokens >= self._scheduler.max_batch_tokens
        # A near empty batch costs much a token. But after what was once far slower no full one might come together any
        # more, so one that costs less even so counts too.
        if not errors and (full or seconds_per_token < self._seconds_per_token[kind]):
            self._observe(kind, seconds_per_token)
        for ticket, result in zip(batch, results, strict=True):
            for each in (ticket, *ticket.twins):
                answer(each, result, run.started)
        for ticket, result in zip(batch, results, strict=True):  # nobody's answer hangs on there being memory for this
            if not isinstance(result, EncoderError):
                self._cache.put(ticket.key, result)
        report = BatchReport(len(batch), tokens, errors, run.seconds, run.out_of_memory, run.lost)
        self._loop.call_soon(self._on_batch, report)  # after those whom the results have woken

    def _observe(self, kind: Kind, seconds_per_token: float) -> None:
        """Learn the rate at which a kind is worked off."""
        usual = self._seconds_per_token[kind]
        weight = 0.02 if usual else 1.0
        self._seconds_per_token[kind] = usual + weight * (seconds_per_token - usual)
