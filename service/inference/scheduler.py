"""What the next batch is: decided here, in plain synchronous code, without an event loop, a clock or a thread.

Requests are flows of units, and of two kinds: short ones, of at most a batch or of one text, and bulk. Short ones are
served first and in the order they came, in batches of their own, which are small where they are few. Where bulk waits,
its share is kept in an account: as many tokens as short requests were served, less where more of them wait than of
bulk. Once it is owed a head start's worth, it has the next batches. Within bulk, tokens are shared out by fair queueing
(Demers, Keshav and Shenker 1989): each flow carries a tag, which grows by the tokens it is served, and the least one
anchors the next batch; a newcomer stands where the last of the others does.

The rest of a batch are units of near length from any flow of its kind, because lengths that differ cost padding, so
that a flow of odd lengths falls behind the others for a while. A unit that waits more than once, from whichever
requests, is taken once for all of them.
"""

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter

from service.inference.types import Unit

HEAD_START = 8
"""In full batches: what bulk may be owed before short requests wait for it."""
MAX_PADDING = 1.3
"""The most that a batch's padded area (units x longest) may be of its tokens: the attention alone is still padded."""


@dataclass(slots=True, eq=False)
class Flow:
    """The units of one request: those that wait, and how far the request has been served."""

    tickets: deque["Ticket"] = field(default_factory=deque)
    waiting: int = 0
    tokens: int = 0
    """Of the tickets that wait."""
    short: bool = False
    """Of at most a batch, or of one text."""
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


class Scheduler:
    """A queue of units that gives out batches; not safe for threads by itself."""

    def __init__(self, max_batch_tokens: int) -> None:
        self.max_batch_tokens = max_batch_tokens
        self.units = 0
        self.tokens = 0
        self._short: dict[Flow, None] = {}
        self._bulk: dict[Flow, None] = {}
        self._owed = 0.0  # tokens, to bulk
        self._by_length: dict[int, dict[Flow, OrderedDict[Ticket, None]]] = {}
        self._lengths: list[int] = []  # the keys of _by_length, sorted
        self._alike: dict[Hashable, OrderedDict[Ticket, None]] = {}

    def add(self, flow: Flow) -> None:
        """Queue a flow's tickets, of which there must be one at least."""
        for ticket in flow.tickets:
            self._put(ticket)
        flow.short = flow.tokens <= self.max_batch_tokens or flow.waiting == 1
        if not flow.short:
            flow.tag = max((other.tag for other in self._bulk), default=0)
        self._flows_like(flow)[flow] = None

    def remove(self, flow: Flow) -> None:
        """Drop what still waits of a flow, if anything does, and let go of its tickets, which refer to it."""
        for ticket in flow.tickets:
            if ticket.waiting:
                self._take(ticket)
                if not self._bulk:
                    self._owed = 0.0  # there is nobody left to whom
        flow.tickets.clear()

    def tokens_before(self, tokens: int) -> int:
        """Estimate how many of the tokens that wait are encoded before a newcomer of some is: as many of every flow.

        What comes after it and is shorter may be served before it too.
        """
        return min(self.tokens, (len(self._short) + len(self._bulk)) * tokens)

    def take_batch(self, *, short_only: bool = False) -> list[Ticket]:
        """Take the next batch: `max_batch_tokens` at most, or one longer unit alone; empty where nothing waits.

        Also empty where it would be bulk's and only one of short requests is wanted. Twins are not in the list and cost
        nothing: they hang on the tickets that they are like.
        """
        of_bulk = bool(self._bulk) and (not self._short or self._owed > HEAD_START * self.max_batch_tokens)
        if not (self._short or self._bulk) or (of_bulk and short_only):
            return []
        share = min(1.0, len(self._bulk) / max(1, len(self._short)))
        first = min(self._bulk, key=attrgetter("tag")) if of_bulk else next(iter(self._short))
        batch = self._filled_up(self._next_of(first))
        tokens = sum(map(len, batch))
        self._owed = max(0.0, self._owed + (-tokens if of_bulk else tokens * share)) if self.units else 0.0
        return batch

    def _filled_up(self, anchor: Ticket) -> list[Ticket]:
        """Take a ticket, and those of its kind and of near length that fit in."""
        self._take_all(anchor)
        batch, tokens, longest = [anchor], len(anchor), len(anchor)
        for length in self._nearest(longest):
            while self._fits(len(batch) + 1, tokens + length, max(longest, length)):
                ticket = self._next_of_length(length, short=anchor.flow.short)
                if ticket is None:
                    break
                self._take_all(ticket)
                batch.append(ticket)
                tokens += length
                longest = max(longest, length)
        return batch

    def _next_of_length(self, length: int, *, short: bool) -> Ticket | None:
        """Find the next ticket of a length, if there is one: of the first short request, or of the first of bulk."""
        flows = self._by_length.get(length, {})
        if short:
            flow = next((flow for flow in flows if flow.short), None)
        else:
            flow = min((flow for flow in flows if not flow.short), key=attrgetter("tag"), default=None)
        return next(iter(flows[flow])) if flow else None

    def _flows_like(self, flow: Flow) -> dict[Flow, None]:
        return self._short if flow.short else self._bulk

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
            del self._flows_like(flow)[flow]
        self.units -= 1
        self.tokens -= length
