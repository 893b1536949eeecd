"""What the runner keeps of a request, and of a batch while it is being encoded."""

import asyncio
import math
import time
from dataclasses import dataclass, field

from service.errors import EncoderError
from service.inference.scheduler import Flow, Ticket
from service.inference.types import Vectors

Result = Vectors | EncoderError


@dataclass(slots=True, eq=False)
class Job(Flow):
    """A flow with the results it is waiting for."""

    unanswered: int = 0
    results: dict[int, Result] = field(default_factory=dict)
    started: float = math.inf
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class Run:
    """A batch in an encoder: when, for how long, and what befell it."""

    started: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0
    out_of_memory: int = 0
    lost: bool = False
    """Whether its encoder's device has failed."""


def answer(ticket: Ticket, result: Result, started: float) -> None:
    """Give a request one of its results; the last one wakes its caller."""
    job = ticket.flow
    assert isinstance(job, Job), "the runner queues jobs only"
    job.started = min(job.started, started)
    job.results[ticket.index] = result
    job.unanswered -= 1
    if not job.unanswered and not job.done.done():
        job.done.set_result(None)
