"""A device without memory, and one that fails for good, cost as few as can be."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from berth.batching.run import BatchRun
from berth.batching.worker import ModelLane, Worker
from berth.errors import DeviceLostError, OutOfMemoryError
from berth.types import TokenSequence, Vectors
from tests.berth.batching.playing import MakeSequences, echo, failing_on, lane_of, numbers, play, until


class Small:
    """An encoder with memory for some tokens; notes the batches it had memory for."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.encoded: list[int] = []

    def __call__(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        tokens = sum(map(len, sequences))
        if tokens > self.tokens:
            raise OutOfMemoryError("full")
        self.encoded.append(tokens)
        return echo(sequences)


def test_lack_of_memory_halves_the_batch_and_the_budget_and_loses_nothing(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = Small(300)
    reports: list[BatchRun] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, make_sequences([10] * 100))) == list(range(100))
        assert lane.max_batch_tokens == 250
        assert numbers(await worker.run(lane, make_sequences([10] * 60))) == list(range(60))

    play(scenario, encoder, max_batch_tokens=1000, on_batch=reports.append)
    assert encoder.encoded == [250] * 4 + [250, 250, 100]
    assert [report.out_of_memory for report in reports] == [3, 0, 0, 0]
    assert sum(report.errors for report in reports) == 0
    assert caplog.messages == ["the encoder ran out of memory: batches of 250 tokens from now on"]


def test_budget_never_falls_below_one_text(make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await worker.run(lane, make_sequences([40, 60, 100, 100]))
        assert numbers(encoded) == [0, 1, -1, -1]
        assert lane.max_batch_tokens == 128

    play(scenario, Small(60), max_batch_tokens=300, longest=128)


def test_lack_of_memory_is_one_models(make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    other = lane_of(echo, max_batch_tokens=1000)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        await worker.run(lane, make_sequences([10] * 100))
        assert (lane.max_batch_tokens, other.max_batch_tokens) == (250, 1000)

    play(scenario, Small(300), max_batch_tokens=1000)


def test_other_failures_leave_the_budget(make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        await worker.run(lane, make_sequences([10] * 20))
        assert lane.max_batch_tokens == 256

    play(scenario, failing_on({3}, RuntimeError("bad")))


def test_lost_device_is_told_once_a_batch_and_its_callers_have_an_answer(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    reports: list[BatchRun] = []
    told: list[int] = []

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, make_sequences([10] * 20))) == [-1] * 20
        await until(lambda: len(told) == len(reports) == 1)

    failing = failing_on({3}, DeviceLostError("the GPU has failed"))
    play(scenario, failing, on_batch=reports.append, on_lost=lambda: told.append(1))
    assert [report.errors for report in reports] == [20]
    assert caplog.messages == ["the GPU has failed"]


def test_where_every_device_is_lost_callers_have_an_answer_all_the_same(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        for _ in range(5):
            assert numbers(await worker.run(lane, make_sequences([10]))) == [-1]
            assert numbers(await worker.run(lane, make_sequences([200] * 3))) == [-1] * 3

    play(scenario, failing_on({0, 1, 2}, DeviceLostError("the GPU has failed")))


def test_lost_device_leaves_the_queue_to_the_others(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    def lost(_: Sequence[TokenSequence]) -> list[Vectors]:
        raise DeviceLostError("the GPU has failed")

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        answers: list[list[int]] = []
        while [-1] not in answers:
            requests = [asyncio.ensure_future(worker.run(lane, make_sequences([200]))) for _ in range(60)]
            answers = [numbers(answer) for answer in await asyncio.gather(*requests)]
        assert answers.count([-1]) <= 2, "a batch of each thread of the lost one"
        assert answers.count([0]) >= 58
        for _ in range(20):
            assert numbers(await worker.run(lane, make_sequences([200]))) == [0], (
                "no thread of the lost one takes another"
            )

    play(scenario, [echo, lost], threads=2, max_queue_tokens=100_000)
