"""berth.Client and berth.AsyncClient against the service; tests/berth/test_client.py has what needs a fake one."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from berth import AsyncClient, Client, Features, ServiceError

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service

SHIP, BOAT, BREAD = "a ship in harbour", "a boat at its berth", "a slice of bread"
TEXTS = [SHIP, BREAD, "a", BOAT * 3, "Straße 😀"]
Ask = Callable[..., Any]
Floats = NDArray[np.float64]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, service: "Service") -> Ask:
    """Give a function that calls a method of a client: of one client, then of the other."""

    def of_client(method: str, *args: Any, **kwargs: Any) -> Any:
        with Client(service.url, batch_size=2, concurrency=3) as client:
            return getattr(client, method)(*args, **kwargs)

    def of_async_client(method: str, *args: Any, **kwargs: Any) -> Any:
        async def call() -> Any:
            async with AsyncClient(service.url, batch_size=2, concurrency=3) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())

    return of_client if request.param == "sync" else of_async_client


def expected(http: httpx.Client, texts: list[str], **fields: object) -> Floats:
    data = http.post("/v1/embeddings", json={"input": texts, **fields}).json()["data"]
    return np.array([item["embedding"] for item in data])


@pytest.mark.parametrize("texts", [TEXTS, TEXTS[:1], TEXTS * 20])
def test_embed_gives_the_services_vectors(http: httpx.Client, ask: Ask, texts: list[str]) -> None:
    found = ask("embed", (text for text in texts))
    assert (found.shape, found.dtype) == ((len(texts), 384), np.float32)
    np.testing.assert_allclose(found, expected(http, texts), atol=1e-6)
    one = ask("embed", texts[0])
    assert one.shape == (384,)
    np.testing.assert_allclose(one, found[0], atol=1e-6)


@pytest.mark.parametrize(
    ("embedding_type", "dtype", "width"),
    [("float32", np.float32, 384), ("float16", np.float16, 384), ("int8", np.int8, 384), ("binary", np.int8, 48)],
)
def test_types_of_numbers(http: httpx.Client, ask: Ask, embedding_type: str, dtype: type, width: int) -> None:
    found = ask("embed", TEXTS, embedding_type=embedding_type)
    assert (found.shape, found.dtype) == ((len(TEXTS), width), np.dtype(dtype))
    np.testing.assert_allclose(
        found.astype(float), expected(http, TEXTS, embedding_type=embedding_type), atol=1 if dtype == np.int8 else 1e-3
    )


def test_options_reach_the_service(http: httpx.Client, ask: Ask) -> None:
    assert ask("embed", TEXTS, dimensions=64).shape == (len(TEXTS), 64)
    text = f"{SHIP} {'ship ' * 300} {BREAD}"
    for truncate in ("start", "middle", {"window": 64, "stride": 32, "combine": "max"}):
        found = ask("embed", text, truncate=truncate)
        np.testing.assert_allclose(found, expected(http, [text], truncate=truncate)[0], atol=1e-5)
    with pytest.raises(ServiceError, match="the model takes 256") as error:
        ask("embed", text, truncate="error")
    assert (error.value.status, error.value.param) == (400, "input[0]")


def test_features_of_all_kinds_of_input(http: httpx.Client, ask: Ask) -> None:
    inputs = [SHIP, (SHIP, BOAT), {"tokens": ["unbelievably", "thin"]}, BREAD]
    features = [{"pooling": "cls"}, {"pooling": "none"}, {"pooling": "words", "layers": [-2, -1], "merge": "concat"}]
    found = ask("features", iter(inputs), features, include_tokens=True)
    body = {"inputs": inputs, "features": features, "include_tokens": True}
    data = http.post("/v1/features", json=body).json()["data"]
    for item, answer in zip(found, data, strict=True):
        assert isinstance(item, Features)
        assert [array.dtype for array in item.features] == [np.float32] * 3
        for array, numbers in zip(item.features, answer["features"], strict=True):
            np.testing.assert_allclose(array, numbers, atol=1e-5)
        assert item.tokens == answer["tokens"]
        assert (item.token_count, item.truncated) == (len(answer["tokens"]), False)
    assert [array.shape for array in found[2].features] == [(384,), (found[2].token_count, 384), (2, 768)]


def test_features_without_tokens_have_none(ask: Ask) -> None:
    [item] = ask("features", ["ship " * 300], [{"pooling": "mean"}])
    assert (item.tokens, item.token_count, item.truncated) == (None, 256, True)


def test_reported_errors_stand_where_their_inputs_stood(ask: Ask) -> None:
    found = ask("features", [SHIP, "", BREAD, "", BOAT], [{"pooling": "cls"}], on_error="report")
    assert [type(item) for item in found] == [Features, ServiceError, Features, ServiceError, Features]
    assert (found[1].status, found[1].code) == (400, "invalid_value")
    assert "must not be empty" in str(found[1])
    with pytest.raises(ServiceError, match="must not be empty"):
        ask("features", [SHIP, ""], [{"pooling": "cls"}])


def test_features_arrays_are_the_callers_to_write(ask: Ask) -> None:
    [item] = ask("features", [SHIP], [{"pooling": "cls"}, {"pooling": "none"}])
    for array in item.features:
        array[...] = 0
        assert not array.any()


def test_similarity_has_the_shape_of_its_texts(http: httpx.Client, ask: Ask) -> None:
    vectors = expected(http, [SHIP, BOAT, BREAD])
    matrix = vectors @ vectors.T
    one = ask("similarity", SHIP, BOAT)
    assert isinstance(one, float)
    assert one == pytest.approx(matrix[0, 1], abs=1e-5)
    np.testing.assert_allclose(ask("similarity", SHIP, [BOAT, BREAD]), matrix[0, 1:], atol=1e-5)
    np.testing.assert_allclose(ask("similarity", [BOAT, BREAD], SHIP), matrix[1:, 0], atol=1e-5)
    np.testing.assert_allclose(ask("similarity", [SHIP, BOAT], [BOAT, BREAD]), matrix[:2, 1:], atol=1e-5)
    np.testing.assert_allclose(
        ask("similarity", [SHIP, BOAT], [BOAT, BREAD], pairwise=True), [matrix[0, 1], matrix[1, 2]], atol=1e-5
    )
    euclidean = ask("similarity", SHIP, BOAT, metric="euclidean")
    assert euclidean == pytest.approx(-np.linalg.norm(vectors[0] - vectors[1]), abs=1e-5)


def test_similarity_with_top_k_gives_matches(ask: Ask) -> None:
    found = ask("similarity", [SHIP, BREAD], [BOAT, "a loaf of bread", "the sea"], top_k=2)
    assert [[sorted(match) for match in matches] for matches in found] == [[["index", "score"]] * 2] * 2
    assert found[1][0]["index"] == 1


def test_similarity_by_token_gives_a_matrix_and_both_tables(ask: Ask) -> None:
    found = ask("similarity", SHIP, BREAD, granularity="token")
    tables = found["source_tokens"], found["target_tokens"]
    assert found["scores"].shape == tuple(map(len, tables))
    assert found["max_sim"] == pytest.approx(found["scores"].max(1).sum(), abs=1e-4)


def test_tokens_there_and_back(ask: Ask) -> None:
    [tokens] = ask("tokenize", SHIP)
    assert [token["text"] for token in tokens] == ["[CLS]", "a", "ship", "in", "harbour", "[SEP]"]
    [bare] = ask("tokenize", [SHIP], add_special_tokens=False)
    assert [token["id"] for token in bare] == [token["id"] for token in tokens[1:-1]]
    ids = [token["id"] for token in tokens]
    assert ask("detokenize", [ids, ids[2:3]]) == [SHIP, "ship"]
    assert ask("detokenize", [ids], skip_special_tokens=False) == [f"[CLS] {SHIP} [SEP]"]


def test_info(http: httpx.Client, ask: Ask) -> None:
    assert ask("info") == http.get("/info").json()


def test_one_async_client_serves_many_calls_at_once(service: "Service", http: httpx.Client) -> None:
    async def main() -> Any:
        async with AsyncClient(service.url, batch_size=2) as client:
            return await asyncio.gather(*(client.embed(TEXTS) for _ in range(10)))

    for found in asyncio.run(main()):
        np.testing.assert_allclose(found, expected(http, TEXTS), atol=1e-5)
