"""`python -m bench scaling`: the encoder alone in this process, on one core and on two, in turns.

Each thread is kept on a core of its own and goes through batches that the queue made of the workload's texts. One
run of the graph uses one core, so this is what a service with two encoder threads can reach at most. Tokens are
counted, for one core and two come to different texts in their seconds; a text that is told is as long as the mean one.
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from statistics import median

from bench.batches import Batch, endless_batches
from bench.ceiling import measure_ceiling
from bench.check import cosines
from bench.model import Model
from bench.processes import pin
from bench.rig import Rig
from bench.table import table
from berth.types import Float32Array

DRAWN = 256
"""Batches a thread goes through again and again."""
SEARCH_SECONDS = 2.0
"""For the best budget of a batch, on one core."""
HEAD = ("workload", "tokens a batch", "one core, texts/s", "two cores, texts/s", "two ÷ one", "the same by CPU")


@dataclass(frozen=True, slots=True)
class Pair:
    """A round of a workload: texts a second and milliseconds of CPU a text, on one core and on two."""

    workload: str
    batch_tokens: int
    one_texts_per_second: float
    two_texts_per_second: float
    one_cpu_ms: float
    two_cpu_ms: float

    @property
    def ratio(self) -> float:
        """Divide the rates; 2 is the best there can be."""
        return self.two_texts_per_second / self.one_texts_per_second

    @property
    def cpu_ratio(self) -> float:
        """Give what the ratio would be, were both threads on their cores all the time."""
        return 2 * self.one_cpu_ms / self.two_cpu_ms


@dataclass(frozen=True, slots=True)
class Work:
    """What a thread did, and its last batch."""

    tokens: int
    seconds: float
    cpu_seconds: float
    batch: Batch
    vectors: list[Float32Array]


def scaling(rig: Rig, options: argparse.Namespace, about: dict[str, str]) -> bool:
    """Measure and print the medians of the rounds; gives whether the vectors were right."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        raise SystemExit("bench: scaling needs two cores")
    first, last = available[0], available[-1]
    rows, right = [], True
    for name in options.workloads:
        requests = [rig.model.sequences(texts) for texts in rig.workload(name).requests]
        pin({last})
        ceiling = measure_ceiling(rig.model, rig.workload(name), min(options.seconds, SEARCH_SECONDS))
        budget, tokens = ceiling.budget, ceiling.text_tokens
        pin({first, last})
        source = endless_batches(requests, rig.workload(name).shape.concurrency, budget)
        drawn = list(islice(source, DRAWN))
        pairs = []
        for number in range(options.rounds):
            done = {}
            for cores in ([last], [first, last])[:: 1 if number % 2 == 0 else -1]:
                done[len(cores)] = run(rig.model, drawn, cores, warmup=options.warmup, seconds=options.seconds)
            right &= all(agrees(rig.model, work, options.min_cos) for works in done.values() for work in works)
            pairs.append(Pair(name, budget, *(of(done[count], tokens) for of in (rate, cpu_ms) for count in (1, 2))))
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"scaling": True, **asdict(pairs[-1]), **about}) + "\n")
        rows.append(
            [
                name,
                str(budget),
                median(pair.one_texts_per_second for pair in pairs),
                median(pair.two_texts_per_second for pair in pairs),
                median(pair.ratio for pair in pairs),
                median(pair.cpu_ratio for pair in pairs),
            ]
        )
    print(table(HEAD, rows))
    if not right:
        print("\nNOT VALID: a vector differs from that of its text encoded alone")
    return right


def run(model: Model, drawn: list[Batch], cores: list[int], *, warmup: float, seconds: float) -> list[Work]:
    """Encode in a thread a core, each beginning at another place of the batches."""
    together = threading.Barrier(len(cores))

    def work(number: int) -> Work:
        os.sched_setaffinity(0, {cores[number]})  # of this thread alone
        start = len(drawn) * number // len(cores)
        mine = cycle(drawn[start:] + drawn[:start])
        together.wait()
        encode(model, mine, warmup)
        together.wait()
        return encode(model, mine, seconds)

    with ThreadPoolExecutor(len(cores)) as pool:
        return list(pool.map(work, range(len(cores))))


def encode(model: Model, source: Iterator[Batch], seconds: float) -> Work:
    """Encode batches, at least one, until the seconds are over."""
    tokens, started, cpu = 0, time.perf_counter(), time.thread_time()
    while True:
        batch = next(source)
        vectors = model.encode(batch)
        tokens += sum(map(len, batch))
        if (elapsed := time.perf_counter() - started) >= seconds:
            return Work(tokens, elapsed, time.thread_time() - cpu, batch, [each[0] for each in vectors])


def rate(works: list[Work], text_tokens: float) -> float:
    """Give the texts a second of all threads, each text of so many tokens."""
    return sum(work.tokens / work.seconds for work in works) / text_tokens


def cpu_ms(works: list[Work], text_tokens: float) -> float:
    """Give the milliseconds of CPU a text of so many tokens."""
    return 1000 * sum(work.cpu_seconds for work in works) / sum(work.tokens for work in works) * text_tokens


def agrees(model: Model, work: Work, lowest: float) -> bool:
    """Say whether a thread's last vectors are those of their texts encoded one at a time."""
    return all(
        cosines(vector[None], model.encode([sequence])[0][0][None])[0] > lowest
        for sequence, vector in zip(work.batch, work.vectors, strict=True)
    )
