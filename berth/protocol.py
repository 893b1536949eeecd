"""What both clients say and understand: calls, their answers, and when to try again."""

import asyncio
import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, Literal, TypedDict, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
R = TypeVar("R")

Array = NDArray[Any]
Input = str | tuple[str, str] | Mapping[str, Sequence[str]]
"""A text, a pair, or `{"tokens": [words already split]}`."""
Truncate = Literal["end", "start", "middle", "error"] | Mapping[str, Any]
"""Where a long text is cut, `{"head": 64}`, or `{"window": 256, "stride": 192, "combine": "mean"}`."""

BASE_URL = "http://127.0.0.1:8080"
RAW = "application/octet-stream"
RETRIED = (429, 503)
MAX_DELAY = 30.0
"""Seconds."""


class ServiceError(Exception):
    """The service answered with an error; `status` is HTTP's, `param` names the field, `code` the kind."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message, param, code)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def __str__(self) -> str:
        """Say status and message."""
        return f"{self.status}: {self.message}"


@dataclass(frozen=True, slots=True)
class Features:
    """An input's answer: an array a feature, [width] or [tokens or words, width], and what was read of the input."""

    features: list[Array]
    token_count: int
    truncated: bool
    tokens: list[dict[str, Any]] | None


class EmbedOptions(TypedDict, total=False):
    """What may be said beside the texts to embed."""

    prompt_name: str
    truncate: Truncate
    dimensions: int
    embedding_type: Literal["float32", "float16", "int8", "binary"]


class FeatureOptions(TypedDict, total=False):
    """What may be said beside the inputs and their features."""

    truncate: Truncate
    include_tokens: bool
    on_error: Literal["fail", "report"]


class SimilarityOptions(TypedDict, total=False):
    """What may be said beside the texts to compare."""

    metric: Literal["cosine", "dot", "euclidean", "manhattan"]
    pairwise: bool
    top_k: int
    granularity: Literal["text", "token"]
    pooling: str
    layers: list[int]
    merge: Any
    exclude_special: bool
    truncate: Truncate


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request of some texts, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Mapping[str, Any] | None = None
    accept: str = "application/json"
    texts: int = 1
    first: int = 0
    """The place of its first text in the whole list, to which errors' places are corrected."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[T, R]):
    """The calls that a long list takes, and how their answers become one."""

    calls: Iterable[Call[T]]
    merge: Callable[[list[T]], R]


def embed(texts: str | Iterable[str], batch_size: int, options: EmbedOptions) -> Plan[Array, Array]:
    """Ask for vectors: [width] for one text, [texts, width] for several, [0, 0] for none."""
    one = isinstance(texts, str)
    batches = batched([texts] if isinstance(texts, str) else texts, batch_size)
    calls = (
        Call("POST", "/v1/embeddings", _read_raw, {"input": batch, **options}, RAW, len(batch), number * batch_size)
        for number, batch in enumerate(batches)
    )
    return Plan(calls, lambda parts: parts[0][0] if one else _stacked(parts))


def features(
    inputs: Iterable[Input], wanted: Sequence[Mapping[str, Any]], batch_size: int, options: FeatureOptions
) -> Plan[list[Features | ServiceError], list[Features | ServiceError]]:
    """Ask for features; numbers travel as base64."""
    fields = {"features": list(wanted), "encoding_format": "base64", **options}

    def call(first: int, batch: list[Input]) -> Call[list[Features | ServiceError]]:
        read = partial(_read_features, first=first)
        return Call("POST", "/v1/features", read, {"inputs": batch, **fields}, texts=len(batch), first=first)

    calls = (call(number * batch_size, batch) for number, batch in enumerate(batched(inputs, batch_size)))
    return Plan(calls, lambda parts: list(chain.from_iterable(parts)))


def similarity(source: str | Sequence[str], target: str | Sequence[str], options: SimilarityOptions) -> Call[Any]:
    """Ask how near texts are to each other."""
    body = {"source": source, "target": target, **options}
    return Call("POST", "/v1/similarity", _read_similarity, body)


def tokenize(texts: str | Sequence[str], add_special_tokens: bool) -> Call[list[list[dict[str, Any]]]]:
    """Ask for each text's tokens."""
    body = {"inputs": texts, "add_special_tokens": add_special_tokens}
    return Call("POST", "/v1/tokenize", lambda response: [item["tokens"] for item in response.json()["data"]], body)


def detokenize(ids: Sequence[Sequence[int]], skip_special_tokens: bool) -> Call[list[str]]:
    """Ask for the texts that token ids stand for."""
    body = {"ids": ids, "skip_special_tokens": skip_special_tokens}
    return Call("POST", "/v1/detokenize", lambda response: list(response.json()["texts"]), body)


def info() -> Call[dict[str, Any]]:
    """Ask for the model and the limits."""
    return Call("GET", "/info", lambda response: dict(response.json()))


def check_counts(batch_size: int, concurrency: int, retries: int) -> None:
    """Raise `ValueError` where a client could not work with its counts."""
    for name, value, least in (("batch_size", batch_size, 1), ("concurrency", concurrency, 1), ("retries", retries, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")


def headers(api_key: str | None) -> dict[str, str]:
    """Give the headers that every call has."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


def arguments(call: Call[Any]) -> dict[str, Any]:
    """Give what httpx's `request` takes beside method and path."""
    return {"json": call.body, "headers": {"Accept": call.accept}}


def answer(call: Call[T], response: httpx.Response) -> T:
    """Read an answer; raises `ServiceError` where it is an error."""
    if response.is_success:
        return call.read(response)
    try:
        raise _error(response.status_code, response.json()["error"], call.first)
    except (ValueError, KeyError, TypeError):  # not Berth's: a proxy's, say
        raise ServiceError(response.status_code, response.text[:200] or response.reason_phrase) from None


def delay(response: httpx.Response, attempt: int) -> float:
    """Give the seconds to wait before the next attempt: what the service says, or else 1, 2, 4, …"""
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        seconds = 2.0**attempt
    return min(max(seconds, 0.0), MAX_DELAY)


def first_is_done(under_way: Sequence[Future[T]] | Sequence[asyncio.Future[T]]) -> bool:
    """Say whether the first of some calls has its answer; raises the error of the first that has one."""
    for future in under_way:
        if future.done():
            future.result()
    return under_way[0].done()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut an iterable into lists of a size."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _stacked(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)


def _read_similarity(response: httpx.Response) -> Any:
    content = response.json()
    if "matches" in content:
        return content["matches"]
    scores = content["scores"]
    if "max_sim" in content:
        return {**content, "scores": np.array(scores)}
    return np.array(scores) if isinstance(scores, list) else scores


def _read_raw(response: httpx.Response) -> Array:
    shape = [int(part) for part in response.headers["x-shape"].split(",")]
    dtype = np.dtype(response.headers["x-dtype"]).newbyteorder("<")
    return np.frombuffer(bytearray(response.content), dtype=dtype).reshape(shape)  # writable, as bytes are not


def _error(status: int, error: Mapping[str, Any], first: int) -> ServiceError:
    """Read an error; `input[3]` in it counts from the batch's first text, and is made to count from the list's."""

    def placed(text: str) -> str:
        return re.sub(r"\b(inputs?)\[(\d+)\]", lambda found: f"{found[1]}[{int(found[2]) + first}]", text)

    param = error["param"]
    return ServiceError(status, placed(error["message"]), placed(param) if param else None, error["code"])


def _read_features(response: httpx.Response, first: int) -> list[Features | ServiceError]:
    return [_item(item, first) for item in response.json()["data"]]


def _item(item: Mapping[str, Any], first: int) -> Features | ServiceError:
    if "error" in item:
        return _error(500 if item["error"]["type"] == "server_error" else 400, item["error"], first)
    arrays = [_array(feature) for feature in item["features"]]
    return Features(arrays, item["token_count"], item["truncated"], item.get("tokens"))


def _array(feature: str | list[str]) -> Array:
    rows = [feature] if isinstance(feature, str) else feature
    array = np.frombuffer(bytearray().join(map(base64.b64decode, rows)), dtype="<f4")
    return array if isinstance(feature, str) else array.reshape(len(rows), len(array) // max(len(rows), 1))
