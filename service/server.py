"""uvicorn's server with a shutdown that loses nothing.

SIGTERM: readiness turns 503 and every answer says `Connection: close`; for the grace period requests are still
accepted, so that load balancers notice; then the port closes, what was accepted is answered within a bound, and the
process ends.
SIGINT leaves out the grace period, and a second one the waiting too.
"""

import asyncio
import select
import signal
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.api.state import State
from service.settings import Settings

ACCEPT_SECONDS = 2.0
"""What accepting the last connections may take."""
ARRIVAL_SECONDS = 0.3
"""What the request of a connection that was just accepted has to arrive."""


class Server(uvicorn.Server):
    """Serves one application until a signal or `fail` ends it."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=settings.shutdown_timeout,  # type: ignore[arg-type]  # any seconds will do
            )
        )
        self.failed = False
        self._berth: State = app.state.berth
        self._grace = settings.shutdown_grace
        self._close_at: float | None = None

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, but first take in what the kernel accepted for us and, after it, what is on its way.

        uvicorn closes at once: connections that wait to be accepted are reset then, and so are those that were accepted
        and whose request had not been read yet.
        """
        end = time.monotonic() + ACCEPT_SECONDS
        for server in self.servers:
            for listener in server.sockets:
                while time.monotonic() < end and select.select([listener.fileno()], [], [], 0)[0]:
                    await asyncio.sleep(0)
            server.close()
        await asyncio.sleep(ARRIVAL_SECONDS)
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Say ten times a second whether to leave the main loop."""
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)
