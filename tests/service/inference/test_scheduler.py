"""What the next batch is: bounds, order and fairness, decided without an event loop."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import count

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.inference.scheduler import HEAD_START, MAX_PADDING, Flow, Scheduler, Ticket
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


def drain(scheduler: Scheduler) -> list[list[Ticket]]:
    batches = []
    while batch := scheduler.take_batch():
        batches.append(batch)
    return batches


def lengths_of(batch: Iterable[Ticket]) -> list[int]:
    return sorted(map(len, batch))


def within_bounds(batch: list[Ticket], budget: int) -> bool:
    lengths = lengths_of(batch)
    return len(batch) == 1 or (sum(lengths) <= budget and len(batch) * lengths[-1] <= MAX_PADDING * sum(lengths))


def batches_until_served(scheduler: Scheduler, flow: Flow) -> int:
    count = 0
    while flow.waiting:
        scheduler.take_batch()
        count += 1
    return count


def test_nothing_waits_nothing_comes() -> None:
    assert Scheduler(BUDGET).take_batch() == []


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
    assert lengths_of(scheduler.take_batch()) == [49, 50]


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
    batch = scheduler.take_batch()
    assert (scheduler.units, scheduler.tokens) == (3 - len(batch), 212 - sum(map(len, batch)))
    drain(scheduler)
    assert (scheduler.units, scheduler.tokens) == (0, 0)


def test_remove_drops_what_waits_and_nothing_else() -> None:
    scheduler = Scheduler(10)
    leaver, stayer = queue(scheduler, [10, 10, 10]), queue(scheduler, [9, 9])
    taken = scheduler.take_batch()
    scheduler.remove(leaver)
    rest = [ticket for batch in drain(scheduler) for ticket in batch]
    assert {ticket.flow for ticket in [*taken, *rest]} == {leaver, stayer}
    assert [ticket.flow for ticket in rest if ticket.flow is leaver] == []
    assert (scheduler.units, scheduler.tokens) == (0, 0)


def test_remove_of_a_served_flow_changes_nothing() -> None:
    scheduler = Scheduler(BUDGET)
    served, waits = queue(scheduler, [5]), queue(scheduler, [200])
    while served.waiting:
        scheduler.take_batch()
    scheduler.remove(served)
    assert waits.waiting == scheduler.units == 1
    assert scheduler.tokens == 200


@pytest.mark.parametrize("newcomer", [3, 32, 100, 255], ids=lambda length: f"newcomer of {length}")
@pytest.mark.parametrize(
    "bulk",
    [lambda: [32] * 400, lambda: [32, 100] * 200, lambda: np.random.default_rng(1).integers(2, 257, size=400).tolist()],
    ids=["equal lengths", "two lengths", "mixed lengths"],
)
@pytest.mark.parametrize("batches_before", [4, 5, 60, 61])
def test_newcomer_is_in_the_next_batch_while_bulk_waits(
    newcomer: int, bulk: Callable[[], list[int]], batches_before: int
) -> None:
    scheduler = Scheduler(BUDGET)
    for _ in range(4):
        queue(scheduler, bulk())
    for _ in range(batches_before):
        scheduler.take_batch()
    assert batches_until_served(scheduler, queue(scheduler, [newcomer])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_newcomers_are_next_also_where_bulk_comes_and_goes(seed: int) -> None:
    """A bulk flow whose lengths are odd falls behind the others, and must not overtake newcomers for that."""
    rng = np.random.default_rng(seed)
    scheduler = Scheduler(BUDGET)
    bulk: list[Flow] = []
    for _ in range(400):
        bulk = [flow for flow in bulk if flow.waiting]
        while len(bulk) < 4:
            bulk.append(queue(scheduler, np.minimum(rng.geometric(1 / 20, size=64) + 2, BUDGET).tolist()))
        scheduler.take_batch()
        assert batches_until_served(scheduler, queue(scheduler, [int(rng.integers(4, 24))])) == 1


@pytest.mark.parametrize("lengths", [[300], [4, 16, 64, 150], [100, 100]], ids=str)
def test_short_request_is_served_before_bulk_to_its_end(lengths: list[int]) -> None:
    """Also one text longer than a batch, and texts whose lengths differ too much for one."""
    alone = Scheduler(BUDGET)
    batches = batches_until_served(alone, queue(alone, lengths))
    scheduler = Scheduler(BUDGET)
    for _ in range(4):
        queue(scheduler, [32, 100] * 40)
    scheduler.take_batch()
    assert batches_until_served(scheduler, queue(scheduler, lengths)) == batches


def test_bulk_that_comes_and_goes_has_its_share_beside_short_requests() -> None:
    """Four clients of two batches a request beside two of half a batch: equal turns would be two thirds."""
    rng = np.random.default_rng(0)
    scheduler = Scheduler(BUDGET)
    clients = [2 * BUDGET] * 4 + [BUDGET // 2] * 2
    flows = [Flow() for _ in clients]
    served = dict.fromkeys(clients, 0)
    for _ in range(2000):
        for place, (tokens, flow) in enumerate(zip(clients, flows, strict=True)):
            if not flow.waiting:
                flows[place] = queue(scheduler, rng.multinomial(tokens - 16, [1 / 8] * 8) + 2)
        of = dict(zip(flows, clients, strict=True))
        for ticket in scheduler.take_batch():
            served[of[ticket.flow]] += len(ticket)
    assert served[2 * BUDGET] / sum(served.values()) > 0.4


@pytest.mark.parametrize(("clients", "share"), [(1, 1 / 2), (4, 1 / 2), (12, 1 / 4)])
def test_bulk_has_its_share_beside_short_requests_that_never_end(clients: int, share: float) -> None:
    """Four of bulk: half of the encoder, or as much a request as short ones where more of them wait than of bulk."""
    scheduler = Scheduler(BUDGET)
    bulk = [queue(scheduler, [100] * 2000) for _ in range(4)]
    short: list[Flow] = []
    for _ in range(1000):
        short = [flow for flow in short if flow.waiting]
        short += [queue(scheduler, [200]) for _ in range(clients - len(short))]
        scheduler.take_batch()
    served = sum(100 * (2000 - flow.waiting) for flow in bulk)
    assert served / (1000 * 200) == pytest.approx(share, abs=0.03)  # each batch is of 200 tokens


@pytest.mark.parametrize(("bulk", "short", "share"), [(4, 4, 1 / 2), (8, 16, 1 / 3)])
def test_bulk_has_its_share_beside_short_requests_of_its_own_lengths(bulk: int, short: int, share: float) -> None:
    """All texts are alike in length, so that any fits into any batch; and the end of the flood is felt at once."""
    scheduler = Scheduler(BUDGET)
    clients = {number: queue(scheduler, [16] * (64 if number < bulk else 8)) for number in range(bulk + short)}
    served = Counter[bool]()
    for _ in range(600):
        for number, flow in clients.items():
            if not flow.waiting:
                clients[number] = queue(scheduler, [16] * (64 if number < bulk else 8))
        served.update(ticket.flow.short for ticket in scheduler.take_batch())
    assert served[False] / served.total() == pytest.approx(share, abs=0.05)
    for number, flow in clients.items():
        if number >= bulk:
            scheduler.remove(flow)
    assert batches_until_served(scheduler, queue(scheduler, [200])) <= 2


def test_what_bulk_is_owed_is_forgotten_when_it_leaves() -> None:
    scheduler = Scheduler(BUDGET)
    bulk = queue(scheduler, [BUDGET] * 20)
    for _ in range(HEAD_START + 1):
        queue(scheduler, [BUDGET])
        scheduler.take_batch()
    scheduler.remove(bulk)
    queue(scheduler, [BUDGET] * 20)
    short = queue(scheduler, [BUDGET])
    assert [ticket.flow for ticket in scheduler.take_batch()] == [short]


def test_batch_of_short_requests_only() -> None:
    scheduler = Scheduler(BUDGET)
    assert scheduler.take_batch(short_only=True) == []
    bulk = queue(scheduler, [BUDGET] * 20)
    assert scheduler.take_batch(short_only=True) == []
    for _ in range(HEAD_START + 1):
        short = queue(scheduler, [BUDGET])
        [ticket] = scheduler.take_batch(short_only=True)
        assert ticket.flow is short
    short = queue(scheduler, [BUDGET])
    assert scheduler.take_batch(short_only=True) == [], "bulk is owed more than the head start"
    assert [ticket.flow for ticket in scheduler.take_batch()] == [bulk]
    assert [ticket.flow for ticket in scheduler.take_batch(short_only=True)] == [short]


@pytest.mark.parametrize("flows", [2, 4])
@pytest.mark.parametrize("lengths", [[32] * 600, [16, 48] * 300], ids=["one length", "two lengths"])
def test_equal_flows_get_equal_tokens(flows: int, lengths: list[int]) -> None:
    scheduler = Scheduler(BUDGET)
    served = dict.fromkeys([queue(scheduler, lengths) for _ in range(flows)], 0)
    for _ in range(20 * flows):
        for ticket in scheduler.take_batch():
            served[ticket.flow] += len(ticket)
    assert max(served.values()) - min(served.values()) <= 2 * BUDGET


def test_flow_of_other_lengths_gets_its_share() -> None:
    scheduler = Scheduler(BUDGET)
    long, short = queue(scheduler, [250] * 100), queue(scheduler, [4] * 6000)
    served = dict.fromkeys([long, short], 0)
    for _ in range(40):
        for ticket in scheduler.take_batch():
            served[ticket.flow] += len(ticket)
    assert abs(served[long] - served[short]) <= 2 * BUDGET


def test_bulk_is_served_under_a_stream_of_newcomers() -> None:
    scheduler = Scheduler(BUDGET)
    bulk = queue(scheduler, [200] * 20)
    for _ in range(1500):
        queue(scheduler, [4])
        scheduler.take_batch()
    assert 200 * (20 - bulk.waiting) >= 4 * 1500 / 2 - HEAD_START * BUDGET > 0


def test_bulk_is_served_under_a_stream_of_equal_newcomers() -> None:
    scheduler = Scheduler(BUDGET)
    bulk = queue(scheduler, [200] * 20)
    for _ in range(400):
        queue(scheduler, [200])
        scheduler.take_batch()
    assert bulk.waiting == 0


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

    @rule()
    def take_batch(self) -> None:
        batch = self.scheduler.take_batch()
        assert bool(batch) == bool(self.waiting)
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
    batch = scheduler.take_batch()
    assert sorted(len(ticket.twins) for ticket in batch) == [2, 5]
    assert {ticket.flow for ticket in batch[0].twins} <= set(flows)
    assert (scheduler.units, scheduler.tokens, [flow.waiting for flow in flows]) == (0, 0, [0, 0, 0])


def test_twins_cost_the_batch_nothing() -> None:
    scheduler = Scheduler(20)
    flow = Flow()
    flow.tickets.extend(Ticket(flow, index, unit(10, number)) for index, number in enumerate([1] * 50 + [2, 3]))
    scheduler.add(flow)
    first = scheduler.take_batch()
    assert [len(ticket.twins) for ticket in first] == [49, 0]
    assert [ticket.index for ticket in scheduler.take_batch()] == [51]


def test_other_features_make_no_twin() -> None:
    encoding = unit(10).encoding
    mean, cls = (Feature(pooling, (6,)) for pooling in (Pooling.MEAN, Pooling.CLS))
    scheduler = Scheduler(BUDGET)
    flow = Flow()
    flow.tickets.extend([Ticket(flow, 0, Unit(encoding, (mean,))), Ticket(flow, 1, Unit(encoding, (cls,)))])
    scheduler.add(flow)
    assert [ticket.twins for ticket in scheduler.take_batch()] == [[], []]


def test_a_twin_whose_request_left_is_not_taken() -> None:
    scheduler = Scheduler(BUDGET)
    stays, leaves = Flow(), Flow()
    for flow in (leaves, stays):
        flow.tickets.append(Ticket(flow, 0, unit(10, 1)))
        scheduler.add(flow)
    scheduler.remove(leaves)
    [ticket] = scheduler.take_batch()
    assert (ticket.flow, ticket.twins) == (stays, [])


def test_newcomer_waits_for_as_many_tokens_of_every_flow() -> None:
    scheduler = Scheduler(BUDGET)
    queue(scheduler, [10] * 100)
    queue(scheduler, [10] * 3)
    assert [scheduler.tokens_before(tokens) for tokens in (10, 100, 5000)] == [20, 200, 1030]


def test_newcomers_have_a_batch_to_themselves() -> None:
    """A short request's batch is not filled up with what waits already; bulk has its turn again in the next one."""
    scheduler = Scheduler(BUDGET)
    bulk = queue(scheduler, [10] * 100)
    scheduler.take_batch()
    first, second = (queue(scheduler, [10]) for _ in range(2))
    assert {ticket.flow for ticket in scheduler.take_batch()} == {first, second}
    assert {ticket.flow for ticket in scheduler.take_batch()} == {bulk}
