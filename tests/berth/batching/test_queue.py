"""What the next batch is: bounds, order and fairness, decided without an event loop."""

from collections import Counter
from collections.abc import Iterable
from itertools import count

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from berth.batching.queue import MAX_PADDING, Lane, Priority, Queue, QueueEntry, Request
from berth.types import Encoding, TokenSequence

BUDGET = 256
NUMBERS = count()


def sequence(length: int) -> TokenSequence:
    """Make a sequence that is like no other."""
    ids = np.full(length, next(NUMBERS), dtype=np.int32)
    return TokenSequence(Encoding(ids, ids), ())


class Dock:
    """A queue, and the lane of requests that name none; which of them are short is as `Admission` has it."""

    def __init__(self, max_batch_tokens: int = BUDGET) -> None:
        self.queue = Queue()
        self.lane = Lane(max_batch_tokens)

    def add(self, lengths: Iterable[int], lane: Lane | None = None, priority: Priority | None = None) -> Request:
        """Queue a request of some lengths."""
        request = Request(lane or self.lane)
        for index, length in enumerate(lengths):
            request.entries.append(QueueEntry(request, sequence(length), length, (index,)))
        tokens = sum(entry.length for entry in request.entries)
        is_short = len(request.entries) == 1 or tokens <= request.lane.max_batch_tokens
        self.queue.add(request, priority or (Priority.SHORT if is_short else Priority.BULK))
        return request

    def take(self) -> list[QueueEntry]:
        """Take the next batch of short requests, or of bulk where there are none."""
        return self.queue.take_batch(Priority.SHORT) or self.queue.take_batch(Priority.BULK)

    def drain(self) -> list[list[QueueEntry]]:
        """Take all batches."""
        batches = []
        while batch := self.take():
            batches.append(batch)
        return batches


def lengths_of(batch: Iterable[QueueEntry]) -> list[int]:
    return sorted(entry.length for entry in batch)


def within_bounds(batch: list[QueueEntry], budget: int) -> bool:
    lengths = lengths_of(batch)
    return len(batch) == 1 or (sum(lengths) <= budget and len(batch) * lengths[-1] <= MAX_PADDING * sum(lengths))


def test_nothing_waits_nothing_comes() -> None:
    assert Dock().take() == []


def test_padding_bound_is_the_designs() -> None:
    assert MAX_PADDING == 1.3


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([10], [1]),
        ([128, 128], [2]),
        ([128, 129], [1, 1]),
        ([64] * 5, [4, 1]),
        ([300], [1]),
        ([300, 300], [1, 1]),
        ([2] * 300, [128, 128, 44]),
    ],
)
def test_batch_holds_the_budget_of_tokens(lengths: list[int], sizes: list[int]) -> None:
    dock = Dock()
    dock.add(lengths)
    assert [len(batch) for batch in dock.drain()] == sizes


def test_one_long_text_beside_hundreds_of_short_ones_is_split_by_length() -> None:
    dock = Dock(2048)
    dock.add([512] + [3] * 512)
    assert sorted((len(batch), lengths_of(batch)[-1]) for batch in dock.drain()) == [(1, 512), (512, 3)]


@pytest.mark.parametrize(
    ("lengths", "batches"),
    [
        ([10, 10, 16], 2),  # 3 x 16 = 48 is 1.33 x 36
        ([10, 10, 15], 1),  # 3 x 15 = 45 is 1.29 x 35
        ([10, 19], 2),  # 2 x 19 = 38 is 1.31 x 29
        ([10, 18], 1),  # 2 x 18 = 36 is 1.29 x 28
    ],
)
def test_padding_decides_whether_near_lengths_go_together(lengths: list[int], batches: int) -> None:
    dock = Dock()
    dock.add(lengths)
    assert len(dock.drain()) == batches


def test_sequence_longer_than_the_budget_runs_alone() -> None:
    dock = Dock()
    dock.add([400, 400, 5])
    assert sorted(map(lengths_of, dock.drain())) == [[5], [400], [400]]


def test_batch_takes_near_lengths_first() -> None:
    dock = Dock(100)
    dock.add([50, 70])
    dock.add([40, 41, 49, 55, 60])
    assert lengths_of(dock.take()) == [49, 50]


def test_every_sequence_comes_out_exactly_once() -> None:
    dock = Dock()
    random = np.random.default_rng(3)
    queued: list[QueueEntry] = []
    for _ in range(20):
        queued += dock.add(random.integers(2, 300, size=random.integers(1, 60)).tolist()).entries
    taken = [entry for batch in dock.drain() for entry in batch]
    assert Counter(taken) == Counter(queued)
    assert (dock.queue.sequences, dock.queue.tokens) == (0, 0)


def test_counters_tell_what_waits() -> None:
    dock = Dock()
    dock.add([5, 200])
    dock.add([7])
    assert (dock.queue.sequences, dock.queue.tokens) == (3, 212)
    batch = dock.take()
    assert (dock.queue.sequences, dock.queue.tokens) == (3 - len(batch), 212 - sum(lengths_of(batch)))
    dock.drain()
    assert (dock.queue.sequences, dock.queue.tokens) == (0, 0)


def test_counters_tell_priorities_apart() -> None:
    dock = Dock()
    dock.add([10] * 100)
    dock.add([10] * 30)
    for _ in range(3):
        dock.add([100])
    counted = {priority: (waiting.sequences, waiting.tokens) for priority, waiting in dock.queue.waiting.items()}
    assert counted == {Priority.SHORT: (3, 300), Priority.BULK: (130, 1300)}
    assert {priority: len(waiting.requests) for priority, waiting in dock.queue.waiting.items()} == {
        Priority.SHORT: 3,
        Priority.BULK: 2,
    }


def test_remove_drops_what_waits_and_nothing_else() -> None:
    dock = Dock(10)
    leaver, stayer = dock.add([10, 10, 10]), dock.add([9, 9])
    taken = dock.take()
    dock.queue.remove(leaver)
    rest = [entry for batch in dock.drain() for entry in batch]
    assert {entry.request for entry in [*taken, *rest]} == {leaver, stayer}
    assert [entry.request for entry in rest if entry.request is leaver] == []
    assert (dock.queue.sequences, dock.queue.tokens) == (0, 0)


def test_remove_of_a_served_request_changes_nothing() -> None:
    dock = Dock()
    served, waits = dock.add([5]), dock.add([200])
    while served.waiting:
        dock.take()
    dock.queue.remove(served)
    assert waits.waiting == dock.queue.sequences == 1
    assert dock.queue.tokens == 200


def test_remove_lets_go_of_the_entries() -> None:
    """They refer to their request, which is freed at once where nothing refers back."""
    dock = Dock()
    request = dock.add([5, 6])
    dock.queue.remove(request)
    assert not request.entries


def test_a_batch_is_of_one_priority() -> None:
    """Whatever the lengths: any of these texts would fit into any of the batches."""
    dock = Dock()
    for _ in range(4):
        dock.add([16] * 64)
        dock.add([16] * 8)
    while dock.queue.sequences:
        for priority in Priority:
            batch = dock.queue.take_batch(priority)
            assert {entry.request.priority for entry in batch} <= {priority}
            assert sum(lengths_of(batch)) in {0, BUDGET}, "it is full as long as there is enough of its priority"


def test_of_another_priority_nothing_comes() -> None:
    dock = Dock()
    dock.add([BUDGET] * 2)
    assert dock.queue.take_batch(Priority.SHORT) == []
    assert len(dock.drain()) == 2
    dock.add([BUDGET])
    assert dock.queue.take_batch(Priority.BULK) == []


def test_short_requests_are_served_in_their_order() -> None:
    """Also one of two texts that are too far apart in length for one batch."""
    dock = Dock()
    first = dock.add([4, 250])
    others = [dock.add([200]) for _ in range(5)]
    assert {entry.request for entry in dock.queue.take_batch(Priority.SHORT)} == {first}
    assert {entry.request for entry in dock.queue.take_batch(Priority.SHORT)} == {first}
    assert [dock.queue.take_batch(Priority.SHORT)[0].request for _ in others] == others


def served(dock: Dock, requests: Iterable[Request], batches: int) -> dict[Request, int]:
    """Take some batches; gives the tokens of each request that were in them."""
    tokens = dict.fromkeys(requests, 0)
    for _ in range(batches):
        for entry in dock.take():
            tokens[entry.request] += entry.length
    return tokens


@pytest.mark.parametrize("requests", [2, 4])
@pytest.mark.parametrize("lengths", [[32] * 600, [16, 48] * 300], ids=["one length", "two lengths"])
def test_equal_requests_get_equal_tokens(requests: int, lengths: list[int]) -> None:
    dock = Dock()
    tokens = served(dock, [dock.add(lengths) for _ in range(requests)], 20 * requests)
    assert max(tokens.values()) - min(tokens.values()) <= 2 * BUDGET


def test_request_of_other_lengths_gets_its_share() -> None:
    dock = Dock()
    long, short = dock.add([250] * 100), dock.add([4] * 6000)
    tokens = served(dock, [long, short], 40)
    assert abs(tokens[long] - tokens[short]) <= 2 * BUDGET


@pytest.mark.parametrize("seed", range(5))
def test_bulk_of_odd_lengths_is_not_starved_where_bulk_comes_and_goes(seed: int) -> None:
    """It falls behind the others, for few texts go with its own; a newcomer stands behind it all the same."""
    rng = np.random.default_rng(seed)
    dock = Dock()
    odd = dock.add([250] * 20)
    others: list[Request] = []
    for _ in range(4 * 20 * 2):
        others = [request for request in others if request.waiting]
        others += [dock.add(rng.integers(2, 24, size=64)) for _ in range(3 - len(others))]
        dock.queue.take_batch(Priority.BULK)
    assert odd.waiting == 0, "it has had its quarter, and as much again"


def test_a_batch_is_of_one_lane() -> None:
    """Whatever the lengths: any of these texts would fit into any of the batches."""
    dock = Dock()
    lanes = [dock.lane, Lane(BUDGET), Lane(BUDGET)]
    for _ in range(5):
        for lane in lanes:
            dock.add([16] * 32, lane)
            dock.add([16] * 8, lane)
    batches = dock.drain()
    assert all(len({entry.request.lane for entry in batch}) == 1 for batch in batches)
    assert [sum(lengths_of(batch)) for batch in batches].count(BUDGET) >= len(batches) - len(lanes)
    assert sum(map(len, batches)) == 5 * 3 * 40


def test_each_lane_has_its_own_budget() -> None:
    dock = Dock(64)
    large = Lane(256)
    dock.add([16] * 40)
    dock.add([16] * 40, large)
    sizes = {(entry.request.lane is large, len(batch)) for batch in dock.drain() for entry in batch}
    assert sizes == {(False, 4), (True, 16), (True, 8)}


def test_short_requests_are_served_in_their_order_across_lanes() -> None:
    """One that came later is taken along by an earlier one of its lane, as it costs the others nothing."""
    dock = Dock()
    other = Lane(BUDGET)
    requests = [dock.add([200], lane) for lane in (other, dock.lane, dock.lane, other, dock.lane)]
    taken_along = dock.add([50], other)
    order = [[entry.request for entry in batch] for batch in dock.drain()]
    assert [batch[0] for batch in order] == [*requests, taken_along]

    near = [dock.add([100], lane) for lane in (other, dock.lane, other, dock.lane)]
    order = [[entry.request for entry in batch] for batch in dock.drain()]
    assert order == [[near[0], near[2]], [near[1], near[3]]]


@pytest.mark.parametrize("in_other", [1, 3])
def test_bulk_is_served_fairly_across_lanes(in_other: int) -> None:
    """Each request has its share, not each lane."""
    dock = Dock()
    other = Lane(BUDGET)
    requests = [dock.add([32] * 600), *(dock.add([32] * 600, other) for _ in range(in_other))]
    tokens = served(dock, requests, 20 * len(requests))
    assert max(tokens.values()) - min(tokens.values()) <= 2 * BUDGET


def test_bulk_of_a_new_lane_takes_no_more_than_its_share() -> None:
    """It has not been served yet, but stands where the others stand."""
    dock = Dock()
    old = dock.add([32] * 600)
    served(dock, [old], 20)
    new = dock.add([32] * 600, Lane(BUDGET))
    tokens = served(dock, [old, new], 20)
    assert abs(tokens[old] - tokens[new]) <= 2 * BUDGET


def test_remove_from_one_lane_leaves_the_other() -> None:
    dock = Dock()
    other = Lane(BUDGET)
    leaver, stayer = dock.add([20] * 30), dock.add([20] * 30, other)
    dock.queue.remove(leaver)
    assert {entry.request for batch in dock.drain() for entry in batch} == {stayer}


class QueueMachine(RuleBasedStateMachine):
    """Requests of several models come, leave and are served in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.dock = Dock(64)
        self.lanes = [self.dock.lane, Lane(40), Lane(200)]
        self.waiting: dict[Request, set[QueueEntry]] = {}

    @rule(
        lengths=st.lists(st.integers(2, 80), min_size=1, max_size=30),
        lane=st.integers(0, 2),
        priority=st.sampled_from([None, *Priority]),
    )
    def add(self, lengths: list[int], lane: int, priority: Priority | None) -> None:
        request = self.dock.add(lengths, self.lanes[lane], priority)
        self.waiting[request] = set(request.entries)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(list(self.waiting)))
        self.dock.queue.remove(request)
        del self.waiting[request]

    @rule(lane=st.integers(0, 2), tokens=st.integers(1, 300))
    def change_budget(self, lane: int, tokens: int) -> None:
        self.lanes[lane].max_batch_tokens = tokens

    @rule(priority=st.sampled_from(Priority))
    def take_batch(self, priority: Priority) -> None:
        waited = [request for request in self.waiting if request.priority is priority]
        batch = self.dock.queue.take_batch(priority)
        assert bool(batch) == bool(waited)
        if batch:
            [lane] = {entry.request.lane for entry in batch}
            assert within_bounds(batch, lane.max_batch_tokens)
            if priority is Priority.SHORT:
                assert batch[0].request is waited[0], "it is the turn of the one that came first"
        for entry in batch:
            assert entry.request.priority is priority
            self.waiting[entry.request].remove(entry)  # raises where it came out twice, or after its removal
        self.waiting = {request: entries for request, entries in self.waiting.items() if entries}

    @invariant()
    def counters_are_right(self) -> None:
        waiting = [entry for entries in self.waiting.values() for entry in entries]
        assert self.dock.queue.sequences == len(waiting)
        assert self.dock.queue.tokens == sum(lengths_of(waiting))
        assert all(request.waiting == len(entries) for request, entries in self.waiting.items())

    def teardown(self) -> None:
        assert sum(map(len, self.dock.drain())) == sum(map(len, self.waiting.values()))
        assert (self.dock.queue.sequences, self.dock.queue.tokens) == (0, 0)


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, database=None)
TestQueue = QueueMachine.TestCase
