"""What the next batch is: decided here, in plain synchronous code, without an event loop, a clock or a thread.

Requests are flows of units, and of two kinds: short ones, of at most a batch or of one text, and bulk. A batch is of
one kind: whoever takes it says which, so that small batches of short requests can run beside large ones of bulk. Short
requests are served in the order they came. Bulk's tokens are shared out by fair queueing (Demers, Keshav and Shenker
1989): each flow carries a tag, which grows by the tokens it is served, and the least one anchors the next batch; a
newcomer stands where the last of the others does.

The rest of a batch are units of near length from any flow of its kind, because lengths that differ cost padding, so
that a flow of odd lengths falls behind the others for a while. A unit that waits more than once, from whichever
requests, is taken once for all of them; but no short request is taken into a batch of bulk, so it is taken again then.
"""

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter

from service.inference.types import Unit

MAX_PADDING = 1.3
"""The most that a batch's padded area (units x longest) may be of its tokens: the attention alone is still padded."""


class Kind(Enum):
    """What a request is to the queue."""

    SHORT = "short"
    BULK = "bulk"


@dataclass(slots=True, eq=False)
class Flow:
    """The units of one request: those that wait, and how far the request has been served."""

    tickets: deque["Ticket"] = field(default_factory=deque)
    waiting: int = 0
    kind: Kind = Kind.SHORT
    tag: int = 0
    """Orders bulk: the least is served next."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A unit's place in the queue; `index` is its place in its request, `twins` those taken with it for being alike."""

    flow: Flow
    index: int
    unit: Unit
    waiting: bool = False
    key: Hashable = field(init=False)
    twins: list["Ticket"] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Keep the key: it is looked up more than once."""
        self.key = self.unit.key

    def __len__(self) -> int:
        """Count the tokens."""
        return len(self.unit)


class _Lane:
    """What waits of one kind."""

    def __init__(self, kind: Kind) -> None:
        self.flows: dict[Flow, None] = {}
        self.units = 0
        self.tokens = 0
        self._in_order = kind is Kind.SHORT
        self._by_length: dict[int, dict[Flow, OrderedDict[Ticket, None]]] = {}
        self._lengths: list[int] = []  # the keys of _by_length, sorted

    def add(self, flow: Flow) -> None:
        """Queue a flow's tickets."""
        if not self._in_order:
            flow.tag = max((other.tag for other in self.flows), default=0)
        self.flows[flow] = None
        for ticket in flow.tickets:
            self._put(ticket)

    def first(self) -> Ticket | None:
        """Give the ticket that is to be served next, if any waits."""
        flow = self._first(self.flows)
        while flow and not flow.tickets[0].waiting:
            flow.tickets.popleft()
        return flow.tickets[0] if flow else None

    def first_of_length(self, length: int) -> Ticket | None:
        """Give that of those of one length."""
        flows = self._by_length.get(length, {})
        flow = self._first(flows)
        return next(iter(flows[flow])) if flow else None

    def nearest(self, length: int) -> Iterator[int]:
        """Yield the lengths that wait, nearest first."""
        lengths = self._lengths.copy()
        above = bisect_left(lengths, length)
        below = above - 1
        while below >= 0 or above < len(lengths):
            if above == len(lengths) or (below >= 0 and length - lengths[below] <= lengths[above] - length):
                yield lengths[below]
                below -= 1
            else:
                yield lengths[above]
                above += 1

    def take(self, ticket: Ticket) -> None:
        """Take a ticket out."""
        length, flow = len(ticket), ticket.flow
        bucket = self._by_length[length]
        del bucket[flow][ticket]
        if not bucket[flow]:
            del bucket[flow]
        if not bucket:
            del self._by_length[length]
            del self._lengths[bisect_left(self._lengths, length)]
        ticket.waiting = False
        flow.waiting -= 1
        flow.tag += length
        if not flow.waiting:
            del self.flows[flow]
        self.units -= 1
        self.tokens -= length

    def _first(self, flows: Iterable[Flow]) -> Flow | None:
        return next(iter(flows), None) if self._in_order else min(flows, key=attrgetter("tag"), default=None)

    def _put(self, ticket: Ticket) -> None:
        length = len(ticket)
        if length not in self._by_length:
            self._by_length[length] = {}
            insort(self._lengths, length)
        self._by_length[length].setdefault(ticket.flow, OrderedDict())[ticket] = None
        ticket.waiting = True
        ticket.flow.waiting += 1
        self.units += 1
        self.tokens += length


class Scheduler:
    """A queue of units that gives out batches; not safe for threads by itself."""

    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self._lanes = {kind: _Lane(kind) for kind in Kind}
        self._alike: dict[Hashable, OrderedDict[Ticket, None]] = {}

    @property
    def units(self) -> int:
        """Count the units that wait."""
        return sum(lane.units for lane in self._lanes.values())

    @property
    def tokens(self) -> int:
        """Count the tokens that wait."""
        return sum(lane.tokens for lane in self._lanes.values())

    def add(self, flow: Flow) -> None:
        """Queue a flow's tickets, of which there must be one at least."""
        tokens = sum(map(len, flow.tickets))
        flow.kind = self.kind_of(len(flow.tickets), tokens)
        self._lanes[flow.kind].add(flow)
        for ticket in flow.tickets:
            self._alike.setdefault(ticket.key, OrderedDict())[ticket] = None

    def remove(self, flow: Flow) -> None:
        """Drop what still waits of a flow, if anything does, and let go of its tickets, which refer to it."""
        for ticket in flow.tickets:
            if ticket.waiting:
                self._take(ticket)
        flow.tickets.clear()

    def kind_of(self, units: int, tokens: int) -> Kind:
        """Say of which kind a request of some units is, and of some tokens in all."""
        return Kind.SHORT if units == 1 or tokens <= self.max_batch_tokens else Kind.BULK

    def tokens_of(self, kind: Kind) -> int:
        """Count the tokens that wait of a kind."""
        return self._lanes[kind].tokens

    def mean_length(self, kind: Kind) -> int:
        """Give the mean tokens of the units that wait of a kind; 1 where none does."""
        lane = self._lanes[kind]
        return max(1, lane.tokens // max(1, lane.units))

    def tokens_before(self, kind: Kind, tokens: int) -> int:
        """Estimate how many tokens of a kind are encoded before a newcomer's `tokens`.

        Of short requests all that wait; of bulk as many of each flow as the newcomer has, at least, for those that fell
        behind catch up first.
        """
        lane = self._lanes[kind]
        return lane.tokens if kind is Kind.SHORT else min(lane.tokens, len(lane.flows) * tokens)

    def take_batch(self, kind: Kind) -> list[Ticket]:
        """Take the next batch of a kind: `max_batch_tokens` at most, or one longer unit alone; empty where none waits.

        Twins are not in the list and cost nothing: they hang on the tickets that they are like.
        """
        lane = self._lanes[kind]
        anchor = lane.first()
        if anchor is None:
            return []
        self._take_all(anchor)
        batch, tokens, longest = [anchor], len(anchor), len(anchor)
        for length in lane.nearest(longest):
            while self._fits(len(batch) + 1, tokens + length, max(longest, length)):
                ticket = lane.first_of_length(length)
                if ticket is None:
                    break
                self._take_all(ticket)
                batch.append(ticket)
                tokens += length
                longest = max(longest, length)
        return batch

    def _fits(self, units: int, tokens: int, longest: int) -> bool:
        return tokens <= self.max_batch_tokens and units * longest <= MAX_PADDING * tokens

    def _take_all(self, ticket: Ticket) -> None:
        """Take a ticket and those like it; short ones take those of bulk along, not the other way round."""
        self._take(ticket)
        alike, kind = self._alike.get(ticket.key, ()), ticket.flow.kind
        ticket.twins = [twin for twin in alike if kind in (Kind.SHORT, twin.flow.kind)]
        for twin in ticket.twins:
            self._take(twin)

    def _take(self, ticket: Ticket) -> None:
        self._lanes[ticket.flow.kind].take(ticket)
        alike = self._alike[ticket.key]
        del alike[ticket]
        if not alike:
            del self._alike[ticket.key]
