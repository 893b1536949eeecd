"""`python -m service.worker SOCKET FOLDER PLACE`: one of several processes that serve; the supervisor starts it.

Its standard input is a line of settings and then nothing, until the supervisor has ended. Its standard output is the
line `ready`, once it accepts requests.
"""

import json
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from service.metrics import Share
from service.server import serve
from service.settings import Settings


def main(descriptor: str, folder: str, place: str) -> int:
    """Serve until a signal, or until there is no supervisor; gives the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s[%(process)d]: %(message)s", level=logging.INFO)
    settings = Settings(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_outlive_nobody, daemon=True).start()
    with socket.socket(fileno=int(descriptor)) as listener:
        listener.set_inheritable(False)
        share = Share(Path(folder), int(place))
        return serve(settings, share, [listener], on_listening=lambda: print("ready", flush=True))


def _outlive_nobody() -> None:
    """Shut down as if told to, where the supervisor was killed and cannot tell."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
