"""uvicorn's server with a shutdown that loses nothing.

SIGTERM: readiness turns 503 and every answer says `Connection: close`; for the grace period requests are still
accepted, so that load balancers notice; then the port closes, what was accepted is answered within a bound, and the
process ends.
SIGINT leaves out the grace period, and a second one the waiting too.
"""

import asyncio
import ctypes
import gc
import logging
import os
import platform
import select
import signal
import socket
import time
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from berth.artifact import read_artifact
from berth.errors import BerthError
from berth.model import Model
from berth.models import folder_of
from service.api.app import create_app, create_metrics_app
from service.api.loading import LoadModel
from service.api.state import State
from service.connection import Connection
from service.logs import log_fatal
from service.settings import Settings

LAST_ACCEPT_SECONDS = 2.0
"""What accepting the last connections may take."""
ARRIVAL_SECONDS = 0.3
"""What the request of a connection that was just accepted has to arrive."""
TICKS_BETWEEN_CHECKS = 5
"""Tenths of a second between two looks for connections whose clients are late."""

COLLECT_AFTER = 50_000
"""New objects between two collections, each of which takes some 20 ms."""

MALLOC = {-8: 2, -3: 1 << 20, -1: 4 << 20}
"""glibc's M_ARENA_MAX, M_MMAP_THRESHOLD and M_TRIM_THRESHOLD (malloc.h). By default each thread keeps free memory, and
more of it after each large request; with these it is 10 MiB less, and level (docs/performance.md)."""

SECURITY_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("content-security-policy", "frame-ancestors 'none'"),
]
"""What every answer says to browsers; the page at / adds a policy of its own."""

logger = logging.getLogger("berth")


def serve(settings: Settings, load_model: LoadModel = Model.load) -> int:
    """Serve the artifact that the settings name until a signal; gives the exit status."""
    host, port, metrics_socket = settings.host, settings.metrics_port, None
    try:
        artifact = read_artifact(folder_of(settings.model))
        if port is not None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            metrics_socket = socket.create_server((host, port), family=family)
        app = create_app(settings, artifact, lambda: server.fail(), load_model)  # noqa: PLW0108  # it is made next
    except (BerthError, OSError) as error:
        reason = f"cannot serve on {host}:{port}: {error}" if isinstance(error, OSError) else str(error)
        log_fatal(settings.log_format, reason)
        return 1
    server = Server(app, settings, metrics_socket)
    _spare_collections()
    if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
        for parameter, value in MALLOC.items():
            ctypes.CDLL(None).mallopt(parameter, value)
    try:
        server.run()
    except SystemExit:  # a port could not be opened; it was said why, and uvicorn has a status of its own for it
        return 1
    return 1 if server.failed else 0


def _spare_collections() -> None:
    """Exclude the objects made so far from garbage collection, and collect new ones rarely.

    A full collection stops the service for a tenth of a second. It is seldom needed: requests leave no reference
    cycles, except after some errors.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])


class Server(uvicorn.Server):
    """Serves one application until a signal or `fail` ends it."""

    def __init__(self, app: FastAPI, settings: Settings, metrics_socket: socket.socket | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=partial(Connection, settings=settings),  # type: ignore[arg-type]  # makes what a class would
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
        self._metrics_socket = metrics_socket

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, health and metrics on a port of their own where they have one."""
        await super().startup(sockets)
        if self._metrics_socket is not None:
            make = partial(self._metrics_connection, create_metrics_app(self._berth))
            self.servers.append(await asyncio.get_running_loop().create_server(make, sock=self._metrics_socket))
            host, port = self._metrics_socket.getsockname()[:2]
            logger.info("health and metrics are on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, answer what was accepted, and close; but first take in what is on its way.

        uvicorn closes at once: connections that wait to be accepted are reset then, and so are those that were accepted
        and whose request had not been read yet.
        """
        end = time.monotonic() + LAST_ACCEPT_SECONDS
        for server in self.servers:
            for own in server.sockets:
                while time.monotonic() < end and select.select([own.fileno()], [], [], 0)[0]:
                    await asyncio.sleep(0)
            server.close()
        await asyncio.sleep(ARRIVAL_SECONDS)
        await super().shutdown(sockets)

    def _metrics_connection(self, app: FastAPI) -> Connection:
        """Make what uvicorn's startup makes for a connection, on which another application answers."""
        make: Any = self.config.http_protocol_class
        connection: Connection = make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        connection.app = app
        return connection

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
