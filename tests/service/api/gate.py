"""An encoder that stands still, so that a test can fill the queue behind it."""

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx

from berth.contract import FakeEncoder
from berth.types import TokenSequence, Vectors

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

OPEN_BOUND = 60.0
"""Seconds after which a test that has not opened its gate has failed."""


class Gate(FakeEncoder):
    """Waits in each batch until it is opened."""

    def __init__(self) -> None:
        super().__init__(width=384)
        self.batches: list[list[TokenSequence]] = []
        self.open = threading.Event()

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Note the batch and wait."""
        self.batches.append(list(sequences))
        assert self.open.wait(OPEN_BOUND), "the test opens the gate"
        return super().encode(sequences)


async def fill_queue(api: "Api", gate: Gate, path: str = "/v1/embeddings") -> list["asyncio.Task[httpx.Response]"]:
    """Send a request that the encoder takes and another that then fills a queue of 100 tokens."""
    field = "input" if path == "/v1/embeddings" else "inputs"
    body = {field: "ship " * 98}
    running = asyncio.ensure_future(api.client.post(path, json=body))
    while not gate.batches:
        await asyncio.sleep(0.001)
    waiting = asyncio.ensure_future(api.client.post(path, json=body))
    while api.worker.queue.tokens < 100:
        await asyncio.sleep(0.001)
    return [running, waiting]
