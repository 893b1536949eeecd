"""Services that are made to fail, and what they are held against: the right vectors, and the truth about readiness."""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from transformers import AutoTokenizer, BertModel

from tests.conftest import VOCABULARY
from tests.end_to_end.conftest import Launch, Service, Start, launch, start

__all__ = ["launch", "start"]

HANG_BOUND = 30.0
"""Seconds after which `/health/ready` will hardly ever answer, or notice."""
TOLERANCE = 1e-5
RAISING, SPOILT, HANGING = "!", "?", "hello"
"""Words at which the encoder of a faulty service fails: it raises, gives NaN, or does not come back."""

SITE = Path(__file__).parent / "site"
NUMBERS = count()


def text() -> str:
    """Give a text that no other request has: what several ask for is encoded once."""
    number = next(NUMBERS)
    return f"the world of {number} " + "text and vector " * (number % 7)


class Right:
    """The tiny model's vectors by transformers in float64."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._model = BertModel.from_pretrained(checkpoint, dtype=torch.float64).eval()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> NDArray[np.float64]:
        """Compute the mean of a text's last hidden states [hidden]."""
        inputs = self._tokenizer(text, truncation=True, max_length=40, return_tensors="pt")
        with self._lock, torch.no_grad():
            vector: NDArray[np.float64] = self._model(**inputs).last_hidden_state[0].mean(0).numpy()
        return vector

    def check(self, text: str, vector: ArrayLike) -> None:
        """Fail where a text's vector is another."""
        right = self(text)
        assert np.linalg.norm(np.asarray(vector) - right) <= TOLERANCE * np.linalg.norm(right), text


@pytest.fixture(scope="session")
def right(tiny_checkpoint: Path) -> Right:
    """Give the right vectors of the tiny model."""
    return Right(tiny_checkpoint)


def embed(service: Service, *texts: str, timeout: float | None = None) -> httpx.Response:
    """Ask for vectors by a connection of its own."""
    headers = {} if timeout is None else {"X-Request-Timeout": str(timeout)}
    with httpx.Client(timeout=120, trust_env=False, verify=False) as http:  # without it, certificates are loaded
        return http.post(f"{service.url}/v1/embeddings", json={"input": list(texts)}, headers=headers)


def check(right: Right, answer: httpx.Response, *texts: str) -> None:
    """Fail where an answer is not the right vectors."""
    assert answer.status_code == 200, answer.text
    for text, item in zip(texts, answer.json()["data"], strict=True):
        right.check(text, item["embedding"])


class Readiness:
    """What `/health/ready` says, asked again and again; the error's name where nobody answers."""

    def __init__(self, service: Service) -> None:
        self.said: list[int | str] = []
        self._url = f"{service.url}/health/ready"
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> "Readiness":
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ask no more."""
        self._enough.set()
        self._thread.join()

    def turns(self, status: int) -> None:
        """Wait until that is the word on a question asked from now on; the one on the way may be of before."""
        new = len(self.said) + 1
        end = time.monotonic() + HANG_BOUND
        while len(self.said) <= new or self.said[-1] != status:
            assert time.monotonic() < end, f"{self.said[-5:]}, not {status}, after {HANG_BOUND} seconds"
            time.sleep(0.02)

    def _ask(self) -> None:
        while not self._enough.wait(0.05):
            try:
                answer = httpx.get(self._url, timeout=HANG_BOUND, trust_env=False, verify=False)
                self.said.append(answer.status_code)
            except httpx.TransportError as error:
                self.said.append(type(error).__name__)


class Load:
    """Clients that ask as fast as they are answered, and check every answer."""

    def __init__(self, service: Service, right: Right, clients: int = 4) -> None:
        self.outcomes: Counter[int | str] = Counter()
        self.wrong: list[AssertionError] = []
        self._service = service
        self._right = right
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._post_on) for _ in range(clients)]

    def __enter__(self) -> "Load":
        """Begin."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send nothing more, and wait for what was sent."""
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def until_answered(self, more: int) -> None:
        """Wait for some more right answers."""
        goal = self.outcomes[200] + more
        self._service.until(lambda: self.outcomes[200] >= goal)

    def _post_on(self) -> None:
        while not self._enough.is_set():
            texts = [text() for _ in range(4)]
            try:
                answer = embed(self._service, *texts)
            except httpx.TransportError as error:
                self.outcomes[type(error).__name__] += 1
                if isinstance(error, httpx.ConnectError):
                    return
                continue
            self.outcomes[answer.status_code] += 1
            if answer.status_code == 200:
                try:
                    check(self._right, answer, *texts)
                except AssertionError as error:
                    self.wrong.append(error)


@dataclass(frozen=True, slots=True)
class Faulty:
    """How to start a service whose encoder fails where it is told to, and how to let it go on."""

    start: Callable[..., Service]
    release: Path
    clock: Path
    """Seconds by which its wall clock is to be wrong."""


@pytest.fixture
def faulty(start: Start, tiny_artifact: Path, tmp_path: Path) -> Iterator[Faulty]:
    """Give a way to start the tiny model over a faulty ONNX Runtime."""
    release, clock = tmp_path / "release", tmp_path / "clock"
    clock.write_text("0")
    variables = {
        "PYTHONPATH": os.pathsep.join([str(SITE), str(Path.cwd())]),
        "FAULT_TOKENS": ",".join(str(VOCABULARY.index(word)) for word in (RAISING, SPOILT, HANGING)),
        "FAULT_RELEASE": str(release),
        "FAULT_CLOCK": str(clock),
    }
    yield Faulty(lambda *flags: start(tiny_artifact, *flags, **variables), release, clock)
    release.touch()


def descriptors(pid: int) -> int:
    """Count a process' open files."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


__all__ += ["Launch", "Start"]
