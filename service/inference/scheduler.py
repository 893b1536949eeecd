"""What the next batch is: decided here, in plain synchronous code, without an event loop, a clock or a thread.

Requests are flows of units. Flows share the encoder by fair queueing (Demers, Keshav and Shenker 1989), counted in
tokens: each flow carries a tag, the virtual time up to which it was served, and the flow with the least tag anchors
the next batch. A request of at most a batch has a head start, so that it does not wait behind bulk; nor in a batch
with it: such newcomers have theirs to themselves, which is small where they are. However many come, bulk that waits
lets them have no more than the head start of its share, and then has its share again; bulk that joins other bulk
stands where that does. The rest of a batch are units of near length from any flow, because lengths that differ cost
padding, so that a flow of odd lengths falls behind the others for a while. A unit that waits more than once, from
whichever requests, is taken once for all of them.
"""

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from service.inference.types import Unit

HEAD_START = 8
"""In full batches: more than bulk falls behind for its lengths alone, where requests have lengths of the same kind."""
MAX_PADDING = 1.3
"""The most that a batch's padded area (units x longest) may be of its tokens: the attention alone is still padded."""


@dataclass(slots=True, eq=False)
class Flow:
    """The units of one request: those that wait, and how far the request has been served."""

    tickets: deque["Ticket"] = field(default_factory=deque)
    waiting: int = 0
    tokens: int = 0
    """Of the tickets that wait."""
    tag: float = 0.0
    head_start: float = 0.0

    @property
    def rank(self) -> float:
        """Order the flows: the least is served next."""
        return self.tag - self.head_start


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


class Scheduler:
    """A queue of units that gives out batches; not safe for threads by itself."""

    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.units = 0
        self.tokens = 0
        self._flows: dict[Flow, None] = {}
        self._clock = 0.0  # the virtual time, in tokens
        self._by_length: dict[int, dict[Flow, OrderedDict[Ticket, None]]] = {}
        self._lengths: list[int] = []  # the keys of _by_length, sorted
        self._alike: dict[Hashable, OrderedDict[Ticket, None]] = {}

    def add(self, flow: Flow) -> None:
        """Queue a flow's tickets, of which there must be one at least."""
        for ticket in flow.tickets:
            self._put(ticket)
        flow.tag = self._clock
        if flow.tokens <= self.max_batch_tokens or flow.waiting == 1:
            flow.head_start = HEAD_START * self.max_batch_tokens
        else:
            bulk = (other.tag for other in self._flows if not other.head_start)
            flow.tag = min(self._clock, max(bulk, default=self._clock))
        self._flows[flow] = None

    def remove(self, flow: Flow) -> None:
        """Drop what still waits of a flow, if anything does, and let go of its tickets, which refer to it."""
        for ticket in flow.tickets:
            if ticket.waiting:
                self._take(ticket)
        flow.tickets.clear()

    def tokens_before(self, tokens: int) -> int:
        """Estimate how many of the tokens that wait are encoded before a newcomer of some is: as many of every flow.

        What comes after it and is shorter may be served before it too.
        """
        return min(self.tokens, len(self._flows) * tokens)

    def take_batch(self) -> list[Ticket]:
        """Take the next batch: `max_batch_tokens` at most, or one longer unit alone; empty where nothing waits.

        Twins are not in the list and cost nothing: they hang on the tickets that they are like.
        """
        if not self._flows:
            return []
        active = len(self._flows)
        first = min(self._flows, key=attrgetter("rank"))
        self._clock = max(self._clock, first.rank)
        newcomers_only = first.head_start > 0
        anchor = self._next_of(first)
        self._take_all(anchor)
        batch, tokens, longest = [anchor], len(anchor), len(anchor)
        for length in self._nearest(longest):
            bucket = self._by_length[length]
            while self._fits(len(batch) + 1, tokens + length, max(longest, length)):
                flows = [flow for flow in bucket if flow is first or flow.head_start] if newcomers_only else bucket
                if not flows:
                    break
                ticket = next(iter(bucket[min(flows, key=attrgetter("rank"))]))
                self._take_all(ticket)
                batch.append(ticket)
                tokens += length
                longest = max(longest, length)
        self._clock += tokens / active
        return batch

    def _fits(self, units: int, tokens: int, longest: int) -> bool:
        return tokens <= self.max_batch_tokens and units * longest <= MAX_PADDING * tokens

    def _next_of(self, flow: Flow) -> Ticket:
        while not flow.tickets[0].waiting:
            flow.tickets.popleft()
        return flow.tickets[0]

    def _nearest(self, length: int) -> Iterator[int]:
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

    def _put(self, ticket: Ticket) -> None:
        length = len(ticket)
        if length not in self._by_length:
            self._by_length[length] = {}
            insort(self._lengths, length)
        self._by_length[length].setdefault(ticket.flow, OrderedDict())[ticket] = None
        self._alike.setdefault(ticket.key, OrderedDict())[ticket] = None
        ticket.waiting = True
        ticket.flow.waiting += 1
        ticket.flow.tokens += length
        self.units += 1
        self.tokens += length

    def _take_all(self, ticket: Ticket) -> None:
        """Take a ticket and those like it."""
        self._take(ticket)
        ticket.twins = list(self._alike.get(ticket.key, ()))
        for twin in ticket.twins:
            self._take(twin)

    def _take(self, ticket: Ticket) -> None:
        length, flow = len(ticket), ticket.flow
        alike = self._alike[ticket.key]
        del alike[ticket]
        if not alike:
            del self._alike[ticket.key]
        bucket = self._by_length[length]
        del bucket[flow][ticket]
        if not bucket[flow]:
            del bucket[flow]
        if not bucket:
            del self._by_length[length]
            del self._lengths[bisect_left(self._lengths, length)]
        ticket.waiting = False
        flow.waiting -= 1
        flow.tokens -= length
        flow.tag += length
        if not flow.waiting:
            del self._flows[flow]
        self.units -= 1
        self.tokens -= length
