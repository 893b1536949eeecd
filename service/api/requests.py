"""How a JSON request comes in: turned away before its body is read, bounded, parsed, and all of it held to a deadline.

Beyond that its route is FastAPI's own: dependencies, headers, cookies and path parameters work as FastAPI documents.
"""

import asyncio
import math
from collections.abc import Callable, Collection, Coroutine
from typing import Any, get_type_hints

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from berth.batching.admission import Limits
from berth.errors import DeadlineError, InvalidInputError, MalformedError, TooLargeError
from service.api.errors import ErrorFormat, openai_format
from service.api.exchange import Exchange
from service.api.state import State

TIMEOUT_HEADER = "X-Request-Timeout"
LARGE_BODY = 1 << 18
"""Bytes from which a body is parsed off the event loop."""
TEXT_FIELDS = frozenset({"ids", "input", "inputs", "sentences", "source", "target", "texts"})
"""The fields whose lists are of texts."""
DISCONNECT_TURNS = 3

TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "seconds within which to answer, or to say that it cannot be done",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A route that takes a JSON body, bounded in size and time; a client that leaves ends the work for it."""

    error_format: ErrorFormat = staticmethod(openai_format)
    """The format of the route's errors."""
    encodes = False
    """Whether it uses the encoder, so that `LoadShedding` turns its requests away while the queue is full."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Document the header that every such route has."""
        extra = options.get("openapi_extra") or {}
        others = [each for each in extra.get("parameters", ()) if each != TIMEOUT_PARAMETER]
        options["openapi_extra"] = extra | {"parameters": [*others, TIMEOUT_PARAMETER]}
        super().__init__(*args, **options)

    def get_route_handler(self) -> Handler:
        """Read and parse the body within the deadline, then have FastAPI validate it and call the endpoint."""
        answer = super().get_route_handler()
        body = get_type_hints(self.endpoint, include_extras=True).get("body")
        schema = orjson.dumps(TypeAdapter(body).json_schema() if body else {}).decode()
        fields = {name for name in TEXT_FIELDS if f'"{name}":{{' in schema}

        async def handle_json(request: Request) -> Response:
            state: State = request.app.state.berth
            exchange: Exchange = request.state.exchange
            exchange.error_format = self.error_format
            self._admit(state, exchange)
            _check_content_type(request)
            seconds = _timeout(request, state.settings.request_timeout)
            exchange.deadline = asyncio.get_running_loop().time() + seconds
            awaited = "the body had arrived"
            state.inside += self.encodes
            try:
                async with asyncio.timeout_at(exchange.deadline):
                    content = await _read_body(request, state, alone=self.encodes and state.inside == 1)
                    # Where Starlette keeps them, for `body`, `json` and `stream`.
                    request._body, request._json = content, await _parsed(content, fields, state.limits)
                    awaited = "the answer was ready"
                    return await answer(request)
            except TimeoutError as error:
                raise DeadlineError(f"the deadline passed before {awaited}") from error
            finally:
                state.inside -= self.encodes

        return handle_json

    def _admit(self, state: State, exchange: Exchange) -> None:
        """Raise, before the body is read, `NotReadyError`, `OverloadedError` or `RateLimitError`."""
        for model in state.models.values():
            model.loaded()
        if not self.encodes:
            return
        if (overload := state.overload()) is not None:  # of those whom `LoadShedding` lets pass
            raise overload
        if exchange.api_key is not None and exchange.api_key.rate_limit is not None:
            exchange.api_key.rate_limit.check()


class EncoderRoute(JsonRoute):
    """A route that uses the encoder."""

    encodes = True


async def _read_body(request: Request, state: State, *, alone: bool) -> bytes:
    """Read the body whole; fails as soon as it is known to be too large."""
    limit = state.settings.max_body_bytes
    announced = request.headers.get("content-length", "").lstrip("0") or "0"
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    received, more = 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        received += len(pieces[-1])
        if received > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    # A client may have left after sending its request. That is known only some turns of the event loop after the body's
    # end; while other requests are under way, wait for it rather than tokenize for nobody.
    if not alone:
        for _ in range(DISCONNECT_TURNS):
            await asyncio.sleep(0)
    return b"".join(pieces)


async def _parsed(content: bytes, fields: Collection[str], limits: Limits) -> Any:
    """Parse a body; raises `MalformedError`, and `InvalidInputError` for more texts than one request may have."""
    try:  # strict JSON in UTF-8, without NaN and lone surrogates
        parsed = orjson.loads(content) if len(content) < LARGE_BODY else await asyncio.to_thread(orjson.loads, content)
    except orjson.JSONDecodeError as error:
        raise MalformedError("", f"the body is not valid JSON: {error}") from error
    _check_counts(parsed, fields, limits)
    return parsed


def _check_counts(parsed: Any, fields: Collection[str], limits: Limits, place: str = "") -> None:
    """Raise before an object is made of each of ten million texts or token ids."""
    for name, value in parsed.items() if isinstance(parsed, dict) else ():
        if name in fields and isinstance(value, list) and value:
            if type(value[0]) is not int:
                limits.check_count(place + name, len(value))
            elif len(value) > limits.text_chars:
                raise InvalidInputError(place + name, f"{len(value)} token ids, at most {limits.text_chars}")
        elif name in fields and not place:
            _check_counts(value, fields, limits, f"{name}.")


def _check_content_type(request: Request) -> None:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MalformedError("Content-Type", "must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise MalformedError("Content-Encoding", "a compressed body is not taken")


def _timeout(request: Request, limit: float) -> float:
    """Read the header that asks for a deadline sooner than the service's own, in seconds."""
    value = request.headers.get(TIMEOUT_HEADER)
    if value is None:
        return limit
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise InvalidInputError(TIMEOUT_HEADER, "must be a number of seconds above 0")
    return min(seconds, limit)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError("", f"the body is larger than {limit} bytes")
