"""uvicorn's server with a shutdown that loses nothing.

SIGTERM: readiness turns 503 and every answer says `Connection: close`; for the grace period requests are still
accepted, so that load balancers notice; then the port closes, what was accepted is answered within a bound, and the
process ends.
SIGINT leaves out the grace period, and a second one the waiting too.
"""

import asyncio
import contextlib
import gc
import logging
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app, create_metrics_app
from service.api.state import State
from service.connection import Connection
from service.errors import ArtifactError, DeviceError, InvalidInputError
from service.inference.artifact import read_artifact
from service.logs import complain
from service.metrics import Share
from service.settings import Settings
from service.sockets import BindError, bind, url_of

LAST_ACCEPT_SECONDS = 2.0
"""What accepting the last connections may take."""
ARRIVAL_SECONDS = 0.3
"""What the request of a connection that was just accepted has to arrive."""

ACCEPT_SECONDS = 0.002
"""Between a connection that a worker takes and the next, in which the others may take it."""

RETRY_SECONDS = 1.0
"""Until a worker that had no descriptor left for a connection tries again."""

TICKS_BETWEEN_CHECKS = 5
"""Tenths of a second between two looks for connections whose clients are late."""

COLLECT_AFTER = 50_000
"""Objects more than there were, until those that are new are collected: in some 20 milliseconds."""

SECURITY_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "frame-ancestors 'none'"),
]
"""What every answer says to browsers; the page at / adds a policy of its own."""

MakeConnection = Callable[[], asyncio.Protocol]

logger = logging.getLogger("berth")


def serve(
    settings: Settings,
    share: Share | None = None,
    sockets: list[socket.socket] | None = None,
    on_listening: Callable[[], None] = lambda: None,
    metrics_socket: socket.socket | None = None,
) -> int:
    """Serve the artifact that the settings name until a signal; gives the exit status.

    A worker, one of several, brings its share of the metrics and the sockets that it has in common with the others.
    """
    with contextlib.ExitStack() as stack:
        try:
            artifact = read_artifact(_folder(settings.model))
            if settings.metrics_port is not None and metrics_socket is None:
                metrics_socket = stack.enter_context(bind(settings.host, settings.metrics_port))
            app = create_app(settings, artifact, lambda: server.fail(), share)  # noqa: PLW0108  # it is made next
        except (ArtifactError, DeviceError, InvalidInputError, BindError) as error:
            complain(settings.log_format, str(error))
            return 1
        server = Server(app, settings, on_listening, metrics_socket)
        _spare_collections()
        try:
            server.run(sockets)
        except SystemExit:  # uvicorn could not open the port, has said why, and has a status of its own for it
            return 1
    return 1 if server.failed else 0


def _folder(model: str) -> Path:
    try:
        return Path(model).expanduser()
    except RuntimeError:  # ~somebody who is not there
        raise ArtifactError(f"{model}: there is no such folder") from None


def _spare_collections() -> None:
    """Have the garbage collector pass over what is there for good, and look at the rest seldom.

    Under load a collection of all objects stops the service for a tenth of a second. Reference counts free what
    requests leave; only some errors leave cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class Server(uvicorn.Server):
    """Serves one application until a signal or `fail` ends it."""

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        on_listening: Callable[[], None] = lambda: None,
        metrics_socket: socket.socket | None = None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=partial(Connection, settings=settings, shedder=app.state.shedder),  # type: ignore[arg-type]  # makes what a class would
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                headers=SECURITY_HEADERS,
                timeout_graceful_shutdown=settings.shutdown_timeout,  # type: ignore[arg-type]  # any seconds will do
            )
        )
        self.failed = False
        self._berth: State = app.state.berth
        self._grace = settings.shutdown_grace
        self._close_at: float | None = None
        self._on_listening = on_listening
        self._metrics_socket = metrics_socket
        self._closing = False
        self._listeners: dict[socket.socket, MakeConnection] = {}
        """What is accepted from here, and not by the event loop's own servers; what makes a connection of each."""
        self._arriving: set[asyncio.Task[Any]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, from sockets that other workers accept from too, or else from one of its own."""
        await super().startup(None if sockets is None else [])
        for listener in sockets or ():
            self._listen(listener, self._connection)
        if self._metrics_socket is not None:
            metrics_app = create_metrics_app(self._berth)
            self._listen(self._metrics_socket, partial(self._connection, metrics_app))
            logger.info("health and metrics are on %s", url_of(self._metrics_socket))
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Stop accepting, answer what was accepted, and close; but first take in what is on its way.

        uvicorn closes at once: connections that wait to be accepted are reset then, and so are those that were accepted
        and whose request had not been read yet. What waits at a port that other workers share is taken too, for they
        may be ending as well.
        """
        self._closing = True
        for listener, make in self._listeners.items():
            asyncio.get_running_loop().remove_reader(listener)
            self._take_waiting(listener, make)
        await asyncio.gather(*self._arriving, return_exceptions=True)
        end = time.monotonic() + LAST_ACCEPT_SECONDS
        for server in self.servers:
            for own in server.sockets:
                while time.monotonic() < end and select.select([own.fileno()], [], [], 0)[0]:
                    await asyncio.sleep(0)
            server.close()
        await asyncio.sleep(ARRIVAL_SECONDS)
        await super().shutdown(list(self._listeners))

    def _listen(self, listener: socket.socket, make: MakeConnection) -> None:
        """Begin to accept."""
        self._listeners[listener] = make
        listener.setblocking(False)
        listener.listen(self.config.backlog)
        self._accept_from(listener, make)

    def _accept(self, listener: socket.socket, make: MakeConnection) -> None:
        """Take one connection, and for a moment none, so that the other workers take theirs.

        The event loops' own servers take all that wait: of 32 that came together one worker had 32.
        """
        loop = asyncio.get_running_loop()
        pause = ACCEPT_SECONDS
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the client has left
            return
        except OSError as error:
            logger.error("no connection can be accepted: %s", error)
            pause = RETRY_SECONDS
        else:
            self._take(connection, make)
        loop.remove_reader(listener)
        loop.call_later(pause, self._accept_from, listener, make)

    def _take_waiting(self, listener: socket.socket, make: MakeConnection) -> None:
        """Take all connections that wait, without a pause."""
        end = time.monotonic() + LAST_ACCEPT_SECONDS
        while time.monotonic() < end:
            try:
                connection, _ = listener.accept()
            except OSError:  # BlockingIOError: there are none left
                return
            self._take(connection, make)

    def _take(self, connection: socket.socket, make: MakeConnection) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arriving = loop.create_task(loop.connect_accepted_socket(make, connection))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    def _accept_from(self, listener: socket.socket, make: MakeConnection) -> None:
        if not self._closing:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, make)

    def _connection(self, app: FastAPI | None = None) -> Connection:
        """Make what uvicorn's startup makes for a connection; another application may answer on it."""
        make: Any = self.config.http_protocol_class
        common = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        if app is None:
            connection: Connection = make(**common)
            return connection
        other: Connection = make(**common, shedder=None)  # it sheds no load of routes that it has not
        other.app = app
        return other

    def fail(self) -> None:
        """End the process because the model cannot be served."""
        self.failed = self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """Begin to shut down; what uvicorn does here is to close the port at once."""
        if sig == signal.SIGINT:
            self.force_exit = self.should_exit
            self.should_exit = True
        if self._close_at is None:
            self._close_at = time.monotonic() + self._grace
        self._berth.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Say ten times a second whether to leave the main loop."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        if counter % TICKS_BETWEEN_CHECKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.end_if_late(now)
        return await super().on_tick(counter)
