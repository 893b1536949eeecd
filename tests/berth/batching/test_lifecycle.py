"""The threads from start to stop, what they hold, and what is known of them meanwhile."""

import asyncio
import logging
import time
import weakref
from collections.abc import Hashable, Sequence

import pytest

from berth.batching.admission import SHORT_TEXT
from berth.batching.cache import VectorCache
from berth.batching.worker import ModelLane, Worker
from berth.errors import BerthError, EncoderError
from berth.types import TokenSequence, Vectors
from tests.berth.batching.playing import (
    ANSWER_BOUND,
    Gate,
    GateOf,
    MakeSequences,
    Threads,
    echo,
    entered,
    failing_on,
    lane_of,
    numbers,
    play,
    until,
)


def test_stop_answers_what_was_accepted_and_ends_the_threads(
    make_sequences: MakeSequences, encoder_threads: Threads
) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([200]))) for _ in range(5)]
        await entered(gate)
        await until(lambda: worker.queue.sequences == 4)
        worker.stop()
        gate.open.set()
        assert [numbers(answer) for answer in await asyncio.gather(*requests)] == [[0]] * 5
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate)


def test_request_after_stop_is_refused_not_forgotten(make_sequences: MakeSequences, encoder_threads: Threads) -> None:
    async def scenario(worker: Worker, lane: ModelLane) -> None:
        worker.stop()
        for thread in encoder_threads():
            await asyncio.to_thread(thread.join, ANSWER_BOUND)
        with pytest.raises(BerthError):
            await asyncio.wait_for(worker.run(lane, make_sequences([5])), 5)

    play(scenario, echo)


def test_threads_end_when_the_loop_they_answer_to_is_gone(
    make_sequences: MakeSequences, encoder_threads: Threads
) -> None:
    gate = Gate()

    async def main() -> None:
        worker, lane = Worker(threads=1, max_queue_tokens=1000), lane_of(gate)
        worker.start()
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([200] * count))) for count in (1, 2)]
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


def test_the_oldest_batch_is_known_while_it_runs(make_sequences: MakeSequences) -> None:
    bulk, short = GateOf(200), GateOf(4)

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        return (bulk if len(sequences[0]) == 200 else short)(sequences)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert worker.oldest_batch() == 0.0
        first = asyncio.ensure_future(worker.run(lane, make_sequences([200] * 2)))
        await entered(bulk)
        between = time.perf_counter()
        second = asyncio.ensure_future(worker.run(lane, make_sequences([4])))
        await entered(short)
        least = time.perf_counter() - between
        assert worker.oldest_batch() >= least, "it is the first one's"
        await until(lambda: worker.oldest_batch() > 2 * least)

        bulk.open.set()
        await first
        seconds = worker.oldest_batch()
        assert 0.0 < seconds <= time.perf_counter() - between, "it is the second one's, which is younger"
        short.open.set()
        await second
        assert worker.oldest_batch() == 0.0

    play(scenario, encode)


def test_a_long_text_may_take_as_many_times_as_long(make_sequences: MakeSequences) -> None:
    length = 4 * SHORT_TEXT
    long = GateOf(length)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        before = time.perf_counter()
        running = asyncio.ensure_future(worker.run(lane, make_sequences([length])))
        await entered(long)
        seconds = worker.oldest_batch()
        assert 0 < seconds <= (time.perf_counter() - before) / 4
        long.open.set()
        await running

    play(scenario, long)


def test_a_batch_that_failed_is_no_old_one(make_sequences: MakeSequences, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, make_sequences([5]))) == [-1]
        assert worker.oldest_batch() == 0.0

    play(scenario, failing_on({0}, RuntimeError("bad")))


def test_requests_are_counted_until_they_are_answered(make_sequences: MakeSequences) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        requests = [asyncio.ensure_future(worker.run(lane, make_sequences([200]))) for _ in range(3)]
        await entered(gate)
        await until(lambda: worker.queue.sequences == 2)
        assert worker.requests == 3
        requests.pop().cancel()
        await until(lambda: worker.requests == 2)
        gate.open.set()
        await asyncio.gather(*requests)
        assert worker.requests == 0

    play(scenario, gate)


def test_join_waits_for_the_threads_that_were_stopped(make_sequences: MakeSequences, encoder_threads: Threads) -> None:
    gate = Gate()

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        request = asyncio.ensure_future(worker.run(lane, make_sequences([200])))
        await entered(gate)
        worker.stop()
        worker.join(0.0)
        assert encoder_threads() != []
        gate.open.set()
        assert numbers(await request) == [0]
        await asyncio.to_thread(worker.join, ANSWER_BOUND)
        assert encoder_threads() == []

    play(scenario, gate)


@pytest.mark.parametrize(("threads", "devices", "batches"), [(1, 1, 2), (3, 1, 6), (2, 4, 16)])
def test_most_batches_at_once(threads: int, devices: int, batches: int) -> None:
    assert Worker(threads=threads, devices=devices, max_queue_tokens=1).most_batches == batches


def test_a_thread_that_waits_keeps_nothing_of_what_it_answered(make_sequences: MakeSequences) -> None:
    async def scenario(worker: Worker, lane: ModelLane) -> None:
        encoded = await worker.run(lane, make_sequences(range(3, 53)))
        kept = [weakref.ref(vectors[0]) for vectors in encoded.results if not isinstance(vectors, EncoderError)]
        del encoded
        await until(lambda: not any(vector() is not None for vector in kept))
        assert len(kept) == 50

    play(scenario, echo)


def test_an_answer_does_not_hang_on_the_cache(
    make_sequences: MakeSequences, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", logger="asyncio")

    def put(cache: VectorCache, key: Hashable, vectors: Vectors) -> None:
        raise MemoryError

    monkeypatch.setattr(VectorCache, "put", put)

    async def scenario(worker: Worker, lane: ModelLane) -> None:
        assert numbers(await worker.run(lane, make_sequences([3, 4, 5]))) == [0, 1, 2]

    play(scenario, echo, cache_size=3)
