"""The beat: it wakes up again and again while batches of both kinds are under way on one core, and sleeps else."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from service.inference.runner import Runner
from tests.service.inference.playing import Gate, MakeUnits, play, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how often a thread slept is counted in /proc")

BUDGET = 16
SHORT, BULK = [4], [BUDGET] * 2
QUIET_SECONDS = 0.2
"""Many times as long as it goes on."""


def switches(beat: threading.Thread) -> int:
    """Read how often a thread went to sleep."""
    status = Path(f"/proc/self/task/{beat.native_id}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("voluntary_ctxt_switches:"))
    return int(line.split()[1])


async def wakes_up(beat: threading.Thread) -> None:
    """Wait until it has slept many times more."""
    enough = switches(beat) + 100
    await until(lambda: switches(beat) >= enough)


async def has_batches(gate: Gate, count: int) -> None:
    await until(lambda: len(gate.batches) == count)


async def rests(beat: threading.Thread) -> None:
    """Wait until it has slept through for long."""
    before = -1
    while switches(beat) != before:
        before = switches(beat)
        await asyncio.sleep(QUIET_SECONDS)


@pytest.mark.parametrize("lengths", [[BULK, SHORT], [SHORT, BULK]], ids=["short beside bulk", "bulk beside short"])
def test_it_wakes_up_while_batches_of_both_kinds_are_under_way(make_units: MakeUnits, lengths: list[list[int]]) -> None:
    others = set(threading.enumerate())

    async def scenario(runner: Runner) -> None:
        (beat,) = (thread for thread in set(threading.enumerate()) - others if thread.name == "beat")
        for _ in range(2):
            requests = []
            for count, each in enumerate(lengths, 1):
                await rests(beat)
                requests.append(asyncio.ensure_future(runner.run(make_units(each))))
                await has_batches(gate, count)
            await wakes_up(beat)
            gate.open.set()
            await asyncio.gather(*requests)
            await rests(beat)
            gate.open.clear()
            gate.batches.clear()

    gate = Gate()
    play(scenario, gate, max_batch_tokens=BUDGET, one_core=True)


def test_there_is_none_where_there_are_more_cores(make_units: MakeUnits) -> None:
    others = set(threading.enumerate())

    async def scenario(runner: Runner) -> None:
        await asyncio.gather(runner.run(make_units(SHORT)), runner.run(make_units(BULK)))
        assert not any(thread.name == "beat" for thread in set(threading.enumerate()) - others)

    gate = Gate()
    gate.open.set()
    play(scenario, gate, max_batch_tokens=BUDGET)
