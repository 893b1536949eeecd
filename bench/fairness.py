"""`python -m bench fairness`: how long a short request takes while bulk keeps the queue full, and what bulk loses.

First an open loop: a short request every 100 ms, whatever has become of those before, beside the clients of w3. Its
time counts from when it was due. Then eight clients in a closed loop, who send the next when the last is answered. In
the first round also one request of 2,048 texts, alone and beside one client of bulk.

With `--shares` Berth is started once for each value of `--bulk-share`, and the servers take turns; the large request is
left out.
"""

import argparse
import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from urllib.error import URLError
from urllib.request import urlopen

from bench.curve import Point, curve
from bench.figures import median_of, percentile, ratio_of_medians
from bench.load import ClosedLoop, PacedLoop, Record, Target, run_together
from bench.processes import pin
from bench.rig import Contender, Rig
from bench.table import table
from bench.workloads import Workload

INTERVAL = 0.1
"""Seconds between two short requests of the open loop."""
CLIENTS = 8
"""Of short requests in the closed loop."""
LARGE = 2048
"""Texts of the large request."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of short requests."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Report:
    """A round of a server; rates are texts a second."""

    server: str
    alone: Times
    crowded: Times
    crowded_requests: int
    bulk_alone_rate: float
    bulk_rate: float
    batch_ms: float | None
    """The mean of bulk's batches while it is alone."""
    closed: Times
    closed_rate: float
    closed_bulk_rate: float
    large_alone_seconds: float | None = None
    large_seconds: float | None = None
    """Of the request of 2,048 texts beside a client of bulk."""


Column = Callable[[Report], float | None]
OPEN: dict[str, Column] = {
    "alone p50 ms": lambda report: report.alone.p50,
    "alone p95": lambda report: report.alone.p95,
    "alone p99": lambda report: report.alone.p99,
    "crowded p50 ms": lambda report: report.crowded.p50,
    "crowded p95": lambda report: report.crowded.p95,
    "crowded p99": lambda report: report.crowded.p99,
    "p95 ÷ alone": lambda report: report.crowded.p95 / report.alone.p95,
    "p99 above alone, batches": lambda report: (
        None if report.batch_ms is None else (report.crowded.p99 - report.alone.p99) / report.batch_ms
    ),
    "bulk alone, texts/s": lambda report: report.bulk_alone_rate,
    "bulk ÷ alone": lambda report: ratio_of_medians([report.bulk_rate], [report.bulk_alone_rate]),
    "batch ms": lambda report: report.batch_ms,
    "requests": lambda report: report.crowded_requests,
}
CLOSED: dict[str, Column] = {
    "short p50 ms": lambda report: report.closed.p50,
    "p95": lambda report: report.closed.p95,
    "p99": lambda report: report.closed.p99,
    "short texts/s": lambda report: report.closed_rate,
    "bulk texts/s": lambda report: report.closed_bulk_rate,
    "bulk ÷ alone": lambda report: ratio_of_medians([report.closed_bulk_rate], [report.bulk_alone_rate]),
}
LARGE_REQUEST: dict[str, Column] = {
    "alone s": lambda report: report.large_alone_seconds,
    "beside a client of bulk s": lambda report: report.large_seconds,
    "÷ alone": lambda report: (
        None
        if report.large_seconds is None or report.large_alone_seconds is None
        else report.large_seconds / report.large_alone_seconds
    ),
}
"""A column of each table, by its head; of the rounds the median counts, of ratios that of the rounds' ratios."""


def fairness(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure Berth and the peers in turns, print the medians; gives whether every answer was right."""
    reports: dict[str, list[Report]] = {}
    valid = True
    with ExitStack() as stack:
        contenders: list[Contender] = []
        for share in options.shares:
            flags = ["--bulk-share", f"{share:g}"]
            contenders.append(stack.enter_context(rig.berth(f"--bulk-share {share:g}", flags)))
        if not contenders:
            contenders = stack.enter_context(rig.contenders(options.peer))
        for number in range(options.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                with contender.alone(contenders):
                    report, sound = measure(rig, options, contender.target, number)
                reports.setdefault(report.server, []).append(report)
                valid &= sound
                if options.out is not None:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"fairness": True, **asdict(report), **about}) + "\n")
        labels = [contender.target.label for contender in contenders]
    print(tables([reports[label] for label in labels]))
    if options.picture is not None:
        options.picture.write_text(curve(points(options.shares, [reports[label] for label in labels])))
    rig.tell_left_out()
    return valid


def tables(servers: list[list[Report]]) -> str:
    """Lay out the medians of each server's rounds, and the peers' beside Berth's."""
    parts: list[str] = []
    for title, columns in (
        (f"a short request every {INTERVAL * 1000:g} ms, beside four clients of bulk:", OPEN),
        (f"{CLIENTS} clients of short requests, beside four clients of bulk:", CLOSED),
        (f"a request of {LARGE} texts:", LARGE_REQUEST),
    ):
        rows: list[list[float | str]] = [
            [reports[0].server, *(median_over(reports, column) for column in columns.values())] for reports in servers
        ]
        parts += [title, table(["server", *columns], rows)]
    ours, *peers = ([report.crowded.p99 for report in reports] for reports in servers)
    if peers:
        ratios = [ratio_of_medians(theirs, ours) for theirs in peers]
        labels = [reports[0].server for reports in servers]
        parts.append(table([f"crowded p99, ÷ {labels[0]}'s", *labels[1:]], [["w1", *ratios]]))
    return "\n\n".join(parts)


def median_over(reports: list[Report], column: Column) -> float:
    """Give the median of the rounds that have a figure; NaN where none has."""
    return median_of(figure for figure in map(column, reports) if figure is not None)


def points(shares: list[float], servers: list[list[Report]]) -> list[Point]:
    """Give what a value of the dial came to, in the closed loop: bulk's rate ÷ alone, and a short request's p99."""
    return [
        Point(f"{share:g}", median_over(reports, CLOSED["bulk ÷ alone"]), median_over(reports, CLOSED["p99"]))
        for share, reports in zip(shares, servers, strict=True)
    ]


def measure(rig: Rig, options: argparse.Namespace, target: Target, number: int) -> tuple[Report, bool]:
    """Measure a round of a server; gives also whether every answer was right."""
    pin(rig.client_cores)
    short, bulk = rig.workload("w1"), rig.workload("w3")
    timing = {"warmup": options.warmup, "seconds": options.seconds}

    def paced() -> PacedLoop:
        return PacedLoop(target, short, interval=INTERVAL, **timing)

    [alone] = run_together(paced())
    before = batches(target)
    [bulk_alone] = run_together(rig.loop(target, "w3"))
    after = batches(target)
    crowded, crowd = run_together(paced(), rig.loop(target, "w3"))
    clients = Workload(replace(short.shape, concurrency=CLIENTS), short.texts)
    closed, closed_crowd = run_together(ClosedLoop(target, clients, **timing), rig.loop(target, "w3"))

    def rate(record: Record, texts: int = bulk.shape.texts) -> float:
        return record.window.rate(record.spans) * texts

    count, due = after[0] - before[0], crowded.window.due(crowded.spans)
    large, sound = measure_large(rig, target, bulk) if number == 0 and not options.shares else ((), True)
    report = Report(
        target.label,
        alone=times_of(alone.window.due(alone.spans)),
        crowded=times_of(due),
        crowded_requests=len(due),
        bulk_alone_rate=rate(bulk_alone),
        bulk_rate=rate(crowd),
        batch_ms=(after[1] - before[1]) * 1000 / count if count else None,
        closed=times_of(closed.window.latencies(closed.spans)),
        closed_rate=rate(closed, 1),
        closed_bulk_rate=rate(closed_crowd),
        **dict(zip(("large_alone_seconds", "large_seconds"), large, strict=False)),
    )
    of_short = [rig.result(target, "w1", number, record).valid for record in (alone, crowded, closed)]
    of_bulk = [rig.result(target, "w3", number, record).valid for record in (bulk_alone, crowd, closed_crowd)]
    return report, all([*of_short, *of_bulk, sound])


def measure_large(rig: Rig, target: Target, bulk: Workload) -> tuple[tuple[float, float], bool]:
    """Give the seconds of a request of 2,048 texts alone, and of one beside a client of bulk; NaN where it failed.

    Also whether their answers were right, and bulk was beside the second one until its end.
    """
    large = Workload(replace(bulk.shape, texts=LARGE, concurrency=1), bulk.texts)
    client = Workload(replace(bulk.shape, concurrency=1), bulk.texts)

    def one() -> ClosedLoop:
        return ClosedLoop(target, large, warmup=0.0, seconds=0.2)

    def seconds_of(record: Record) -> float:
        return median_of(span.end - span.start for span in record.spans[:1])

    [alone] = run_together(one())
    enough = 4 * seconds_of(alone)
    [crowded, _] = run_together(one(), ClosedLoop(target, client, warmup=0.0, seconds=enough))
    right = all(not each.errors and rig.check(target, "w3", each.sample, large).right for each in (alone, crowded))
    return (seconds_of(alone), seconds_of(crowded)), right and seconds_of(crowded) <= enough


def times_of(seconds: list[float]) -> Times:
    """Give the percentiles of requests' seconds."""
    return Times(*(percentile(seconds, percent) * 1000 for percent in (50, 95, 99)))


def batches(target: Target) -> tuple[float, float]:
    """Read how many batches Berth has run and the seconds they took; zeros where a server does not say."""
    try:
        with urlopen(f"{target.base}/metrics", timeout=10) as answer:  # noqa: S310  # http, as given
            text = answer.read().decode(errors="replace")
    except (URLError, OSError):
        return 0.0, 0.0
    found = (re.search(rf"^berth_batch_seconds_{name} (\S+)$", text, re.MULTILINE) for name in ("count", "sum"))
    count, seconds = (float(match[1]) if match else 0.0 for match in found)
    return count, seconds
