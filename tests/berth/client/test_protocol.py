"""What both clients make of answers that are not what was asked for: to try again, or an error."""

import pickle
from typing import Any

import httpx
import numpy as np
import pytest

from berth import AsyncClient, Client, ServiceError
from service.settings import Settings
from tests.berth.client.conftest import Ask, Fake, refusal, vectors


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("headers", "delays"),
    [
        ({"retry-after": "3"}, [3, 3]),
        ({"retry-after": "0"}, [0, 0]),
        ({"retry-after": "3600"}, [30, 30]),
        ({"retry-after": "-5"}, [0, 0]),
        ({"retry-after": "nan"}, [1, 2]),
        ({"retry-after": "inf"}, [30, 30]),
        ({"retry-after": "Wed, 21 Oct 2065 07:28:00 GMT"}, [1, 2]),
        ({}, [1, 2]),
    ],
)
def test_busy_is_asked_again_when_it_says(
    fake: Fake, ask: Ask, slept: list[float], status: int, headers: dict[str, str], delays: list[float]
) -> None:
    fake.one_after_the_other(refusal(status, **headers), refusal(status, **headers))
    np.testing.assert_array_equal(ask("embed", "7"), [7, 7])
    assert slept == delays
    assert [asked.body for asked in fake.asked] == [{"input": ["7"]}] * 3


def test_the_other_methods_ask_again_too(fake: Fake, ask: Ask, slept: list[float]) -> None:
    info = (200, {"content-type": "application/json"}, b'{"model_id": "tug"}')
    fake.one_after_the_other(refusal(503, **{"retry-after": "2"}), info)
    assert ask("info") == {"model_id": "tug"}
    assert slept == [2]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_end(fake: Fake, ask: Ask, slept: list[float], retries: int) -> None:
    fake.answer = lambda _: refusal(429)
    with pytest.raises(ServiceError) as error:
        ask("embed", "7", options={"retries": retries})
    assert error.value.status == 429
    assert (len(fake.asked), len(slept)) == (retries + 1, retries)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 502, 504])
def test_other_errors_are_not_asked_again(fake: Fake, ask: Ask, slept: list[float], status: int) -> None:
    fake.one_after_the_other(refusal(status, **{"retry-after": "1"}))
    with pytest.raises(ServiceError) as error:
        ask("embed", "7")
    assert error.value.status == status
    assert (len(fake.asked), slept) == (1, [])


def test_errors_tell_what_the_service_says(fake: Fake, ask: Ask) -> None:
    fake.answer = lambda _: refusal(400)
    with pytest.raises(ServiceError) as caught:
        ask("embed", ["7", ""])
    error = caught.value
    assert (error.status, error.param, error.code) == (400, "input[1]", "x")
    assert str(error) == "400: input[1]: must not be empty"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"", "Bad Gateway"),
        (b"x" * 1000, "x" * 200),
        (b'{"error": "no", "error_type": "Backend"}', '"Backend"'),
        (b'{"detail": "no"}', '"detail"'),
        (b'{"error": {"message": "no"}}', '"message"'),
        (b"[1]", "[1]"),
        (b"3", "3"),
        (b"null", "null"),
        (b"\xff\xfe", "502"),
    ],
)
def test_a_proxys_error_is_told_as_it_is(fake: Fake, ask: Ask, body: bytes, text: str) -> None:
    fake.answer = lambda _: (502, {"content-type": "text/html"}, body)
    with pytest.raises(ServiceError) as caught:
        ask("embed", "7")
    assert (caught.value.status, caught.value.param, caught.value.code) == (502, None, None)
    assert str(caught.value).startswith("502: ")
    assert text in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b"[1]", b"null", b'{"data": [1]}', b'{"data": 1}'])
@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("embed", ["7"]),
        ("features", [["7"], [{"pooling": "cls"}]]),
        ("similarity", ["7", "8"]),
        ("tokenize", ["7"]),
        ("detokenize", [[[1]]]),
    ],
)
def test_an_answer_that_is_not_berths_is_an_error(
    fake: Fake, ask: Ask, method: str, arguments: list[Any], body: bytes
) -> None:
    fake.answer = lambda _: (200, {"content-type": "text/html"}, body)
    with pytest.raises(ServiceError) as caught:
        ask(method, *arguments)
    assert str(caught.value) == f"200: this is no answer of Berth's: {body.decode() or 'OK'}"


@pytest.mark.parametrize("shape", ["2,2", "a", ""])
def test_vectors_of_another_shape_than_they_say_are_an_error(fake: Fake, ask: Ask, shape: str) -> None:
    fake.answer = lambda _: (200, {"x-shape": shape, "x-dtype": "float32"}, b"1234")
    with pytest.raises(ServiceError, match="200: this is no answer of Berth's: 1234"):
        ask("embed", "7")


@pytest.mark.parametrize(
    ("method", "arguments", "place"),
    [
        ("embed", [["1", "2", "3", "\ud83d"]], r"input\[3\]"),
        ("features", [["1", "2", ("3", "\udc00!")], [{"pooling": "cls"}]], r"inputs\[2\]\[1\]"),
        ("features", [[{"tokens": ["a", "\ud800"]}], [{"pooling": "cls"}]], r"inputs\[0\]\.tokens\[1\]"),
        ("similarity", ["1", "\ud800"], "target"),
        ("tokenize", [["1", "\ud800"]], r"inputs\[1\]"),
    ],
)
def test_half_a_character_is_told_with_its_place(
    fake: Fake, ask: Ask, method: str, arguments: list[Any], place: str
) -> None:
    fake.answer = lambda asked: vectors(asked) if method == "embed" else (200, {}, b'{"data": []}')
    with pytest.raises(ValueError, match=f"^{place}: holds half a character"):
        ask(method, *arguments, options={"batch_size": 2})


def test_characters_beyond_the_first_plane_go_as_they_are(fake: Fake, ask: Ask) -> None:
    fake.answer = lambda _: (200, {"content-type": "application/json"}, b'{"data": [{"tokens": []}]}')
    assert ask("tokenize", "\U0001f642") == [[]]
    assert fake.asked[0].body["inputs"] == "\U0001f642"


def test_a_client_waits_longer_than_the_service_takes(fake: Fake) -> None:
    """So that its 504 is there first."""
    for client in (Client(fake.url), AsyncClient(fake.url)):
        assert (client._http.timeout.read or 0) > Settings().request_timeout


def test_a_service_that_is_not_there_is_httpx_error(ask: Ask, fake: Fake) -> None:
    fake.close()
    with pytest.raises(httpx.ConnectError):
        ask("embed", "7")


def test_errors_can_be_pickled() -> None:
    """As they must be to leave a process of a pool."""
    error = pickle.loads(pickle.dumps(ServiceError(400, "no", "input", "code")))
    assert (str(error), error.status, error.param, error.code) == ("400: no", 400, "input", "code")
