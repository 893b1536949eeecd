"""One table from exceptions to replies; the routes never catch."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from service.errors import (
    BerthError,
    DeadlineError,
    EmptyError,
    EncoderError,
    InvalidInputError,
    MalformedError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    RateLimitError,
    TooLargeError,
    UnauthorizedError,
)

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True, eq=False)  # two kinds may be spelled alike here and differently in a dialect
class Kind:
    """How a failure is reported: HTTP status, and the `type` and `code` of OpenAI's shape."""

    status: int
    type: str
    code: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What is to be said of a failure, whatever the shape in which it is said."""

    kind: Kind
    message: str
    param: str | None


Shape = Callable[[Failure], tuple[int, dict[str, Any]]]
"""A dialect: how a failure's status and body are spelled for the clients of some routes."""

INTERNAL = Kind(500, "server_error", "internal_error")

KINDS: dict[type[BerthError], Kind] = {
    InvalidInputError: Kind(400, "invalid_request_error", "invalid_value"),
    MalformedError: Kind(400, "invalid_request_error", "invalid_request"),
    UnauthorizedError: Kind(401, "invalid_request_error", "invalid_api_key"),
    EmptyError: Kind(400, "invalid_request_error", "invalid_request"),
    ModelNotFoundError: Kind(404, "invalid_request_error", "model_not_found"),
    TooLargeError: Kind(413, "invalid_request_error", "too_large"),
    OverloadedError: Kind(429, "rate_limit_error", "overloaded"),
    RateLimitError: Kind(429, "rate_limit_error", "rate_limit_exceeded"),
    NotReadyError: Kind(503, "server_error", "not_ready"),
    DeadlineError: Kind(504, "server_error", "deadline_exceeded"),
    EncoderError: Kind(500, "server_error", "encoder_error"),
}


MAX_MESSAGE = 1000
MAX_PARAM = 200
"""Characters of an error's message and of its field's name, which may be one that the caller made up."""

EMPTY = ("too_short", "empty")
"""pydantic's word for a list that is too short, and that of `fields.py`."""


class ErrorDetails(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """The body of every error of Berth's own routes and OpenAI's."""

    error: ErrorDetails


def add_error_handlers(app: FastAPI) -> None:
    """Answer every failure in the shape of its route's dialect, OpenAI's unless the route has another."""
    app.add_exception_handler(BerthError, _berth_error)
    app.add_exception_handler(HTTPException, _http_exception)


def failure_of(error: BerthError) -> Failure:
    """Say what a failure is."""
    return Failure(KINDS[type(error)], str(error), getattr(error, "param", None) or None)


def openai_shape(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Spell a failure as OpenAI does, and as Berth's own routes do."""
    kind = failure.kind
    error = {"message": failure.message, "type": kind.type, "param": failure.param, "code": kind.code}
    return kind.status, {"error": error}


def unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw: the caller learns nothing of it, the log everything."""
    route = getattr(request.scope.get("route"), "path", "unmatched")
    logger.error("%s %s failed", request.method, route, exc_info=error)
    return _reply(request, Failure(INTERNAL, "an error inside the service; its log says what", None))


def shut_down(request: Request) -> Response:
    """Answer a request that the shutdown could not wait for any longer."""
    return refusal(request, NotReadyError("the service is shutting down"))


def refusal(request: Request, error: BerthError) -> Response:
    """Answer one of the failures that Berth itself reports."""
    headers = {}
    if isinstance(error, OverloadedError | RateLimitError):
        headers["Retry-After"] = retry_after(error)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return _reply(request, failure_of(error), **headers)


def retry_after(error: OverloadedError | RateLimitError) -> str:
    """Say in how many seconds to come again, as HTTP does: whole ones."""
    return str(max(1, math.ceil(error.retry_after)))


def invalid_body(error: ValidationError) -> MalformedError:
    """Say what is wrong with a body, and where."""
    # Of a union's errors, one for each member, the one that got furthest into the value says most.
    details = max(error.errors(include_url=False), key=lambda details: len(details["loc"]))
    param = _field(details["loc"])
    message = str(details["msg"]).removeprefix("Value error, ")
    kind = EmptyError if details["type"] in EMPTY else MalformedError
    return kind(param, message if param else f"the body: {message}")


async def _berth_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BerthError), "registered for it alone"
    return refusal(request, error)


def _field(location: Sequence[str | int]) -> str:
    """Spell a place in the body as one would in code, `input[3]`; a union's tags, in angle brackets, are left out."""
    parts = [part for part in location if not str(part).startswith("<")]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it alone"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    kind = Kind(error.status_code, "invalid_request_error", code)
    return _reply(request, Failure(kind, f"{request.method}: {error.detail}", None), **(error.headers or {}))


def _reply(request: Request, failure: Failure, **headers: str) -> Response:
    """Make the reply, and note the failure's code for the metrics."""
    request.state.error_code = failure.kind.code
    shape: Shape = getattr(request.state, "error_shape", openai_shape)
    status, body = shape(_bounded(failure))
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _bounded(failure: Failure) -> Failure:
    """Cut what is said of a failure, which may repeat a field's name, however long its caller made it."""
    param = failure.param[:MAX_PARAM] if failure.param else failure.param
    return Failure(failure.kind, failure.message[:MAX_MESSAGE], param)
