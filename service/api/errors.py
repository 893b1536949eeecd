"""One table from exceptions to replies; the routes never catch."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from berth.errors import (
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
from service.api.exchange import Exchange

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True, eq=False)  # two may be alike here and differ in a route's format
class ErrorSpec:
    """How a failure is reported: HTTP status, and the `type` and `code` of OpenAI's shape."""

    status: int
    type: str
    code: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What is to be said of a failure, whatever the shape in which it is said."""

    spec: ErrorSpec
    message: str
    param: str | None


ErrorFormat = Callable[[Failure], tuple[int, dict[str, Any]]]
"""How a failure's status and body are written for the clients of some routes."""

INTERNAL = ErrorSpec(500, "server_error", "internal_error")

SPECS: dict[type[BerthError], ErrorSpec] = {
    InvalidInputError: ErrorSpec(400, "invalid_request_error", "invalid_value"),
    MalformedError: ErrorSpec(400, "invalid_request_error", "invalid_request"),
    UnauthorizedError: ErrorSpec(401, "invalid_request_error", "invalid_api_key"),
    EmptyError: ErrorSpec(400, "invalid_request_error", "invalid_request"),
    ModelNotFoundError: ErrorSpec(404, "invalid_request_error", "model_not_found"),
    TooLargeError: ErrorSpec(413, "invalid_request_error", "too_large"),
    OverloadedError: ErrorSpec(429, "rate_limit_error", "overloaded"),
    RateLimitError: ErrorSpec(429, "rate_limit_error", "rate_limit_exceeded"),
    NotReadyError: ErrorSpec(503, "server_error", "not_ready"),
    DeadlineError: ErrorSpec(504, "server_error", "deadline_exceeded"),
    EncoderError: ErrorSpec(500, "server_error", "encoder_error"),
}

MAX_MESSAGE = 1000
MAX_PARAM = 200
"""Characters of an error's message and of its field's name, which may be one that the caller made up."""


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
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


def failure_of(error: BerthError) -> Failure:
    """Say what a failure is; a class that is not in the table is what the nearest of its bases is."""
    spec = next((SPECS[each] for each in type(error).__mro__ if each in SPECS), INTERNAL)
    return Failure(spec, str(error), getattr(error, "param", None) or None)


def openai_format(failure: Failure) -> tuple[int, dict[str, Any]]:
    """Spell a failure as OpenAI does, and as Berth's own routes do."""
    spec = failure.spec
    error = {"message": failure.message, "type": spec.type, "param": failure.param, "code": spec.code}
    return spec.status, {"error": error}


def unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw: the caller learns nothing of it, the log everything."""
    route = getattr(request.scope.get("route"), "path", "unmatched")
    logger.error("%s %s failed", request.method, route, exc_info=error)
    return _reply(request, Failure(INTERNAL, "an error inside the service; its log says what", None))


def refusal(request: Request, error: BerthError) -> Response:
    """Answer one of the failures that Berth itself reports."""
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = retry_after(error)
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    return _reply(request, failure_of(error), **headers)


def retry_after(error: OverloadedError) -> str:
    """Say in how many seconds to come again, as HTTP does: whole ones."""
    return str(max(1, math.ceil(error.retry_after)))


async def _invalid_request(request: Request, error: Exception) -> Response:
    """Say what of a request is not as its route takes it, and where."""
    assert isinstance(error, RequestValidationError), "registered for it alone"
    # Of a union's errors, one for each member, the one that got furthest into the value says most.
    details = max(error.errors(), key=lambda details: len(details["loc"]))
    place, *location = details["loc"]
    param = _field(location)
    message = str(details["msg"]).removeprefix("Value error, ")
    # `too_short` is pydantic's word for a list with too little in it, `empty` that of `fields.py`.
    kind = EmptyError if details["type"] in ("too_short", "empty") else MalformedError
    return await _berth_error(request, kind(param, message if param else f"the {place}: {message}"))


async def _berth_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BerthError), "registered for it alone"
    error.__traceback__ = None  # through its frames, which hold it, it would keep the body until a collection
    return refusal(request, error)


def _field(location: Sequence[str | int]) -> str:
    """Spell a place in the body as one would in code, `input[3]`; a union's tags, in angle brackets, are left out."""
    parts = [part for part in location if not str(part).startswith("<")]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it alone"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    spec = ErrorSpec(error.status_code, "invalid_request_error", code)
    return _reply(request, Failure(spec, f"{request.method}: {error.detail}", None), **(error.headers or {}))


def _reply(request: Request, failure: Failure, **headers: str) -> Response:
    """Make the reply, and note the failure's code for the metrics; what a caller made up is cut."""
    param = failure.param[:MAX_PARAM] if failure.param else failure.param
    bounded = Failure(failure.spec, failure.message[:MAX_MESSAGE], param)
    exchange: Exchange = request.state.exchange
    exchange.error_code = failure.spec.code
    status, body = (exchange.error_format or openai_format)(bounded)
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
