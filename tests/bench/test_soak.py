"""The soak's load on the tiny model's service, and on a port where nobody listens."""

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench import mixture, soak
from bench.dialects import DIALECTS
from bench.mixture import Mixture
from bench.model import Model, load_model
from bench.server import Server, berth_command, free_port, running
from bench.soak import Soak


@pytest.fixture(scope="module")
def model(tiny_artifact: Path) -> Model:
    return load_model(tiny_artifact)


@pytest.fixture(scope="module")
def server(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port, log = free_port(), tmp_path_factory.mktemp("soak") / "berth.log"
    command = berth_command(tiny_artifact, port, ["--max-batch-tokens", "256"])
    with running(command, port, DIALECTS["openai"], cores=os.sched_getaffinity(0), model=None, log=log) as server:
        yield server


def load_of(model: Model, base: str, pid: int, monkeypatch: pytest.MonkeyPatch) -> Soak:
    """Give a load of a few requests, all of whose answers are looked at."""
    monkeypatch.setattr(mixture, "POOL", 4)
    monkeypatch.setattr(soak, "CHECKED", 1.0)
    chance = random.Random(0)
    return Soak(base, pid, Mixture(model, base, chance), chance)


def test_every_kind_of_request_is_answered_as_it_must_be(
    model: Model, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = load_of(model, server.base, server.process.pid, monkeypatch)

    async def main() -> None:
        assert await load.peak(4, 0.5) > 0
        await load.run(200, 2)
        load.hang_up()

    asyncio.run(main())
    outcome = load.outcome
    assert outcome.sound, (outcome.unexpected, outcome.wrong)
    kinds = {name.partition(" ")[0] for name in outcome.statuses}
    assert kinds == {"embeddings", "base64", "features", "tei", "similarity", "encode", "bad"}
    assert outcome.left > 0
    assert outcome.due > 300
    assert all(outcome.memory)


def test_what_nobody_answers_is_counted_and_is_no_rate(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_of(model, f"http://127.0.0.1:{free_port()}", os.getpid(), monkeypatch)

    async def main() -> float:
        await load.run(1000, 0.2)
        return await load.peak(1, 0.05)

    assert asyncio.run(main()) == 0
    assert not load.outcome.sound
    failed = {name.partition(":")[0] for name in load.outcome.unexpected}
    assert {"left", "bad", "tei"} <= failed
    assert load.outcome.left == 0


def test_a_wrong_answer_is_counted_and_is_no_rate(
    model: Model, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = load_of(model, server.base, server.process.pid, monkeypatch)
    asks = load._mixture._good
    assert all(ask.expected is not None for ask in asks)
    load._mixture._good = [replace(ask, expected=-ask.expected) for ask in asks if ask.expected is not None]

    async def main() -> float:
        rate = await load.peak(1, 0.1)
        load.hang_up()
        return rate

    assert asyncio.run(main()) == 0
    assert load.outcome.wrong == load.outcome.checked > 0
    assert not load.outcome.sound
