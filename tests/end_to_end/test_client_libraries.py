"""The client libraries of others, unchanged, against the service: Hugging Face's, LangChain's, LlamaIndex'.

tests/end_to_end/test_openai_client.py has OpenAI's.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest
import torch
from huggingface_hub import AsyncInferenceClient, InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-untyped]
from llama_index.embeddings.text_embeddings_inference import (  # type: ignore[import-untyped]
    TextEmbeddingsInference,
)
from numpy.typing import NDArray
from transformers import AutoTokenizer, BertModel

from berth.models import DEFAULT_MODEL
from model_export.checkpoint import find_checkpoint

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Service, Start

SHIP, BOAT, BREAD = "a ship in harbour", "a boat at its berth", "a slice of bread"
TEXTS = [SHIP, BREAD, "a", "Straße, Ünïcode 😀", BOAT * 100]
Floats = NDArray[np.float64]


MakeEmbeddings = Callable[..., OpenAIEmbeddings]


@pytest.fixture(scope="module", autouse=True)
def _sessions_are_closed() -> Iterator[None]:
    """huggingface_hub keeps one for the process."""
    yield
    close_session()


@pytest.fixture
def expected(http: httpx.Client) -> Floats:
    """Give the vectors of TEXTS as OpenAI's route gives them."""
    return vectors(http, TEXTS)


def vectors(http: httpx.Client, texts: list[str]) -> Floats:
    return np.array([item["embedding"] for item in http.post("/v1/embeddings", json={"input": texts}).json()["data"]])


def near(found: object, expected: object) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-6)


# huggingface_hub


@pytest.mark.parametrize("name", ["model", "base_url"])
def test_inference_client(service: "Service", expected: Floats, name: str) -> None:
    given: dict[str, Any] = {name: service.url}
    client = InferenceClient(**given)
    found = client.feature_extraction(TEXTS)
    assert found.shape == (5, 384)
    assert found.dtype == np.float32
    near(found, expected)
    near(client.feature_extraction(SHIP), expected[:1])
    near(client.sentence_similarity(SHIP, [BREAD, "a"]), expected[1:3] @ expected[0])


def test_inference_client_sends_its_parameters(service: "Service", http: httpx.Client, expected: Floats) -> None:
    client = InferenceClient(service.url)
    [raw] = client.feature_extraction(SHIP, normalize=False)
    near(raw / np.linalg.norm(raw), expected[0])
    assert abs(np.linalg.norm(raw) - 1) > 0.1
    text = f"{SHIP} {'ship ' * 300} {BREAD}"
    body = {"input": text, "truncate": "start"}
    start = http.post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    near(client.feature_extraction(text, truncate=True, truncation_direction="left")[0], start)
    near(client.feature_extraction(text, truncation_direction="right"), vectors(http, [text]))


def test_inference_clients_error_tells_the_cause(service: "Service") -> None:
    client = InferenceClient(service.url)
    with pytest.raises(HfHubHTTPError, match="302 tokens, the model takes 256") as error:
        client.feature_extraction("ship " * 300, truncate=False)
    assert error.value.response.status_code == 413
    with pytest.raises(HfHubHTTPError, match="the model has no such prompt"):
        client.feature_extraction(SHIP, prompt_name="query")


def test_async_inference_client(service: "Service", expected: Floats) -> None:
    async def main() -> None:
        async with AsyncInferenceClient(service.url) as client:
            found, scores = await asyncio.gather(
                client.feature_extraction(TEXTS),
                client.sentence_similarity(SHIP, [BREAD, "a"]),
            )
        near(found, expected)
        near(scores, expected[1:3] @ expected[0])

    asyncio.run(main())


# LangChain


@pytest.fixture
def langchain(service: "Service") -> Iterator[MakeEmbeddings]:
    made: list[OpenAIEmbeddings] = []

    def make(**options: Any) -> OpenAIEmbeddings:
        where: dict[str, Any] = {"base_url": f"{service.url}/v1", "api_key": "unused", "model": DEFAULT_MODEL}
        made.append(OpenAIEmbeddings(**where, max_retries=0, **options))
        return made[-1]

    yield make
    for embeddings in made:
        embeddings.client._client.close()


def test_langchains_openai_class(langchain: MakeEmbeddings, expected: Floats) -> None:
    embeddings = langchain(check_embedding_ctx_length=False)
    near(embeddings.embed_documents(TEXTS), expected)
    near(embeddings.embed_query(SHIP), expected[0])

    async def main() -> None:
        near(await embeddings.aembed_documents(TEXTS), expected)
        near(await embeddings.aembed_query(SHIP), expected[0])
        await embeddings.async_client._client.close()

    asyncio.run(main())


def test_langchains_default_is_told_its_cure(langchain: MakeEmbeddings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends cl100k's ids by default. tiktoken would load its vocabulary from the network: this stands in for it."""

    class Encoding:
        def encode(self, *_: object, **__: object) -> list[int]:
            return [64, 8448, 304, 37722]

        encode_ordinary = encode

    monkeypatch.setattr("tiktoken.get_encoding", lambda _: Encoding())
    monkeypatch.setattr("tiktoken.encoding_for_model", lambda _: Encoding())
    with pytest.raises(openai.BadRequestError, match=r"another model's vocabulary.*check_embedding_ctx_length=False"):
        langchain().embed_documents([SHIP])


def test_langchains_hugging_face_class(service: "Service", expected: Floats) -> None:
    """Since 1.2.1 it refuses a URL as `model`, so the clients that it makes are put in its place."""
    embeddings = HuggingFaceEndpointEmbeddings(model=DEFAULT_MODEL, huggingfacehub_api_token="unused")
    embeddings.client = InferenceClient(service.url)
    near(embeddings.embed_documents(TEXTS), expected)
    near(embeddings.embed_query(SHIP), expected[0])

    async def main() -> None:
        async with AsyncInferenceClient(service.url) as client:
            embeddings.async_client = client
            near(await embeddings.aembed_documents(TEXTS), expected)

    asyncio.run(main())


# LlamaIndex


def test_llama_indexs_tei_class(service: "Service", expected: Floats) -> None:
    embedding = TextEmbeddingsInference(base_url=service.url, model_name=DEFAULT_MODEL, embed_batch_size=2)
    near(embedding.get_text_embedding_batch(TEXTS), expected)
    near(embedding.get_text_embedding(SHIP), expected[0])
    near(embedding.get_query_embedding(SHIP), expected[0])
    near(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), expected)


def test_llama_indexs_openai_class(service: "Service", expected: Floats) -> None:
    embedding = OpenAIEmbedding(
        model_name=DEFAULT_MODEL, api_base=f"{service.url}/v1", api_key="unused", max_retries=0, embed_batch_size=2
    )
    near(embedding.get_text_embedding_batch(TEXTS), expected)
    near(embedding.get_query_embedding(SHIP), expected[0])
    embedding._get_client().close()

    async def main() -> None:
        near(await embedding.aget_text_embedding_batch(TEXTS), expected)
        await embedding._get_aclient().close()

    asyncio.run(main())


# bert-as-service, by its HTTP protocol


def last_block_but_one(texts: list[Any], strategy: str) -> Floats:
    """Compute bert-as-service's vectors, text by text and so without padding."""
    folder = find_checkpoint(DEFAULT_MODEL).folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        pair = text if isinstance(text, tuple) else (text,)
        with torch.inference_mode():
            states = model(**tokenizer(*pair, return_tensors="pt"), output_hidden_states=True).hidden_states
        means = [states[layer][0].mean(0) for layer in (-2, -1)]
        maxima = [states[layer][0].max(0).values for layer in (-2, -1)]
        rows.append(means[0] if strategy == "REDUCE_MEAN" else torch.cat(maxima))
    stacked: Floats = torch.stack(rows).double().numpy()
    return stacked


def test_bert_as_services_protocol(http: httpx.Client) -> None:
    body = {"id": 123, "texts": ["hello world", "good day", f"{SHIP} ||| {BOAT}"], "is_tokenized": False}
    answer = http.post("/encode", json=body)
    assert answer.status_code == 200
    assert (answer.json()["id"], answer.json()["status"]) == (123, 200)
    torchs = last_block_but_one(["hello world", "good day", (SHIP, BOAT)], "REDUCE_MEAN")
    np.testing.assert_allclose(answer.json()["result"], torchs, atol=1e-4)
    pieces = {"id": "x", "texts": [["hello", "world"], ["good", "day"]], "is_tokenized": True}
    np.testing.assert_allclose(http.post("/encode", json=pieces).json()["result"], torchs[:2], atol=1e-4)
    status = http.get("/status/server").json()
    assert (status["status"], status["pooling_layer"], status["max_seq_len"]) == (200, [-2], 256)


@pytest.mark.parametrize("by", ["flags", "variables"])
def test_bert_as_services_start_options_are_settings(start: "Start", minilm: Any, by: str) -> None:
    if by == "flags":
        service = start(minilm, "--encode-pooling", "max", "--encode-layers=-2,-1")
    else:
        service = start(minilm, BERTH_ENCODE_POOLING="max", BERTH_ENCODE_LAYERS="-2,-1")
    with service.client() as http:
        found = http.post("/encode", json={"id": 1, "texts": [SHIP, BREAD]}).json()["result"]
        status = http.get("/status/server").json()
    np.testing.assert_allclose(found, last_block_but_one([SHIP, BREAD], "REDUCE_MAX"), atol=1e-4)
    assert (status["pooling_strategy"], status["pooling_layer"]) == ("max", [-2, -1])


def test_a_layer_that_the_model_has_not_ends_the_start_with_a_line(launch: "Start", minilm: Any) -> None:
    service = launch(minilm, "--encode-layers", "9")
    assert service.end() == 1
    assert "encode_layers[0]: layer 9 is not there: 0 to 6, or -7 to -1" in service.log
    assert "Traceback" not in service.log
