"""Both Python clients against a server on loopback that answers what a test wants, and that counts.

tests/end_to_end/test_berth_client.py has them against the real service.
"""

import asyncio
import gc
import json
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, assert_type

import httpx
import numpy as np
import pytest
import tqdm.auto

import berth
from berth import AsyncClient, Client, Features, ServiceError
from berth.protocol import Array
from service.settings import Settings

BOUND = 20.0
"""Seconds after which a test's threads count as stuck."""
ERROR = {"message": "input[1]: must not be empty", "type": "invalid_request_error", "param": "input[1]", "code": "x"}

Reply = tuple[int, dict[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


def vectors(asked: Asked) -> Reply:
    """Answer each text, a number in these tests, with that number twice."""
    numbers = np.array([[float(text)] * 2 for text in asked.body["input"]], dtype="<f4")
    headers = {"x-shape": ",".join(map(str, numbers.shape)), "x-dtype": "float32"}
    return 200, {"content-type": "application/octet-stream", **headers}, numbers.tobytes()


def refusal(status: int, **headers: str) -> Reply:
    return status, {"content-type": "application/json", **headers}, json.dumps({"error": ERROR}).encode()


class Fake:
    """A server, what it was asked, and the most requests that it had at one time."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Reply] = vectors
        self.asked: list[Asked] = []
        self.answered = 0
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def one_after_the_other(self, *replies: Reply) -> None:
        """Give these answers, and then vectors."""
        left = list(replies)
        self.answer = lambda asked: left.pop(0) if left else vectors(asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            return self.answer(asked)
        finally:
            with self._lock:
                self._now -= 1
                self.answered += 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, json.loads(content) if content else None)
                status, more, body = fake.serve(asked)
                self.send_response(status)
                for name, value in {**more, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815  # http.server's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
                pass

        return Handler


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Fake()
    yield server
    server.close()


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, fake: Fake) -> Ask:
    """Give a function that calls a method of a client of the fake server: of one client, then of the other."""

    def of_client(method: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        with Client(fake.url, **(options or {})) as client:
            return getattr(client, method)(*args, **kwargs)

    def of_async_client(method: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(fake.url, **(options or {})) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    return of_client if request.param == "sync" else of_async_client


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give the seconds that the clients have slept; they do not really."""
    seconds: list[float] = []

    async def sleep(delay: float) -> None:
        seconds.append(delay)

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            seconds.append(timeout)
            return self.is_set()

    monkeypatch.setattr("berth.client.Event", Impatient)
    monkeypatch.setattr("berth.async_client.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return seconds


# What is asked and what is given


def test_one_text_gives_one_vector(fake: Fake, ask: Ask) -> None:
    np.testing.assert_array_equal(ask("embed", "7"), [7, 7])
    [asked] = fake.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/v1/embeddings", {"input": ["7"]})
    assert asked.headers["accept"] == "application/octet-stream"
    assert asked.headers["content-type"] == "application/json"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize("make", [list, tuple, iter, lambda texts: (text for text in texts)])
def test_any_iterable_gives_a_row_a_text(ask: Ask, make: Callable[[list[str]], Any]) -> None:
    found = ask("embed", make(["3", "1", "2"]))
    assert (found.shape, found.dtype) == ((3, 2), np.float32)
    np.testing.assert_array_equal(found[:, 0], [3, 1, 2])


@pytest.mark.parametrize("empty", [[], iter(())])
def test_nothing_gives_nothing_and_asks_nothing(fake: Fake, ask: Ask, empty: Any) -> None:
    found = ask("embed", empty)
    assert (found.shape, found.dtype) == ((0, 0), np.float32)
    assert ask("features", [], [{"pooling": "cls"}]) == []
    assert fake.asked == []


def test_arrays_are_the_callers_to_write(ask: Ask) -> None:
    for texts in ("7", ["7"], ["7", "8"]):
        found = ask("embed", texts)
        found *= 2
        assert found.ravel()[0] == 14


def test_api_key_goes_as_a_bearer_token(fake: Fake, ask: Ask) -> None:
    ask("embed", "7", options={"api_key": "secret"})
    assert fake.asked[0].headers["authorization"] == "Bearer secret"


def test_options_go_as_fields(fake: Fake, ask: Ask) -> None:
    truncate = {"window": 64, "stride": 32}
    ask("embed", ["7"], prompt_name="query", truncate=truncate, dimensions=2, embedding_type="float32")
    assert fake.asked[0].body == {
        "input": ["7"],
        "prompt_name": "query",
        "truncate": truncate,
        "dimensions": 2,
        "embedding_type": "float32",
    }


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_arrays_have_the_type_that_the_service_names(fake: Fake, ask: Ask, dtype: str) -> None:
    numbers = np.arange(6).astype(np.dtype(dtype).newbyteorder("<"))
    fake.answer = lambda _: (200, {"x-shape": "2,3", "x-dtype": dtype}, numbers.tobytes())
    found = ask("embed", ["a", "b"])
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, numbers.reshape(2, 3))


def test_a_path_before_the_routes_is_kept(fake: Fake) -> None:
    with Client(f"{fake.url}/berth/") as client:
        client.embed("7")
    assert fake.asked[0].path == "/berth/v1/embeddings"


# Batches


@pytest.mark.parametrize(
    ("texts", "batch_size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (5, 1, [1] * 5), (150, 64, None)]
)
def test_long_lists_go_in_batches(fake: Fake, ask: Ask, texts: int, batch_size: int, sizes: list[int] | None) -> None:
    numbers = list(range(texts))
    found = ask("embed", map(str, numbers), options={"batch_size": batch_size, "concurrency": 1})
    np.testing.assert_array_equal(found[:, 0], numbers)
    assert [len(asked.body["input"]) for asked in fake.asked] == (sizes or [64, 64, 22])


def test_requests_are_under_way_together_but_never_more_than_allowed(fake: Fake, ask: Ask) -> None:
    """Each answer waits until three requests are there: fewer would never be answered."""
    together = threading.Barrier(3)

    def answer(asked: Asked) -> Reply:
        together.wait(BOUND)
        return vectors(asked)

    fake.answer = answer
    numbers = list(range(24))
    found = ask("embed", map(str, numbers), options={"batch_size": 2, "concurrency": 3})
    np.testing.assert_array_equal(found[:, 0], numbers)
    assert (fake.most, len(fake.asked)) == (3, 12)


def test_order_is_kept_where_the_first_answer_comes_last(fake: Fake, ask: Ask) -> None:
    others = threading.Semaphore(0)

    def answer(asked: Asked) -> Reply:
        if "0" not in asked.body["input"]:
            others.release()
        else:
            for _ in range(3):
                assert others.acquire(timeout=BOUND), "the other requests come without waiting for the first"
        return vectors(asked)

    fake.answer = answer
    found = ask("embed", map(str, range(10)), options={"batch_size": 1, "concurrency": 4})
    np.testing.assert_array_equal(found[:, 0], range(10))


def test_an_iterable_is_read_no_further_than_is_asked(fake: Fake, ask: Ask) -> None:
    read = 0
    furthest: list[int] = []

    def texts() -> Iterator[str]:
        nonlocal read
        for number in range(100):
            read += 1
            yield str(number)

    def answer(asked: Asked) -> Reply:
        furthest.append(read - 5 * fake.answered)
        return vectors(asked)

    fake.answer = answer
    ask("embed", texts(), options={"batch_size": 5, "concurrency": 2})
    assert max(furthest) <= 2 * 5


def test_an_error_ends_the_rest(fake: Fake, ask: Ask) -> None:
    fake.answer = lambda asked: refusal(400) if "3" in asked.body["input"] else vectors(asked)
    with pytest.raises(ServiceError):
        ask("embed", map(str, range(100)), options={"batch_size": 1, "concurrency": 2})
    assert len(fake.asked) <= 3 + 2


def test_what_waits_to_ask_again_ends_with_the_rest(fake: Fake, ask: Ask) -> None:
    """The first text is always put off for half a minute; it is asked once, for then the whole is over."""
    put_off = threading.Event()

    def answer(asked: Asked) -> Reply:
        if asked.body["input"] == ["1"]:
            put_off.set()
            return refusal(429, **{"retry-after": "30"})
        put_off.wait(BOUND)
        return refusal(400)

    fake.answer = answer
    with pytest.raises(ServiceError) as caught:
        ask("embed", ["1", "2", "3"], options={"batch_size": 1, "concurrency": 3})
    assert caught.value.status == 400
    assert [asked.body["input"] for asked in fake.asked].count(["1"]) == 1


def test_what_waits_to_ask_again_ends_with_ctrl_c(fake: Fake) -> None:
    put_off = threading.Event()

    def answer(asked: Asked) -> Reply:
        put_off.set()
        return refusal(429, **{"retry-after": "30"})

    def texts() -> Iterator[str]:
        yield "1"
        put_off.wait(BOUND)
        raise KeyboardInterrupt

    fake.answer = answer
    with pytest.raises(KeyboardInterrupt), Client(fake.url, batch_size=1) as client:
        client.embed(texts())
    assert len(fake.asked) == 1


def test_an_error_of_the_iterables_own_comes_through(ask: Ask) -> None:
    def texts() -> Iterator[str]:
        yield from ("1", "2", "3")
        raise LookupError("the file ends here")

    with pytest.raises(LookupError, match="the file ends here"):
        ask("embed", texts(), options={"batch_size": 1, "concurrency": 2})


def test_errors_of_several_requests_are_one_error(fake: Fake, ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """The others are not left behind, for asyncio to complain of when they are collected."""
    others = threading.Semaphore(0)

    def answer(asked: Asked) -> Reply:
        if asked.body["input"] != ["1"]:
            others.release()
        else:
            for _ in range(3):
                assert others.acquire(timeout=BOUND)
            time.sleep(0.05)  # for their errors to arrive first; if they do not, the test shows nothing
        return refusal(400)

    fake.answer = answer
    with pytest.raises(ServiceError):
        ask("embed", ["1", "2", "3", "4"], options={"batch_size": 1, "concurrency": 4})
    gc.collect()
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []


def test_one_client_serves_several_threads(fake: Fake) -> None:
    with Client(fake.url, batch_size=2) as client, ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda number: client.embed([str(number)] * 5), range(32)))
    for number, array in enumerate(found):
        np.testing.assert_array_equal(array, np.full((5, 2), number))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"concurrency": 0}, {"retries": -1}])
@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_numbers_that_make_no_sense_are_refused(client: Any, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        client(**options)


# Trying again


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


# Errors


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


# Progress


class Bar:
    """Stands in for tqdm."""

    made: list["Bar"]

    def __init__(self, unit: str) -> None:
        assert unit == "text"
        self.steps: list[int] = []
        self.closed = False
        type(self).made.append(self)

    def update(self, steps: int) -> None:
        self.steps.append(steps)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Bar]:
    Bar.made = []
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)
    return Bar.made


def test_a_bar_on_request_counts_texts(ask: Ask, bars: list[Bar]) -> None:
    ask("embed", map(str, range(7)), progress=True, options={"batch_size": 3})
    assert [(bar.steps, bar.closed) for bar in bars] == [([3, 3, 1], True)]


def test_no_bar_unless_asked_for(ask: Ask, bars: list[Bar], capfd: pytest.CaptureFixture[str]) -> None:
    ask("embed", ["1", "2"])
    assert bars == []
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_closed_after_an_error(fake: Fake, ask: Ask, bars: list[Bar]) -> None:
    fake.answer = lambda _: refusal(400)
    with pytest.raises(ServiceError):
        ask("embed", ["1"], progress=True)
    assert [(bar.steps, bar.closed) for bar in bars] == [([], True)]


def test_the_bar_is_tqdms(ask: Ask, capfd: pytest.CaptureFixture[str]) -> None:
    ask("embed", map(str, range(7)), progress=True)
    assert "7text" in capfd.readouterr().err


def test_a_bar_without_tqdm_says_what_to_install(fake: Fake, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    np.testing.assert_array_equal(ask("embed", "7"), [7, 7])
    with pytest.raises(ImportError, match="pip install tqdm"):
        ask("embed", "7", progress=True)
    assert len(fake.asked) == 1


# The package


def test_closed_clients_ask_nothing_more(fake: Fake) -> None:
    with Client(fake.url) as client:
        client.embed("7")
    with pytest.raises(RuntimeError):
        client.embed("7")
    other = Client(fake.url)
    other.close()
    with pytest.raises(RuntimeError):
        other.info()

    async def main() -> None:
        async with AsyncClient(fake.url) as client:
            await client.embed("7")
        with pytest.raises(RuntimeError):
            await client.embed("7")

    asyncio.run(main())


def test_types_are_there_for_those_who_check_them() -> None:
    assert (Path(berth.__file__).parent / "py.typed").is_file(), "without it (PEP 561) mypy takes `berth` for untyped"


def _types(client: Client) -> None:
    """Checked by mypy, never run."""
    assert_type(client.embed("a"), Array)
    assert_type(client.embed(["a"], truncate={"window": 64}, embedding_type="int8"), Array)
    assert_type(client.features(["a", ("a", "b")], [{"pooling": "cls"}]), list[Features | ServiceError])
    assert_type(client.tokenize("a"), list[list[dict[str, Any]]])
    assert_type(client.detokenize([[101, 102]]), list[str])
    client.embed("a", dimension=3)  # type: ignore[call-arg]
    client.embed("a", embedding_type="float64")  # type: ignore[arg-type]
