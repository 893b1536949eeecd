"""uvicorn's server with a shutdown that loses nothing.

SIGTERM: readiness turns 503 and every answer says `Connection: close`; for the grace period requests are still
accepted, so that load balancers notice; then the port closes, what was accepted is answered within a bound, and the
process ends.
SIGINT leaves out the grace period, and a second one the waiting too.
"""

import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.api.app import create_app
from service.api.state import State
from service.errors import ArtifactError, InvalidInputError
from service.inference.artifact import read_artifact
from service.metrics import Share
from service.settings import Settings


def serve(
    settings: Settings,
    share: Share | None = None,
    sockets: list[socket.socket] | None = None,
    on_listening: Callable[[], None] = lambda: None,
) -> int:
    """Serve the artifact that the settings name until a signal; gives the exit status.

    A worker, one of several, brings its share of the metrics and the sockets that it has in common with the others.
    """
    try:
        artifact = read_artifact(Path(settings.model).expanduser())
        app = create_app(settings, artifact, lambda: server.fail(), share)  # noqa: PLW0108  # the server is made next
    except (ArtifactError, InvalidInputError) as error:
        print(f"berth: {error}", file=sys.stderr)
        return 1
    server = Server(app, settings, on_listening)
    server.run(sockets)
    return 1 if server.failed else 0


class Server(uvicorn.Server):
    """Serves one application until a signal or `fail` ends it."""

    def __init__(self, app: FastAPI, settings: Settings, on_listening: Callable[[], None] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=round(settings.shutdown_timeout),
            )
        )
        self.failed = False
        self._berth: State = app.state.berth
        self._grace = settings.shutdown_grace
        self._close_at: float | None = None
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets)
        self._on_listening()

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
        return await super().on_tick(counter)
