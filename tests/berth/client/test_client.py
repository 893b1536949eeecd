"""Both Python clients: what is asked and given, and how much at once.

tests/end_to_end/test_berth_client.py has them against the real service.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, assert_type

import numpy as np
import pytest

import berth
from berth import AsyncClient, Client, Features, ServiceError
from berth.client.protocol import Array
from tests.berth.client.conftest import BOUND, Ask, Asked, Fake, Reply, refusal, vectors


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
