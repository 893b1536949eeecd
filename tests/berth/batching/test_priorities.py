"""Short requests and bulk have threads of their own: neither waits for the other; the kernel knows who goes first."""

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import pytest

from berth.batching.queue import Priority
from berth.batching.run import BatchRun
from berth.batching.worker import NICENESS, ModelLane, Worker
from berth.contract import FakeEncoder
from berth.types import TokenSequence, Vectors
from tests.berth.batching.playing import (
    ANSWER_BOUND,
    Gate,
    GateOf,
    MakeSequences,
    Threads,
    echo,
    entered,
    numbers,
    play,
    until,
)

BUDGET = 16


class Pair:
    """Answers by `echo` once it has two batches."""

    def __init__(self) -> None:
        self.met = False
        self._barrier = threading.Barrier(2)

    def __call__(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        self._barrier.wait(ANSWER_BOUND)
        self.met = True
        return echo(sequences)


def test_short_requests_are_answered_while_a_batch_of_bulk_runs(make_sequences: MakeSequences) -> None:
    gate = GateOf(BUDGET)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        request = asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * 2)))
        await entered(gate)
        for _ in range(20):
            assert numbers(await worker.run(lane, make_sequences([4, 5]))) == [0, 1]
        assert gate.batches == [1], "bulk's first batch still runs"
        gate.open.set()
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)


def test_bulk_is_answered_while_a_short_request_runs(make_sequences: MakeSequences) -> None:
    gate = GateOf(4)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        request = asyncio.ensure_future(worker.run(lane, make_sequences([4])))
        await entered(gate)
        assert numbers(await worker.run(lane, make_sequences([BUDGET] * 20))) == list(range(20))
        gate.open.set()
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)


def test_each_priority_has_as_many_batches_at_once_as_it_has_threads(
    make_sequences: MakeSequences, encoder_threads: Threads
) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [
            asyncio.ensure_future(worker.run(lane, make_sequences(lengths)))
            for lengths in ([BUDGET], [BUDGET - 1], [BUDGET - 2], [BUDGET - 3] * 5)
        ]
        await until(lambda: len(gate.batches) == 4)
        assert (worker.queue.sequences, len(encoder_threads())) == (4, 4), "no thread is left to begin another"
        gate.open.set()
        await asyncio.gather(*requests)

    play(scenario, gate, threads=2, max_batch_tokens=BUDGET)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_the_event_loop_goes_before_short_requests_and_those_before_bulk(make_sequences: MakeSequences) -> None:
    niceness: dict[Priority, int] = {}

    def note(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        priority = Priority.SHORT if len(sequences[0]) < BUDGET else Priority.BULK
        niceness[priority] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return echo(sequences)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        await worker.run(lane, make_sequences([4]))
        await worker.run(lane, make_sequences([BUDGET] * 2))

    play(scenario, note, max_batch_tokens=BUDGET)
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness == {priority: min(19, here + step) for priority, step in NICENESS.items()}
    assert 0 < NICENESS[Priority.SHORT] < NICENESS[Priority.BULK]


@pytest.mark.skipif(sys.platform != "linux", reason="bulk has a share on Linux alone")
def test_a_short_batch_waits_until_bulk_has_had_its_share(make_sequences: MakeSequences) -> None:
    """Bulk that stands before a gate has no CPU time: it is owed half of the 50 ms, and waited for as long again."""
    gate = GateOf(BUDGET)
    rates: list[float] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.admission.observe = lambda _, rate, **__: rates.append(rate)  # type: ignore[method-assign]
        bulk = asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * 2)))
        await entered(gate)
        await asyncio.sleep(0.05)
        answer = await worker.run(lane, make_sequences([4]))
        assert answer.queue_seconds > 0.04
        assert rates[0] > 0.04 / 4, "what deadlines are weighed against knows of it"
        gate.open.set()
        await bulk

    play(scenario, gate, max_batch_tokens=BUDGET, bulk_share=0.5)


@pytest.mark.skipif(sys.platform != "linux", reason="bulk has a share on Linux alone")
def test_a_thread_that_waited_for_nothing_does_not_count_its_idle_time(make_sequences: MakeSequences) -> None:
    """Two hold a batch back and one takes it: until the other has the next, there may be an hour."""
    gate = GateOf(BUDGET)
    runs: list[BatchRun] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        bulk = asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * 2)))
        await entered(gate)
        await asyncio.sleep(0.02)
        await asyncio.gather(*(worker.run(lane, make_sequences([4])) for _ in range(4)))
        gate.open.set()
        await bulk
        await until(lambda: sum(run.sequences for run in runs) == 6)
        assert max(run.held for run in runs) > 0
        runs.clear()
        lane.backends = [FakeEncoder(pair := Pair())]
        await asyncio.gather(*(worker.run(lane, make_sequences([length])) for length in (BUDGET - 1, BUDGET - 2)))
        await until(lambda: len(runs) == 2)
        assert pair.met, "both threads had a batch"
        assert [run.held for run in runs] == [0, 0]

    play(scenario, gate, threads=2, max_batch_tokens=BUDGET, bulk_share=0.5, on_batch=runs.append)


@pytest.mark.skipif(sys.platform != "linux", reason="bulk has a share on Linux alone")
@pytest.mark.parametrize("stopped", [False, True], ids=["bulk has gone", "the worker stops"])
def test_no_short_batch_waits_for_nothing(make_sequences: MakeSequences, stopped: bool) -> None:
    """At this share it would wait for minutes."""
    gate = GateOf(BUDGET)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        bulk = asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * 2)))
        await entered(gate)
        await asyncio.sleep(0.05)
        short = asyncio.ensure_future(worker.run(lane, make_sequences([4])))
        await until(lambda: worker.queue.waiting[Priority.SHORT].sequences == 1)
        if stopped:
            worker.stop()
            assert numbers(await short) == [0]
        gate.open.set()
        assert [len(answer.results) for answer in await asyncio.gather(bulk, short)] == [2, 1]

    play(scenario, gate, max_batch_tokens=BUDGET, bulk_share=0.9999)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_the_threads_of_both_priorities_end(
    make_sequences: MakeSequences, encoder_threads: Threads, busy: bool
) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = []
        if busy:
            requests += [asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * count))) for count in (1, 3)]
            await until(lambda: len(gate.batches) == 2)
        assert len(encoder_threads()) == 2
        worker.stop()
        gate.open.set()
        await asyncio.gather(*requests)
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate, max_batch_tokens=BUDGET)
