"""POST /v1/embeddings: the route's own decisions; tests/end_to_end has the contract."""

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest

from service.inference.encoder import CpuEncoder

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi


def test_vectors_are_unit_means(api: "Api") -> None:
    data = api.post("/v1/embeddings", {"input": ["a ship", "a boat"]}).json()["data"]
    np.testing.assert_allclose([np.linalg.norm(item["embedding"]) for item in data], [1, 1], atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 100, 384])
def test_dimensions_cut_and_normalise(api: "Api", dimensions: int) -> None:
    whole = np.array(api.post("/v1/embeddings", {"input": "a ship"}).json()["data"][0]["embedding"])
    reply = api.post("/v1/embeddings", {"input": "a ship", "dimensions": dimensions}).json()
    cut = whole[:dimensions] / np.linalg.norm(whole[:dimensions])
    np.testing.assert_allclose(reply["data"][0]["embedding"], cut, atol=1e-6)


def test_base64_is_of_the_same_numbers(api: "Api") -> None:
    [item] = api.post("/v1/embeddings", {"input": "a ship", "encoding_format": "base64"}).json()["data"]
    [plain] = api.post("/v1/embeddings", {"input": "a ship"}).json()["data"]
    assert base64.b64decode(item["embedding"]) == np.array(plain["embedding"], dtype="<f4").tobytes()


def test_name_is_the_setting_where_there_is_one(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    api = make_api(encoder, served_model_name="tug")
    assert api.post("/v1/embeddings", {"input": "a", "model": "tug"}).json()["model"] == "tug"
    other = api.post("/v1/embeddings", {"input": "a", "model": "sentence-transformers/all-MiniLM-L6-v2"})
    assert other.status_code == 404
    assert [model["id"] for model in api.get("/v1/models").json()["data"]] == ["tug"]
