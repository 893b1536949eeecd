"""A runner to play a scenario with, around encoders whose answers are known."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import numpy as np

from service.errors import EncoderError
from service.inference.cache import VectorCache
from service.inference.runner import BatchReport, Encode, Encoded, Runner
from service.inference.scheduler import Scheduler
from service.inference.types import Unit, Vectors

MakeUnits = Callable[[Iterable[int]], list[Unit]]
Scenario = Callable[[Runner], Coroutine[Any, Any, None]]

Threads = Callable[[], list[threading.Thread]]

ANSWER_BOUND = 20.0
"""Seconds after which a caller counts as forgotten."""


ECHO_NUMBERS = 2


def echo(units: Sequence[Unit]) -> list[Vectors]:
    """Answer each unit with its number and its length."""
    return [[np.array([unit.encoding.ids[0], len(unit)], dtype=np.float32)] for unit in units]


def numbers(encoded: Encoded) -> list[int]:
    return [-1 if isinstance(result, EncoderError) else int(result[0][0]) for result in encoded.results]


class Gate:
    """An encoder that waits until it is opened, and says when it has a batch."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.batches: list[int] = []

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        self.batches.append(len(units))
        self.entered.set()
        assert self.open.wait(ANSWER_BOUND), "the test opens the gate"
        return echo(units)


class GateOf(Gate):
    """A gate for units of one length; others pass."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        return super().__call__(units) if len(units[0]) == self._length else echo(units)


def play(
    scenario: Scenario,
    encode: Encode | list[Encode],
    *,
    threads: int = 1,
    max_batch_tokens: int = 256,
    max_queue_tokens: int = 10_000,
    cache_size: int = 0,
    longest: int = 1,
    on_batch: Callable[[BatchReport], None] = lambda _: None,
    one_core: bool = False,
) -> None:
    """Run a scenario with a runner that is started before and stopped after."""

    async def main() -> None:
        runner = Runner(
            encode if isinstance(encode, list) else [encode],
            Scheduler(max_batch_tokens),
            threads=threads,
            longest=longest,
            max_queue_tokens=max_queue_tokens,
            cache=VectorCache(cache_size * ECHO_NUMBERS),
            on_batch=on_batch,
            one_core=one_core,
        )
        runner.start()
        try:
            await asyncio.wait_for(scenario(runner), ANSWER_BOUND)
        finally:
            runner.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def entered(gate: Gate) -> None:
    await asyncio.to_thread(gate.entered.wait, ANSWER_BOUND)


def failing_on(numbers_: set[int], error: BaseException) -> Encode:
    """Make an encoder that fails on every batch that holds one of some units."""

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        if any(int(unit.encoding.ids[0]) in numbers_ for unit in units):
            raise error
        return echo(units)

    return encode
