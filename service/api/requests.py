"""How a request comes in: admitted before its body is read, the body bounded, parsed and held to a deadline."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from service.api.doors import holder_of
from service.api.errors import Shape, openai_shape
from service.api.state import State
from service.errors import BerthError, DeadlineError, InvalidInputError, MalformedError, TooLargeError

TIMEOUT_HEADER = "X-Request-Timeout"
LARGE_BODY = 1 << 18
"""Bytes from which a body is parsed off the event loop."""

WATCH_TURNS = 3

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRequest(Request):
    """A request whose JSON body is bounded in size and time, and whose sender is watched while it is answered."""

    @property
    def deadline(self) -> float:
        """The time of the event loop's clock by which the answer must be there."""
        deadline: float = self.state.deadline
        return deadline

    async def stream(self) -> AsyncGenerator[bytes]:
        """Yield the body, and fail as soon as it is known to be too large."""
        limit = self._berth.settings.max_body_bytes
        announced = self.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            raise _body_too_large(limit)
        received = 0
        async for chunk in super().stream():
            received += len(chunk)
            if received > limit:
                raise _body_too_large(limit)
            yield chunk

    async def body(self) -> bytes:
        """Read the body whole, before the deadline."""
        try:
            async with asyncio.timeout_at(self.deadline):
                body = await super().body()
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the body had arrived") from error
        # The watch for a hang-up begins with the body's end and needs a few turns of the loop to tell: a client that
        # left with its request already sent must not cost its tokenization.
        for _ in range(WATCH_TURNS):
            await asyncio.sleep(0)
        return body

    async def json(self) -> Any:
        """Parse the body: strict JSON in UTF-8, without NaN and lone surrogates."""
        body = await self.body()
        try:
            return orjson.loads(body) if len(body) < LARGE_BODY else await asyncio.to_thread(orjson.loads, body)
        except orjson.JSONDecodeError as error:
            raise MalformedError("", f"the body is not valid JSON: {error}") from error

    @property
    def _berth(self) -> State:
        state: State = self.app.state.berth
        return state


class JsonRoute(APIRoute):
    """A route that reads a JSON body as `JsonRequest` does."""

    error_shape: Shape = staticmethod(openai_shape)
    """The dialect of the route's errors."""

    def admit(self, state: State, request: Request) -> None:  # noqa: ARG002  # what encodes asks more of it
        """Raise what turns a request away before its body is read."""
        state.loaded()

    def get_route_handler(self) -> Handler:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            state: State = request.app.state.berth
            request.state.error_shape = self.error_shape
            self.admit(state, request)
            _check_content_type(request)
            request.state.deadline = asyncio.get_running_loop().time() + _timeout(
                request, state.settings.request_timeout
            )
            try:
                return await handle(JsonRequest(request.scope, request.receive))
            except HTTPException as error:  # FastAPI hides in it whatever the reading of a body raises
                if isinstance(error.__cause__, BerthError | ClientDisconnect):
                    raise error.__cause__ from None
                raise

        return handle_json


class EncoderRoute(JsonRoute):
    """A route that uses the encoder: it is turned away while the queue is full."""

    def admit(self, state: State, request: Request) -> None:
        """Raise `NotReadyError`, `OverloadedError` or `RateLimitError`."""
        state.loaded().runner.admit()
        if (holder := holder_of(request)) is not None and holder.allowance is not None:
            holder.allowance.check()


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
