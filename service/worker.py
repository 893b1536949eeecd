"""`python -m service.worker FOLDER PLACE SOCKET…`: one of several processes that serve; the supervisor starts it.

Its standard input is a line of settings and then nothing, until the supervisor has ended. Its standard output is the
line `ready`, once it accepts requests.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from service.logs import start_logging
from service.metrics import Share
from service.server import serve
from service.settings import Settings


def main(folder: str, place: str, *descriptors: str) -> int:
    """Serve until a signal, or until there is no supervisor; gives the exit status."""
    settings = Settings(**json.loads(sys.stdin.readline()))
    start_logging(settings.log_format, worker=True)
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket(fileno=int(descriptor))) for descriptor in descriptors]
        for listener in listeners:
            listener.set_inheritable(False)
        share = Share(Path(folder), int(place))
        return serve(
            settings,
            share,
            listeners[:1],
            on_listening=lambda: print("ready", flush=True),
            metrics_socket=listeners[1] if len(listeners) > 1 else None,
        )


def _outlive_nobody() -> None:
    """Shut down as if told to, where the supervisor was killed and cannot tell."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
