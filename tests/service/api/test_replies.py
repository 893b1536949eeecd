"""How the answers go out."""

import asyncio
import base64
from importlib import util

import numpy as np
import orjson
import pyarrow as pa
import pytest
from fastapi import Request
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from berth.errors import InvalidInputError
from berth.text.tokenizer import Token
from service.api import replies
from service.api.replies import LARGE_REPLY, PIECE, binary_reply, encode_vector, json_reply, large_json_reply, negotiate

VALUES = [0.1, 1 / 3, -0.0, 1e-45, 1.1754944e-38, 3.4028235e38, 16777217.0, 0.30000001192092896]
ARROW = "application/vnd.apache.arrow.stream"


def request(accept: str | None) -> Request:
    headers = [] if accept is None else [(b"accept", accept.encode())]
    return Request({"type": "http", "headers": headers})


def test_numbers_round_trip_float32_exactly() -> None:
    random = np.random.default_rng(0).integers(0, 2**32, size=20_000, dtype=np.uint32).view(np.float32)
    vector = np.concatenate([np.array(VALUES, dtype=np.float32), random[np.isfinite(random)]])
    read = np.array(orjson.loads(json_reply({"v": vector}).body)["v"], dtype=np.float32)
    assert read.tobytes() == vector.tobytes()


def test_base64_is_little_endian_float32() -> None:
    expected = base64.b64encode(b"\0\0\x80\x3f\0\0\0\xc0").decode()
    assert encode_vector(np.array([1.0, -2.0], dtype=np.float32), "base64") == expected
    assert encode_vector(np.array([1.0], dtype=">f4"), "base64") == "AACAPw=="


@pytest.mark.parametrize(
    ("vector", "text"),
    [
        (np.array([1.0, -2.0], dtype=np.float16), "ADwAwA=="),
        (np.array([127, -1], dtype=np.int8), "f/8="),
        (np.array([[1, 2], [3, 4]], dtype=np.int8), ["AQI=", "AwQ="]),
        (np.empty((0, 2), dtype=np.float32), []),
    ],
    ids=str,
)
def test_base64_of_other_types_and_of_rows(vector: replies.Array, text: object) -> None:
    assert encode_vector(vector, "base64") == text


@pytest.mark.parametrize(
    ("vector", "json"),
    [
        (np.array([0.5, -2.0], dtype=np.float16), b'{"v":[0.5,-2.0]}'),
        (np.array([127, -127], dtype=np.int8), b'{"v":[127,-127]}'),
        (np.array([[1, 2], [3, 4]], dtype=np.float32), b'{"v":[[1.0,2.0],[3.0,4.0]]}'),
        (np.array([[1, 2], [3, 4]], dtype=np.float32).T, b'{"v":[[1.0,3.0],[2.0,4.0]]}'),
        (np.empty((0, 2), dtype=np.float32), b'{"v":[]}'),
    ],
    ids=str,
)
def test_numbers_of_every_type(vector: replies.Array, json: bytes) -> None:
    assert json_reply({"v": encode_vector(vector, "float")}).body == json


@pytest.mark.parametrize("numbers", [1, LARGE_REPLY])
def test_large_replies_are_the_same(numbers: int) -> None:
    reply = asyncio.run(large_json_reply(lambda: {"v": [1.5]}, numbers))
    assert (reply.body, reply.media_type) == (b'{"v":[1.5]}', "application/json")


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/octet-stream", "raw"),
        ("application/octet-stream, application/json;q=0.5", "raw"),
        (ARROW, "arrow"),
    ],
)
def test_form_is_the_callers_choice(accept: str | None, media: str) -> None:
    assert negotiate(request(accept)) == media


def test_arrow_without_pyarrow_is_refused_with_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "find_spec", lambda name: None if name == "pyarrow" else util.find_spec(name))
    with pytest.raises(InvalidInputError, match="not installed here; application/octet-stream does not") as error:
        negotiate(request(ARROW))
    assert error.value.param == "Accept"
    assert negotiate(request("application/octet-stream")) == "raw"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_raw_bytes_say_their_shape_and_type(dtype: str) -> None:
    vectors = np.arange(6).reshape(2, 3).astype(dtype)
    reply = asyncio.run(binary_reply(vectors, "raw"))
    assert (reply.headers["x-shape"], reply.headers["x-dtype"]) == ("2,3", dtype)
    assert reply.headers["content-type"] == "application/octet-stream"
    assert reply.body == vectors.tobytes()
    other_order = vectors.astype(vectors.dtype.newbyteorder(">"))
    assert asyncio.run(binary_reply(other_order, "raw")).body == vectors.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_arrow_is_one_column_of_vectors(dtype: str) -> None:
    vectors = np.arange(6).reshape(2, 3).astype(dtype)
    reply = asyncio.run(binary_reply(vectors, "arrow"))
    assert reply.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(reply.body).read_all()
    assert table.schema.field("embedding").type == pa.list_(pa.from_numpy_dtype(vectors.dtype), 3)
    assert table["embedding"].to_pylist() == vectors.tolist()


def test_large_reply_is_spelled_as_a_small_one() -> None:
    content = {"object": "list", "data": [{"embedding": np.arange(3, dtype=np.float32)}, {}], "usage": {"a": [1, None]}}
    many = list(range(2 * PIECE + 1))
    matches = [[{"index": index, "score": index / 2} for index in many[:last]] for last in (0, 1, PIECE, len(many))]
    tables = [{"tokens": [Token(index, "a", 0, 1, None, False) for index in many]}, {"error": {"code": "a"}}]
    rows = [np.eye(2, dtype=np.float32), np.zeros((0, 2)), np.zeros((2, PIECE + 1)), np.array(many) / 3]
    for each in (content, [np.zeros(2, dtype=np.float32)], many, matches, tables, *rows, rows, {}, [], None):
        small, large = (asyncio.run(large_json_reply(lambda: each, numbers)) for numbers in (1, LARGE_REPLY))  # noqa: B023
        assert small.body == large.body


shapes = array_shapes(min_dims=2, max_dims=2, max_side=12)
finite = arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))


@settings(max_examples=300, deadline=None)
@given(vectors=finite)
def test_any_float32_comes_back_exactly_in_every_form(vectors: replies.Array) -> None:
    expected = vectors.tobytes()
    numbers = orjson.loads(json_reply(encode_vector(vectors, "float")).body)
    assert np.array(numbers, dtype=np.float32).tobytes() == expected
    large = asyncio.run(large_json_reply(lambda: [encode_vector(row, "float") for row in vectors], LARGE_REPLY))
    assert np.array(orjson.loads(large.body), dtype=np.float32).tobytes() == expected
    rows = orjson.loads(json_reply(encode_vector(vectors, "base64")).body)
    assert b"".join(map(base64.b64decode, rows)) == expected
    assert asyncio.run(binary_reply(vectors, "raw")).body == expected
    table = pa.ipc.open_stream(asyncio.run(binary_reply(vectors, "arrow")).body).read_all()
    column = table["embedding"].combine_chunks().flatten()
    assert column.to_numpy().tobytes() == expected


@settings(max_examples=200, deadline=None)
@given(vectors=arrays(np.float16, shapes, elements=st.floats(width=16, allow_nan=False, allow_infinity=False)))
def test_any_float16_comes_back_exactly_in_every_form(vectors: replies.Array) -> None:
    numbers = orjson.loads(json_reply(encode_vector(vectors, "float")).body)
    assert np.array(numbers, dtype=np.float16).tobytes() == vectors.tobytes()
    assert asyncio.run(binary_reply(vectors, "raw")).body == vectors.tobytes()
