"""POST /v1/features: the forms of its replies; tests/end_to_end has its numbers."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from tests.service.api.conftest import Api

FEATURES = "/v1/features"
RAW, ARROW = "application/octet-stream", "application/vnd.apache.arrow.stream"


def ask(api: "Api", accept: str = "*/*", **fields: Any) -> Any:
    return api.post(FEATURES, fields, headers={"Accept": accept})


@pytest.mark.parametrize(
    ("feature", "shape"),
    [
        ({"pooling": "cls"}, "2,384"),
        ({"pooling": "mean_max", "layers": [1, 2]}, "2,1536"),
        ({"pooling": "pooler", "normalize": True}, "2,384"),
    ],
    ids=str,
)
def test_raw_bytes_and_arrow_are_the_json(api: "Api", feature: dict[str, Any], shape: str) -> None:
    fields: dict[str, Any] = {"inputs": ["a ship", ["a boat", "a berth"]], "features": [feature]}
    expected = np.array([item["features"][0] for item in ask(api, **fields).json()["data"]], dtype="<f4")
    raw, arrow = ask(api, RAW, **fields), ask(api, ARROW, **fields)
    assert (raw.headers["content-type"], raw.headers["x-shape"], raw.headers["x-dtype"]) == (RAW, shape, "float32")
    assert raw.content == expected.tobytes()
    assert arrow.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert table.column_names == ["embedding"]
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype="<f4"), expected)


@pytest.mark.parametrize("accept", [RAW, ARROW])
@pytest.mark.parametrize(
    "features", [[{"pooling": "none"}], [{"pooling": "words"}], [{}, {}], [{"pooling": "cls"}, {"pooling": "none"}]]
)
def test_raw_bytes_hold_one_feature_of_one_vector(api: "Api", accept: str, features: list[Any]) -> None:
    answer = ask(api, accept, inputs=["a ship"], features=features)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Accept"
    assert answer.json()["error"]["message"] == (
        "Accept: raw bytes and Arrow need exactly one feature, of one vector an input"
    )


def test_raw_bytes_fail_where_an_input_is_bad(api: "Api") -> None:
    answer = ask(api, RAW, inputs=["a ship", ""], features=[{"pooling": "cls"}], on_error="report")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "inputs[1]")


def test_reply_has_its_fields(api: "Api") -> None:
    reply = ask(api, inputs=["hello", ["hello", "world"]], features=[{"pooling": "cls"}, {"pooling": "none"}]).json()
    assert sorted(reply) == ["data", "model", "usage"]
    assert reply["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert [sorted(item) for item in reply["data"]] == [["features", "index", "token_count", "truncated"]] * 2
    assert [np.shape(vector) for vector in reply["data"][1]["features"]] == [(384,), (5, 384)]


def test_tokens_are_told_where_asked_for(api: "Api") -> None:
    [item] = ask(api, inputs=[{"tokens": ["hello", "embedded"]}], include_tokens=True).json()["data"]
    assert item["tokens"] == [
        {"id": 101, "text": "[CLS]", "start": 0, "end": 0, "word": None, "special": True},
        {"id": 7592, "text": "hello", "start": 0, "end": 5, "word": 0, "special": False},
        {"id": 11157, "text": "embedded", "start": 0, "end": 8, "word": 1, "special": False},
        {"id": 102, "text": "[SEP]", "start": 0, "end": 0, "word": None, "special": True},
    ]


def test_header_counts_the_inputs_that_were_cut(api: "Api") -> None:
    assert ask(api, inputs=["hello " * 300, "hello"]).headers["x-truncated-inputs"] == "1"
    assert "x-truncated-inputs" not in ask(api, inputs=["hello " * 300], truncate={}).headers


def test_another_model_is_not_found(api: "Api") -> None:
    assert ask(api, inputs=["a"], model="tug").status_code == 404
