"""What the runner lets into its queue, what it turns away, and what it says of when to come again."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from service.errors import EncoderError, OverloadedError, RateLimitError, TooLargeError
from service.inference.runner import BatchReport, Encoded, Runner
from service.inference.scheduler import Kind
from service.inference.types import Unit, Vectors
from tests.service.inference.playing import Gate, GateOf, MakeUnits, echo, entered, failing_on, numbers, play, until

BUDGET = 16


async def fill(runner: Runner, gate: Gate, make_units: MakeUnits, waiting: int) -> list[asyncio.Future[Encoded]]:
    """Teach the runner a rate; begin a request that the gate holds and so many of 250 tokens that wait behind it."""
    gate.open.set()
    await runner.run(make_units([200]))
    gate.open.clear()
    gate.entered.clear()
    running = asyncio.ensure_future(runner.run(make_units([100])))
    await entered(gate)
    behind = [asyncio.ensure_future(runner.run(make_units([250]))) for _ in range(waiting)]
    await until(lambda: runner.queued_tokens == 250 * waiting)
    return [running, *behind]


def test_request_beyond_the_queue_is_too_large_even_when_it_is_empty(make_units: MakeUnits) -> None:
    async def scenario(runner: Runner) -> None:
        with pytest.raises(TooLargeError, match="1001 tokens, the queue holds 1000"):
            await runner.run(make_units([200, 801]))
        assert numbers(await runner.run(make_units([200, 800]))) == [0, 1]

    play(scenario, echo, max_queue_tokens=1000)


def test_full_queue_turns_away_and_says_when_to_return(make_units: MakeUnits) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        requests = await fill(runner, gate, make_units, 4)
        with pytest.raises(OverloadedError) as refused:
            await runner.run(make_units([2]))
        assert refused.value.retry_after > 0
        with pytest.raises(OverloadedError):
            runner.admit(1, 1)
        assert runner.overload(60) is not None
        with pytest.raises(TooLargeError):
            runner.admit(1, 1001)
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 5
        runner.admit(1, 1000)
        assert runner.overload(60) is None

    play(scenario, gate, max_queue_tokens=1000)


def test_more_work_ahead_means_a_later_return(make_units: MakeUnits) -> None:
    gate = Gate()

    def retry_after(refused: Callable[[], None]) -> float:
        with pytest.raises(OverloadedError) as error:
            refused()
        return error.value.retry_after

    async def scenario(runner: Runner) -> None:
        requests = await fill(runner, gate, make_units, 4)
        assert retry_after(lambda: runner.admit(1, 800)) > retry_after(lambda: runner.admit(1, 100)) > 0
        gate.open.set()
        await asyncio.gather(*requests)

    play(scenario, gate, max_queue_tokens=1000)


def test_what_cannot_be_served_in_time_is_turned_away_at_once(make_units: MakeUnits) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        requests = await fill(runner, gate, make_units, 30)
        with pytest.raises(OverloadedError, match="too long for the request's deadline"):
            await runner.run(make_units([250]), seconds=1e-9)
        patient = asyncio.ensure_future(runner.run(make_units([2]), seconds=60))
        gate.open.set()
        await asyncio.gather(*requests, patient)

    play(scenario, gate)


def test_rate_is_not_learnt_from_batches_that_are_near_empty(make_units: MakeUnits) -> None:
    """A service that had texts of two tokens alone must not turn longer ones away for being slow a token."""

    def slow(units: Sequence[Unit]) -> list[Vectors]:
        time.sleep(0.01)  # a batch's fixed cost: 5 ms a token for the short ones
        return echo(units)

    async def scenario(runner: Runner) -> None:
        for _ in range(20):
            await runner.run(make_units([2]), seconds=60)
        longer = [runner.run(make_units([length]), seconds=2) for length in range(200, 210)]
        assert [numbers(answer) for answer in await asyncio.gather(*longer)] == [[0]] * 10

    play(scenario, slow)


def test_what_is_queued_is_charged_for_and_nothing_else(make_units: MakeUnits) -> None:
    charged: list[int] = []

    async def scenario(runner: Runner) -> None:
        units = make_units([3, 4, 5])
        await runner.run(units[:2], charge=charged.append)
        await runner.run(units, charge=charged.append)
        await runner.run(units, charge=charged.append)
        with pytest.raises(TooLargeError):
            await runner.run(make_units([10_001]), charge=charged.append)

    play(scenario, echo, cache_size=3)
    assert charged == [7, 5], "what the cache answers and what the queue refuses costs nothing"


def test_charge_that_is_refused_leaves_nothing_in_the_queue(make_units: MakeUnits) -> None:
    reports: list[BatchReport] = []

    def refuse(tokens: int) -> None:
        raise RateLimitError(f"no {tokens} tokens", 1)

    async def scenario(runner: Runner) -> None:
        with pytest.raises(RateLimitError, match="no 7 tokens"):
            await runner.run(make_units([3, 4]), charge=refuse)
        assert (runner.queued_units, runner.queued_tokens) == (0, 0)
        assert numbers(await runner.run(make_units([3]))) == [0]

    play(scenario, echo, on_batch=reports.append)
    assert [report.units for report in reports] == [1]


def test_a_deadline_is_weighed_against_what_waits_of_the_same_kind(make_units: MakeUnits) -> None:
    gate = GateOf(BUDGET)

    async def scenario(runner: Runner) -> None:
        for kind in Kind:
            runner._observe(kind, 0.01)  # seconds a token
        request = asyncio.ensure_future(runner.run(make_units([BUDGET] * 10)))
        await entered(gate)
        with pytest.raises(OverloadedError, match="deadline"):
            await runner.run(make_units([BUDGET] * 10), seconds=1)
        assert numbers(await runner.run(make_units([4]), seconds=1)) == [0]
        gate.open.set()
        await request

    play(scenario, gate, max_batch_tokens=BUDGET)


def test_a_rate_of_worse_times_locks_nobody_out(make_units: MakeUnits) -> None:
    """Bulk has a part of a core beside short requests and all of it alone, and only what is taken teaches a rate."""

    async def scenario(runner: Runner) -> None:
        runner._observe(Kind.BULK, 100.0)
        assert numbers(await runner.run(make_units([BUDGET] * 4), seconds=60)) == [0, 1, 2, 3]

    play(scenario, echo, max_batch_tokens=BUDGET)


def test_a_rate_of_a_worse_time_is_unlearnt_by_small_batches(make_units: MakeUnits) -> None:
    """It may let in so little that no batch is full any more."""

    async def scenario(runner: Runner) -> None:
        runner._observe(Kind.SHORT, 0.1)  # seconds a token: 100 of them wait 10 s
        for _ in range(400):
            await runner.run(make_units([2]), seconds=1)
        waiting = [runner.run(make_units([2]), seconds=1) for _ in range(50)]
        assert [numbers(answer) for answer in await asyncio.gather(*waiting)] == [[0]] * 50

    play(scenario, echo)


def test_bulk_that_fills_its_part_of_the_queue_leaves_short_requests_theirs(make_units: MakeUnits) -> None:
    gate = GateOf(BUDGET)

    async def scenario(runner: Runner) -> None:
        bulk = [asyncio.ensure_future(runner.run(make_units([BUDGET] * 30))) for _ in range(3)]
        await until(lambda: runner.queued_tokens >= 1000)
        with pytest.raises(OverloadedError, match="the queue is full"):
            await runner.run(make_units([BUDGET] * 10))
        assert runner.overload(60, inside=runner.requests + 900) is None
        assert numbers(await runner.run(make_units([4, 5]))) == [0, 1]
        gate.open.set()
        assert [len(answer.results) for answer in await asyncio.gather(*bulk)] == [30] * 3

    play(scenario, gate, max_batch_tokens=BUDGET, max_queue_tokens=1000)


def test_a_batch_that_fails_at_once_teaches_no_rate(make_units: MakeUnits, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")

    async def scenario(runner: Runner) -> None:
        runner._observe(Kind.SHORT, 0.1)
        failed = await runner.run(make_units([200]))
        assert isinstance(failed.results[0], EncoderError)
        assert runner._seconds_per_token[Kind.SHORT] == 0.1

    play(scenario, failing_on({0}, RuntimeError("at once")))
