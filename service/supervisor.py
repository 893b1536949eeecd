"""`--workers N`: one process that binds the port and keeps N workers alive that accept from it.

uvicorn's supervisor does not fit: it turns SIGINT into SIGTERM, so into a drain with its grace period, beside the
SIGINT that the workers have from the terminal; kills a worker whose interpreter was busy for five seconds; starts all
of them at once, so that each says what it cannot load; ends with status 0 whatever happened; and when it is killed,
they live on. This one polls nothing: a task a place starts a worker, reads its one line, waits for its end, and starts
the next.

The first worker is started alone. The port opens as soon as its model is loaded, and what it cannot load is said once
and ends the whole. All workers map the same file of weights; what ONNX Runtime makes of them is each one's own.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from service.logs import complain
from service.metrics import Share
from service.settings import Settings
from service.sockets import BindError, bind, url_of

PAUSE_SECONDS = 1.0
"""Between the end of a worker that never became ready and the start of the next in its place."""

METRICS_BYTES = 1 << 19
"""What a worker's metrics take on the disk, nearly twice over."""

logger = logging.getLogger("berth")


def supervise(settings: Settings) -> int:
    """Serve with several workers until a signal; gives the exit status."""
    listeners: list[socket.socket] = []
    with contextlib.ExitStack() as stack:
        try:
            # Bound, not listening: until the first worker accepts, connections are refused and not left waiting.
            listeners.append(stack.enter_context(bind(settings.host, settings.port)))
            if settings.metrics_port is not None:
                listeners.append(stack.enter_context(bind(settings.host, settings.metrics_port)))
        except BindError as error:
            complain(settings.log_format, str(error))
            return 1
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="berth-metrics-"))
            # The workers map files here; a full disk is to be an error now and not their end.
            (Path(folder) / "room").write_bytes(bytes(METRICS_BYTES * settings.workers))
            (Path(folder) / "room").unlink()
        except OSError as error:
            complain(settings.log_format, f"the workers' metrics cannot be kept in {tempfile.gettempdir()}: {error}")
            return 1
        return asyncio.run(Supervisor(settings, listeners, Path(folder)).run())


class Supervisor:
    """Keeps a worker in each place, from the first start to the last end."""

    def __init__(self, settings: Settings, listeners: list[socket.socket], folder: Path) -> None:
        self._settings = settings
        self._listeners = listeners
        """That of the requests and, where they have one of their own, that of health and metrics."""
        self._folder = folder
        self._workers: dict[int, Process] = {}
        self._ready: set[int] = set()
        """Places whose worker accepts requests."""
        self._opened = asyncio.Event()
        """Set once a worker has been ready, or the end has come."""
        self._ending = asyncio.Event()
        self._failed = False

    async def run(self) -> int:
        """Start the workers and wait for the last one's end; gives the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        await asyncio.gather(*(self._keep(place) for place in range(self._settings.workers)))
        return 1 if self._failed else 0

    async def _keep(self, place: int) -> None:
        """Have one place filled until the end comes."""
        if place:
            await self._opened.wait()
        share = Share(self._folder, place)
        while not self._ending.is_set():
            was_ready = await self._fill(place)
            share.forget()
            if not was_ready:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ending.wait(), PAUSE_SECONDS)

    async def _fill(self, place: int) -> bool:
        """Have a worker in a place until it ends, and tell whether it was ready once."""
        try:
            worker = await self._start(place)
        except (OSError, RuntimeError) as error:  # no process, thread or memory to be had, as where one was just killed
            logger.error("no worker can be started: %s", error)
            if not self._opened.is_set():
                self._failed = True
                self._end(signal.SIGTERM)
            return False
        was_ready = await self._is_ready(worker, place)
        status = await worker.wait()
        self._ready.discard(place)
        self._judge(worker.pid, status, was_ready=was_ready)
        return was_ready

    async def _start(self, place: int) -> Process:
        descriptors = [listener.fileno() for listener in self._listeners]
        # -P, for in the folder where a user types there may be a `service` too.
        program = [sys.executable, "-P", "-m", "service.worker"]
        worker = await asyncio.create_subprocess_exec(
            *program,
            *(str(self._folder), str(place), *map(str, descriptors)),
            stdin=PIPE,
            stdout=PIPE,
            pass_fds=descriptors,
            process_group=0,  # so that Ctrl-C comes to the supervisor alone, as SIGTERM does
        )
        self._workers[place] = worker
        if worker.stdin is not None:
            worker.stdin.write(self._settings.model_dump_json().encode() + b"\n")
        if self._ending.is_set():
            worker.terminate()
        return worker

    async def _is_ready(self, worker: Process, place: int) -> bool:
        """Wait for the worker to accept requests, or to end before it does."""
        if worker.stdout is None or not await worker.stdout.readline():
            return False
        self._ready.add(place)
        if not self._opened.is_set():
            logger.info("%d workers running on %s", self._settings.workers, url_of(self._listeners[0]))
            self._opened.set()
        return True

    def _judge(self, pid: int, status: int, *, was_ready: bool) -> None:
        """Say what a worker's end means: nothing new at the end of all, a failure, or a place to fill again."""
        how = f"status {status}" if status >= 0 else f"signal {-status}"
        if self._ending.is_set():
            self._failed |= was_ready and status != 0
        elif not was_ready and (status > 0 or not self._opened.is_set()):
            if status < 0:
                logger.error("worker %d ended with %s before it was ready", pid, how)
            self._failed = True
            self._end(signal.SIGTERM)
        else:
            logger.error("worker %d ended with %s; another takes its place", pid, how)

    def _end(self, number: signal.Signals) -> None:
        """Pass a signal on, and start no worker any more; the port closes when the last one closes it.

        A worker that is not ready has nothing to answer, and SIGTERM ends it at once.
        """
        self._ending.set()
        self._opened.set()
        for listener in self._listeners:
            listener.close()
        for place, worker in self._workers.items():
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number if place in self._ready else signal.SIGTERM)
