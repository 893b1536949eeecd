"""What the worker does with what admission says, and what its batches teach it."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from berth.batching.queue import Priority
from berth.batching.run import BatchRun
from berth.batching.worker import ModelLane, Worker
from berth.errors import EncoderError, NotReadyError, OverloadedError, RateLimitError, TooLargeError
from berth.types import TokenSequence, Vectors
from tests.berth.batching.playing import (
    Gate,
    GateOf,
    MakeSequences,
    echo,
    entered,
    failing_on,
    numbers,
    play,
    until,
)

BUDGET = 16
FULL, LATE = "the queue is full", "too long for the request's deadline"


def test_the_worker_refuses_what_is_too_large_or_too_much(make_sequences: MakeSequences) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        with pytest.raises(TooLargeError, match="1001 tokens, the queue holds 1000"):
            await worker.run(lane, make_sequences([200, 801]))
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([100])))]
        await entered(gate)
        requests += [asyncio.ensure_future(worker.run(lane, make_sequences([250]))) for _ in range(4)]
        await until(lambda: worker.queue.tokens == 1000)
        with pytest.raises(OverloadedError, match=FULL):
            await worker.run(lane, make_sequences([2]))
        assert worker.requests == 5
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 5
        assert numbers(await worker.run(lane, make_sequences([2]))) == [0]

    play(scenario, gate, max_queue_tokens=1000)


def test_the_worker_turns_away_at_once_what_cannot_be_served_in_time(make_sequences: MakeSequences) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.admission.observe(Priority.SHORT, 0.01, full=True)
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([100])))]
        await entered(gate)
        requests += [asyncio.ensure_future(worker.run(lane, make_sequences([250]))) for _ in range(30)]
        await until(lambda: worker.queue.sequences == 30)
        with pytest.raises(OverloadedError, match=LATE):
            await worker.run(lane, make_sequences([250]), seconds=60)
        patient = asyncio.ensure_future(worker.run(lane, make_sequences([2]), seconds=80))
        gate.open.set()
        await asyncio.gather(*requests, patient)

    play(scenario, gate)


def test_what_fails_at_once_or_in_part_teaches_no_rate(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")
    observed: list[Priority] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.admission.observe = lambda priority, *_, **__: observed.append(priority)  # type: ignore[method-assign]
        failed = await worker.run(lane, make_sequences([200]))
        assert isinstance(failed.results[0], EncoderError)
        in_part = await worker.run(lane, make_sequences([50, 60]))
        assert [isinstance(result, EncoderError) for result in in_part.results] == [True, False]
        assert observed == []
        await worker.run(lane, make_sequences([50, 50, 50, 200])[1:])
        assert observed == [Priority.BULK] * 2

    play(scenario, failing_on({0}, RuntimeError("at once")))


@pytest.mark.parametrize(("length", "full"), [(100, False), (127, False), (128, True), (300, True)])
def test_a_batch_counts_as_full_from_half_its_budget(make_sequences: MakeSequences, length: int, full: bool) -> None:
    observed: list[tuple[Priority, bool]] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        def observe(priority: Priority, seconds_per_token: float, *, full: bool) -> None:
            assert seconds_per_token > 0
            observed.append((priority, full))

        worker.admission.observe = observe  # type: ignore[method-assign]
        await worker.run(lane, make_sequences([length]))

    play(scenario, echo)
    assert observed == [(Priority.SHORT, full)]


def test_the_rate_is_that_of_all_threads_at_work(make_sequences: MakeSequences) -> None:
    reports: list[BatchRun] = []
    observed: list[float] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.admission.observe = lambda _, rate, **__: observed.append(rate)  # type: ignore[method-assign]
        await worker.run(lane, make_sequences([200]))
        await until(lambda: len(reports) == 1)

    play(scenario, [echo, echo], threads=3, on_batch=reports.append)
    assert observed == pytest.approx([reports[0].seconds / 200 / (3 * 2)])


def test_rate_is_not_learnt_from_batches_that_are_near_empty(make_sequences: MakeSequences) -> None:
    """A service that had texts of two tokens alone must not turn longer ones away for being slow a token."""

    def slow(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        time.sleep(0.01)  # a batch's fixed cost: 5 ms a token for the short ones
        return echo(sequences)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        for _ in range(20):
            await worker.run(lane, make_sequences([2]), seconds=60)
        longer = [worker.run(lane, make_sequences([length]), seconds=2) for length in range(200, 210)]
        assert [numbers(answer) for answer in await asyncio.gather(*longer)] == [[0]] * 10

    play(scenario, slow)


def test_a_rate_of_a_worse_time_is_unlearnt_by_small_batches(make_sequences: MakeSequences) -> None:
    """It may let in so little that no batch is full any more."""

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.admission.observe(Priority.SHORT, 0.1, full=True)  # seconds a token: 100 of them wait 10 s
        for _ in range(400):
            await worker.run(lane, make_sequences([2]), seconds=1)
        waiting = [worker.run(lane, make_sequences([2]), seconds=1) for _ in range(50)]
        assert [numbers(answer) for answer in await asyncio.gather(*waiting)] == [[0]] * 50

    play(scenario, echo)


def test_bulk_that_fills_its_part_of_the_queue_leaves_short_requests_theirs(make_sequences: MakeSequences) -> None:
    gate = GateOf(BUDGET)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        bulk = [asyncio.ensure_future(worker.run(lane, make_sequences([BUDGET] * 30))) for _ in range(3)]
        await until(lambda: worker.queue.tokens >= 1000)
        with pytest.raises(OverloadedError, match=FULL):
            await worker.run(lane, make_sequences([BUDGET] * 10))
        assert worker.admission.overload(60, expected=900) is None
        assert numbers(await worker.run(lane, make_sequences([4, 5]))) == [0, 1]
        gate.open.set()
        assert [len(answer.results) for answer in await asyncio.gather(*bulk)] == [30] * 3

    play(scenario, gate, max_batch_tokens=BUDGET, max_queue_tokens=1000)


def test_what_is_queued_is_charged_for_and_nothing_else(make_sequences: MakeSequences) -> None:
    charged: list[int] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        sequences = make_sequences([3, 4, 5])
        await worker.run(lane, sequences[:2], charge=charged.append)
        await worker.run(lane, sequences, charge=charged.append)
        await worker.run(lane, sequences, charge=charged.append)
        with pytest.raises(TooLargeError):
            await worker.run(lane, make_sequences([10_001]), charge=charged.append)

    play(scenario, echo, cache_size=3)
    assert charged == [7, 5], "what the cache answers and what the queue refuses costs nothing"


def test_charge_that_is_refused_leaves_nothing_in_the_queue(make_sequences: MakeSequences) -> None:
    reports: list[BatchRun] = []

    def refuse(tokens: int) -> None:
        raise RateLimitError(f"no {tokens} tokens", 1)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        with pytest.raises(RateLimitError, match="no 7 tokens"):
            await worker.run(lane, make_sequences([3, 4]), charge=refuse)
        assert (worker.queue.sequences, worker.queue.tokens, worker.requests) == (0, 0, 0)
        assert numbers(await worker.run(lane, make_sequences([3]))) == [0]

    play(scenario, echo, on_batch=reports.append)
    assert [report.sequences for report in reports] == [1]


def test_after_stop_nothing_is_queued(make_sequences: MakeSequences) -> None:
    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.stop()
        with pytest.raises(NotReadyError):
            await worker.run(lane, make_sequences([3]))
        assert (worker.queue.sequences, worker.requests) == (0, 0)

    play(scenario, echo)
