"""Requests for different routes, poolings and layers ride in one batch, and each gets what it would get alone."""

import asyncio
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from service.inference.encoder import CpuEncoder
from service.inference.types import Unit, Vectors

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
UNITS = 2 + 1 + 1 + 1 + 1 + 3 + 2 + 2 + 1 + 1


class Recorder:
    """The real encoder behind a gate; it remembers the batches it got."""

    def __init__(self, encoder: CpuEncoder) -> None:
        self.batches: list[list[Unit]] = []
        self.gate = threading.Event()
        self._encoder = encoder

    def __call__(self, units: Sequence[Unit]) -> list[Vectors]:
        self.batches.append(list(units))
        assert self.gate.wait(20), "the test opens the gate"
        return self._encoder(units)


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


def test_all_routes_poolings_and_layers_share_a_batch(api: "Api", make_api: "MakeApi", encoder: CpuEncoder) -> None:
    recorder = Recorder(encoder)
    busy = make_api(recorder, max_batch_tokens=512)

    async def scenario() -> list[httpx.Response]:
        engine = busy.state.engine
        assert engine is not None
        first = asyncio.ensure_future(busy.client.post("/v1/embeddings", json={"input": "keeps the encoder busy"}))
        while not recorder.batches:
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(busy.client.post(path, json=body)) for path, body in REQUESTS]
        while engine.runner.queued_units < UNITS:
            await asyncio.sleep(0.001)
        recorder.gate.set()
        await first
        return [await answer for answer in waiting]

    try:
        answers = busy.run(scenario())
    finally:
        recorder.gate.set()
    for (path, body), answer in zip(REQUESTS, answers, strict=True):
        assert answer.status_code == 200, answer.text
        assert_alike(answer.json(), api.post(path, body).json())
    units = [unit for batch in recorder.batches for unit in batch]
    assert len({unit.key for unit in units}) == len(units) <= 1 + UNITS  # what several asked for was encoded once
    assert len(recorder.batches) < len(REQUESTS) / 2
    assert busy.sample("berth_batch_units_count") == len(recorder.batches)
    wanted = [{feature for unit in batch for feature in unit.features} for batch in recorder.batches]
    assert max(len({feature.pooling for feature in features}) for features in wanted) >= 4
    assert max(len({feature.layers for feature in features}) for features in wanted) >= 3


def test_encoder_failure_is_reported_for_its_input_alone(make_api: "MakeApi", encoder: CpuEncoder, caplog: Any) -> None:
    caplog.set_level("CRITICAL")

    def encode(units: Sequence[Unit]) -> list[Vectors]:
        if any(len(unit) == 7 for unit in units):
            raise RuntimeError("seven")
        return encoder(units)

    api = make_api(encode)
    body = {"inputs": ["one", "one two three four five", "two"], "on_error": "report"}
    data = api.post("/v1/features", body).json()["data"]
    assert ["error" in item for item in data] == [False, True, False]
    assert data[1]["error"]["code"] == "encoder_error"
    assert data[1]["error"]["message"].startswith("inputs[1]: ")
    assert api.post("/v1/features", body | {"on_error": "fail"}).status_code == 500
