"""The beat: it wakes up again and again when it is asked to, ends by itself, and sleeps else."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from service.inference.beat import Beat
from tests.service.inference.playing import ANSWER_BOUND, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads' switches are counted in /proc")

QUIET_SECONDS = 0.3
"""Many times as long as the beat goes on."""


@pytest.fixture
def thread() -> tuple[Beat, Path]:
    """Give a beat and what the kernel says of its thread."""
    beat, others = Beat(), set(threading.enumerate())
    beat.start()
    (own,) = set(threading.enumerate()) - others
    return beat, Path(f"/proc/self/task/{own.native_id}/status")


def switches(status: Path) -> int:
    """Read how often a thread went to sleep."""
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("voluntary_ctxt_switches:"))
    return int(line.split()[1])


async def rests(status: Path) -> None:
    """Wait until it has slept through for long."""
    while True:
        before = switches(status)
        await asyncio.sleep(QUIET_SECONDS)
        if switches(status) == before:
            return


def test_it_wakes_up_for_a_while_whenever_it_is_asked_to(thread: tuple[Beat, Path]) -> None:
    beat, status = thread

    async def wakes_up() -> None:
        await rests(status)
        enough = switches(status) + 3
        beat.go_on()
        await until(lambda: switches(status) >= enough)
        await rests(status)

    for _ in range(2):
        asyncio.run(asyncio.wait_for(wakes_up(), ANSWER_BOUND))
