"""`python -m bench fairness`: how long a short request takes while bulk keeps the queue full, and what bulk loses.

First an open loop: a short request every 100 ms, whatever has become of those before, beside the clients of w3. Its
time counts from when it was due. Then eight clients in a closed loop, who send the next when the last is answered.
"""

import argparse
import json
import re
from dataclasses import asdict, dataclass, replace
from urllib.error import URLError
from urllib.request import urlopen

from bench.figures import median_of, percentile, ratio_of_medians
from bench.load import ClosedLoop, PacedLoop, Record, Target, run_together
from bench.processes import pin
from bench.rig import Rig
from bench.table import table
from bench.workloads import Workload

INTERVAL = 0.1
"""Seconds between two short requests of the open loop."""
CLIENTS = 8
"""Of short requests in the closed loop."""
OPEN_HEAD = (
    *("server", "alone p50 ms", "p95", "p99", "crowded p50 ms", "p95", "p99", "requests"),
    *("bulk alone, texts/s", "beside it", "batch ms"),
)
CLOSED_HEAD = ("server", "short p50 ms", "p95", "p99", "short texts/s", "bulk texts/s", "÷ alone")


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
    closed_bulk_share: float
    """Of bulk's rate alone."""


def fairness(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure Berth and the peers in turns, print the medians; gives whether every answer was right."""
    reports: dict[str, list[Report]] = {}
    valid = True
    with rig.contenders(options.peer) as contenders:
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
    rig.tell_left_out()
    return valid


def tables(servers: list[list[Report]]) -> str:
    """Lay out the medians of each server's rounds, and the peers' beside Berth's."""
    rows = [row_of(reports) for reports in servers]
    places = len(OPEN_HEAD)
    parts = [
        f"a short request every {INTERVAL * 1000:g} ms:",
        table(OPEN_HEAD, [row[:places] for row in rows]),
        f"{CLIENTS} clients of short requests:",
        table(CLOSED_HEAD, [[row[0], *row[places:]] for row in rows]),
    ]
    ours, *peers = ([report.crowded.p99 for report in reports] for reports in servers)
    if peers:
        ratios = [ratio_of_medians(theirs, ours) for theirs in peers]
        labels = [reports[0].server for reports in servers]
        parts.append(table([f"crowded p99, ÷ {labels[0]}'s", *labels[1:]], [["w1", *ratios]]))
    return "\n\n".join(parts)


def row_of(reports: list[Report]) -> list[float | str]:
    """Give the medians of a server's rounds, in the order of a report's fields."""
    columns = zip(*map(_figures, reports), strict=True)
    return [reports[0].server, *(median_of(figure for figure in column if figure is not None) for column in columns)]


def _figures(report: Report) -> list[float | None]:
    _, *fields = asdict(report).values()
    return [figure for each in fields for figure in (each.values() if isinstance(each, dict) else [each])]


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
    report = Report(
        server=target.label,
        alone=times_of(alone.window.due(alone.spans)),
        crowded=times_of(due),
        crowded_requests=len(due),
        bulk_alone_rate=rate(bulk_alone),
        bulk_rate=rate(crowd),
        batch_ms=(after[1] - before[1]) * 1000 / count if count else None,
        closed=times_of(closed.window.latencies(closed.spans)),
        closed_rate=rate(closed, 1),
        closed_bulk_rate=rate(closed_crowd),
        closed_bulk_share=ratio_of_medians([rate(closed_crowd)], [rate(bulk_alone)]),
    )
    of_short = [rig.result(target, "w1", number, record).valid for record in (alone, crowded, closed)]
    of_bulk = [rig.result(target, "w3", number, record).valid for record in (bulk_alone, crowd, closed_crowd)]
    return report, all(of_short + of_bulk)


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
