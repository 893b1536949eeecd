"""`python -m bench.soak`: half an hour at 80 % of what it can, mixed with bad requests and clients that leave.

It fails where memory grows by 2 % or more after the warm-up, descriptors are left open, an answer is wrong, a status is
not the one that the request must have, be it in the warm-up, or a hundredth of the load could not be sent.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from bench.connection import Connection
from bench.dialects import DIALECTS
from bench.mixture import Ask, Mixture
from bench.model import find_model
from bench.outcome import Outcome, told
from bench.overload import arrivals
from bench.processes import tree, usage
from bench.server import berth_command, free_port, running
from bench.table import table

LOAD = 0.8
WARM_SECONDS = 60.0
PEAK_SECONDS, CLIENTS = 15.0, 16
MAX_IN_FLIGHT = 64
SAMPLE_SECONDS = 1.0
CHECKED = 0.1
"""The part of the right requests whose answers are held against the right ones."""
QUIET_SECONDS = 3.0
KEPT_SECONDS = 2.0


class Soak:
    """Sends a mixture to a service."""

    def __init__(self, base: str, pid: int, mixture: Mixture, chance: random.Random) -> None:
        self._base = base
        self._pid = pid
        self._mixture = mixture
        self._chance = chance
        self._free: list[tuple[Connection, float]] = []
        self._on_the_way = 0
        self.outcome = Outcome()

    async def peak(self, clients: int, seconds: float) -> float:
        """Find the rate at which right requests are answered, rightly, as fast as clients can send them."""
        end = time.perf_counter() + seconds

        async def ask_on() -> int:
            count = 0
            while time.perf_counter() < end:
                count += await self._send(self._mixture.good())
            return count

        return sum(await asyncio.gather(*(ask_on() for _ in range(clients)))) / seconds

    async def run(self, rate: float, seconds: float) -> None:
        """Send at their times as many requests a second, and wait for the last answer."""
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:  # which lets no error be lost that nobody has thought of
            watch = group.create_task(self._sample())
            async with asyncio.TaskGroup() as load:
                for due in arrivals(rate, seconds):
                    await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
                    self.outcome.due += 1
                    if self._on_the_way >= MAX_IN_FLIGHT:
                        self.outcome.unsent += 1
                        continue
                    self._on_the_way += 1
                    load.create_task(self._send_one(self._mixture.draw()))
            watch.cancel()

    def hang_up(self) -> None:
        """Close the connections that wait for another request."""
        while self._free:
            self._free.pop()[0].close()

    async def _send_one(self, ask: Ask) -> None:
        try:
            await (self._leave(ask) if ask.leaves else self._send(ask))
        finally:
            self._on_the_way -= 1

    async def _leave(self, ask: Ask) -> None:
        """Send a request and hang up before the answer, or in the middle of the request."""
        try:
            connection = await Connection.to(self._base)
        except OSError as error:
            self.outcome.unexpected[f"{ask.kind}: {type(error).__name__}"] += 1
            return
        whole = self._chance.random() < 0.7
        answer = connection.ask(ask.sent if whole else ask.sent[: len(ask.sent) // 2])
        await asyncio.sleep(self._chance.uniform(0, 0.02))
        answer.cancel()
        connection.close()
        self.outcome.left += 1

    async def _send(self, ask: Ask) -> bool:
        """Send a request and judge its answer; gives whether it was what it must be, as far as it was looked at."""
        started = time.perf_counter()
        try:
            connection = self._kept() or await Connection.to(self._base)
            answer = await asyncio.wait_for(connection.ask(ask.sent), 90)
        except (OSError, TimeoutError) as error:
            self.outcome.unexpected[f"{ask.kind}: {type(error).__name__}"] += 1
            return False
        if connection.open:
            self._free.append((connection, time.perf_counter()))
        self.outcome.statuses[f"{ask.kind} {answer.status}"] += 1
        self.outcome.seconds.append(time.perf_counter() - started)
        if answer.status != ask.status:
            self.outcome.unexpected[f"{ask.kind}: {answer.status}"] += 1
            return False
        if ask.expected is not None and self._chance.random() < CHECKED:
            self.outcome.checked += 1
            right = ask.is_right(answer.body)
            self.outcome.wrong += not right
            return right
        return True

    def _kept(self) -> Connection | None:
        """Give a connection that was used lately, if there is one; others are closed, as by a client's pool."""
        while self._free:
            connection, used = self._free.pop()
            if connection.open and time.perf_counter() - used < KEPT_SECONDS:
                return connection
            connection.close()
        return None

    async def _sample(self) -> None:
        while True:
            self.outcome.memory.append(usage(self._pid).anonymous)
            await asyncio.sleep(SAMPLE_SECONDS)


def descriptors(pid: int) -> int:
    """Count the open files of a process and its descendants."""
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in tree(pid))


async def soak(base: str, pid: int, mixture: Mixture, chance: random.Random, seconds: float) -> bool:
    """Find the peak, soak, print what came of it; gives whether it was borne."""
    load = Soak(base, pid, mixture, chance)
    await load.peak(MAX_IN_FLIGHT, WARM_SECONDS)  # for the caches, and the memory that as many at once need
    peak = await load.peak(CLIENTS, PEAK_SECONDS)
    load.hang_up()
    if not load.outcome.sound:
        print(f"while it warmed up, unexpected: {told(load.outcome.unexpected)}; wrong answers: {load.outcome.wrong}")
        return False
    await asyncio.sleep(QUIET_SECONDS)
    files_before = descriptors(pid)
    load.outcome = outcome = Outcome()
    print(f"peak: {peak:.0f} requests/s; {seconds / 60:g} minutes at {LOAD * peak:.0f}", flush=True)
    await load.run(LOAD * peak, seconds)
    load.hang_up()
    await asyncio.sleep(QUIET_SECONDS)
    files = descriptors(pid) - files_before
    print(table(["soak", "berth"], outcome.rows(files)), flush=True)
    return outcome.is_borne(files)


def main() -> int:
    """Run the command; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--model", help="model to serve, as in `berth serve`; the default model if left out")
    options = parser.parse_args()
    model = find_model(options.model)
    chance = random.Random(0)  # noqa: S311  # no secret
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="berth-soak-") as folder:
        command = berth_command(model.artifact.folder, port, ["--max-batch-tokens", "256"])
        log = Path(folder) / "berth.log"
        cores = os.sched_getaffinity(0)
        with running(command, port, DIALECTS["openai"], cores=cores, model=None, log=log) as server:
            mixture = Mixture(model, server.base, chance)
            borne = asyncio.run(soak(server.base, server.process.pid, mixture, chance, options.minutes * 60))
        if "Traceback" in log.read_text(encoding="utf-8"):
            print("the service's log has a traceback")
            borne = False
    print("borne" if borne else "NOT borne")
    return 0 if borne else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the server ends with it
    sys.exit(main())
