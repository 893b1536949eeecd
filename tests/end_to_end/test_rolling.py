"""Restarts under load, one replica after the other: no request fails, and every vector is the right one.

`make rolling` is the long form. The load is a closed loop of kept-alive connections that never tries again by itself.
"""

import asyncio
import base64
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
import torch
from numpy.typing import NDArray

from bench.connection import Connection, post
from bench.server import free_port

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service, Start, Torch

REQUESTS = int(os.environ.get("ROLLING_REQUESTS", "2000"))
CLIENTS = 16
TEXTS = [f"ship number {number} is {['early', 'late', 'due', 'lost'][number % 4]}" for number in range(400)]
FLAGS = ("--threads", "1", "--cache-size", "300")
"""Fewer than there are texts: about every fourth request is encoded, the others come at the speed of HTTP."""
NGINX_CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"
MAIN_CONF = """
{user}
worker_processes 2;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
    log_format tries '$status $upstream_addr $upstream_status';
    access_log access.log tries;
    client_body_temp_path temp_body;
    proxy_temp_path temp_proxy;
    fastcgi_temp_path temp_fastcgi;
    uwsgi_temp_path temp_uwsgi;
    scgi_temp_path temp_scgi;
    include berth.conf;
}}
"""


class Load:
    """Requests for one vector each, without a pause, until it is told that it is enough."""

    def __init__(self, base: str, vectors: NDArray[np.float64]) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._enough = False
        self._base = base
        self._vectors = vectors
        self._requests = [
            post(base, "/v1/embeddings", orjson.dumps({"input": text, "encoding_format": "base64"})) for text in TEXTS
        ]
        self._choice = random.Random(7)

    def during(self, roll: Callable[[], None]) -> None:
        """Keep it up while something is done."""
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(asyncio.run, self._run())
            try:
                self.wait_for(20 * CLIENTS)
                roll()
            finally:
                self._enough = True
            running.result()

    def wait_for(self, more: int) -> None:
        """Wait until so many more have been answered."""
        enough, end = self.answered + more, time.monotonic() + 120
        while self.answered < enough:
            assert time.monotonic() < end, f"{self.answered} answers, {self.failures[-3:]}"
            time.sleep(0.02)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        connection: Connection | None = None
        while not self._enough:
            number = self._choice.randrange(len(TEXTS))
            try:
                if connection is None or not connection.open:
                    connection = await Connection.to(self._base)
                answer = await asyncio.wait_for(connection.ask(self._requests[number]), 60)
            except (OSError, TimeoutError) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection = None
                await asyncio.sleep(0.01)
                continue
            if answer.status != 200:
                self.failures.append(f"{answer.status}: {answer.body[:200]!r}")
            elif not np.allclose(_vector(answer.body), self._vectors[number], rtol=0, atol=1e-5):
                self.failures.append(f"the vector of {TEXTS[number]!r} is another")
            else:
                self.answered += 1
        if connection is not None:
            connection.close()


def _vector(body: bytes) -> NDArray[np.float32]:
    data = orjson.loads(body)["data"][0]["embedding"]
    return np.frombuffer(base64.b64decode(data), dtype="<f4")


@pytest.fixture(scope="module")
def vectors(minilm_torch: "Torch") -> NDArray[np.float64]:
    """Give each text's right vector, by transformers in float64 [texts, hidden]."""
    ids = [minilm_torch.tokenizer(text)["input_ids"] for text in TEXTS]
    vectors = np.empty((len(TEXTS), minilm_torch.model.config.hidden_size))
    for length in {len(each) for each in ids}:  # those of one length together, for padding would change the numbers
        places = [place for place, each in enumerate(ids) if len(each) == length]
        with torch.no_grad():
            states = minilm_torch.model(torch.tensor([ids[place] for place in places])).last_hidden_state
        vectors[places] = states.mean(dim=1)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture
def ports() -> list[int]:
    """Give three free ports: nginx' and the replicas'."""
    return [free_port() for _ in range(3)]


@pytest.fixture
def nginx(ports: list[int], tmp_path: Path) -> Iterator[Path]:
    """Run nginx as deploy/nginx.conf says, before two replicas; gives its folder, with its logs."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed; Debian has it as nginx-light")
    folder = tmp_path / "nginx"
    folder.mkdir()
    config = NGINX_CONF.read_text(encoding="utf-8")
    outside, *replicas = ports
    servers = "".join(f"server 127.0.0.1:{port} max_fails=0;" for port in replicas)
    for name, ours in (("listen 80;", f"listen 127.0.0.1:{outside};"), ("server berth:8080 max_fails=0;", servers)):
        assert config.count(name) == 1
        config = config.replace(name, ours)
    (folder / "berth.conf").write_text(config, encoding="utf-8")
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers, as nobody, could not enter the tests' folder
    (folder / "nginx.conf").write_text(MAIN_CONF.format(user=user), encoding="utf-8")
    command = [program, "-p", str(folder), "-e", "error.log", "-c", "nginx.conf"]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    process = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        end = time.monotonic() + 20
        while not _listens(ports[0]):
            assert time.monotonic() < end
            time.sleep(0.02)
        yield folder
    finally:
        process.terminate()
        assert process.wait(20) == 0


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(service: "Service") -> int:
    return len(re.findall(r"POST /v1/embeddings 200 ", service.log))


@pytest.mark.timeout(1200)
def test_replicas_behind_nginx(
    start: "Start", minilm: Path, vectors: NDArray[np.float64], ports: list[int], nginx: Path
) -> None:
    """One is told to end, ends, is started anew and is ready before the other's turn comes."""
    front, *backs = ports

    def start_on(port: int) -> "Service":
        return start(minilm, "--port", str(port), *FLAGS)

    replicas = {port: start_on(port) for port in backs}
    load = Load(f"http://127.0.0.1:{front}", vectors)
    stopped = 0

    def roll() -> None:
        nonlocal stopped
        while load.answered < REQUESTS or stopped < 2:
            for port in backs:
                assert replicas[port].stop() == 0, replicas[port].tail
                assert "Traceback" not in replicas[port].log
                assert _answers(replicas[port]) > 0, "a replica that nobody asked shows nothing"
                stopped += 1
                replicas[port] = start_on(port)
                load.wait_for(10 * CLIENTS)

    load.during(roll)
    tries = (nginx / "access.log").read_text().splitlines()
    passed_on = sum("," in line for line in tries)
    errors = (nginx / "error.log").read_text(encoding="utf-8")
    reasons = Counter(re.findall(r"(Connection refused|prematurely closed|reset by peer|no live upstreams)", errors))
    print(
        f"{load.answered} answers, {len(load.failures)} failures, {stopped} restarts, {passed_on} passed on, {reasons}"
    )
    assert load.failures == []
    assert load.answered >= REQUESTS
    assert len(tries) >= load.answered
