"""Services that are made to fail, and what they are held against: the right vectors, and the truth about readiness."""

import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from tests.end_to_end.conftest import HANGING, RAISING, SPOILT, Faulty, Service, faulty, launch, start

__all__ = ["HANGING", "RAISING", "SPOILT", "Faulty", "faulty", "launch", "start"]

HANG_BOUND = 30.0
"""Seconds after which `/health/ready` will hardly ever answer, or notice."""
TOLERANCE = 1e-5

NUMBERS = count()


def text() -> str:
    """Give a text that no other request has."""
    number = next(NUMBERS)
    return f"the world of {number} " + "text and vector " * (number % 7)


class Right:
    """The tiny model's vectors by transformers in float64."""

    def __init__(self, checkpoint: Path) -> None:
        import torch  # noqa: PLC0415  # slow to import
        from transformers import AutoTokenizer, BertModel  # noqa: PLC0415  # as above

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self._model = BertModel.from_pretrained(checkpoint, dtype=self._torch.float64).eval()
        self._lock = threading.Lock()

    def __call__(self, text: str) -> NDArray[np.float64]:
        """Compute the mean of a text's last hidden states [hidden]."""
        inputs = self._tokenizer(text, truncation=True, max_length=40, return_tensors="pt")
        with self._lock, self._torch.no_grad():
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
        enough = self.outcomes[200] + more
        self._service.until(lambda: self.outcomes[200] >= enough)

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


def descriptors(pid: int) -> int:
    """Count a process' open files."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
