"""One table from exceptions to replies."""

from typing import TYPE_CHECKING

import pytest

import berth.errors
from berth.errors import (
    ArtifactError,
    BerthError,
    DeadlineError,
    DeviceError,
    DeviceLostError,
    EncoderError,
    ExportFailedError,
    InvalidInputError,
    MalformedError,
    ModelNotFoundError,
    NotReadyError,
    OutOfMemoryError,
    OverloadedError,
    RateLimitError,
    TooLargeError,
    UnauthorizedError,
)
from service.api.errors import SPECS

if TYPE_CHECKING:
    from tests.service.api.conftest import MakeApi

TABLE: list[tuple[BerthError, int, str, str, str | None]] = [
    (InvalidInputError("input[3]", "is wrong"), 400, "invalid_request_error", "invalid_value", "input[3]"),
    (InvalidInputError("", "is wrong"), 400, "invalid_request_error", "invalid_value", None),
    (MalformedError("input", "is wrong"), 400, "invalid_request_error", "invalid_request", "input"),
    (MalformedError("", "is wrong"), 400, "invalid_request_error", "invalid_request", None),
    (ModelNotFoundError("no"), 404, "invalid_request_error", "model_not_found", None),
    (TooLargeError("input", "no"), 413, "invalid_request_error", "too_large", "input"),
    (TooLargeError("", "no"), 413, "invalid_request_error", "too_large", None),
    (OverloadedError("no", 2.5), 429, "rate_limit_error", "overloaded", None),
    (NotReadyError("no"), 503, "server_error", "not_ready", None),
    (RateLimitError("no", 2.5), 429, "rate_limit_error", "rate_limit_exceeded", None),
    (UnauthorizedError("no"), 401, "invalid_request_error", "invalid_api_key", None),
    (DeadlineError("no"), 504, "server_error", "deadline_exceeded", None),
    (EncoderError("input[1]: no"), 500, "server_error", "encoder_error", None),
]


@pytest.mark.parametrize(("error", "status", "type_", "code", "param"), TABLE, ids=repr)
def test_each_error_has_its_reply(
    make_api: "MakeApi", error: BerthError, status: int, type_: str, code: str, param: str | None
) -> None:
    api = make_api(None)

    @api.app.get("/fail")
    async def fail() -> None:
        raise error

    answer = api.get("/fail")
    assert answer.status_code == status
    assert answer.json() == {"error": {"message": str(error), "type": type_, "param": param, "code": code}}
    assert api.sample("berth_rejected_requests_total", reason=code) == 1


def test_table_has_every_error_that_a_request_can_meet() -> None:
    in_service = {
        kind
        for kind in vars(berth.errors).values()
        if isinstance(kind, type) and issubclass(kind, BerthError) and kind is not BerthError
    }
    never_told = {ArtifactError, DeviceError, DeviceLostError, ExportFailedError, OutOfMemoryError}
    assert in_service == {*SPECS, *never_told}


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.1, "2"), (59.5, "60")])
def test_retry_after_is_whole_seconds_and_at_least_one(make_api: "MakeApi", seconds: float, header: str) -> None:
    api = make_api(None)

    @api.app.get("/fail")
    async def fail() -> None:
        raise OverloadedError("full", seconds)

    assert api.get("/fail").headers["retry-after"] == header


def test_what_nobody_foresaw_is_logged_and_not_told(make_api: "MakeApi", caplog: pytest.LogCaptureFixture) -> None:
    api = make_api(None)

    @api.app.get("/fail")
    async def fail() -> None:
        raise KeyError("a secret path")

    answer = api.get("/fail", headers={"x-request-id": "mine"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "mine"
    assert "a secret path" in caplog.text


def test_what_the_caller_made_up_is_repeated_in_part(make_api: "MakeApi") -> None:
    api = make_api(None)

    @api.app.get("/fail")
    async def fail() -> None:
        raise InvalidInputError("y" * 100_000, "is wrong")

    told = api.get("/fail").json()["error"]
    assert (told["param"], told["message"]) == ("y" * 200, "y" * 1000)


def test_unforeseen_error_is_logged_with_its_route_and_not_its_path(
    make_api: "MakeApi", caplog: pytest.LogCaptureFixture
) -> None:
    api = make_api(None)

    @api.app.get("/fail/{name}")
    async def fail(name: str) -> None:
        raise KeyError("cause")

    assert api.get("/fail/zanzibar%0Aforged").status_code == 500
    assert "GET /fail/{name} failed" in caplog.text
    assert "zanzibar" not in caplog.text
