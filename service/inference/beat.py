"""The beat: a thread that wakes up every millisecond for as long as short requests and bulk compete for one core.

What it does is to wake up. Whose turn it is the kernel looks at when a thread wakes up, and else at its tick, which may
come every 4 ms only: for so long a short request would wait wherever bulk has its turn.
"""

import threading
import time

BEAT_SECONDS = 0.001
LINGER_SECONDS = 0.02
"""How long it goes on after it was asked to: one request after another is one stretch of work."""


class Beat:
    """Wakes up while it is asked to; may be asked from any thread."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._until = 0.0

    def start(self) -> None:
        """Begin to listen; ends with the process."""
        threading.Thread(target=self._run, name="beat", daemon=True).start()

    def go_on(self) -> None:
        """Beat from now on, for `LINGER_SECONDS`."""
        self._until = time.monotonic() + LINGER_SECONDS
        self._asked.set()

    def _run(self) -> None:
        while self._asked.wait():
            self._asked.clear()
            while time.monotonic() < self._until:
                time.sleep(BEAT_SECONDS)
