"""Short requests need not wait for the batch of bulk that runs, nor for a thread that bulk has."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from service.inference.runner import Runner
from service.inference.scheduler import HEAD_START
from service.inference.types import Unit, Vectors
from tests.service.inference.playing import (
    ANSWER_BOUND,
    Gate,
    MakeUnits,
    Threads,
    echo,
    entered,
    numbers,
    play,
    until,
)

BUDGET = 16


class BulkGate(Gate):
    """A gate for units of a batch's length; shorter ones pass, and it notes in which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[str] = []

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        if len(units[0]) == BUDGET:
            return super().__call__(units)
        self.passed.append(threading.current_thread().name)
        return echo(units)


def bulk(runner: Runner, make_units: MakeUnits, batches: int) -> asyncio.Future[object]:
    return asyncio.ensure_future(runner.run(make_units([BUDGET] * batches)))


def test_short_request_overtakes_the_batch_that_runs(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        request = bulk(runner, make_units, 2)
        await entered(gate)
        assert numbers(await runner.run(make_units([4, 5]))) == [0, 1]
        assert gate.batches == [1], "bulk's first batch still runs"
        gate.open.set()
        await request

    play(scenario, gate, express=True, max_batch_tokens=BUDGET)
    assert gate.passed == ["encoder-express"]


def test_without_an_express_it_waits(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        request = bulk(runner, make_units, 2)
        await entered(gate)
        short = asyncio.ensure_future(runner.run(make_units([4])))
        await until(lambda: runner.queued_units == 2)
        gate.open.set()
        assert numbers(await short) == [0]
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)
    assert gate.passed == ["encoder-0"]


def test_the_express_leaves_a_short_request_to_a_thread_that_is_free(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        request = asyncio.ensure_future(runner.run(make_units([4, BUDGET])))
        await entered(gate)
        await until(lambda: len(runner._at_bulk) == 1)  # the other thread is back from the text of 4 tokens
        for _ in range(20):
            assert numbers(await runner.run(make_units([4]))) == [0]
        gate.open.set()
        await request

    play(scenario, gate, threads=2, express=True, max_batch_tokens=BUDGET)
    assert set(gate.passed) <= {"encoder-0", "encoder-1"}


def test_short_requests_have_no_second_thread_beside_short_ones(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        first = bulk(runner, make_units, 1)
        await entered(gate)
        second = asyncio.ensure_future(runner.run(make_units([4])))
        await until(lambda: runner.queued_units == 1)
        await asyncio.sleep(0.05)
        assert runner.queued_units == 1, "a single text is no bulk, however long"
        gate.open.set()
        await asyncio.gather(first, second)

    play(scenario, gate, express=True, max_batch_tokens=BUDGET)
    assert gate.passed == ["encoder-0"]


def test_short_requests_that_have_had_their_share_wait_until_bulk_has_had_its_own(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        request = bulk(runner, make_units, 6)
        await entered(gate)
        short = make_units([BUDGET // 2])
        for _ in range(2 * HEAD_START + 1):
            assert numbers(await runner.run(short)) == [0]
        gate.entered.clear()
        waits = asyncio.ensure_future(runner.run(short))
        await until(lambda: runner.queued_units == 6)
        await asyncio.sleep(0.05)
        assert runner.queued_units == 6
        gate.open.set()
        assert numbers(await waits) == [0]
        await request

    play(scenario, gate, express=True, max_batch_tokens=BUDGET)
    assert gate.passed[:-1] == ["encoder-express"] * (2 * HEAD_START + 1)


def test_the_express_is_woken_when_the_bulk_that_goes_first_leaves(make_units: MakeUnits) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        request, leaves = (bulk(runner, make_units, 2) for _ in range(2))
        await entered(gate)
        short = make_units([BUDGET // 2])
        for _ in range(2 * HEAD_START + 1):
            assert numbers(await runner.run(short)) == [0]
        waits = asyncio.ensure_future(runner.run(short))
        await until(lambda: runner.queued_units == 4)
        for one in (leaves, request):
            one.cancel()
        assert numbers(await waits) == [0]
        gate.open.set()

    play(scenario, gate, express=True, max_batch_tokens=BUDGET)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_express_ends_with_the_others(make_units: MakeUnits, encoder_threads: Threads, busy: bool) -> None:
    gate = BulkGate()

    async def scenario(runner: Runner) -> None:
        requests = []
        if busy:
            requests.append(bulk(runner, make_units, 3))
            await entered(gate)
        assert len(encoder_threads()) == 2
        runner.stop()
        gate.open.set()
        await asyncio.gather(*requests)
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate, express=True, max_batch_tokens=BUDGET)
