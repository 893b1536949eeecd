"""The beat: a thread that wakes up every millisecond for as long as short requests and bulk compete for one core.

What it does is to wake up. Whose turn it is the kernel looks at when a thread wakes up, and else at its tick, which may
come every 4 ms only: for so long a short request would wait wherever bulk has its turn.
"""

import threading
import time
from collections.abc import Callable

BEAT_SECONDS = 0.001
LINGER_SECONDS = 0.02
"""How long it goes on after it was needed last: one request after another is one stretch of work."""


class Beat:
    """Wakes up, once it is begun, for as long as it is needed; may be begun from any thread."""

    def __init__(self, needed: Callable[[], bool]) -> None:
        self._needed = needed
        self._begun = threading.Event()

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name="beat", daemon=True).start()

    def begin(self) -> None:
        """Beat from now on."""
        self._begun.set()

    def _run(self) -> None:
        while self._begun.wait():
            self._begun.clear()
            end = time.monotonic() + LINGER_SECONDS
            while time.monotonic() < end:
                time.sleep(BEAT_SECONDS)
                if self._needed():
                    end = time.monotonic() + LINGER_SECONDS
