"""`python -m bench memory`: a server's memory while all workloads run at once for long.

Anonymous memory (RssAnon) is what counts: pages of mapped files, the weights' above all, come and go with use. Its
growth is that from the median of the first tenth of the samples after the warm-up to the median of the last tenth.
"""

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass
from statistics import median

from bench.load import ClosedLoop, Record, Target
from bench.processes import Usage, pin, usage
from bench.rig import Rig
from bench.table import table

SAMPLES = 1200
"""A second apart in a run of 20 minutes."""
POINTS = 10


@dataclass(frozen=True, slots=True)
class Report:
    """A run's memory, in MiB."""

    server: str
    minutes: float
    texts: int
    anonymous_first_mib: float
    anonymous_last_mib: float
    anonymous_greatest_mib: float
    anonymous_growth_percent: float
    peak_rss_mib: float
    anonymous_mib: list[float]
    """At the start, at each tenth of the run, at the end."""


def memory(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure and print; gives whether no request failed and no vector was wrong."""
    with rig.contenders() as (contender,):
        target = contender.target
        pin(rig.client_cores)
        loops = [rig.loop(target, name) for name in options.workloads]
        records, samples = asyncio.run(_watched(target, loops, options))
    results = [rig.result(target, name, 0, record) for name, record in zip(options.workloads, records, strict=True)]
    texts = sum(result.answered * rig.workload(result.workload).shape.texts for result in results)
    report = report_of(target.label, options.seconds / 60, texts, samples)
    rows = [[name, _told(value)] for name, value in asdict(report).items() if name != "server"]
    rows.append(["lowest cosine", f"{min(result.lowest_cosine for result in results):.6f}"])
    print(table(["memory", target.label], rows))
    for result in results:
        if not result.valid:
            print(f"NOT VALID: {result.workload}: {result.errors or 'a wrong vector'}")
    if options.out is not None:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"memory": target.label, **asdict(report), **about}) + "\n")
    return all(result.valid for result in results)


async def _watched(
    target: Target, loops: list[ClosedLoop], options: argparse.Namespace
) -> tuple[list[Record], list[Usage]]:
    """Run the loops together, and look at the server from the end of the warm-up to the end of the window."""
    assert target.pid is not None, "the command line was held to that"
    load = asyncio.gather(*(loop.run() for loop in loops))
    await asyncio.sleep(options.warmup)
    samples = []
    for _ in range(SAMPLES):
        samples.append(usage(target.pid))
        await asyncio.sleep(options.seconds / SAMPLES)
    return await load, samples


def report_of(server: str, minutes: float, texts: int, samples: list[Usage]) -> Report:
    """Work the figures out of at least ten samples."""
    anonymous = [sample.anonymous for sample in samples]
    tenth = len(anonymous) // 10
    first, last = median(anonymous[:tenth]), median(anonymous[-tenth:])
    return Report(
        server=server,
        minutes=minutes,
        texts=texts,
        anonymous_first_mib=first,
        anonymous_last_mib=last,
        anonymous_greatest_mib=max(anonymous),
        anonymous_growth_percent=(last / first - 1) * 100,
        peak_rss_mib=max(sample.peak_rss for sample in samples),
        anonymous_mib=[anonymous[(len(anonymous) - 1) * point // POINTS] for point in range(POINTS + 1)],
    )


def _told(value: float | list[float]) -> float | str:
    if isinstance(value, list):
        return " ".join(f"{each:.1f}" for each in value)
    return str(value) if isinstance(value, int) else value
