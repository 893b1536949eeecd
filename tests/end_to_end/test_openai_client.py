"""OpenAI's own Python client, unchanged, against the service."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import httpx
import numpy as np
import openai
import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def client(service: "Service") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_default_is_base64_and_the_client_decodes_it(client: openai.OpenAI, http: httpx.Client) -> None:
    reply = client.embeddings.create(model=MODEL, input=["a ship", "a boat"])
    plain = http.post("/v1/embeddings", json={"input": ["a ship", "a boat"]}).json()
    assert reply.object == "list"
    assert reply.model == MODEL
    assert [item.index for item in reply.data] == [0, 1]
    assert (reply.usage.prompt_tokens, reply.usage.total_tokens) == (8, 8)
    for item, expected in zip(reply.data, plain["data"], strict=True):
        np.testing.assert_allclose(item.embedding, expected["embedding"], atol=1e-6)
        assert len(item.embedding) == 384


def test_the_client_does_ask_for_base64(client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model=MODEL, input="a ship")
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_a_format_can_be_asked_for(client: openai.OpenAI, encoding_format: Literal["float", "base64"]) -> None:
    reply = client.embeddings.create(model=MODEL, input="a ship", encoding_format=encoding_format)
    assert len(reply.data) == 1


def test_string_and_its_tokens_are_one(client: openai.OpenAI, http: httpx.Client) -> None:
    table = http.post("/v1/tokenize", json={"inputs": "a ship in harbour"}).json()["data"][0]["tokens"]
    ids = [token["id"] for token in table]
    text = client.embeddings.create(model=MODEL, input="a ship in harbour")
    tokens = client.embeddings.create(model=MODEL, input=ids)
    lists = client.embeddings.create(model=MODEL, input=[ids, ids])
    np.testing.assert_allclose(tokens.data[0].embedding, text.data[0].embedding, atol=1e-6)
    np.testing.assert_allclose(lists.data[1].embedding, text.data[0].embedding, atol=1e-6)
    assert text.usage.prompt_tokens == tokens.usage.prompt_tokens == len(ids)
    assert lists.usage.prompt_tokens == 2 * len(ids)


def test_dimensions_cut_and_normalise_again(client: openai.OpenAI) -> None:
    whole = np.array(client.embeddings.create(model=MODEL, input="a ship").data[0].embedding)
    cut = np.array(client.embeddings.create(model=MODEL, input="a ship", dimensions=64).data[0].embedding)
    assert cut.shape == (64,)
    np.testing.assert_allclose(cut, whole[:64] / np.linalg.norm(whole[:64]), atol=1e-6)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    found = client.models.retrieve(MODEL)
    assert (found.id, found.object, found.owned_by) == (MODEL, "model", "berth")


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="all-MiniLM-L6-v2") as error:
        client.embeddings.create(model="text-embedding-3-small", input="a ship")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_bad_request_is_the_clients_own_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model=MODEL, input=["a", ""])
    assert (error.value.param, error.value.type, error.value.code) == (
        "input[1]",
        "invalid_request_error",
        "invalid_value",
    )


def test_another_tokenizers_ids_are_refused_with_the_cure(client: openai.OpenAI) -> None:
    """LangChain's default sends cl100k ids; vectors of them would be wrong."""
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model=MODEL, input=[[64, 8448, 304, 37722]])


def test_async_client(service: "Service") -> None:
    async def main() -> list[int]:
        async with openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="unused") as client:
            replies = await asyncio.gather(
                *(client.embeddings.create(model=MODEL, input=["a ship"] * count) for count in range(1, 20))
            )
        return [len(reply.data) for reply in replies]

    assert asyncio.run(main()) == list(range(1, 20))
