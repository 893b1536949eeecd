"""How the answers go out: bytes made by orjson, for large ones off the event loop."""

import asyncio
import base64
from typing import Any

import orjson
from fastapi import Response

from service.inference.types import Float32Array

LARGE_REPLY = 1 << 16
"""Numbers from which a reply is made off the event loop."""


def json_reply(content: Any) -> Response:
    """Make a reply; float32 arrays come out with as many digits as it takes to read them back exactly."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def large_json_reply(content: Any, numbers: int) -> Response:
    """Make a reply that holds some count of numbers."""
    return json_reply(content) if numbers < LARGE_REPLY else await asyncio.to_thread(json_reply, content)


def base64_of(vector: Float32Array) -> str:
    """Spell a vector as OpenAI does: base64 of little-endian float32."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
