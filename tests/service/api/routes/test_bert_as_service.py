"""bert-as-service's HTTP routes: its protocol, as its source has it, server/bert_serving/server/http.py.

Its formulas are in test_bert_as_service_formulas.py.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from berth import __version__
from berth.backends.cpu.encoder import CpuEncoder
from berth.errors import InvalidInputError
from berth.models import DEFAULT_MODEL

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

SHIP, BOAT = "a ship in harbour", "a boat at its berth"
Floats = NDArray[np.float64]


def vectors(api: "Api", texts: Any, **fields: object) -> Floats:
    answer = api.post("/encode", {"id": 1, "texts": texts, **fields})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["result"])


def test_reply_is_bert_as_services(api: "Api") -> None:
    answer = api.post("/encode", {"id": 123, "texts": [SHIP, BOAT], "is_tokenized": False})
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["id", "result", "status"]
    assert (body["id"], body["status"]) == (123, 200)
    assert np.shape(body["result"]) == (2, 384)


@pytest.mark.parametrize("id_", [0, -7, "abc", None])
def test_id_comes_back_as_it_went(api: "Api", id_: object) -> None:
    assert api.post("/encode", {"id": id_, "texts": [SHIP]}).json()["id"] == id_


@pytest.mark.parametrize("id_", [True, 1.5, [1, 2], {"a": 1}])
def test_id_is_a_scalar(api: "Api", id_: object) -> None:
    answer = api.post("/encode", {"id": id_, "texts": [SHIP]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "id")


@pytest.mark.parametrize("pooling", ["weighted_mean", "mean_sqrt_len", "pooler"])
def test_settings_give_our_poolings_too(make_api: "MakeApi", encoder: CpuEncoder, pooling: str) -> None:
    api = make_api(encoder, encode_pooling=pooling, **({} if pooling == "pooler" else {"encode_layers": [-1]}))
    data = api.post("/v1/features", {"inputs": [SHIP], "features": [{"pooling": pooling}]}).json()["data"]
    np.testing.assert_allclose(vectors(api, [SHIP]), data[0]["features"], atol=1e-6)


def test_layer_that_is_not_there_stops_the_start(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    with pytest.raises(InvalidInputError, match=r"encode_layers\[1\]: layer 9 is not there"):
        make_api(encoder, encode_layers=[-1, 9])


def test_a_pair_of_pieces_is_refused(api: "Api") -> None:
    answer = api.post("/encode", {"texts": [["a", "|||", "b"]], "is_tokenized": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "texts[0]: a pair must be one string, without is_tokenized"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "texts"),
        ({"texts": SHIP}, "texts"),
        ({"texts": []}, "texts"),
        ({"texts": [3]}, "texts"),
        ({"texts": [SHIP, ""]}, "texts[1]"),
        ({"texts": [[SHIP]]}, "texts[0]"),
        ({"texts": [SHIP], "is_tokenized": True}, "texts[0]"),
        ({"texts": [SHIP], "is_tokenized": "no"}, "is_tokenized"),
        ({"texts": [["a"], "b"], "is_tokenized": True}, "texts"),
    ],
)
def test_what_is_wrong_is_400_and_named(api: "Api", fields: dict[str, Any], param: str) -> None:
    answer = api.post("/encode", {"id": 1, **fields})
    assert answer.status_code == 400, answer.text
    assert (answer.json()["error"]["param"] or "").startswith(param)


def test_unknown_fields_are_ignored(api: "Api") -> None:
    np.testing.assert_array_equal(vectors(api, [SHIP], blocking=True), vectors(api, [SHIP]))


def test_status_has_its_fields(api: "Api", make_api: "MakeApi", encoder: CpuEncoder) -> None:
    assert api.get("/status/server").json() == {
        "status": 200,
        "server_version": __version__,
        "model_dir": DEFAULT_MODEL,
        "max_seq_len": 256,
        "pooling_strategy": "mean",
        "pooling_layer": [-2],
        "http_port": 8080,
        "cpu": True,
        "num_worker": 1,
    }
    other = make_api(encoder, encode_pooling="cls", encode_layers=[-3, -1]).get("/status/server").json()
    assert (other["pooling_strategy"], other["pooling_layer"]) == ("cls", [-3, -1])
