"""How the answers go out."""

import asyncio
import base64

import numpy as np
import orjson
import pytest

from service.api.replies import LARGE_REPLY, base64_of, json_reply, large_json_reply

VALUES = [0.1, 1 / 3, -0.0, 1e-45, 1.1754944e-38, 3.4028235e38, 16777217.0, 0.30000001192092896]


def test_numbers_round_trip_float32_exactly() -> None:
    random = np.random.default_rng(0).integers(0, 2**32, size=20_000, dtype=np.uint32).view(np.float32)
    vector = np.concatenate([np.array(VALUES, dtype=np.float32), random[np.isfinite(random)]])
    read = np.array(orjson.loads(json_reply({"v": vector}).body)["v"], dtype=np.float32)
    assert read.tobytes() == vector.tobytes()


def test_base64_is_little_endian_float32() -> None:
    assert base64_of(np.array([1.0, -2.0], dtype=np.float32)) == base64.b64encode(b"\0\0\x80\x3f\0\0\0\xc0").decode()
    assert base64_of(np.array([1.0], dtype=">f4").astype(np.float32)) == "AACAPw=="


@pytest.mark.parametrize("numbers", [1, LARGE_REPLY])
def test_large_replies_are_the_same(numbers: int) -> None:
    reply = asyncio.run(large_json_reply({"v": [1.5]}, numbers))
    assert (reply.body, reply.media_type) == (b'{"v":[1.5]}', "application/json")
