"""A worker to play a scenario with, around backends whose answers are known."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import numpy as np

from berth.batching.cache import VectorCache
from berth.batching.run import BatchRun
from berth.batching.worker import Encoded, ModelLane, Worker
from berth.contract import Encode, FakeEncoder
from berth.errors import EncoderError
from berth.types import TokenSequence, Vectors

MakeSequences = Callable[[Iterable[int]], list[TokenSequence]]
Scenario = Callable[[Worker, ModelLane], Coroutine[Any, Any, None]]
Threads = Callable[[], list[threading.Thread]]

ANSWER_BOUND = 20.0
"""Seconds after which a caller counts as forgotten."""
ECHO_NUMBERS = 2


def echo(sequences: Sequence[TokenSequence]) -> list[Vectors]:
    """Answer each sequence with its number and its length."""
    return [[np.array([sequence.encoding.ids[0], len(sequence)], dtype=np.float32)] for sequence in sequences]


def numbers(encoded: Encoded) -> list[int]:
    """List the number of each sequence, -1 where it has an error."""
    return [-1 if isinstance(result, EncoderError) else int(result[0][0]) for result in encoded.results]


class Gate:
    """Answers by `echo`, but waits until it is opened, and says when it has a batch."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.batches: list[int] = []

    def __call__(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        self.batches.append(len(sequences))
        self.entered.set()
        assert self.open.wait(ANSWER_BOUND), "the test opens the gate"
        return echo(sequences)


class GateOf(Gate):
    """A gate for sequences of one length; others pass."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def __call__(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        return super().__call__(sequences) if len(sequences[0]) == self._length else echo(sequences)


def lane_of(*encode: Encode, max_batch_tokens: int = 256, cache_size: int = 0, longest: int = 1) -> ModelLane:
    """Make the lane of a model that is encoded so, by one function for each device."""
    cache = VectorCache(cache_size * ECHO_NUMBERS) if cache_size else None
    return ModelLane(max_batch_tokens, longest, [FakeEncoder(each) for each in encode], cache)


def play(
    scenario: Scenario,
    encode: Encode | list[Encode],
    *,
    threads: int = 1,
    max_batch_tokens: int = 256,
    max_queue_tokens: int = 10_000,
    cache_size: int = 0,
    longest: int = 1,
    bulk_share: float = 0.0,
    on_batch: Callable[[BatchRun], None] = lambda _: None,
    on_lost: Callable[[], None] = lambda: None,
) -> None:
    """Run a scenario with a worker that is started before and stopped after, and a model's lane of it."""
    devices = encode if isinstance(encode, list) else [encode]
    lane = lane_of(*devices, max_batch_tokens=max_batch_tokens, cache_size=cache_size, longest=longest)

    async def main() -> None:
        worker = Worker(
            threads=threads,
            devices=len(devices),
            max_queue_tokens=max_queue_tokens,
            bulk_share=bulk_share,
            on_batch=on_batch,
            on_lost=on_lost,
        )
        worker.start()
        try:
            await asyncio.wait_for(scenario(worker, lane), ANSWER_BOUND)
        finally:
            worker.stop()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; `play` bounds how long."""
    while not condition():
        await asyncio.sleep(0.001)


async def entered(gate: Gate) -> None:
    """Wait until a gate has a batch."""
    await asyncio.to_thread(gate.entered.wait, ANSWER_BOUND)


def failing_on(numbers_: set[int], error: BaseException) -> Encode:
    """Make a function that fails on every batch that holds one of some sequences."""

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(int(sequence.encoding.ids[0]) in numbers_ for sequence in sequences):
            raise error
        return echo(sequences)

    return encode
