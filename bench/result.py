"""What is said of one run of one workload: a line of the table, and of the file of results."""

from dataclasses import dataclass

from bench.check import Check
from bench.figures import percentile
from bench.load import Record
from bench.workloads import Shape


@dataclass(frozen=True, slots=True)
class Result:
    """A run's figures; the server's own are None where it runs elsewhere."""

    label: str
    workload: str
    round: int
    valid: bool
    requests_per_second: float
    texts_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms_per_text: float | None
    rss_mib: float | None
    peak_rss_mib: float | None
    anonymous_mib: float | None
    client_cpu: float
    answered: int
    checked_texts: int
    lowest_cosine: float
    errors: dict[str, int]


def result_of(label: str, shape: Shape, number: int, record: Record, check: Check) -> Result:
    """Work a run's figures out."""
    window, before, after = record.window, record.before, record.after
    latencies = [seconds * 1000 for seconds in window.latencies(record.spans)]
    rate = window.rate(record.spans)
    cpu = None
    if before is not None and after is not None and rate:
        cpu = (after.cpu_seconds - before.cpu_seconds) * 1000 / (rate * shape.texts * window.seconds)
    errors = dict(record.errors.most_common(4)) | ({check.unreadable: 1} if check.unreadable else {})
    return Result(
        label=label,
        workload=shape.name,
        round=number,
        valid=not errors and check.right,
        requests_per_second=rate,
        texts_per_second=rate * shape.texts,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        cpu_ms_per_text=cpu,
        rss_mib=None if after is None else after.rss,
        peak_rss_mib=None if after is None else after.peak_rss,
        anonymous_mib=None if after is None else after.anonymous,
        client_cpu=record.client_cpu,
        answered=len(latencies),
        checked_texts=check.texts,
        lowest_cosine=check.lowest,
        errors=errors,
    )
