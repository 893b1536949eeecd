"""The ceiling: the encoder alone on a workload's texts, in this process, without HTTP and tokenization.

The queue makes its batches of as many texts as the workload keeps on the way; only the encoder's CPU time counts.
"""

import time
from dataclasses import dataclass
from statistics import mean

from bench.batches import endless_batches
from bench.model import Model
from bench.workloads import Workload
from berth.types import TokenSequence

BUDGETS = (1, 128, 256, 384, 512, 1024)
"""Batch sizes in tokens to choose from; 1 is every text alone."""
SWEEP_SECONDS = 1.0


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


def measure_ceiling(model: Model, workload: Workload, seconds: float, budget: int | None = None) -> Ceiling:
    """Encode for so many seconds of CPU time; without a budget the best one is found first."""
    sequences = [model.sequences(texts) for texts in workload.requests]
    if budget is None:
        tried = [_measure(model, sequences, workload, min(SWEEP_SECONDS, seconds / 2), each) for each in BUDGETS]
        budget = min(tried, key=lambda one: one.cpu_ms_per_text).budget
    return _measure(model, sequences, workload, seconds, budget)


def _measure(
    model: Model, requests: list[list[TokenSequence]], workload: Workload, seconds: float, budget: int
) -> Ceiling:
    source = endless_batches(requests, workload.shape.concurrency, budget)
    for _ in range(3):
        model.encode(next(source))
    spent, shapes = 0.0, []
    while spent < seconds:
        batch = next(source)
        started = time.thread_time()
        model.encode(batch)
        spent += time.thread_time() - started
        shapes.append(tuple(map(len, batch)))
    text_tokens = mean(len(sequence) for request in requests for sequence in request)
    per_token = spent * 1000 / sum(map(sum, shapes))
    return Ceiling(budget, text_tokens, per_token * text_tokens, spent * 1000 / len(shapes), shapes)
