"""`python -m bench overload`: many times more requests than can be answered, sent at their times whatever happens."""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from bench.check import Check, Sample
from bench.connection import Connection
from bench.figures import Window, percentile
from bench.load import SAMPLED_TEXTS, Target
from bench.processes import Usage, usage
from bench.rig import Rig
from bench.table import table
from bench.workloads import Workload

QUEUE_FLAGS = ("--max-queue-tokens", "16384")
"""What Berth is started with unless the command line says otherwise: some two seconds of work may wait."""
MAX_IN_FLIGHT = 4000
REFUSAL_BOUND = 0.05
ANSWER_BOUND = 120.0


@dataclass(slots=True)
class Outcome:
    """Seconds from a request's sending to its answer, of the accepted and the refused; the others by kind."""

    accepted: list[float] = field(default_factory=list)
    sample: Sample = field(default_factory=lambda: Sample(SAMPLED_TEXTS))
    """Of the accepted ones' answers, one text each, to be looked at when nothing is on the way any more."""
    refused: list[float] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    in_time: int = 0
    """Accepted and answered before the last request was due."""
    unsent: int = 0
    """Due while this client had all the requests on the way that it can have."""
    late: list[float] = field(default_factory=list)
    """Seconds between the time a request was due and the time this client sent it: its own lag, not the server's."""
    client_cpu: float = 0.0
    """Cores the client used while it sent."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of an overload."""

    peak_texts_per_second: float
    offered_per_second: float
    goodput_texts_per_second: float
    goodput_of_peak: float
    accepted: int
    accepted_p50_ms: float
    accepted_p99_ms: float
    refused: int
    refused_p50_ms: float
    refused_p99_ms: float
    refused_within_50_ms: float
    others: dict[str, int]
    checked_texts: int
    lowest_cosine: float
    unsent: int
    client_late_p99_ms: float
    client_cpu: float
    rss_before_mib: float | None
    rss_after_mib: float | None
    anonymous_growth_mib: float | None


class OpenLoop:
    """Sends requests at random times of a given mean rate, each on a connection that is free, or on a new one."""

    def __init__(self, target: Target, workload: Workload, *, rate: float, seconds: float) -> None:
        self._target = target
        self._requests = target.requests(workload)
        self._rate = rate
        self._seconds = seconds
        self._free: list[Connection] = []
        self._on_the_way = 0
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Send for the time given and wait for every answer."""
        start, cpu = time.perf_counter(), time.process_time()
        window = Window(start, start + self._seconds)
        tasks: set[asyncio.Task[None]] = set()
        for number, due in enumerate(arrivals(self._rate, self._seconds)):
            if (ahead := start + due - time.perf_counter()) > 0.001:
                await asyncio.sleep(ahead)
            elif number % 16 == 0:
                await asyncio.sleep(0)  # this loop must leave the answers their turn
            self.outcome.late.append(time.perf_counter() - start - due)
            if self._on_the_way >= MAX_IN_FLIGHT:
                self.outcome.unsent += 1
                continue
            self._on_the_way += 1
            task = asyncio.create_task(self._send(number % len(self._requests), window))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        self.outcome.client_cpu = (time.process_time() - cpu) / (time.perf_counter() - start)
        await asyncio.gather(*tasks)
        for connection in self._free:
            connection.close()
        return self.outcome

    async def _send(self, number: int, window: Window) -> None:
        started = time.perf_counter()
        try:
            connection = self._connection() or await Connection.to(self._target.base)
            answer = await asyncio.wait_for(connection.ask(self._requests[number]), ANSWER_BOUND)
        except (OSError, TimeoutError) as error:
            self._count(type(error).__name__)
        else:
            ended = time.perf_counter()
            if connection.open:
                self._free.append(connection)
            if answer.status == 200:
                self.outcome.accepted.append(ended - started)
                self.outcome.in_time += ended < window.end
                self.outcome.sample.offer(number, answer.body)
            elif answer.status == 429:
                self.outcome.refused.append(ended - started)
            else:
                self._count(f"HTTP {answer.status}")
        finally:
            self._on_the_way -= 1

    def _connection(self) -> Connection | None:
        while self._free:
            connection = self._free.pop()
            if connection.open:
                return connection
        return None

    def _count(self, kind: str) -> None:
        self.outcome.others[kind] = self.outcome.others.get(kind, 0) + 1


def arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Yield the times of a Poisson process, the same ones each time."""
    chance = random.Random(0)  # noqa: S311  # no secret
    due = chance.expovariate(rate)
    while due < seconds:
        yield due
        due += chance.expovariate(rate)


def overload(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Find the peak rate, offer many times that, print what became of it; gives whether it was borne."""
    if not options.base and not options.flags:
        options.flags = list(QUEUE_FLAGS)
    with rig.contenders() as (contender,):
        target = contender.target
        peak = rig.run(target, "w2", 0)
        before = usage(target.pid) if target.pid else None
        rate = peak.requests_per_second * options.factor
        loop = OpenLoop(target, rig.workload("w2"), rate=rate, seconds=options.seconds)
        outcome = asyncio.run(loop.run())
        after = usage(target.pid) if target.pid else None
    checked = rig.check(target, "w2", outcome.sample)
    report = report_of(outcome, checked, peak.texts_per_second, rate, options.seconds, (before, after))
    print(table(["overload", target.label], [[name, _told(value)] for name, value in asdict(report).items()]))
    if not peak.valid:
        print(f"the peak is not to be trusted: {peak.errors or 'wrong vectors'}")
    if not checked.right:
        print(f"NOT VALID: {checked.wrong} of {checked.texts} vectors are wrong {checked.unreadable or ''}")
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"overload": target.label, **asdict(report), **about}) + "\n")
    return peak.valid and not outcome.others and checked.right


def report_of(
    outcome: Outcome,
    checked: Check,
    peak: float,
    rate: float,
    seconds: float,
    memory: tuple[Usage | None, Usage | None],
) -> Report:
    """Work an overload's figures out."""
    before, after = memory
    accepted, refused = ([value * 1000 for value in values] for values in (outcome.accepted, outcome.refused))
    goodput = outcome.in_time / seconds
    return Report(
        peak_texts_per_second=peak,
        offered_per_second=rate,
        goodput_texts_per_second=goodput,
        goodput_of_peak=goodput / peak,
        accepted=len(accepted),
        accepted_p50_ms=percentile(accepted, 50),
        accepted_p99_ms=percentile(accepted, 99),
        refused=len(refused),
        refused_p50_ms=percentile(refused, 50),
        refused_p99_ms=percentile(refused, 99),
        refused_within_50_ms=sum(value <= REFUSAL_BOUND * 1000 for value in refused) / max(len(refused), 1),
        others=outcome.others,
        checked_texts=checked.texts,
        lowest_cosine=checked.lowest,
        unsent=outcome.unsent,
        client_late_p99_ms=percentile(outcome.late, 99) * 1000,
        client_cpu=outcome.client_cpu,
        rss_before_mib=before.rss if before else None,
        rss_after_mib=after.rss if after else None,
        anonymous_growth_mib=after.anonymous - before.anonymous if before and after else None,
    )


def _told(value: float | dict[str, int] | None) -> float | str | None:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {count}" for name, count in value.items()) or "none"
    return str(value) if isinstance(value, int) else value
