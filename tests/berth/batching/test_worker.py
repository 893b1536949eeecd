"""Batches are run, results find their requests, and whatever happens every caller gets an answer."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest

from berth.batching.run import BatchRun
from berth.batching.worker import Encoded, ModelLane, Worker
from berth.contract import Encode
from berth.errors import EncoderError
from berth.types import TokenSequence, Vectors
from tests.berth.batching.playing import (
    Gate,
    MakeSequences,
    echo,
    entered,
    failing_on,
    lane_of,
    numbers,
    play,
    until,
)


def test_results_come_in_the_order_of_the_sequences(make_sequences: MakeSequences) -> None:
    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await worker.run(lane, make_sequences([9, 3, 200, 3, 50]))
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
def test_results_go_to_their_callers(make_sequences: MakeSequences, threads: int) -> None:
    random = np.random.default_rng(5)
    all_sequences = make_sequences(random.integers(2, 120, size=600).tolist())
    requests = [all_sequences[start : start + 6] for start in range(0, 600, 6)]

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        answers = await asyncio.gather(*(worker.run(lane, request) for request in requests))
        assert [numbers(answer) for answer in answers] == [list(range(start, start + 6)) for start in range(0, 600, 6)]
        assert (worker.queue.sequences, worker.queue.tokens) == (0, 0)

    play(scenario, echo, threads=threads, max_queue_tokens=100_000)


@pytest.mark.parametrize("bad", [{0}, {7}, {15}, {3, 4}, set(range(16))], ids=str)
def test_only_the_sequences_that_fail_alone_have_an_error(
    make_sequences: MakeSequences, bad: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    reports: list[BatchRun] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await worker.run(lane, make_sequences([10] * 16))
        assert numbers(encoded) == [-1 if number in bad else number for number in range(16)]
        await until(lambda: sum(report.sequences for report in reports) == 16)

    play(scenario, failing_on(bad, RuntimeError("a driver's words")), on_batch=reports.append)
    assert sum(report.errors for report in reports) == len(bad)


def test_a_neighbours_failure_is_not_felt(make_sequences: MakeSequences) -> None:
    gate = Gate()
    sequences = make_sequences([10] * 3)

    def encode(batch: Sequence[TokenSequence]) -> list[Vectors]:
        gate(batch)
        return failing_on({1}, ValueError("bad"))(batch)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [asyncio.ensure_future(worker.run(lane, [sequence])) for sequence in sequences]
        await entered(gate)
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0], [-1], [2]]

    play(scenario, encode)


def test_callers_learn_nothing_of_the_encoders_words(make_sequences: MakeSequences) -> None:
    async def scenario(worker: Worker, lane: ModelLane) -> None:
        [result] = (await worker.run(lane, make_sequences([5]))).results
        assert isinstance(result, EncoderError)
        assert "secret" not in str(result)

    play(scenario, failing_on({0}, RuntimeError("secret path")))


def too_few(sequences: Sequence[TokenSequence]) -> list[Vectors]:
    return echo(sequences)[1:]


def too_many(sequences: Sequence[TokenSequence]) -> list[Vectors]:
    return [*echo(sequences), []]


def nothing(sequences: Sequence[TokenSequence]) -> list[Vectors]:
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
def test_an_encoder_that_misbehaves_costs_its_sequences_only(
    make_sequences: MakeSequences, encode: Encode, caplog: pytest.LogCaptureFixture
) -> None:
    """Its callers get an error each, and the loop lives on: the same thread answers the next request."""
    caplog.set_level(logging.CRITICAL + 1)
    broken = threading.Event()
    broken.set()

    def sometimes(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        return encode(sequences) if broken.is_set() else echo(sequences)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await asyncio.wait_for(worker.run(lane, make_sequences([5])), 5)
        assert [type(result) for result in encoded.results] == [EncoderError]
        broken.clear()
        assert numbers(await asyncio.wait_for(worker.run(lane, make_sequences([5, 6])), 5)) == [0, 1]

    play(scenario, sometimes)


def test_a_report_that_fails_costs_nobody_an_answer(make_sequences: MakeSequences) -> None:
    def fail(_: BatchRun) -> None:
        raise RuntimeError("no metrics today")

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        for _ in range(3):
            assert numbers(await worker.run(lane, make_sequences([5, 200]))) == [0, 1]

    play(scenario, echo, on_batch=fail)


def test_caller_that_leaves_takes_its_waiting_sequences_along(make_sequences: MakeSequences) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        first = asyncio.ensure_future(worker.run(lane, make_sequences([200])))
        await entered(gate)
        leaver = asyncio.ensure_future(worker.run(lane, make_sequences([60, 70, 80])))
        stayer = asyncio.ensure_future(worker.run(lane, make_sequences([50, 51])))
        await until(lambda: worker.queue.sequences == 5)
        leaver.cancel()
        with suppress(asyncio.CancelledError):
            await leaver
        assert (worker.queue.sequences, worker.queue.tokens) == (2, 101)
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(first, stayer)] == [[0], [0, 1]]
        assert sum(gate.batches) == 3

    play(scenario, gate)


def test_caller_that_leaves_while_its_batch_runs_disturbs_nobody(make_sequences: MakeSequences) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        leaver = asyncio.ensure_future(worker.run(lane, make_sequences([200])))
        await entered(gate)
        leaver.cancel()
        with suppress(asyncio.CancelledError):
            await leaver
        gate.open.set()
        assert numbers(await worker.run(lane, make_sequences([7, 8]))) == [0, 1]

    play(scenario, gate)


def test_reports_say_what_each_batch_was(make_sequences: MakeSequences) -> None:
    reports: list[BatchRun] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        await worker.run(lane, make_sequences([100, 100, 100]))
        await until(lambda: len(reports) == 2)

    play(scenario, echo, on_batch=reports.append)
    assert sorted((report.sequences, report.tokens, report.errors) for report in reports) == [(1, 100, 0), (2, 200, 0)]
    assert all(report.seconds > 0 for report in reports)


def test_a_storm_of_callers_who_stay_fail_and_leave_forgets_nobody(make_sequences: MakeSequences) -> None:
    random = np.random.default_rng(11)
    sequences = make_sequences(random.integers(2, 200, size=800).tolist())
    bad = {int(number) for number in random.choice(800, size=20, replace=False)}

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [asyncio.ensure_future(worker.run(lane, sequences[start : start + 4])) for start in range(0, 800, 4)]
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
        assert (worker.queue.sequences, worker.queue.tokens) == (0, 0)

    play(scenario, failing_on(bad, RuntimeError("bad")), threads=3, max_queue_tokens=1_000_000)


def test_two_models_share_the_threads_and_no_batch(make_sequences: MakeSequences) -> None:
    gate, other_gate = Gate(), Gate()
    other = lane_of(other_gate, cache_size=10)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        held = asyncio.ensure_future(worker.run(lane, make_sequences([200])))
        await entered(gate)
        requests = [
            asyncio.ensure_future(worker.run(each, make_sequences([10, 11])))
            for _ in range(5)
            for each in (lane, other)
        ]
        await until(lambda: worker.queue.sequences == 20)
        gate.open.set()
        other_gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(held, *requests)] == [[0]] + [[0, 1]] * 10
        assert (gate.batches, other_gate.batches) == ([1, 10], [10])

    play(scenario, gate)


def test_several_encoders_serve_one_queue(make_sequences: MakeSequences) -> None:
    """Each has threads of its own: with all of the first's held up, the second one goes on."""
    held, free = Gate(), Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([200]))) for _ in range(40)]
        await until(lambda: (len(held.batches), len(free.batches)) == (2, 2))
        free.open.set()
        await until(lambda: sum(request.done() for request in requests) == 38)
        assert (len(held.batches), len(free.batches)) == (2, 38)
        held.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 40

    play(scenario, [held, free], threads=2)
