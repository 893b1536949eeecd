"""Servers that the benchmark starts itself: Berth, on a free port, and peers."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from bench.dialects import Dialect
from bench.processes import pin_tree

START_BOUND = 180.0
STOP_BOUND = 10.0
WARM_ANSWERS = 20
"""That a server gives once it is on its cores, so that its threads, and those that it starts late, sit there."""


class StartError(Exception):
    """A server that was started gives no answer."""


@dataclass(frozen=True, slots=True)
class Server:
    """A process of our own and where it listens."""

    process: subprocess.Popen[bytes]
    base: str
    start_seconds: float

    def pause(self) -> None:
        """Stop it from using any CPU, so that another can be measured on its core."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def berth_command(artifact: Path, port: int, flags: Sequence[str], threads: int = 1) -> list[str]:
    """Give the command that serves an artifact on so many encoder threads."""
    own = ["--model", str(artifact), "--port", str(port), "--threads", str(threads), "--shutdown-grace", "0"]
    return [sys.executable, "-m", "service", *own, *flags]


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    dialect: Dialect,
    *,
    cores: set[int],
    model: str | None,
    log: Path,
    folder: str | None = None,
) -> Iterator[Server]:
    """Start a server, keep it on some cores from its first answer on, and stop it and its children at the end.

    Not before: ONNX Runtime and others look at their cores while they load. Raises `StartError` where no answer comes.
    """
    started = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603  # our own commands
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
            cwd=folder,
        )
    try:
        base = f"http://127.0.0.1:{port}"
        _wait_for_answer(process, base, dialect, model, log)
        pin_tree(cores, process.pid)
        for _ in range(WARM_ANSWERS):
            _wait_for_answer(process, base, dialect, model, log)
        pin_tree(cores, process.pid)  # a thread that was started while the first one ran
        yield Server(process, base, time.monotonic() - started)
    finally:
        _stop(process)


def _wait_for_answer(
    process: subprocess.Popen[bytes], base: str, dialect: Dialect, model: str | None, log: Path
) -> None:
    end = time.monotonic() + START_BOUND
    body = dialect.ask(["hello"], model)
    request = Request(base + dialect.path, body, {"Content-Type": "application/json"})  # noqa: S310  # http, ours
    while True:
        try:
            with urlopen(request, timeout=30) as answer:  # noqa: S310
                dialect.read(answer.read())
                return
        except (URLError, OSError, ValueError) as error:
            if process.poll() is not None or time.monotonic() > end:
                tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
                why = tail[-1] if tail else str(error)
                raise StartError(
                    "\n".join([f"it gives no answer: {why}", f"{process.args!r}: {error}", *tail])
                ) from error
            time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the process' whole session to end, then make it."""
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        if number is signal.SIGCONT:
            continue
        try:
            process.wait(STOP_BOUND)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
