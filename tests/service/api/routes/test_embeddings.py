"""POST /v1/embeddings: the route's own decisions; tests/end_to_end has the contract."""

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from berth.artifact import Dense
from berth.backends.cpu.encoder import CpuEncoder
from berth.contract import FakeEncoder

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

RAW, ARROW = "application/octet-stream", "application/vnd.apache.arrow.stream"
TEXTS = ["a ship in harbour", "a slice of bread", "the tide turns"]


def test_vectors_are_unit_means(api: "Api") -> None:
    data = api.post("/v1/embeddings", {"input": ["a ship", "a boat"]}).json()["data"]
    np.testing.assert_allclose([np.linalg.norm(item["embedding"]) for item in data], [1, 1], atol=1e-6)


@pytest.mark.parametrize("dimensions", [1, 2, 100, 384])
def test_dimensions_cut_and_normalise(api: "Api", dimensions: int) -> None:
    whole = np.array(api.post("/v1/embeddings", {"input": "a ship"}).json()["data"][0]["embedding"])
    reply = api.post("/v1/embeddings", {"input": "a ship", "dimensions": dimensions}).json()
    cut = whole[:dimensions] / np.linalg.norm(whole[:dimensions])
    np.testing.assert_allclose(reply["data"][0]["embedding"], cut, atol=1e-6)


def test_dimensions_are_of_what_the_model_projects_and_cuts(make_api: "MakeApi") -> None:
    layers = (Dense(inputs=384, outputs=24, activation="Tanh"),)
    api = make_api(FakeEncoder(), manifest={"projection": layers, "truncate_dim": 16, "normalize": False})
    [item] = api.post("/v1/embeddings", {"input": "a ship"}).json()["data"]
    assert len(item["embedding"]) == 16
    [cut] = api.post("/v1/embeddings", {"input": "a ship", "dimensions": 9}).json()["data"]
    head = np.array(item["embedding"][:9])
    np.testing.assert_allclose(cut["embedding"], head / np.linalg.norm(head), atol=1e-6)
    answer = api.post("/v1/embeddings", {"input": "a ship", "dimensions": 17})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "dimensions: must be an integer from 1 to 16, not 17"


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


def vectors(api: "Api", **fields: Any) -> NDArray[Any]:
    """Ask for the vectors of `TEXTS` as numbers."""
    return np.array([item["embedding"] for item in ask(api, **fields)])


def ask(api: "Api", **fields: Any) -> Any:
    answer = api.post("/v1/embeddings", {"input": TEXTS} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def test_float16_is_rounded(api: "Api") -> None:
    plain = vectors(api).astype(np.float32)  # the digits are those of a float32, of which a tie may be one
    np.testing.assert_array_equal(vectors(api, embedding_type="float16").astype(np.float16), plain.astype(np.float16))


def test_int8_times_its_scale_is_the_vector(api: "Api") -> None:
    plain = vectors(api)
    data = ask(api, embedding_type="int8")
    for item, vector in zip(data, plain, strict=True):
        assert {type(number) for number in item["embedding"]} == {int}
        assert max(map(abs, item["embedding"])) == 127
        np.testing.assert_allclose(np.array(item["embedding"]) * item["scale"], vector, atol=item["scale"] * 0.51)
    assert "scale" not in ask(api)[0]


def test_binary_is_the_signs_eight_to_a_byte(api: "Api") -> None:
    """tests/end_to_end/test_accuracy.py compares it with sentence-transformers'."""
    signs = np.packbits(vectors(api) > 0, axis=1).astype(int) - 128
    numbers = vectors(api, embedding_type="binary")
    assert numbers.shape == (3, 48)
    np.testing.assert_array_equal(numbers, signs)


TYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "binary": "i1"}


@pytest.mark.parametrize("embedding_type", TYPES)
@pytest.mark.parametrize("dimensions", [384, 16])
def test_every_type_is_the_same_in_every_form(api: "Api", embedding_type: str, dimensions: int) -> None:
    fields = {"input": TEXTS, "embedding_type": embedding_type, "dimensions": dimensions}
    numbers = vectors(api, **fields).astype(TYPES[embedding_type])
    encoded = [base64.b64decode(item["embedding"]) for item in ask(api, **fields, encoding_format="base64")]
    raw = api.post("/v1/embeddings", fields, headers={"Accept": RAW})
    arrow = api.post("/v1/embeddings", fields, headers={"Accept": ARROW})
    assert b"".join(encoded) == raw.content == numbers.tobytes()
    assert raw.headers["x-shape"] == ",".join(map(str, numbers.shape))
    assert raw.headers["x-dtype"] == arrow.headers["x-dtype"] == numbers.dtype.name
    column = pa.ipc.open_stream(arrow.content).read_all()["embedding"]
    assert np.array(column.to_pylist(), dtype=numbers.dtype).tobytes() == numbers.tobytes()


def test_arrow_has_the_scales_of_int8(api: "Api") -> None:
    fields = {"input": TEXTS, "embedding_type": "int8"}
    told = [item["scale"] for item in api.post("/v1/embeddings", fields).json()["data"]]
    answer = api.post("/v1/embeddings", fields, headers={"Accept": ARROW})
    table = pa.ipc.open_stream(answer.content).read_all()
    assert table.column_names == ["embedding", "scale"]
    np.testing.assert_allclose(table["scale"].to_pylist(), told, rtol=1e-6)


def test_unknown_type_is_refused(api: "Api") -> None:
    answer = api.post("/v1/embeddings", {"input": "a", "embedding_type": "uint8"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "embedding_type")
