"""The ceiling: the encoder alone on a workload's texts, in this process, without HTTP and tokenization.

The scheduler makes its batches from as many texts as the workload keeps on the way; only the encoder's CPU time counts.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from statistics import mean

from bench.model import Model
from bench.workloads import Workload
from service.inference.scheduler import Flow, Kind, Scheduler, Ticket
from service.inference.types import Unit

BUDGETS = (1, 128, 256, 384, 512, 1024)
"""Batch sizes in tokens to choose from; 1 is every text alone."""
SWEEP_SECONDS = 1.0

Batch = list[Unit]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the encoder alone needs.

    Times are measured by the token, for the texts of a second are longer or shorter than the workload's.
    """

    budget: int
    text_tokens: float
    """The mean of the workload's texts."""
    cpu_ms_per_text: float
    batch_ms: float
    batches: list[tuple[int, ...]]
    """The lengths of each batch's texts, in tokens."""


def batches(requests: list[list[Unit]], concurrency: int, budget: int) -> Iterator[Batch]:
    """Yield the scheduler's batches for ever, with so many requests always waiting or under way."""
    scheduler = Scheduler(budget)
    waiting = cycle(requests)

    def add() -> None:
        flow = Flow()
        numbered = sorted(enumerate(next(waiting)), key=lambda pair: len(pair[1]))
        flow.tickets.extend(Ticket(flow, *pair) for pair in numbered)
        left[flow] = len(numbered)
        scheduler.add(flow)

    left: Counter[Flow] = Counter()
    for _ in range(concurrency):
        add()
    while True:
        tickets = scheduler.take_batch(Kind.SHORT) or scheduler.take_batch(Kind.BULK)
        yield [ticket.unit for ticket in tickets]
        for ticket in (each for one in tickets for each in (one, *one.twins)):
            left[ticket.flow] -= 1
            if not left[ticket.flow]:
                del left[ticket.flow]
                add()


def measure_ceiling(model: Model, workload: Workload, seconds: float, budget: int | None = None) -> Ceiling:
    """Encode for so many seconds of CPU time; without a budget the best one is found first."""
    units = [model.units(texts) for texts in workload.requests]
    if budget is None:
        tried = [_measure(model, units, workload, min(SWEEP_SECONDS, seconds / 2), each) for each in BUDGETS]
        budget = min(tried, key=lambda one: one.cpu_ms_per_text).budget
    return _measure(model, units, workload, seconds, budget)


def _measure(model: Model, requests: list[list[Unit]], workload: Workload, seconds: float, budget: int) -> Ceiling:
    source = batches(requests, workload.shape.concurrency, budget)
    for _ in range(3):
        model.encoder(next(source))
    spent, shapes = 0.0, []
    while spent < seconds:
        batch = next(source)
        started = time.thread_time()
        model.encoder(batch)
        spent += time.thread_time() - started
        shapes.append(tuple(map(len, batch)))
    text_tokens = mean(len(unit) for request in requests for unit in request)
    per_token = spent * 1000 / sum(map(sum, shapes))
    return Ceiling(budget, text_tokens, per_token * text_tokens, spent * 1000 / len(shapes), shapes)
