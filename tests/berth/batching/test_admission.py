"""What is let into the queue, what is turned away, and what is said of when to come again."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from berth.batching.admission import RATE_WEIGHT, SHORT_TEXT, Admission
from berth.batching.queue import Lane, Priority, Queue, QueueEntry, Request
from berth.errors import OverloadedError, TooLargeError
from berth.types import Encoding, TokenSequence

BUDGET = 16
FULL, LATE = "the queue is full", "too long for the request's deadline"


class Gatekeeper:
    """An admission with its queue, and a lane that requests come by; a second a token is known where `rate` is one."""

    def __init__(self, max_queue_tokens: int = 1000, rate: float = 0.0, max_batch_tokens: int = BUDGET) -> None:
        self.queue = Queue()
        self.admission = Admission(self.queue, max_queue_tokens)
        self.lane = Lane(max_batch_tokens)
        if rate:
            for priority in Priority:
                self.admission.observe(priority, rate, full=True)

    def wait(self, *requests: Iterable[int]) -> None:
        """Have requests of some lengths wait."""
        for lengths in requests:
            request = Request(self.lane)
            ids = [np.zeros(length, dtype=np.int32) for length in lengths]
            request.entries.extend(
                QueueEntry(request, TokenSequence(Encoding(each, each), ()), len(each)) for each in ids
            )
            priority = self.admission.check(self.lane, len(ids), sum(map(len, ids)))
            self.queue.add(request, priority)

    def refused(self, sequences: int, tokens: int, seconds: float = math.inf) -> OverloadedError:
        """Expect a request to be refused; gives the refusal."""
        with pytest.raises(OverloadedError) as error:
            self.admission.check(self.lane, sequences, tokens, seconds)
        return error.value


@pytest.mark.parametrize(
    ("sequences", "tokens", "priority"),
    [
        (1, 1, Priority.SHORT),
        (1, BUDGET, Priority.SHORT),
        (1, 300, Priority.SHORT),
        (2, BUDGET, Priority.SHORT),
        (BUDGET, BUDGET, Priority.SHORT),
        (2, BUDGET + 1, Priority.BULK),
        (100, 900, Priority.BULK),
    ],
)
def test_a_request_of_one_text_or_at_most_a_batch_is_short(sequences: int, tokens: int, priority: Priority) -> None:
    gate = Gatekeeper()
    assert gate.admission.check(gate.lane, sequences, tokens) is priority


def test_a_text_of_many_batches_tokens_is_bulk() -> None:
    gate = Gatekeeper(10_000)
    assert gate.admission.check(gate.lane, 1, SHORT_TEXT) is Priority.SHORT
    assert gate.admission.check(gate.lane, 1, SHORT_TEXT + 1) is Priority.BULK
    assert gate.admission.check(Lane(4096), 1, SHORT_TEXT + 1) is Priority.SHORT


def test_how_much_a_batch_is_depends_on_the_model() -> None:
    gate = Gatekeeper()
    assert gate.admission.check(Lane(100), 5, 100) is Priority.SHORT
    assert gate.admission.check(Lane(99), 5, 100) is Priority.BULK


def test_request_beyond_the_queue_is_too_large() -> None:
    gate = Gatekeeper(1000)
    with pytest.raises(TooLargeError, match="1001 tokens, the queue holds 1000"):
        gate.admission.check(gate.lane, 2, 1001)
    assert gate.admission.check(gate.lane, 2, 1000) is Priority.BULK


@pytest.mark.parametrize(
    ("waiting", "admitted"),
    [([], True), ([999], True), ([500, 499], True), ([1000], False), ([999, 1], False), ([999, 1000], False)],
    ids=str,
)
def test_while_the_queue_is_not_full_a_request_is_taken_whole(waiting: list[int], admitted: bool) -> None:
    gate = Gatekeeper(1000)
    gate.wait(*([length] for length in waiting))
    if admitted:
        assert gate.admission.check(gate.lane, 1, 1000) is Priority.SHORT
    else:
        assert FULL in str(gate.refused(1, 1))
        assert FULL in str(gate.refused(1, 1, seconds=60))


def test_one_that_is_too_large_is_so_while_the_queue_is_full() -> None:
    gate = Gatekeeper(1000)
    gate.wait([1000])
    with pytest.raises(TooLargeError):
        gate.admission.check(gate.lane, 1, 1001)


def test_each_priority_has_its_part_of_the_queue() -> None:
    gate = Gatekeeper(1000)
    gate.wait([500, 500])
    assert FULL in str(gate.refused(2, BUDGET + 1))
    gate.wait([500], [500])
    assert FULL in str(gate.refused(1, 1))


def test_a_full_queue_says_when_there_is_room() -> None:
    """When what is beyond it and the request itself would be served; the more, the later."""
    gate = Gatekeeper(1000, rate=0.01)
    gate.wait([700], [800])
    assert gate.refused(1, 100).retry_after == pytest.approx((500 + 100) * 0.01)
    assert gate.refused(1, 800).retry_after == pytest.approx((500 + 800) * 0.01)


def test_before_a_rate_is_known_a_full_queue_says_no_time() -> None:
    gate = Gatekeeper(1000)
    gate.wait([1000])
    assert gate.refused(1, 100).retry_after == 0


@pytest.mark.parametrize(
    ("waiting", "tokens", "seconds", "late"),
    [
        ([100], 50, 1.5, None),
        ([100], 50, 1.4, 0.1),
        ([100, 100], 50, 2.4, 0.1),
        ([100, 100], 50, 2.6, None),
        ([100], 50, math.inf, None),
        ([], 1000, 1.0, None),
    ],
)
def test_a_short_request_waits_for_all_short_ones(
    waiting: list[int], tokens: int, seconds: float, late: float | None
) -> None:
    gate = Gatekeeper(10_000, rate=0.01)
    gate.wait(*([length] for length in waiting))
    if late is None:
        assert gate.admission.check(gate.lane, 1, tokens, seconds) is Priority.SHORT
    else:
        refusal = gate.refused(1, tokens, seconds)
        assert LATE in str(refusal)
        assert refusal.retry_after == pytest.approx(late)


@pytest.mark.parametrize(("tokens", "ahead"), [(300, 600), (400, 800), (5000, 1300)])
def test_bulk_waits_for_as_many_tokens_of_every_request(tokens: int, ahead: int) -> None:
    gate = Gatekeeper(10_000, rate=0.01)
    gate.wait([10] * 100, [10] * 30)
    seconds = (ahead + tokens) * 0.01
    assert gate.admission.check(gate.lane, 2, tokens, seconds + 0.001) is Priority.BULK
    refusal = gate.refused(2, tokens, seconds - 0.5)
    assert LATE in str(refusal)
    assert refusal.retry_after == pytest.approx(0.5)


def test_a_deadline_is_weighed_against_what_waits_of_the_same_priority() -> None:
    gate = Gatekeeper(10_000, rate=0.01)
    gate.wait([BUDGET] * 100)
    assert gate.admission.check(gate.lane, 1, 4, 0.05) is Priority.SHORT
    gate.wait([BUDGET])
    assert LATE in str(gate.refused(1, 4, 0.05))


def test_where_nothing_waits_no_rate_locks_anybody_out() -> None:
    """Bulk has a part of a core beside short requests and all of it alone, and only what is taken teaches a rate."""
    gate = Gatekeeper(10_000, rate=100.0)
    assert gate.admission.check(gate.lane, 4, 64, seconds=1) is Priority.BULK
    assert gate.admission.check(gate.lane, 1, 64, seconds=1) is Priority.SHORT


def test_each_priority_has_its_rate() -> None:
    gate = Gatekeeper(10_000)
    gate.admission.observe(Priority.BULK, 0.1, full=True)
    gate.wait([100], [10] * 10)
    assert gate.admission.check(gate.lane, 1, 100, seconds=0.001) is Priority.SHORT
    assert gate.refused(10, 100, seconds=1).retry_after == pytest.approx((100 + 100) * 0.1 - 1)


def test_the_first_batch_says_the_rate_and_each_further_one_a_fiftieth() -> None:
    gate = Gatekeeper(10_000)
    gate.wait([1])
    rates = []
    for seconds in (1.0, 2.0, 0.5):
        gate.admission.observe(Priority.SHORT, seconds, full=True)
        rates.append(gate.refused(1, 1, seconds=0).retry_after / 2)
    second = 1.0 + RATE_WEIGHT * (2.0 - 1.0)
    assert rates == pytest.approx([1.0, second, second + RATE_WEIGHT * (0.5 - second)])
    assert RATE_WEIGHT == 0.02


@pytest.mark.parametrize(
    ("seconds", "full", "learnt"), [(2.0, True, True), (2.0, False, False), (0.5, True, True), (0.5, False, True)]
)
def test_a_near_empty_batch_teaches_only_that_it_goes_faster(seconds: float, full: bool, learnt: bool) -> None:
    gate = Gatekeeper(10_000, rate=1.0)
    gate.wait([1])
    gate.admission.observe(Priority.SHORT, seconds, full=full)
    rate = gate.refused(1, 1, seconds=0).retry_after / 2
    assert rate == pytest.approx(1.0 + RATE_WEIGHT * (seconds - 1.0) if learnt else 1.0)


def test_where_no_rate_is_known_a_near_empty_batch_teaches_none() -> None:
    gate = Gatekeeper(10_000)
    gate.wait([1])
    gate.admission.observe(Priority.SHORT, 1.0, full=False)
    assert gate.admission.check(gate.lane, 1, 1, seconds=0.001) is Priority.SHORT


def test_what_is_not_read_yet_counts_as_a_text_as_long_as_those_that_wait() -> None:
    gate = Gatekeeper(1000, rate=0.01)
    assert gate.admission.overload(seconds=1) is None
    gate.wait([100], [200])
    assert gate.admission.overload(seconds=4.6) is None
    refusal = gate.admission.overload(seconds=4.4)
    assert refusal is not None
    assert LATE in str(refusal)
    assert refusal.retry_after == pytest.approx((300 + 150) * 0.01 - 4.4)


@pytest.mark.parametrize(("expected", "refused"), [(0, False), (4, False), (5, True), (900, True)])
def test_so_does_each_of_those_that_were_let_in_before_it(expected: int, refused: bool) -> None:
    gate = Gatekeeper(1000, rate=0.01)
    gate.wait([100], [200])
    refusal = gate.admission.overload(60, expected=expected)
    assert (refusal is not None) == refused
    if refusal is not None:
        assert FULL in str(refusal)
        assert refusal.retry_after == pytest.approx((300 + 150 * expected - 1000 + 150) * 0.01)


def test_where_nothing_waits_each_that_was_let_in_is_one_token() -> None:
    gate = Gatekeeper(1000)
    assert gate.admission.overload(60, expected=999) is None
    assert FULL in str(gate.admission.overload(60, expected=1000))


def test_bulk_that_waits_is_nothing_to_what_is_not_read_yet() -> None:
    gate = Gatekeeper(1000, rate=0.01)
    gate.wait([500, 500])
    assert gate.admission.overload(0.001) is None
    assert gate.admission.overload(60, expected=900) is None


def test_a_text_longer_than_the_queue_makes_no_time_longer_than_the_queues() -> None:
    """What waits was taken whole, so that the mean may be any length."""
    gate = Gatekeeper(10, rate=1.0)
    gate.wait([9], [10])
    refusal = gate.admission.overload(60)
    assert refusal is not None
    assert refusal.retry_after == pytest.approx(19 - 10 + 9)
