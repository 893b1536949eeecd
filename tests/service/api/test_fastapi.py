"""What FastAPI documents works on a JSON route of ours: dependencies, headers, cookies, path and query parameters."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import APIRouter, Cookie, Depends, Header, Query, Request, Response
from pydantic import BaseModel

from berth.contract import FakeEncoder
from berth.errors import BerthError, OverloadedError
from service.api.requests import EncoderRoute, JsonRoute
from service.api.state import CurrentState

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

ended: list[str] = []


class Body(BaseModel):
    inputs: str


class BusyElsewhereError(OverloadedError):
    """A failure of a class that the table does not name."""


class UnheardOfError(BerthError):
    """One that has no base in the table either."""


async def tenant(x_tenant: Annotated[str, Header()]) -> AsyncIterator[str]:
    yield x_tenant.upper()
    ended.append(x_tenant)


@pytest.fixture(params=[JsonRoute, EncoderRoute])
def api(request: pytest.FixtureRequest, make_api: "MakeApi") -> "Api":
    """Give an application with a route that uses what FastAPI has, and two that fail."""
    router = APIRouter(route_class=request.param)

    @router.post("/of/{place}")
    async def everything(
        place: int,
        body: Body,
        who: Annotated[str, Depends(tenant)],
        state: CurrentState,
        limit: Annotated[int, Query(ge=1)] = 3,
        session: Annotated[str | None, Cookie()] = None,
    ) -> dict[str, Any]:
        model = state.model().name
        return {"place": place, "inputs": body.inputs, "who": who, "limit": limit, "session": session, "model": model}

    @router.post("/busy")
    async def busy(body: Body) -> Response:
        raise BusyElsewhereError(f"no room for {body.inputs}", 7)

    @router.post("/unheard-of")
    async def unheard_of(body: Body) -> Response:
        raise UnheardOfError(body.inputs)

    api = make_api(FakeEncoder())
    api.app.include_router(router)
    return api


def test_all_of_it_is_resolved(api: "Api") -> None:
    ended.clear()
    headers = {"x-tenant": "pier", "cookie": "session=s1"}
    answer = api.post("/of/4?limit=2", {"inputs": "a ship"}, headers=headers)
    assert answer.json() == {
        "place": 4,
        "inputs": "a ship",
        "who": "PIER",
        "limit": 2,
        "session": "s1",
        "model": api.state.model().name,
    }
    assert ended == ["pier"]


@pytest.mark.parametrize(
    ("path", "fields", "headers", "param"),
    [
        ("/of/4", {"inputs": "a"}, {}, "x-tenant"),
        ("/of/four", {"inputs": "a"}, {"x-tenant": "pier"}, "place"),
        ("/of/4?limit=0", {"inputs": "a"}, {"x-tenant": "pier"}, "limit"),
        ("/of/4", {"inputs": 5}, {"x-tenant": "pier"}, "inputs"),
        ("/of/4", {}, {"x-tenant": "pier"}, "inputs"),
    ],
)
def test_what_is_wrong_is_named(
    api: "Api", path: str, fields: dict[str, Any], headers: dict[str, str], param: str
) -> None:
    answer = api.post(path, fields, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_failure_is_looked_up_along_its_classes(api: "Api") -> None:
    answer = api.post("/busy", {"inputs": "a ship"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")
    assert answer.json()["error"]["code"] == "overloaded"
    assert answer.json()["error"]["message"] == "no room for a ship"


def test_failure_that_nothing_names_is_an_error_of_the_service(api: "Api") -> None:
    answer = api.post("/unheard-of", {"inputs": "a ship"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")


def test_body_can_be_read_in_each_of_starlettes_ways(make_api: "MakeApi") -> None:
    router = APIRouter(route_class=JsonRoute)

    async def ways(request: Request) -> list[Any]:
        return [(await request.body()).decode(), await request.json(), [part async for part in request.stream()]]

    @router.post("/ways", openapi_extra={"x-own": 1})
    async def route(body: Body, found: Annotated[list[Any], Depends(ways)]) -> dict[str, Any]:
        text, parsed, [first, *_] = found
        return {"text": text, "parsed": parsed, "stream": first.decode()}

    api = make_api(FakeEncoder())
    api.app.include_router(router)
    text = '{"inputs": "a ship"}'
    answer = api.post("/ways", content=text.encode(), headers={"content-type": "application/json"})
    assert answer.json() == {"text": text, "parsed": {"inputs": "a ship"}, "stream": text}
    operation = api.get("/openapi.json").json()["paths"]["/ways"]["post"]
    assert operation["x-own"] == 1
    assert "X-Request-Timeout" in {parameter["name"] for parameter in operation["parameters"]}
