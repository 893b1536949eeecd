"""A text that comes twice in a request, and one that is in the cache, is encoded once or not at all."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from berth.batching.run import BatchRun
from berth.batching.worker import ModelLane, Worker
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence, Vectors
from tests.berth.batching.playing import (
    Gate,
    GateOf,
    MakeSequences,
    echo,
    entered,
    failing_on,
    lane_of,
    numbers,
    play,
    until,
)


def repeated(sequences: Sequence[TokenSequence], indices: Sequence[int]) -> list[TokenSequence]:
    """Make a request of some sequences over and over, each time in arrays of its own."""
    return [
        TokenSequence(Encoding(each.encoding.ids.copy(), each.encoding.type_ids.copy()), each.features)
        for each in (sequences[index] for index in indices)
    ]


@pytest.mark.parametrize("cache_size", [0, 10], ids=["no cache", "cache"])
def test_what_comes_twice_in_a_request_is_encoded_once(make_sequences: MakeSequences, cache_size: int) -> None:
    reports: list[BatchRun] = []
    charged: list[int] = []
    request = repeated(make_sequences([5, 6, 7]), [2, 0, 2, 1, 0, 2])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await worker.run(lane, request, charge=charged.append)
        assert (numbers(encoded), encoded.cached) == ([2, 0, 2, 1, 0, 2], 0)
        await until(lambda: len(reports) == 1)

    play(scenario, echo, cache_size=cache_size, on_batch=reports.append)
    assert [(report.sequences, report.tokens) for report in reports] == [(3, 18)]
    assert charged == [18], "what is encoded once is charged for once"


def test_many_times_the_same_text_is_a_short_request(make_sequences: MakeSequences) -> None:
    """It is one sequence to encode, and waits behind no bulk."""
    gate = GateOf(100)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        bulk = asyncio.ensure_future(worker.run(lane, make_sequences([100] * 10)))
        await entered(gate)
        alike = repeated(make_sequences([60]), [0] * 50)
        assert numbers(await worker.run(lane, alike)) == [0] * 50
        gate.open.set()
        await bulk

    play(scenario, gate)


def test_the_error_of_what_comes_twice_is_each_ones(
    make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL + 1)
    request = repeated(make_sequences([5, 6]), [0, 1, 0, 1])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, request)) == [-1, 1, -1, 1]

    play(scenario, failing_on({0}, RuntimeError("bad")))


def test_the_same_text_for_other_features_is_another_sequence(make_sequences: MakeSequences) -> None:
    [sequence] = make_sequences([5])
    cls, mean = (ResolvedFeature(pooling, (6,)) for pooling in (Pooling.CLS, Pooling.MEAN))
    request = [TokenSequence(sequence.encoding, features) for features in [(cls,), (mean,), (cls,), (cls, mean)]]
    batches: list[list[TokenSequence]] = []

    def note(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        batches.append(list(sequences))
        return echo(sequences)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, request)) == [0] * 4

    play(scenario, note)
    assert [{each.features for each in batch} for batch in batches] == [{(cls,), (mean,), (cls, mean)}]


def test_the_same_text_of_two_requests_is_encoded_for_each(make_sequences: MakeSequences) -> None:
    """A caller that leaves, or one that is not admitted, takes nothing from another."""
    gate = Gate()
    sequences = make_sequences([100, 101])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        first = asyncio.ensure_future(worker.run(lane, make_sequences([200])))
        await entered(gate)
        alike = [asyncio.ensure_future(worker.run(lane, sequences)) for _ in range(3)]
        await until(lambda: worker.queue.sequences == 6)
        leaver = alike.pop()
        leaver.cancel()
        await asyncio.wait([leaver])
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(first, *alike)] == [[0], [0, 1], [0, 1]]
        assert sum(gate.batches) == 5

    play(scenario, gate)


def test_cached_sequences_are_not_encoded_again(make_sequences: MakeSequences) -> None:
    reports: list[BatchRun] = []
    sequences = make_sequences([5, 6, 7])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert (await worker.run(lane, sequences[:2])).cached == 0
        mixed = await worker.run(lane, sequences[1:])
        assert (numbers(mixed), mixed.cached) == ([1, 2], 1)
        whole = await worker.run(lane, sequences)
        assert (numbers(whole), whole.cached) == ([0, 1, 2], 3)

    play(scenario, echo, cache_size=3, on_batch=reports.append)
    assert sum(report.sequences for report in reports) == 3


def test_a_model_without_a_cache_encodes_each_time(make_sequences: MakeSequences) -> None:
    reports: list[BatchRun] = []
    sequences = make_sequences([5, 6])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        for times in (1, 2):
            assert (await worker.run(lane, sequences)).cached == 0
            await until(lambda: len(reports) == times)  # noqa: B023

    play(scenario, echo, on_batch=reports.append)


def test_each_model_has_its_own_cache(make_sequences: MakeSequences) -> None:
    def negative(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        return [[-vectors[0] - 2] for vectors in echo(sequences)]

    other = lane_of(negative, cache_size=10)
    sequences = make_sequences([5, 6])

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        for cached in (0, 2):
            for each, answer in ((lane, [0, 1]), (other, [-2, -3])):
                encoded = await worker.run(each, sequences)
                assert (numbers(encoded), encoded.cached) == (answer, cached)

    play(scenario, echo, cache_size=10)
