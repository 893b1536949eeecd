"""The load generator: a closed loop, in which so many requests are always on the way."""

import asyncio
import gc
import time
from collections import Counter
from dataclasses import dataclass, field

from bench.check import Sample
from bench.connection import Connection, post
from bench.dialects import Dialect
from bench.figures import Span, Window
from bench.processes import Usage, usage
from bench.workloads import Workload

ANSWER_BOUND = 120.0
SAMPLED_TEXTS = 256


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure; `pid` is the root of its processes where they are on this machine."""

    label: str
    base: str
    dialect: Dialect
    model: str | None = None
    pid: int | None = None

    def requests(self, workload: Workload) -> list[bytes]:
        """Write a workload's requests."""
        ask, path, accept = self.dialect.ask, self.dialect.path, self.dialect.accept
        return [post(self.base, path, ask(texts, self.model), accept) for texts in workload.requests]


@dataclass(slots=True, eq=False)
class Record:
    """What happened: each answered request's time on the way, a sample of the answers, the errors by kind."""

    window: Window
    sample: Sample
    spans: list[Span] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    before: Usage | None = None
    after: Usage | None = None
    client_cpu: float = 0.0


def run_together(*loops: "ClosedLoop") -> list[Record]:
    """Run loops at the same time, without a garbage collection that would be taken for the server's latency."""

    async def together() -> list[Record]:
        return await asyncio.gather(*(loop.run() for loop in loops))

    gc.collect()
    gc.disable()
    try:
        return asyncio.run(together())
    finally:
        gc.enable()


class ClosedLoop:
    """One run of a workload against a server."""

    def __init__(self, target: Target, workload: Workload, *, warmup: float, seconds: float) -> None:
        self._target = target
        self._shape = workload.shape
        self._requests = target.requests(workload)
        self._next = 0
        self._pending = 0  # requests begun before the window's end and not answered yet
        self._warmup = warmup
        self._seconds = seconds
        self.record: Record  # from `run` on

    async def run(self) -> Record:
        """Warm up, measure, and keep up the load until every request of the window is answered."""
        start = time.perf_counter() + self._warmup
        self.record = Record(Window(start, start + self._seconds), Sample(max(4, SAMPLED_TEXTS // self._shape.texts)))
        await asyncio.gather(self._watch(), *(self._client() for _ in range(self._shape.concurrency)))
        return self.record

    async def _client(self) -> None:
        connection: Connection | None = None
        end = self.record.window.end
        while time.perf_counter() < end or self._pending:
            number = self._next % len(self._requests)
            self._next += 1
            inside = time.perf_counter() < end
            self._pending += inside
            try:
                if connection is None or not connection.open:
                    connection = await Connection.to(self._target.base)
                await self._ask(connection, number)
            except (OSError, TimeoutError) as error:
                self.record.errors[f"{type(error).__name__}: {error}"] += 1
                connection = None
                await asyncio.sleep(0.01)
            finally:
                self._pending -= inside
        if connection is not None and connection.open:
            connection.close()

    async def _ask(self, connection: Connection, number: int) -> None:
        started = time.perf_counter()
        answer = await asyncio.wait_for(connection.ask(self._requests[number]), ANSWER_BOUND)
        ended = time.perf_counter()
        if answer.status != 200:
            self.record.errors[f"HTTP {answer.status}: {answer.body[:120].decode(errors='replace')}"] += 1
            return
        self.record.spans.append(Span(started, ended))
        if ended >= self.record.window.start:
            self.record.sample.offer(number, answer.body)

    async def _watch(self) -> None:
        """Read what client and server use at both ends of the window."""
        window, pid = self.record.window, self._target.pid
        await asyncio.sleep(max(0.0, window.start - time.perf_counter()))
        self.record.before = usage(pid) if pid else None
        client = time.process_time()
        await asyncio.sleep(max(0.0, window.end - time.perf_counter()))
        self.record.client_cpu = (time.process_time() - client) / window.seconds
        self.record.after = usage(pid) if pid else None
