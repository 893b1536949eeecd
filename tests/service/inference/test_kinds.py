"""Short requests and bulk have threads of their own: neither waits for the other; the kernel knows who goes first."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import pytest

from service.inference.runner import NICENESS, Runner
from service.inference.scheduler import Kind
from service.inference.types import Unit, Vectors
from tests.service.inference.playing import (
    ANSWER_BOUND,
    Gate,
    GateOf,
    MakeUnits,
    Threads,
    echo,
    entered,
    numbers,
    play,
    until,
)

BUDGET = 16


def test_short_requests_are_answered_while_a_batch_of_bulk_runs(make_units: MakeUnits) -> None:
    gate = GateOf(BUDGET)

    async def scenario(runner: Runner) -> None:
        request = asyncio.ensure_future(runner.run(make_units([BUDGET] * 2)))
        await entered(gate)
        for _ in range(20):
            assert numbers(await runner.run(make_units([4, 5]))) == [0, 1]
        assert gate.batches == [1], "bulk's first batch still runs"
        gate.open.set()
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)


def test_bulk_is_answered_while_a_short_request_runs(make_units: MakeUnits) -> None:
    gate = GateOf(4)

    async def scenario(runner: Runner) -> None:
        request = asyncio.ensure_future(runner.run(make_units([4])))
        await entered(gate)
        assert numbers(await runner.run(make_units([BUDGET] * 20))) == list(range(20))
        gate.open.set()
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)


def test_each_kind_has_as_many_batches_at_once_as_it_has_threads(make_units: MakeUnits) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        requests = [
            asyncio.ensure_future(runner.run(make_units(lengths)))
            for lengths in ([BUDGET], [BUDGET - 1], [BUDGET - 2], [BUDGET - 3] * 5)
        ]
        await until(lambda: len(gate.batches) == 4)
        await asyncio.sleep(0.05)
        assert (len(gate.batches), runner.queued_units) == (4, 4)
        gate.open.set()
        await asyncio.gather(*requests)

    play(scenario, gate, threads=2, max_batch_tokens=BUDGET)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_the_event_loop_goes_before_short_requests_and_those_before_bulk(make_units: MakeUnits) -> None:
    niceness: dict[Kind, int] = {}

    def note(units: Sequence[Unit]) -> list[Vectors]:
        kind = Kind.SHORT if len(units[0]) < BUDGET else Kind.BULK
        niceness[kind] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return echo(units)

    async def scenario(runner: Runner) -> None:
        await runner.run(make_units([4]))
        await runner.run(make_units([BUDGET] * 2))

    play(scenario, note, max_batch_tokens=BUDGET)
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == {kind: min(19, here + step) for kind, step in NICENESS.items()}
    assert 0 < NICENESS[Kind.SHORT] < NICENESS[Kind.BULK]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_threads_of_both_kinds_end(make_units: MakeUnits, encoder_threads: Threads, busy: bool) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        requests = []
        if busy:
            requests += [asyncio.ensure_future(runner.run(make_units([BUDGET] * count))) for count in (1, 3)]
            await until(lambda: len(gate.batches) == 2)
        assert len(encoder_threads()) == 2
        runner.stop()
        gate.open.set()
        await asyncio.gather(*requests)
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate, max_batch_tokens=BUDGET)
