"""How the answers go out: JSON made by orjson, raw bytes or Arrow; large ones are made off the event loop."""

import asyncio
import base64
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray

from berth.errors import InvalidInputError

LARGE_REPLY = 1 << 16
"""Numbers from which a reply is made off the event loop."""
TOKEN_NUMBERS = 8
"""How many numbers take as long to write as a token of a table."""
PIECE = 1024
"""Numbers, tokens or matches that are written in one go."""

JSON = "application/json"
RAW = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

Media = Literal["json", "raw", "arrow"]
MEDIA: dict[str, Media] = {JSON: "json", RAW: "raw", ARROW: "arrow"}
Array = NDArray[Any]


def json_reply(content: Any) -> Response:
    """Make a reply; float32 arrays come out with as many digits as it takes to read them back exactly."""
    return _json_response(_dumps(content))


async def large_json_reply(content: Callable[[], Any], numbers: int) -> Response:
    """Make a reply of what a function gives, which holds some count of numbers; it may be called in another thread."""
    if numbers < LARGE_REPLY:
        return json_reply(content())
    return _json_response(await asyncio.to_thread(lambda: _in_pieces(content())))


def _in_pieces(content: Any) -> bytes:
    """Spell piece by piece: orjson holds the interpreter for the whole of a call, and the event loop with it."""
    match content:
        case dict():
            return b"{" + b",".join(_dumps(key) + b":" + _in_pieces(value) for key, value in content.items()) + b"}"
        case list() | np.ndarray() if len(content) and not _is_flat(content[0]):
            return b"[" + b",".join(map(_in_pieces, content)) + b"]"
        case list() | np.ndarray():
            pieces = (content[start : start + PIECE] for start in range(0, len(content), PIECE))
            return b"[" + b",".join(_dumps(piece)[1:-1] for piece in pieces) + b"]"
        case _:
            return _dumps(content)


def _is_flat(content: Any) -> bool:
    if isinstance(content, dict):
        return all(map(_is_flat, content.values()))
    return not isinstance(content, list | np.ndarray)


def _dumps(content: Any) -> bytes:
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _json_response(body: bytes) -> Response:
    return Response(body, media_type=JSON)


def negotiate(request: Request) -> Media:
    """Say in what form the caller wants vectors; JSON unless it names one of the others."""
    weights = _weights(request.headers.get("accept", ""))
    media_type = max((JSON, RAW, ARROW), key=lambda media: weights.get(media, 0.0))
    if media_type == ARROW and find_spec("pyarrow") is None:
        raise InvalidInputError("Accept", f"{ARROW} needs pyarrow, which is not installed here; {RAW} does not")
    return MEDIA[media_type]


@lru_cache(maxsize=64)  # clients send few different ones
def _weights(accept: str) -> dict[str, float]:
    """Read the media types of an Accept header and their weights (RFC 9110, 12.5.1); one that is malformed counts 0."""
    weights = {}
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((value[2:] for value in parameters if value.startswith("q=")), "1")
        weights[media.lower()] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
    return weights


async def binary_reply(vectors: Array, media: Media, scales: Sequence[float] = ()) -> Response:
    """Make a reply of vectors [n, width]: raw bytes, row-major and little-endian, or a stream of Arrow columns.

    The columns are `embedding` and, where there are scales, `scale`; raw bytes are the vectors alone.
    """
    if media == "raw" and vectors.size < LARGE_REPLY:
        return _binary_reply(vectors, media, scales)
    return await asyncio.to_thread(_binary_reply, vectors, media, scales)  # importing pyarrow too takes its time


def _binary_reply(vectors: Array, media: Media, scales: Sequence[float]) -> Response:
    headers = {"x-shape": ",".join(map(str, vectors.shape)), "x-dtype": str(vectors.dtype)}
    if media == "raw":
        return Response(_little_endian(vectors), headers=headers, media_type=RAW)
    return Response(_arrow(vectors, scales), headers=headers, media_type=ARROW)


def encode_vector(vector: Array, encoding_format: Literal["float", "base64"]) -> Any:
    """Spell a vector [width], or rows of them, as numbers or as base64 of its little-endian bytes, as OpenAI does."""
    if encoding_format == "float":
        return vector.astype(np.float32) if vector.dtype == np.float16 else np.ascontiguousarray(vector)
    if vector.ndim == 1:
        return base64.b64encode(_little_endian(vector)).decode("ascii")
    return [encode_vector(row, encoding_format) for row in vector]


def _little_endian(vectors: Array) -> bytes:
    return vectors.astype(vectors.dtype.newbyteorder("<"), copy=False).tobytes()


def _arrow(vectors: Array, scales: Sequence[float]) -> bytes:
    import pyarrow as pa  # noqa: PLC0415  # an optional package, and slow to import

    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {"embedding": column} | ({"scale": pa.array(scales, pa.float32())} if len(scales) else {})
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream
