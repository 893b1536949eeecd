"""A server that is started sits on its cores from its first answer on, and not before."""

import json
import os
import sys
from pathlib import Path

import pytest

from bench.dialects import DIALECTS
from bench.server import WARM_ANSWERS, StartError, free_port, running

SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

def note():
    print(json.dumps(sorted(os.sched_getaffinity(0))), flush=True)

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        note()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[[1.0]]")
    def log_message(self, *_):
        pass

note()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="it needs two cores")
def test_a_server_loads_and_answers_first_on_all_cores(tmp_path: Path) -> None:
    cores, port, log = os.sched_getaffinity(0), free_port(), tmp_path / "server.log"
    last = {max(cores)}
    command = [sys.executable, "-c", SERVER, str(port)]
    with running(command, port, DIALECTS["tei"], cores=last, model=None, log=log) as server:
        assert os.sched_getaffinity(server.process.pid) == last
    at_start, first, *warm = [set(json.loads(line)) for line in log.read_text().splitlines()]
    assert at_start == first == cores
    assert warm == [last] * WARM_ANSWERS, "threads that are started late too"


def test_a_server_that_ends_is_told_with_its_last_line(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-c", "raise SystemExit('no model')"]
    with (
        pytest.raises(StartError, match="it gives no answer: no model"),
        running(command, port, DIALECTS["tei"], cores=os.sched_getaffinity(0), model=None, log=log),
    ):
        pass
