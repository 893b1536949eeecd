"""What the next batch is: bounds, order and fairness, decided without an event loop."""

from collections import Counter
from collections.abc import Iterable
from itertools import count

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.inference.scheduler import MAX_PADDING, Flow, Kind, Scheduler, Ticket
from service.inference.types import Encoding, Feature, Pooling, Unit

BUDGET = 256


NUMBERS = count()


def unit(length: int, number: int | None = None) -> Unit:
    """Make a unit that is like no other, but for those of the same number."""
    ids = np.full(length, next(NUMBERS) if number is None else -number - 1, dtype=np.int32)
    return Unit(Encoding(ids, ids), ())


def queue(scheduler: Scheduler, lengths: Iterable[int]) -> Flow:
    """Queue a request of some lengths."""
    flow = Flow()
    flow.tickets.extend(Ticket(flow, index, unit(length)) for index, length in enumerate(lengths))
    scheduler.add(flow)
    return flow


def take(scheduler: Scheduler) -> list[Ticket]:
    """Take the next batch of short requests, or of bulk where there are none."""
    return scheduler.take_batch(Kind.SHORT) or scheduler.take_batch(Kind.BULK)


def drain(scheduler: Scheduler) -> list[list[Ticket]]:
    batches = []
    while batch := take(scheduler):
        batches.append(batch)
    return batches


def lengths_of(batch: Iterable[Ticket]) -> list[int]:
    return sorted(map(len, batch))


def within_bounds(batch: list[Ticket], budget: int) -> bool:
    lengths = lengths_of(batch)
    return len(batch) == 1 or (sum(lengths) <= budget and len(batch) * lengths[-1] <= MAX_PADDING * sum(lengths))


def test_nothing_waits_nothing_comes() -> None:
    assert take(Scheduler(BUDGET)) == []


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
    scheduler = Scheduler(BUDGET)
    queue(scheduler, lengths)
    assert [len(batch) for batch in drain(scheduler)] == sizes


def test_one_long_text_beside_hundreds_of_short_ones_is_split_by_length() -> None:
    scheduler = Scheduler(2048)
    queue(scheduler, [512] + [3] * 512)
    assert sorted((len(batch), lengths_of(batch)[-1]) for batch in drain(scheduler)) == [(1, 512), (512, 3)]


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
    scheduler = Scheduler(BUDGET)
    queue(scheduler, lengths)
    assert len(drain(scheduler)) == batches


def test_unit_longer_than_the_budget_runs_alone() -> None:
    scheduler = Scheduler(BUDGET)
    queue(scheduler, [400, 400, 5])
    assert sorted(map(lengths_of, drain(scheduler))) == [[5], [400], [400]]


def test_batch_takes_near_lengths_first() -> None:
    scheduler = Scheduler(100)
    queue(scheduler, [50, 70])
    queue(scheduler, [40, 41, 49, 55, 60])
    assert lengths_of(take(scheduler)) == [49, 50]


def test_every_unit_comes_out_exactly_once() -> None:
    scheduler = Scheduler(BUDGET)
    random = np.random.default_rng(3)
    queued: list[Ticket] = []
    for _ in range(20):
        queued += queue(scheduler, random.integers(2, 300, size=random.integers(1, 60)).tolist()).tickets
    taken = [ticket for batch in drain(scheduler) for ticket in batch]
    assert Counter(taken) == Counter(queued)
    assert (scheduler.units, scheduler.tokens) == (0, 0)


def test_counters_tell_what_waits() -> None:
    scheduler = Scheduler(BUDGET)
    queue(scheduler, [5, 200])
    queue(scheduler, [7])
    assert (scheduler.units, scheduler.tokens) == (3, 212)
    batch = take(scheduler)
    assert (scheduler.units, scheduler.tokens) == (3 - len(batch), 212 - sum(map(len, batch)))
    drain(scheduler)
    assert (scheduler.units, scheduler.tokens) == (0, 0)


def test_remove_drops_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler(10)
    leaver, stayer = queue(scheduler, [10, 10, 10]), queue(scheduler, [9, 9])
    taken = take(scheduler)
    scheduler.remove(leaver)
    rest = [ticket for batch in drain(scheduler) for ticket in batch]
    assert {ticket.flow for ticket in [*taken, *rest]} == {leaver, stayer}
    assert [ticket.flow for ticket in rest if ticket.flow is leaver] == []
    assert (scheduler.units, scheduler.tokens) == (0, 0)


def test_remove_of_a_served_flow_changes_nothing() -> None:
    scheduler = Scheduler(BUDGET)
    served, waits = queue(scheduler, [5]), queue(scheduler, [200])
    while served.waiting:
        take(scheduler)
    scheduler.remove(served)
    assert waits.waiting == scheduler.units == 1
    assert scheduler.tokens == 200


@pytest.mark.parametrize("lengths", [[300], [3, 150], [256]], ids=str)
def test_a_request_of_one_text_or_at_most_a_batch_is_short(lengths: list[int]) -> None:
    scheduler = Scheduler(BUDGET)
    bulk = queue(scheduler, [*lengths, BUDGET])
    short = queue(scheduler, lengths)
    assert (bulk.kind, short.kind) == (Kind.BULK, Kind.SHORT)
    assert {ticket.flow for ticket in scheduler.take_batch(Kind.SHORT)} == {short}
    assert {ticket.flow for ticket in scheduler.take_batch(Kind.BULK)} == {bulk}


def test_a_batch_is_of_one_kind() -> None:
    """Whatever the lengths: any of these texts would fit into any of the batches."""
    scheduler = Scheduler(BUDGET)
    for _ in range(4):
        queue(scheduler, [16] * 64)
        queue(scheduler, [16] * 8)
    while scheduler.units:
        for kind in Kind:
            batch = scheduler.take_batch(kind)
            assert {ticket.flow.kind for ticket in batch} <= {kind}
            assert sum(map(len, batch)) in {0, BUDGET}, "it is full as long as there is enough of its kind"


def test_of_another_kind_nothing_comes() -> None:
    scheduler = Scheduler(BUDGET)
    queue(scheduler, [BUDGET] * 2)
    assert scheduler.take_batch(Kind.SHORT) == []
    assert len(drain(scheduler)) == 2
    queue(scheduler, [BUDGET])
    assert scheduler.take_batch(Kind.BULK) == []


def test_short_requests_are_served_in_their_order() -> None:
    """Also one of two texts that are too far apart in length for one batch."""
    scheduler = Scheduler(BUDGET)
    first = queue(scheduler, [4, 250])
    others = [queue(scheduler, [200]) for _ in range(5)]
    assert {ticket.flow for ticket in scheduler.take_batch(Kind.SHORT)} == {first}
    assert {ticket.flow for ticket in scheduler.take_batch(Kind.SHORT)} == {first}
    assert [scheduler.take_batch(Kind.SHORT)[0].flow for _ in others] == others


@pytest.mark.parametrize("flows", [2, 4])
@pytest.mark.parametrize("lengths", [[32] * 600, [16, 48] * 300], ids=["one length", "two lengths"])
def test_equal_flows_get_equal_tokens(flows: int, lengths: list[int]) -> None:
    scheduler = Scheduler(BUDGET)
    served = dict.fromkeys([queue(scheduler, lengths) for _ in range(flows)], 0)
    for _ in range(20 * flows):
        for ticket in take(scheduler):
            served[ticket.flow] += len(ticket)
    assert max(served.values()) - min(served.values()) <= 2 * BUDGET


def test_flow_of_other_lengths_gets_its_share() -> None:
    scheduler = Scheduler(BUDGET)
    long, short = queue(scheduler, [250] * 100), queue(scheduler, [4] * 6000)
    served = dict.fromkeys([long, short], 0)
    for _ in range(40):
        for ticket in take(scheduler):
            served[ticket.flow] += len(ticket)
    assert abs(served[long] - served[short]) <= 2 * BUDGET


@pytest.mark.parametrize("seed", range(5))
def test_bulk_of_odd_lengths_is_not_starved_where_bulk_comes_and_goes(seed: int) -> None:
    """It falls behind the others, for few texts go with its own; a newcomer stands behind it all the same."""
    rng = np.random.default_rng(seed)
    scheduler = Scheduler(BUDGET)
    odd = queue(scheduler, [250] * 20)
    others: list[Flow] = []
    for _ in range(4 * 20 * 2):
        others = [flow for flow in others if flow.waiting]
        others += [queue(scheduler, rng.integers(2, 24, size=64)) for _ in range(3 - len(others))]
        scheduler.take_batch(Kind.BULK)
    assert odd.waiting == 0, "it has had its quarter, and as much again"


class SchedulerMachine(RuleBasedStateMachine):
    """Requests come, leave and are served in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(64)
        self.waiting: dict[Flow, set[Ticket]] = {}

    @rule(lengths=st.lists(st.integers(2, 80), min_size=1, max_size=30))
    def add(self, lengths: list[int]) -> None:
        flow = queue(self.scheduler, lengths)
        self.waiting[flow] = set(flow.tickets)

    @rule(numbers=st.lists(st.integers(0, 5), min_size=1, max_size=8))
    def add_alike(self, numbers: list[int]) -> None:
        """Queue units of which some wait already, in this flow or in another."""
        flow = Flow()
        flow.tickets.extend(Ticket(flow, index, unit(5 + number, number)) for index, number in enumerate(numbers))
        self.scheduler.add(flow)
        self.waiting[flow] = set(flow.tickets)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        flow = data.draw(st.sampled_from(list(self.waiting)))
        self.scheduler.remove(flow)
        del self.waiting[flow]

    @rule(kind=st.sampled_from(Kind))
    def take_batch(self, kind: Kind) -> None:
        batch = self.scheduler.take_batch(kind)
        assert bool(batch) == any(flow.kind is kind for flow in self.waiting)
        if batch:
            assert within_bounds(batch, self.scheduler.max_batch_tokens)
        assert len({ticket.key for ticket in batch}) == len(batch), "what is alike is taken once"
        for ticket in batch:
            assert all(twin.key == ticket.key for twin in ticket.twins)
            for each in (ticket, *ticket.twins):
                self.waiting[each.flow].remove(each)  # raises where it came out twice, or after its removal
        self.waiting = {flow: tickets for flow, tickets in self.waiting.items() if tickets}

    @invariant()
    def counters_are_right(self) -> None:
        waiting = [ticket for tickets in self.waiting.values() for ticket in tickets]
        assert self.scheduler.units == len(waiting)
        assert self.scheduler.tokens == sum(map(len, waiting))
        assert all(flow.waiting == len(tickets) for flow, tickets in self.waiting.items())

    def teardown(self) -> None:
        taken = [each for batch in drain(self.scheduler) for ticket in batch for each in (ticket, *ticket.twins)]
        assert len(taken) == sum(map(len, self.waiting.values()))
        assert (self.scheduler.units, self.scheduler.tokens) == (0, 0)


SchedulerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None, database=None)
TestScheduler = SchedulerMachine.TestCase


def test_units_that_are_alike_are_taken_once() -> None:
    scheduler = Scheduler(BUDGET)
    flows = [Flow() for _ in range(3)]
    for flow in flows:
        flow.tickets.extend(Ticket(flow, index, unit(10, number)) for index, number in enumerate([1, 2, 1]))
        scheduler.add(flow)
    batch = take(scheduler)
    assert sorted(len(ticket.twins) for ticket in batch) == [2, 5]
    assert {ticket.flow for ticket in batch[0].twins} <= set(flows)
    assert (scheduler.units, scheduler.tokens, [flow.waiting for flow in flows]) == (0, 0, [0, 0, 0])


def test_twins_cost_the_batch_nothing() -> None:
    scheduler = Scheduler(20)
    flow = Flow()
    flow.tickets.extend(Ticket(flow, index, unit(10, number)) for index, number in enumerate([1] * 50 + [2, 3]))
    scheduler.add(flow)
    first = take(scheduler)
    assert [len(ticket.twins) for ticket in first] == [49, 0]
    assert [ticket.index for ticket in take(scheduler)] == [51]


@pytest.mark.parametrize(("first", "units_left"), [(Kind.SHORT, BUDGET // 10 * 2 - 1), (Kind.BULK, 1 + BUDGET // 10)])
def test_short_requests_take_what_is_alike_in_bulk_along_and_not_the_other_way_round(
    first: Kind, units_left: int
) -> None:
    scheduler = Scheduler(BUDGET)
    short, bulk = Flow(), Flow()
    short.tickets.append(Ticket(short, 0, unit(10, 0)))
    bulk.tickets.extend(Ticket(bulk, index, unit(10, index)) for index in range(BUDGET // 10 * 2))
    for flow in (bulk, short):
        scheduler.add(flow)
    batch = scheduler.take_batch(first)
    assert [twin.flow for ticket in batch for twin in ticket.twins] == ([bulk] if first is Kind.SHORT else [])
    assert scheduler.units == units_left


def test_other_features_make_no_twin() -> None:
    encoding = unit(10).encoding
    mean, cls = (Feature(pooling, (6,)) for pooling in (Pooling.MEAN, Pooling.CLS))
    scheduler = Scheduler(BUDGET)
    flow = Flow()
    flow.tickets.extend([Ticket(flow, 0, Unit(encoding, (mean,))), Ticket(flow, 1, Unit(encoding, (cls,)))])
    scheduler.add(flow)
    assert [ticket.twins for ticket in take(scheduler)] == [[], []]


def test_a_twin_whose_request_left_is_not_taken() -> None:
    scheduler = Scheduler(BUDGET)
    stays, leaves = Flow(), Flow()
    for flow in (leaves, stays):
        flow.tickets.append(Ticket(flow, 0, unit(10, 1)))
        scheduler.add(flow)
    scheduler.remove(leaves)
    [ticket] = take(scheduler)
    assert (ticket.flow, ticket.twins) == (stays, [])


def test_bulk_waits_for_as_many_tokens_of_every_flow_and_a_short_request_for_all_short_ones() -> None:
    scheduler = Scheduler(BUDGET)
    queue(scheduler, [10] * 100)
    queue(scheduler, [10] * 30)
    assert [scheduler.tokens_before(Kind.BULK, tokens) for tokens in (300, 400, 5000)] == [600, 800, 1300]
    assert scheduler.tokens_before(Kind.SHORT, 100) == 0
    assert (scheduler.tokens_of(Kind.SHORT), scheduler.mean_length(Kind.SHORT)) == (0, 1)
    for _ in range(3):
        queue(scheduler, [100])
    assert (scheduler.tokens_of(Kind.SHORT), scheduler.mean_length(Kind.SHORT)) == (300, 100)
    assert (scheduler.tokens_of(Kind.BULK), scheduler.mean_length(Kind.BULK)) == (1300, 10)
    assert [scheduler.tokens_before(Kind.SHORT, tokens) for tokens in (10, 5000)] == [300, 300]
