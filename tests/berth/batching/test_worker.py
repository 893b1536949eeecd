"""Batches are run, results find their requests, and whatever happens every caller gets an answer."""

import asyncio
import logging
import threading
import time
import weakref
from collections.abc import Hashable, Sequence
from contextlib import suppress

import numpy as np
import pytest

from berth.batching.cache import VectorCache
from berth.batching.run import BatchRun
from berth.batching.worker import Encoded, ModelLane, Worker
from berth.contract import Encode
from berth.errors import BerthError, EncoderError
from berth.types import Encoding, Pooling, ResolvedFeature, TokenSequence, Vectors
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
