"""Batches are run, results find their requests, and whatever happens every caller gets an answer."""

import asyncio
import logging
import threading
import weakref
from collections.abc import Hashable, Sequence
from contextlib import suppress

import numpy as np
import pytest

from service.errors import (
    BerthError,
    EncoderError,
)
from service.inference.cache import VectorCache
from service.inference.runner import BatchReport, Encode, Encoded, Runner
from service.inference.scheduler import Scheduler
from service.inference.types import Unit, Vectors
from tests.service.inference.playing import (
    ANSWER_BOUND,
    Gate,
    MakeUnits,
    Threads,
    echo,
    entered,
    failing_on,
    numbers,
    play,
    until,
)


def test_results_come_in_the_order_of_the_units(make_units: MakeUnits) -> None:
    async def scenario(runner: Runner) -> None:
        encoded = await runner.run(make_units([9, 3, 200, 3, 50]))
        assert [result[0].tolist() for result in encoded.results if not isinstance(result, EncoderError)] == [
            [0, 9],
            [1, 3],
            [2, 200],
            [3, 3],
            [4, 50],
        ]
        assert encoded.queue_seconds >= 0
        assert encoded.encode_seconds > 0

    play(scenario, echo)


@pytest.mark.parametrize("threads", [1, 4])
def test_results_go_to_their_callers(make_units: MakeUnits, threads: int) -> None:
    random = np.random.default_rng(5)
    all_units = make_units(random.integers(2, 120, size=600).tolist())
    requests = [all_units[start : start + 6] for start in range(0, 600, 6)]

    async def scenario(runner: Runner) -> None:
        answers = await asyncio.gather(*map(runner.run, requests))
        assert [numbers(answer) for answer in answers] == [list(range(start, start + 6)) for start in range(0, 600, 6)]
        assert (runner.queued_units, runner.queued_tokens) == (0, 0)

    play(scenario, echo, threads=threads, max_queue_tokens=100_000)


@pytest.mark.parametrize("bad", [{0}, {7}, {15}, {3, 4}, set(range(16))], ids=str)
def test_only_the_units_that_fail_alone_have_an_error(
    make_units: MakeUnits, bad: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    reports: list[BatchReport] = []

    async def scenario(runner: Runner) -> None:
        encoded = await runner.run(make_units([10] * 16))
        assert numbers(encoded) == [-1 if number in bad else number for number in range(16)]
        await until(lambda: sum(report.units for report in reports) == 16)

    play(scenario, failing_on(bad, RuntimeError("a driver's words")), on_batch=reports.append)
    assert sum(report.errors for report in reports) == len(bad)


def test_a_neighbours_failure_is_not_felt(make_units: MakeUnits) -> None:
    gate = Gate()
    units = make_units([10] * 3)

    def encode(batch: Sequence[Unit]) -> list[Vectors]:
        gate(batch)
        return failing_on({1}, ValueError("bad"))(batch)

    async def scenario(runner: Runner) -> None:
        requests = [asyncio.ensure_future(runner.run([unit])) for unit in units]
        await entered(gate)
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0], [-1], [2]]

    play(scenario, encode)


def test_callers_learn_nothing_of_the_encoders_words(make_units: MakeUnits) -> None:
    async def scenario(runner: Runner) -> None:
        [result] = (await runner.run(make_units([5]))).results
        assert isinstance(result, EncoderError)
        assert "secret" not in str(result)

    play(scenario, failing_on({0}, RuntimeError("secret path")))


def too_few(units: Sequence[Unit]) -> list[Vectors]:
    return echo(units)[1:]


def too_many(units: Sequence[Unit]) -> list[Vectors]:
    return [*echo(units), []]


def nothing(units: Sequence[Unit]) -> list[Vectors]:
    return None  # type: ignore[return-value]  # what a broken encoder may do


class OddError(BaseException):
    """No Exception, as SystemExit is none."""


@pytest.mark.parametrize(
    "encode",
    [
        failing_on({0}, MemoryError()),
        failing_on({0}, RecursionError()),
        failing_on({0}, StopIteration()),
        failing_on({0}, asyncio.CancelledError()),
        failing_on({0}, SystemExit(3)),
        failing_on({0}, OddError()),
        too_few,
        too_many,
        nothing,
    ],
    ids=["memory", "recursion", "stop", "cancelled", "exit", "odd", "too few", "too many", "nothing"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_encoder_that_misbehaves_costs_its_units_only(
    make_units: MakeUnits, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    """Its callers get an error each, and the loop lives on: the same thread answers the next request."""
    caplog.set_level(logging.CRITICAL + 1)
    broken = threading.Event()
    broken.set()

    def sometimes(units: Sequence[Unit]) -> list[Vectors]:
        return encode(units) if broken.is_set() else echo(units)

    async def scenario(runner: Runner) -> None:
        encoded = await asyncio.wait_for(runner.run(make_units([5])), 5)
        assert [type(result) for result in encoded.results] == [EncoderError]
        broken.clear()
        assert numbers(await asyncio.wait_for(runner.run(make_units([5, 6])), 5)) == [0, 1]

    play(scenario, sometimes)


def test_a_report_that_fails_costs_nobody_an_answer(make_units: MakeUnits) -> None:
    def fail(_: BatchReport) -> None:
        raise RuntimeError("no metrics today")

    async def scenario(runner: Runner) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for _ in range(3):
            assert numbers(await runner.run(make_units([5, 200]))) == [0, 1]

    play(scenario, echo, on_batch=fail)


def test_caller_that_leaves_takes_its_waiting_units_along(make_units: MakeUnits) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        first = asyncio.ensure_future(runner.run(make_units([200])))
        await entered(gate)
        leaver = asyncio.ensure_future(runner.run(make_units([60, 70, 80])))
        stayer = asyncio.ensure_future(runner.run(make_units([50, 51])))
        await until(lambda: runner.queued_units == 5)
        leaver.cancel()
        with suppress(asyncio.CancelledError):
            await leaver
        assert (runner.queued_units, runner.queued_tokens) == (2, 101)
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(first, stayer)] == [[0], [0, 1]]
        assert sum(gate.batches) == 3

    play(scenario, gate)


def test_caller_that_leaves_while_its_batch_runs_disturbs_nobody(make_units: MakeUnits) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        leaver = asyncio.ensure_future(runner.run(make_units([200])))
        await entered(gate)
        leaver.cancel()
        with suppress(asyncio.CancelledError):
            await leaver
        gate.open.set()
        assert numbers(await runner.run(make_units([7, 8]))) == [0, 1]

    play(scenario, gate)


def test_reports_say_what_each_batch_was(make_units: MakeUnits) -> None:
    reports: list[BatchReport] = []

    async def scenario(runner: Runner) -> None:
        await runner.run(make_units([100, 100, 100]))
        await until(lambda: len(reports) == 2)

    play(scenario, echo, on_batch=reports.append)
    assert sorted((report.units, report.tokens, report.errors) for report in reports) == [(1, 100, 0), (2, 200, 0)]
    assert all(report.seconds > 0 for report in reports)


def test_stop_answers_what_was_accepted_and_ends_the_threads(make_units: MakeUnits, encoder_threads: Threads) -> None:
    gate = Gate()

    async def scenario(runner: Runner) -> None:
        requests = [asyncio.ensure_future(runner.run(make_units([200]))) for _ in range(5)]
        await entered(gate)
        await until(lambda: runner.queued_units == 4)
        runner.stop()
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 5
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate)


def test_request_after_stop_is_refused_not_forgotten(make_units: MakeUnits, encoder_threads: Threads) -> None:
    async def scenario(runner: Runner) -> None:
        runner.stop()
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        with pytest.raises(BerthError):
            await asyncio.wait_for(runner.run(make_units([5])), 5)

    play(scenario, echo)


def test_threads_end_when_the_loop_they_answer_to_is_gone(make_units: MakeUnits, encoder_threads: Threads) -> None:
    gate = Gate()

    async def main() -> None:
        runner = Runner(
            [gate], Scheduler(256), threads=1, max_queue_tokens=1000, cache=VectorCache(0), on_batch=lambda _: None
        )
        runner.start()
        requests = [asyncio.ensure_future(runner.run(make_units([200] * count))) for count in (1, 2)]
        await until(lambda: len(gate.batches) == 2)
        for request in requests:
            request.cancel()

    asyncio.run(main())
    threads = encoder_threads()
    assert len(threads) == 2
    gate.open.set()
    for thread in threads:
        thread.join(ANSWER_BOUND)
        assert not thread.is_alive()


def test_a_storm_of_callers_who_stay_fail_and_leave_forgets_nobody(make_units: MakeUnits) -> None:
    random = np.random.default_rng(11)
    units = make_units(random.integers(2, 200, size=800).tolist())
    bad = {int(number) for number in random.choice(800, size=20, replace=False)}

    async def scenario(runner: Runner) -> None:
        requests = [asyncio.ensure_future(runner.run(units[start : start + 4])) for start in range(0, 800, 4)]
        for request in requests[::5]:
            await asyncio.sleep(0)
            request.cancel()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        for start, answer in zip(range(0, 800, 4), answers, strict=True):
            if isinstance(answer, Encoded):
                assert numbers(answer) == [-1 if number in bad else number for number in range(start, start + 4)]
            else:
                assert isinstance(answer, asyncio.CancelledError)
        assert sum(isinstance(answer, Encoded) for answer in answers) >= 160
        assert (runner.queued_units, runner.queued_tokens) == (0, 0)

    play(scenario, failing_on(bad, RuntimeError("bad")), threads=3, max_queue_tokens=1_000_000)


def test_what_several_ask_for_is_encoded_once(make_units: MakeUnits) -> None:
    gate = Gate()
    reports: list[BatchReport] = []
    units = make_units([5, 6])

    async def scenario(runner: Runner) -> None:
        first = asyncio.ensure_future(runner.run(make_units([200])))
        await entered(gate)
        alike = [asyncio.ensure_future(runner.run(units)) for _ in range(10)]
        await until(lambda: runner.queued_units == 20)
        gate.open.set()
        await first
        assert [numbers(answer) for answer in await asyncio.gather(*alike)] == [[0, 1]] * 10

    play(scenario, gate, on_batch=reports.append)
    assert [report.units for report in reports] == [1, 2]


def test_cached_units_are_not_encoded_again(make_units: MakeUnits) -> None:
    reports: list[BatchReport] = []
    units = make_units([5, 6, 7])

    async def scenario(runner: Runner) -> None:
        assert (await runner.run(units[:2])).cached == 0
        mixed = await runner.run(units[1:])
        assert (numbers(mixed), mixed.cached) == ([1, 2], 1)
        whole = await runner.run(units)
        assert (numbers(whole), whole.cached) == ([0, 1, 2], 3)

    play(scenario, echo, cache_size=3, on_batch=reports.append)
    assert sum(report.units for report in reports) == 3


def test_several_encoders_serve_one_queue(make_units: MakeUnits) -> None:
    """Each has threads of its own: with all of the first's held up, the second one goes on."""
    held, free = Gate(), Gate()

    async def scenario(runner: Runner) -> None:
        requests = [asyncio.ensure_future(runner.run(make_units([200]))) for _ in range(40)]
        await until(lambda: (len(held.batches), len(free.batches)) == (2, 2))
        free.open.set()
        await until(lambda: sum(request.done() for request in requests) == 38)
        assert (len(held.batches), len(free.batches)) == (2, 38)
        held.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 40

    play(scenario, [held, free], threads=2)


def test_a_thread_that_waits_keeps_nothing_of_what_it_answered(make_units: MakeUnits) -> None:
    async def scenario(runner: Runner) -> None:
        encoded = await runner.run(make_units(range(3, 53)))
        kept = [weakref.ref(vectors[0]) for vectors in encoded.results if not isinstance(vectors, EncoderError)]
        del encoded
        await until(lambda: not any(vector() is not None for vector in kept))
        assert len(kept) == 50

    play(scenario, echo)


def test_an_answer_does_not_hang_on_the_cache(
    make_units: MakeUnits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="asyncio")

    def put(cache: VectorCache, key: Hashable, vectors: Vectors) -> None:
        raise MemoryError

    monkeypatch.setattr(VectorCache, "put", put)

    async def scenario(runner: Runner) -> None:
        assert numbers(await runner.run(make_units([3, 4, 5]))) == [0, 1, 2]

    play(scenario, echo, cache_size=3)
