"""How a request comes in: admitted before its body is read, bounded, parsed, and all of it held to a deadline."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from inspect import signature
from typing import Any, get_type_hints

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from service.api.doors import holder_of
from service.api.errors import Shape, invalid_body, openai_shape
from service.api.state import State
from service.errors import DeadlineError, InvalidInputError, MalformedError, TooLargeError
from service.inference.embedder import Limits

TIMEOUT_HEADER = "X-Request-Timeout"
LARGE_BODY = 1 << 18
"""Bytes from which a body is parsed and validated off the event loop."""

WATCH_TURNS = 3

TIMEOUT_PARAMETER = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "seconds within which to answer, or to say that it cannot be done",
    "schema": {"type": "number", "exclusiveMinimum": 0},
}

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRoute(APIRoute):
    """A route that takes a JSON body, bounded in size and time, and whose sender is watched while it is answered."""

    error_shape: Shape = staticmethod(openai_shape)
    """The dialect of the route's errors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Document the header that every such route has."""
        super().__init__(*args, **(options | {"openapi_extra": {"parameters": [TIMEOUT_PARAMETER]}}))

    def admit(self, state: State, request: Request) -> None:  # noqa: ARG002  # what encodes asks more of it
        """Raise what turns a request away before its body is read."""
        state.loaded()

    def get_route_handler(self) -> Handler:
        """Read, validate and answer. FastAPI's own handler, which can do much more, takes twice as long for it."""
        model = TypeAdapter(get_type_hints(self.endpoint, include_extras=True)["body"])
        wanted = signature(self.endpoint).parameters.keys()

        async def handle_json(request: Request) -> Response:
            state: State = request.app.state.berth
            noted = request.scope["state"]
            noted["error_shape"] = self.error_shape
            self.admit(state, request)
            _check_content_type(request)
            seconds = _timeout(request, state.settings.request_timeout)
            noted["deadline"] = deadline = asyncio.get_running_loop().time() + seconds
            awaited = "the body had arrived"
            try:
                async with asyncio.timeout_at(deadline):
                    content = await _read_body(request, state)
                    awaited = "the answer was ready"
                    body = await _body_of(model, content, state.loaded().embedder.limits)
                    arguments = {"body": body, "request": request, "state": state}
                    response: Response = await self.endpoint(**{name: arguments[name] for name in wanted})
            except TimeoutError as error:
                raise DeadlineError(f"the deadline passed before {awaited}") from error
            return response

        return handle_json


class EncoderRoute(JsonRoute):
    """A route that uses the encoder: it is turned away while the queue is full."""

    def admit(self, state: State, request: Request) -> None:
        """Raise `NotReadyError`, `OverloadedError` or `RateLimitError`."""
        others_inside = state.inside - 1
        overload = state.loaded().runner.overload(state.settings.request_timeout, inside=others_inside)
        if overload is not None:
            raise overload
        if (holder := holder_of(request)) is not None and holder.allowance is not None:
            holder.allowance.check()


async def _read_body(request: Request, state: State) -> bytes:
    """Read the body whole; fails as soon as it is known to be too large."""
    limit = state.settings.max_body_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise _body_too_large(limit)
    body = await _joined(request.receive, limit)
    # The watch for a hang-up begins with the body's end and needs a few turns of the loop to tell: where there are
    # others, a client that left with its request already sent must not cost its tokenization.
    if state.inside > 1:
        for _ in range(WATCH_TURNS):
            await asyncio.sleep(0)
    return body


async def _joined(receive: Receive, limit: int) -> bytes:
    pieces: list[bytes] = []
    received, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        pieces.append(message.get("body", b""))
        received += len(pieces[-1])
        if received > limit:
            raise _body_too_large(limit)
        more = message.get("more_body", False)
    return b"".join(pieces)


async def _body_of(model: TypeAdapter[Any], content: bytes, limits: Limits) -> Any:
    """Make of a body what its route takes; raises `MalformedError`, and `InvalidInputError` for too many texts."""
    validated = partial(_validated, model, content, limits)
    return validated() if len(content) < LARGE_BODY else await asyncio.to_thread(validated)


def _validated(model: TypeAdapter[Any], content: bytes, limits: Limits) -> Any:
    try:
        parsed = orjson.loads(content)  # strict JSON in UTF-8, without NaN and lone surrogates
    except orjson.JSONDecodeError as error:
        raise MalformedError("", f"the body is not valid JSON: {error}") from error
    try:
        return model.validate_python(parsed, context=limits)
    except ValidationError as error:
        raise invalid_body(error) from None


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


def _body_too_large(limit: int) -> TooLargeError:
    return TooLargeError("", f"the body is larger than {limit} bytes")
