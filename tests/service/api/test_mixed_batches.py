"""Requests for different routes, poolings and layers ride in one batch, and each gets what it would get alone."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder
from berth.types import TokenSequence, Vectors
from tests.service.api.gate import Gate

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/embeddings", {"input": ["a ship", "a boat"]}),
    ("/v1/embeddings", {"input": "the tide", "embedding_type": "float16"}),
    ("/v1/features", {"inputs": ["a ship"], "features": [{"pooling": "cls", "layers": [0]}, {"pooling": "max"}]}),
    ("/v1/features", {"inputs": [["a ship", "a boat"]], "features": [{"pooling": "none", "layers": [-2]}]}),
    ("/v1/features", {"inputs": [{"tokens": ["a", "ship"]}], "features": [{"pooling": "words"}]}),
    ("/v1/features", {"inputs": ["a b c d e f g"], "features": [{"pooling": "mean"}], "truncate": {"window": 5}}),
    ("/v1/similarity", {"source": "a ship", "target": ["a boat"], "pooling": "last", "layers": [3]}),
    ("/v1/similarity", {"source": "a ship", "target": "a boat", "granularity": "token"}),
    ("/embed", {"inputs": "a ship"}),
    ("/encode", {"id": 1, "texts": ["a ship"]}),
]
SEQUENCES = 2 + 1 + 1 + 1 + 1 + 3 + 2 + 2 + 1 + 1


class GatedEncoder(Gate):
    """The real encoder behind a gate."""

    def __init__(self, encoder: CpuEncoder) -> None:
        super().__init__()
        self._encoder = encoder

    def encode(self, sequences: Sequence[TokenSequence]) -> list[Vectors]:
        """Note the batch, wait, and encode it."""
        super().encode(sequences)
        return self._encoder.encode(sequences)


@pytest.fixture
def gated(encoder: CpuEncoder) -> Iterator[GatedEncoder]:
    """Give the real encoder behind a gate, which is open at the end."""
    gated = GatedEncoder(encoder)
    yield gated
    gated.open.set()


def assert_alike(actual: Any, expected: Any) -> None:
    """Compare two answers, their numbers nearly."""
    if isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key in expected:
            assert_alike(actual[key], expected[key])
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            assert_alike(one, other)
    elif isinstance(expected, float):
        np.testing.assert_allclose(actual, expected, atol=2e-3)
    else:
        assert actual == expected


def test_all_routes_poolings_and_layers_share_a_batch(api: "Api", make_api: "MakeApi", gated: GatedEncoder) -> None:
    busy = make_api(gated, max_batch_tokens=512)

    async def scenario() -> list[httpx.Response]:
        first = asyncio.ensure_future(busy.client.post("/v1/embeddings", json={"input": "keeps the encoder busy"}))
        while not gated.batches:
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(busy.client.post(path, json=body)) for path, body in REQUESTS]
        while busy.worker.queue.sequences < SEQUENCES:
            await asyncio.sleep(0.001)
        gated.open.set()
        await first
        return [await answer for answer in waiting]

    answers = busy.run(scenario())
    for (path, body), answer in zip(REQUESTS, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert_alike(answer.json(), api.post(path, body).json())
    sequences = [sequence for batch in gated.batches for sequence in batch]
    assert len(sequences) == 1 + SEQUENCES
    assert len(gated.batches) < len(REQUESTS) / 2
    assert busy.sample("berth_batch_units_count") == len(gated.batches)
    wanted = [{feature for sequence in batch for feature in sequence.features} for batch in gated.batches]
    assert max(len({feature.pooling for feature in features}) for features in wanted) >= 4
    assert max(len({feature.layers for feature in features}) for features in wanted) >= 3


def test_a_text_is_encoded_once_a_request(make_api: "MakeApi", gated: GatedEncoder) -> None:
    """Within a request duplicates share a sequence; what two requests ask for is encoded for each."""
    api = make_api(gated)

    async def scenario() -> list[httpx.Response]:
        bodies = [{"input": ["a ship", "a boat", "a ship"]}, {"input": "a ship"}]
        asked = [asyncio.ensure_future(api.client.post("/v1/embeddings", json=body)) for body in bodies]
        while api.worker.requests < 2:
            await asyncio.sleep(0.001)
        gated.open.set()
        return [await answer for answer in asked]

    several, one = api.run(scenario())
    ship, boat, again = (item["embedding"] for item in several.json()["data"])
    assert ship == again != boat
    np.testing.assert_allclose(one.json()["data"][0]["embedding"], ship, atol=1e-6)
    assert sum(map(len, gated.batches)) == 3
    assert api.sample("berth_texts_total") == 4


def test_encoder_failure_is_reported_for_its_input_alone(make_api: "MakeApi", encoder: CpuEncoder, caplog: Any) -> None:
    caplog.set_level("CRITICAL")

    def encode(sequences: Sequence[TokenSequence]) -> list[Vectors]:
        if any(len(sequence) == 7 for sequence in sequences):
            raise RuntimeError("seven")
        return encoder.encode(sequences)

    api = make_api(FakeEncoder(encode))
    body = {"inputs": ["one", "one two three four five", "two"], "on_error": "report"}
    data = api.post("/v1/features", body).json()["data"]
    assert ["error" in item for item in data] == [False, True, False]
    assert data[1]["error"]["code"] == "encoder_error"
    assert data[1]["error"]["message"].startswith("inputs[1]: ")
    assert api.post("/v1/features", body | {"on_error": "fail"}).status_code == 500
