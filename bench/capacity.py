"""`python -m bench capacity`: how many texts a second one process of Berth can pass on, whatever its encoder can.

The encoder sleeps as long as a fast core would compute (`bench.fake_server`), so that many threads of it can be had on
a machine with few cores. All else is Berth's own, over HTTP on loopback. Ideal is what the threads would encode if they
never waited for a batch.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from statistics import mean

from bench.dialects import Dialect, raw_bytes
from bench.fake_server import BATCH_TOKENS
from bench.load import ClosedLoop, Record, run_together
from bench.processes import pin
from bench.rig import Rig
from bench.server import free_port
from bench.table import table
from bench.workloads import Workload

SETTINGS = {"fp32": 0.045, "int8": 0.015}
"""Seconds a batch of 384 tokens of MiniLM takes on a fast core."""
LOADS = {"bulk": "w3", "single": "w2"}
AHEAD = 3
"""Times the tokens of a batch a thread that are on the way at once: what runs, what waits, and what is on its way."""
MOST_CLIENTS = 400
"""Past as many, connections cost both sides more than they add."""
CLIENT_BOUND = 0.9
"""Of a core: a client that uses more of it is as slow as what it measures."""
HEAD = ("encoder", "threads", "load", "texts/s", "ideal", "÷ ideal", "server's cores", "client's cores", "limit")


@dataclass(frozen=True, slots=True)
class Point:
    """What one process made of one load."""

    encoder: str
    threads: int
    workload: str
    clients: int
    texts_per_second: float
    ideal_texts_per_second: float
    server_cores: float
    client_cores: float
    errors: dict[str, int]

    @property
    def ratio(self) -> float:
        """The part of the threads' time in which they encode."""
        return self.texts_per_second / self.ideal_texts_per_second

    @property
    def limit(self) -> str:
        """What kept the rate below the ideal, where it can be told."""
        if self.errors:
            return f"NOT VALID {self.errors}"
        return "the client" if self.client_cores >= CLIENT_BOUND else ""

    def row(self) -> list[float | str | None]:
        """Lay it out for the table."""
        rates = self.texts_per_second, self.ideal_texts_per_second, self.ratio
        return [
            self.encoder,
            str(self.threads),
            self.workload,
            *rates,
            self.server_cores,
            self.client_cores,
            self.limit,
        ]


def capacity(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure and print; gives whether every request was answered as it should be."""
    points: list[Point] = []
    for encoder, seconds in SETTINGS.items():
        for threads in options.threads:
            for point in measure(rig, options, encoder, seconds, threads):
                points.append(point)
                print(f"{encoder}, {threads} threads, {point.workload}: {point.ratio:.2f} of the ideal", flush=True)
                if options.out is not None:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps({"capacity": True, **asdict(point), **about}) + "\n")
    print("", table(HEAD, [point.row() for point in points]), sep="\n")
    return not any(point.errors for point in points)


def measure(rig: Rig, options: argparse.Namespace, encoder: str, seconds: float, threads: int) -> Iterator[Point]:
    """Start a server with so many threads and yield a point a load."""
    port, artifact = free_port(), rig.model.artifact
    own = ["--model", str(artifact.folder), "--port", str(port), "--threads", str(threads)]
    command = [sys.executable, "-m", "bench.fake_server", *own, "--seconds-per-batch", str(seconds)]
    with rig.started(f"{encoder}-{threads}", command, port, cores=rig.all_cores) as contender:
        target = replace(contender.target, dialect=raw_bytes(artifact.manifest.hidden_size))
        for load, name in LOADS.items():
            workload = rig.workload(name)
            tokens = mean(len(sequence) for sequence in rig.model.sequences(workload.texts))
            clients = min(MOST_CLIENTS, math.ceil(AHEAD * threads * BATCH_TOKENS / (workload.shape.texts * tokens)))
            crowd = Workload(replace(workload.shape, concurrency=clients), workload.texts)
            pin(rig.client_cores)
            (record,) = run_together(ClosedLoop(target, crowd, warmup=options.warmup, seconds=options.seconds))
            yield Point(
                encoder,
                threads,
                load,
                clients,
                texts_per_second=record.window.rate(record.spans) * workload.shape.texts,
                ideal_texts_per_second=threads * BATCH_TOKENS / seconds / tokens,
                server_cores=cores_of(record),
                client_cores=record.client_cpu,
                errors=errors_of(record, target.dialect, workload.shape.texts),
            )


def cores_of(record: Record) -> float:
    """Give how many cores the server used in the window."""
    used = [usage.cpu_seconds for usage in (record.before, record.after) if usage is not None]
    return (used[-1] - used[0]) / record.window.seconds


def errors_of(record: Record, dialect: Dialect, texts: int) -> dict[str, int]:
    """Count the requests that failed, and of the answers that were kept those without a vector a text."""
    wrong = sum(len(dialect.read(answer)) != texts for _, answer in record.sample.kept)
    return dict(record.errors) | ({"answers of another size": wrong} if wrong else {})
