"""Bulk's share: what of the cores its batches are owed while short requests keep coming; without a clock or a thread.

On the CPU a batch of bulk that runs gives its core to every short one (niceness), so that eight clients of short
requests leave bulk 0.18 of its rate (`bench fairness --shares 0`). This object knows the CPU time that each running
batch of bulk has had; where that is less than the share of the time that has passed, the next short batch waits until
bulk has caught up. A short request now and then hardly ever waits: between two of them bulk has more than its share.
"""

import math
from collections.abc import Callable

SETTLED, LEAST_OWED, MOST_OWED = 1e-4, 3e-3, 0.1
"""CPU seconds owed at which a wait ends, from which one begins, and that bulk may be owed at most."""
PATIENCE = 3
"""Times as long as bulk would need, alone on the cores, that a short batch waits for it. The event loop takes a part of
the time; other programs may take all of it, and what bulk has not had by then is forgiven."""
MOST_SHARE = 0.9


class BulkShare:
    """The account of this process's `cores`; `share` is 0 (short requests never wait) to `MOST_SHARE`.

    Times are in seconds; a batch is named by its thread, of which `cpu_seconds` tells the CPU time used so far.
    """

    def __init__(self, share: float, cores: float, cpu_seconds: Callable[[int], float]) -> None:
        self._share = share
        self._cores = cores
        self._cpu_seconds = cpu_seconds
        self._running: dict[int, tuple[float, float]] = {}  # thread: when its batch began, and the CPU time until then
        self._owed = 0.0  # for batches that have ended
        self._until = math.inf  # when the short batch that waits has waited long enough

    def begin(self, thread: int, now: float) -> None:
        """Note that a batch of bulk begins."""
        if self._share:
            self._running[thread] = now, self._cpu_seconds(thread)

    def end(self, thread: int, now: float) -> None:
        """Note that a batch of bulk has ended; what it had too much is not held against the next ones."""
        if self._share:
            self._owed = min(MOST_OWED, max(0.0, self._owed + self._behind(thread, now)))
            del self._running[thread]

    def hold(self, now: float, *, waiting: bool = True) -> float:
        """Give the seconds that a short batch that waits is to wait, to be asked again then; 0 where it is to begin."""
        owed = min(MOST_OWED, self._owed + sum(self._behind(thread, now) for thread in self._running))
        if not waiting or not self._running or owed < (LEAST_OWED if self._until == math.inf else SETTLED):
            self._until, self._owed = math.inf, self._owed if self._running else 0.0
            return 0.0
        seconds = owed / (1 - self._share) / min(self._cores, len(self._running))  # at what bulk gains alone
        self._until = min(self._until, now + PATIENCE * seconds)
        if now < self._until:
            return min(seconds, self._until - now)
        self._owed, self._until = 0.0, math.inf
        self._running = {thread: (now, self._cpu_seconds(thread)) for thread in self._running}
        return 0.0

    def _behind(self, thread: int, now: float) -> float:
        began, before = self._running[thread]
        cores = min(1.0, self._cores / len(self._running))
        return self._share * cores * (now - began) - (self._cpu_seconds(thread) - before)
