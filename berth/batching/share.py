"""Bulk's share: what of the cores its batches are owed while short requests keep coming; without a clock or a thread.

On the CPU a batch of bulk that runs gives its core to every short one (niceness), so short requests that come without
end leave it a tenth. This object knows the CPU time that each running batch of bulk has had; where that is less than
the share of the time that has passed, the next short batch waits until bulk has caught up. A short request now and then
never waits: between two of them bulk has had more than its share.
"""

from collections.abc import Callable

MOST_OWED = 0.1
"""CPU seconds that bulk may be owed at once, which bounds how long a short batch waits."""
MOST_SHARE = 0.9


class BulkShare:
    """The account of one device's cores; `share` is 0 (short requests never wait) to `MOST_SHARE`.

    Times are in seconds; a batch is named by its thread, of which `cpu_seconds` tells the CPU time used so far.
    """

    def __init__(self, share: float, cpu_seconds: Callable[[int], float]) -> None:
        self._share = share
        self._cpu_seconds = cpu_seconds
        self._running: dict[int, tuple[float, float]] = {}  # thread: when its batch began, and the CPU time until then
        self._owed = 0.0
        """For batches that have ended."""
        self._until = float("inf")
        """When the short batch that waits has waited long enough, even if other programs keep bulk from its share."""

    def begin(self, thread: int, now: float) -> None:
        """Note that a batch of bulk begins."""
        self._running[thread] = now, self._cpu_seconds(thread)

    def end(self, thread: int, now: float) -> None:
        """Note that a batch of bulk has ended; what it had too much is not held against the next ones."""
        self._owed = min(MOST_OWED, max(0.0, self._owed + self._behind(thread, now)))
        del self._running[thread]

    def hold(self, now: float) -> float:
        """Give the seconds that the next short batch is to wait; 0 where it is to begin now."""
        if not self._share or not self._running:
            return 0.0
        if now >= self._until:
            self._forgive(now)
        owed = min(MOST_OWED, self._owed + sum(self._behind(thread, now) for thread in self._running))
        if owed <= 0:
            self._until = float("inf")
            return 0.0
        seconds = owed / (1 - self._share) / len(self._running)  # running alone, each gains so much a second
        self._until = min(self._until, now + seconds)
        return min(seconds, self._until - now)

    def _forgive(self, now: float) -> None:
        """Begin the account anew: other programs have the cores, and bulk can have its share of the rest alone."""
        self._owed = 0.0
        self._running = {thread: (now, self._cpu_seconds(thread)) for thread in self._running}

    def _behind(self, thread: int, now: float) -> float:
        began, before = self._running[thread]
        return self._share * (now - began) - (self._cpu_seconds(thread) - before)
