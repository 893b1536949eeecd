"""How a server is asked and how its answer is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from berth.types import Float32Array


@dataclass(frozen=True, slots=True)
class Dialect:
    """A route, its body and the vectors in its answer."""

    path: str
    body: Callable[[list[str], str | None], dict[str, Any]]
    vectors: Callable[[Any], list[list[float]]]
    accept: str = "application/json"
    own_lengths: bool = False
    """Whether its vectors are of another length than the model's: TEI's are of 1, bert-as-service's as they come."""

    def ask(self, texts: list[str], model: str | None) -> bytes:
        """Give a request's body."""
        return orjson.dumps(self.body(texts, model))

    def read(self, answer: bytes) -> Float32Array:
        """Give an answer's vectors, [texts, width]; raises `ValueError` where it holds something else."""
        try:
            return np.array(self.vectors(orjson.loads(answer)), dtype=np.float32)
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not an answer of {self.path}: {answer[:80]!r}") from error


def _openai_body(texts: list[str], model: str | None) -> dict[str, Any]:
    return {"input": texts} if model is None else {"input": texts, "model": model}


def _openai_vectors(answer: Any) -> list[list[float]]:
    return [item["embedding"] for item in sorted(answer["data"], key=lambda item: int(item["index"]))]


@dataclass(frozen=True, slots=True)
class RawDialect(Dialect):
    """Vectors as raw bytes."""

    width: int = 0

    def read(self, answer: bytes) -> Float32Array:
        """Give an answer's vectors, [texts, width]; raises `ValueError` where it is not made of such rows."""
        return np.frombuffer(answer, dtype="<f4").reshape(-1, self.width)


def raw_bytes(width: int) -> RawDialect:
    """How Berth is asked for vectors of some width as raw bytes, which cost a client next to nothing to read."""
    return RawDialect("/v1/embeddings", _openai_body, list, "application/octet-stream", width=width)


DIALECTS = {
    "openai": Dialect("/v1/embeddings", _openai_body, _openai_vectors),
    "tei": Dialect("/embed", lambda texts, _: {"inputs": texts}, list, own_lengths=True),
    "bert-as-service": Dialect(
        "/encode",
        lambda texts, _: {"id": 1, "texts": texts, "is_tokenized": False},
        lambda answer: answer["result"],
        own_lengths=True,
    ),
}
