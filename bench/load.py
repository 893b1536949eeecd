"""The load generator: loops that keep so many requests on the way, or send by the clock."""

import asyncio
import gc
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from itertools import count, takewhile

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


class Loop(ABC):
    """One run of a workload against a server."""

    def __init__(self, target: Target, workload: Workload, *, warmup: float, seconds: float) -> None:
        self.record: Record  # from `run` on
        self._target = target
        self._shape = workload.shape
        self._requests = target.requests(workload)
        self._warmup = warmup
        self._seconds = seconds

    async def run(self) -> Record:
        """Warm up, measure, and end when every request of the window is answered."""
        start = time.perf_counter() + self._warmup
        self.record = Record(Window(start, start + self._seconds), Sample(max(4, SAMPLED_TEXTS // self._shape.texts)))
        await asyncio.gather(self._watch(), self._send_all())
        return self.record

    @abstractmethod
    async def _send_all(self) -> None:
        """Send requests until every one of the window is answered."""

    async def _ask(self, connection: Connection, number: int, started: float) -> None:
        answer = await asyncio.wait_for(connection.ask(self._requests[number]), ANSWER_BOUND)
        ended = time.perf_counter()
        if answer.status != 200:
            self.record.errors[f"HTTP {answer.status}: {answer.body[:120].decode(errors='replace')}"] += 1
            return
        self.record.spans.append(Span(started, ended))
        if ended >= self.record.window.start:
            self.record.sample.offer(number, answer.body)

    def _count(self, error: OSError) -> None:
        self.record.errors[f"{type(error).__name__}: {error}"] += 1

    async def _watch(self) -> None:
        """Read what client and server use at both ends of the window."""
        window, pid = self.record.window, self._target.pid
        await asyncio.sleep(max(0.0, window.start - time.perf_counter()))
        self.record.before = usage(pid) if pid else None
        client = time.process_time()
        await asyncio.sleep(max(0.0, window.end - time.perf_counter()))
        self.record.client_cpu = (time.process_time() - client) / window.seconds
        self.record.after = usage(pid) if pid else None


class ClosedLoop(Loop):
    """So many requests are always on the way, and are kept up until every one of the window is answered."""

    def __init__(self, target: Target, workload: Workload, *, warmup: float, seconds: float) -> None:
        super().__init__(target, workload, warmup=warmup, seconds=seconds)
        self._next = 0
        self._pending = 0  # requests begun before the window's end and not answered yet

    async def _send_all(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._shape.concurrency)))

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
                await self._ask(connection, number, time.perf_counter())
            except OSError as error:
                self._count(error)
                connection = None
                await asyncio.sleep(0.01)
            finally:
                self._pending -= inside
        if connection is not None and connection.open:
            connection.close()


class PacedLoop(Loop):
    """A request every so many seconds, whatever has become of those before; its time counts from when it was due."""

    def __init__(self, target: Target, workload: Workload, *, interval: float, warmup: float, seconds: float) -> None:
        super().__init__(target, workload, warmup=warmup, seconds=seconds)
        self._interval = interval
        self._free: list[Connection] = []

    async def _send_all(self) -> None:
        window = self.record.window
        dues = (window.start - self._warmup + number * self._interval for number in count())
        async with asyncio.TaskGroup() as group:
            for number, due in enumerate(takewhile(lambda due: due < window.end, dues)):
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._send(number % len(self._requests), due))
        for connection in self._free:
            connection.close()

    async def _send(self, number: int, due: float) -> None:
        self._free = [connection for connection in self._free if connection.open]
        try:
            connection = self._free.pop() if self._free else await Connection.to(self._target.base)
            await self._ask(connection, number, due)
        except OSError as error:
            self._count(error)
        else:
            self._free.append(connection)


def run_together(*loops: Loop) -> list[Record]:
    """Run loops at the same time, without a garbage collection that would be taken for the server's latency."""

    async def together() -> list[Record]:
        return await asyncio.gather(*(loop.run() for loop in loops))

    gc.collect()
    gc.disable()
    try:
        return asyncio.run(together())
    finally:
        gc.enable()
