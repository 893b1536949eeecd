"""`python -m bench.path`: which of our files a request of one short text enters on the event loop.

Call and return events by `sys.setprofile` count, those of our own files alone; a move is a change of file between two
of them. The server is warm, and its timers run beside; of some requests the one with the fewest moves counts.
"""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from types import FrameType

from berth import models
from berth.artifact import read_artifact
from berth.placement import ExportTarget
from service.api.app import create_app
from service.server import Server
from service.settings import Settings

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / folder}/" for folder in ("berth", "service"))
BODY = json.dumps({"input": "a ship in harbour"})
WARM, COUNTED = 20, 10
SETTLE_SECONDS = 0.05
"""After an answer, until what is done behind it is done too."""


class Recorder:
    """The files of ours that the event loop's thread enters and leaves."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self) -> None:
        """Begin anew, in the thread that calls it."""
        self.events.clear()
        sys.setprofile(self._record)

    def stop(self) -> None:
        """End, in the thread that calls it."""
        sys.setprofile(None)

    def _record(self, frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event in {"call", "return"} and name.startswith(OURS):
            self.events.append(name.removeprefix(f"{ROOT}/"))


def record(artifact: Path) -> list[str]:
    """Serve an artifact on loopback and record one request; gives the files entered, in order of their events."""
    settings = Settings(port=0, model=str(artifact), shutdown_grace=0)
    app = create_app(settings, read_artifact(artifact), lambda: None)
    server = Server(app, settings)
    recorder, best = Recorder(), list[str]()

    def ask(connection: http.client.HTTPConnection) -> None:
        connection.request("POST", "/v1/embeddings", BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"bench.path: {answer.status} {answer.read()!r}")
        answer.read()

    def client(loop: asyncio.AbstractEventLoop) -> None:
        while not server.started or not app.state.berth.ready:
            time.sleep(SETTLE_SECONDS)
        port = server.servers[0].sockets[0].getsockname()[1]
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            for _ in range(WARM):
                ask(connection)
            for _ in range(COUNTED):
                time.sleep(SETTLE_SECONDS)
                loop.call_soon_threadsafe(recorder.start)
                ask(connection)
                time.sleep(SETTLE_SECONDS)
                loop.call_soon_threadsafe(recorder.stop)
                time.sleep(SETTLE_SECONDS)
                if not best or moves_of(recorder.events) < moves_of(best):
                    best[:] = recorder.events
        server.should_exit = True

    async def serve() -> None:
        threading.Thread(target=client, args=[asyncio.get_running_loop()], daemon=True).start()
        await server.serve()

    asyncio.run(serve())
    return best


def moves_of(events: list[str]) -> int:
    """Count the changes of file."""
    return sum(left != entered for left, entered in pairwise(events))


def main() -> None:
    """Print the files that a request to the default model enters; `--trace` prints them in their order first."""
    events = record(models.find_artifact(models.DEFAULT_MODEL, ExportTarget("cpu", "fp32")))
    if "--trace" in sys.argv:
        previous = ""
        for name in events:
            if name != previous:
                print(name)
            previous = name
    for name, count in Counter(events).most_common():
        lines = len((ROOT / name).read_text(encoding="utf-8").splitlines())
        print(f"{name:<40}{count:>5} events{lines:>6} lines")
    print(f"{len(set(events))} files, {moves_of(events)} moves between them")


if __name__ == "__main__":
    main()
