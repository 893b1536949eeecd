"""What both clients say and understand: calls, their answers, and when to try again."""

import asyncio
import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
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
TIMEOUT = 75.0
"""Seconds. More than a request may take in the service where nothing else is set: its 504 says what went wrong, and is
to be there before the client no longer listens."""
RETRIED = (429, 503)
NO_VECTORS = np.empty((0, 0), dtype=np.float32)
MAX_DELAY = 30.0
"""Seconds."""
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a character of UTF-16, which files of broken JSON leave in texts, and which UTF-8 does not have."""


class ServiceError(Exception):
    """The service answered with an error, or what answered is no Berth.

    `status` is HTTP's, `param` names the field, `code` the kind.
    """

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
    return Plan(calls, lambda parts: parts[0][0] if one else np.concatenate(parts or [NO_VECTORS]))


def features(
    inputs: Iterable[Input], requested: Sequence[Mapping[str, Any]], batch_size: int, options: FeatureOptions
) -> Plan[list[Features | ServiceError], list[Features | ServiceError]]:
    """Ask for features; numbers travel as base64."""
    fields = {"features": list(requested), "encoding_format": "base64", **options}

    def call(first: int, batch: list[Input]) -> Call[list[Features | ServiceError]]:
        def read(response: httpx.Response) -> list[Features | ServiceError]:
            return [_item(item, first) for item in response.json()["data"]]

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


def arguments(call: Call[Any]) -> dict[str, Any]:
    """Give what httpx's `request` takes beside method and path; raises `ValueError` for a text that is not Unicode."""
    headers = {"Accept": call.accept}
    if call.body is None:
        return {"headers": headers}
    return {"content": _encoded(call.body, call.first), "headers": headers | {"Content-Type": "application/json"}}


def _encoded(body: Mapping[str, Any], first: int) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        place = next((place for place, text in _texts(body) if SURROGATE.search(text)), "the request")
        raise ValueError(f"{_placed(place, first)}: holds half a character (a lone surrogate of UTF-16)") from None


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """List the texts in a body, each behind its place."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _texts(part, f"{place}.{key}" if place else key)
    elif isinstance(value, Sequence):
        for number, part in enumerate(value):
            yield from _texts(part, f"{place}[{number}]")


def answer(call: Call[T], response: httpx.Response) -> T:
    """Read an answer; raises `ServiceError` where it is an error, or not Berth's: a proxy's, say."""
    try:
        if response.is_success:
            return call.read(response)
        raise _error(response.status_code, response.json()["error"], call.first)
    except (ValueError, KeyError, TypeError):
        said = response.text[:200] or response.reason_phrase
        message = f"this is no answer of Berth's: {said}" if response.is_success else said
        raise ServiceError(response.status_code, message) from None


def delay(response: httpx.Response, attempt: int) -> float:
    """Give the seconds to wait before the next attempt: what the service says, or else 1, 2, 4, …"""
    try:
        seconds = float(response.headers["retry-after"])
    except (KeyError, ValueError):
        seconds = math.nan
    if math.isnan(seconds):
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
    param = error["param"]
    return ServiceError(
        status, _placed(error["message"], first), _placed(param, first) if param else None, error["code"]
    )


def _placed(text: str, first: int) -> str:
    """Have `input[3]` in a text, which counts from the batch's first text, count from the list's."""
    return re.sub(r"\b(inputs?)\[(\d+)\]", lambda found: f"{found[1]}[{int(found[2]) + first}]", text)


def _item(item: Mapping[str, Any], first: int) -> Features | ServiceError:
    if "error" in item:
        return _error(500 if item["error"]["type"] == "server_error" else 400, item["error"], first)
    arrays = [_array(feature) for feature in item["features"]]
    return Features(arrays, item["token_count"], item["truncated"], item.get("tokens"))


def _array(feature: str | list[str]) -> Array:
    rows = [feature] if isinstance(feature, str) else feature
    array = np.frombuffer(bytearray().join(map(base64.b64decode, rows)), dtype="<f4")
    return array if isinstance(feature, str) else array.reshape(len(rows), len(array) // max(len(rows), 1))
