"""One table from exceptions to replies; the routes never catch."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from service.errors import (
    BerthError,
    DeadlineError,
    EncoderError,
    InvalidInputError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    TooLargeError,
)

logger = logging.getLogger("berth")


@dataclass(frozen=True, slots=True)
class Kind:
    """How a failure is reported: HTTP status, OpenAI's `type` and `code`."""

    status: int
    type: str
    code: str


INVALID = Kind(400, "invalid_request_error", "invalid_value")
INTERNAL = Kind(500, "server_error", "internal_error")

KINDS: dict[type[BerthError], Kind] = {
    InvalidInputError: INVALID,
    ModelNotFoundError: Kind(404, "invalid_request_error", "model_not_found"),
    TooLargeError: Kind(413, "invalid_request_error", "too_large"),
    OverloadedError: Kind(429, "rate_limit_error", "overloaded"),
    NotReadyError: Kind(503, "server_error", "not_ready"),
    DeadlineError: Kind(504, "server_error", "deadline_exceeded"),
    EncoderError: Kind(500, "server_error", "encoder_error"),
}


def add_error_handlers(app: FastAPI) -> None:
    """Answer every failure in the one shape, `{"error": {"message", "type", "param", "code"}}`."""
    app.add_exception_handler(BerthError, _berth_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)


def reply(request: Request, kind: Kind, message: str, param: str | None = None, **headers: str) -> Response:
    """Make the reply, and note its code for the metrics."""
    request.state.error_code = kind.code
    body = {"error": {"message": message, "type": kind.type, "param": param or None, "code": kind.code}}
    return Response(orjson.dumps(body), kind.status, headers, media_type="application/json")


async def _berth_error(request: Request, error: Exception) -> Response:
    kind = KINDS[type(error)]  # type: ignore[index]  # registered for BerthError alone
    headers = {}
    if isinstance(error, OverloadedError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return reply(request, kind, str(error), getattr(error, "param", None), **headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it alone"
    # Of a union's errors, one for each member, the one that got furthest into the value says most.
    details: dict[str, Any] = max(error.errors(), key=lambda details: len(details["loc"]))
    param = _field(details["loc"][1:])
    message = str(details["msg"]).removeprefix("Value error, ")
    return reply(request, INVALID, f"{param}: {message}" if param else f"the body: {message}", param)


def _field(location: Sequence[str | int]) -> str:
    """Spell a place in the body as one would in code: `input[3]`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it alone"
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    kind = Kind(error.status_code, "invalid_request_error", code)
    return reply(request, kind, f"{request.method} {request.url.path}: {error.detail}", **(error.headers or {}))


def unexpected(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw: the caller learns nothing of it, the log everything."""
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return reply(request, INTERNAL, "an error inside the service; its log says what")


def shut_down(request: Request) -> Response:
    """Answer a request that the shutdown could not wait for any longer."""
    return reply(request, KINDS[NotReadyError], "the service is shutting down")
