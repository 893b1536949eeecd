"""`python -m bench fairness`: how long a short request takes while bulk clients keep the queue full."""

import argparse
import json
import re
from dataclasses import asdict, dataclass
from urllib.error import URLError
from urllib.request import urlopen

from bench.figures import Span, Window, median_of, percentile, ratio_of_medians
from bench.load import Target, run_together
from bench.processes import pin
from bench.rig import Rig
from bench.table import table

HEAD = (
    *("server", "alone p50 ms", "alone p99 ms", "crowded p50 ms", "crowded p99 ms", "crowded requests"),
    *("bulk texts/s", "batch ms", "p99 in batches"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """A short request's time, alone and in a crowd, beside that of a batch of the crowd's."""

    server: str
    alone_p50_ms: float
    alone_p99_ms: float
    crowded_p50_ms: float
    crowded_p99_ms: float
    crowded_requests: int
    bulk_texts_per_second: float
    batch_ms: float | None
    p99_in_batches: float | None


def fairness(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure Berth and the peers in turns, print the medians; gives whether every answer was right."""
    reports: dict[str, list[Report]] = {}
    valid = True
    with rig.contenders(options.peer) as contenders:
        for number in range(options.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                with contender.alone(contenders):
                    report, sound = _measure(rig, contender.target, number)
                reports.setdefault(report.server, []).append(report)
                valid &= sound
                _write(report, options, about)
        labels = [contender.target.label for contender in contenders]
    print(table(HEAD, [row_of(reports[label]) for label in labels]))
    ours, *peers = ([report.crowded_p99_ms for report in reports[label]] for label in labels)
    if peers:
        ratios = [ratio_of_medians(theirs, ours) for theirs in peers]
        print("", table([f"crowded p99, ÷ {labels[0]}'s", *labels[1:]], [["w1", *ratios]]), sep="\n")
    rig.tell_left_out()
    return valid


def row_of(reports: list[Report]) -> list[float | str]:
    """Give the medians of a server's rounds."""
    server, *rows = zip(*(asdict(report).values() for report in reports), strict=True)
    return [server[0], *(median_of(figure for figure in row if figure is not None) for row in rows)]


def _write(report: Report, options: argparse.Namespace, about: dict[str, str]) -> None:
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"fairness": True, **asdict(report), **about}) + "\n")


def _measure(rig: Rig, target: Target, number: int) -> tuple[Report, bool]:
    alone = rig.run(target, "w1", number)
    before = batches(target)
    bulk_alone = rig.run(target, "w3", number)
    after = batches(target)
    pin(rig.client_cores)
    short, bulk = run_together(rig.loop(target, "w1"), rig.loop(target, "w3"))
    latencies = [span * 1000 for span in overlapping(short.window, short.spans)]
    count, seconds = after[0] - before[0], after[1] - before[1]
    batch_ms = seconds * 1000 / count if count else None
    p99 = percentile(latencies, 99)
    report = Report(
        server=target.label,
        alone_p50_ms=alone.p50_ms,
        alone_p99_ms=alone.p99_ms,
        crowded_p50_ms=percentile(latencies, 50),
        crowded_p99_ms=p99,
        crowded_requests=len(latencies),
        bulk_texts_per_second=bulk.window.rate(bulk.spans) * rig.workload("w3").shape.texts,
        batch_ms=batch_ms,
        p99_in_batches=p99 / batch_ms if batch_ms else None,
    )
    crowded = (rig.result(target, name, number, record) for name, record in (("w1", short), ("w3", bulk)))
    return report, alone.valid and bulk_alone.valid and all(result.valid for result in crowded)


def overlapping(window: Window, spans: list[Span]) -> list[float]:
    """Give the seconds of each request that was on the way in the window: some servers take longer than it is long."""
    return [span.end - span.start for span in spans if window.share(span)]


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
