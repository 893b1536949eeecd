"""`python -m bench fairness`: how long a short request takes while bulk clients keep the queue full."""

import argparse
import json
import re
from dataclasses import asdict, dataclass
from urllib.error import URLError
from urllib.request import urlopen

from bench.figures import percentile
from bench.load import ClosedLoop, Target, run_together
from bench.rig import Rig
from bench.table import table


@dataclass(frozen=True, slots=True)
class Report:
    """A short request's time, alone and in a crowd, beside that of a batch."""

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
    """Measure Berth and each peer, print; gives whether no request failed."""
    reports, valid = [], True
    for peer in options.peer or [None]:
        with rig.contenders(peer) as contenders:
            for contender in contenders:
                with contender.alone(contenders):
                    report, sound = _measure(rig, options, contender.target)
                reports.append(report)
                valid &= sound
    columns = [asdict(report) for report in reports]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0] if name != "server"]
    print(table(["fairness", *(report.server for report in reports)], rows))
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"fairness": True, **column, **about}) + "\n" for column in columns)
    return valid


def _measure(rig: Rig, options: argparse.Namespace, target: Target) -> tuple[Report, bool]:
    alone = rig.run(target, "w1", 0)
    before = batches(target)
    loops = [
        ClosedLoop(target, rig.workload(name), warmup=options.warmup, seconds=options.seconds) for name in ("w1", "w3")
    ]
    short, bulk = run_together(*loops)
    after = batches(target)
    latencies = [seconds * 1000 for seconds in short.window.latencies(short.spans)]
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
    return report, alone.valid and not short.errors and not bulk.errors and bool(latencies)


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
