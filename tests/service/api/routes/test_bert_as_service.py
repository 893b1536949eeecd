"""bert-as-service's HTTP routes: its protocol and its formulas.

Both are written down here as its source has them, server/bert_serving/server/http.py, graph.py and
bert/extract_features.py; the formulas in torch, padded and masked as there.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, BertModel

from model_export.checkpoint import DEFAULT_ID, find_checkpoint
from service import __version__
from service.errors import InvalidInputError
from service.inference.encoder import CpuEncoder

if TYPE_CHECKING:
    from tests.service.api.conftest import Api, MakeApi

SHIP, BOAT, BREAD = "a ship in harbour", "a boat at its berth", "a slice of bread, unbelievably thin"
Floats = NDArray[np.float64]
Pool = Callable[[Any, Any], Any]


def minus_mask(states: Any, mask: Any) -> Any:
    return states - (1 - mask)[..., None] * 1e30


def reduce_mean(states: Any, mask: Any) -> Any:
    return (states * mask[..., None]).sum(1) / (mask.sum(1, keepdim=True) + 1e-10)


def reduce_max(states: Any, mask: Any) -> Any:
    return minus_mask(states, mask).max(1).values


STRATEGIES: dict[str, Pool] = {
    "mean": reduce_mean,
    "max": reduce_max,
    "mean_max": lambda states, mask: torch.cat([reduce_mean(states, mask), reduce_max(states, mask)], 1),
    "cls": lambda states, _: states[:, 0],
    "last": lambda states, mask: states[torch.arange(len(states)), mask.sum(1).long() - 1],
}
"""REDUCE_MEAN, REDUCE_MAX, REDUCE_MEAN_MAX, CLS_TOKEN, SEP_TOKEN."""


class Reference:
    """bert-as-service's graph over the same checkpoint."""

    def __init__(self) -> None:
        folder = find_checkpoint(DEFAULT_ID).folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = BertModel.from_pretrained(folder).eval()

    def __call__(self, texts: Any, strategy: str = "mean", layers: tuple[int, ...] = (-2,), **options: Any) -> Floats:
        """Encode a batch; `layers` count the blocks, as in its `all_encoder_layers`."""
        batch = self._tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt", **options)
        with torch.inference_mode():
            blocks = self._model(**batch, output_hidden_states=True).hidden_states[1:]
        states = torch.cat([blocks[layer] for layer in layers], -1)
        pooled: Floats = STRATEGIES[strategy](states, batch["attention_mask"].float()).double().numpy()
        return pooled


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


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


def test_default_is_the_mean_of_the_last_block_but_one_not_normalised(api: "Api", reference: Reference) -> None:
    texts = [SHIP, BOAT, BREAD, "a", "ship " * 300]
    found = vectors(api, texts)
    np.testing.assert_allclose(found, reference(texts), atol=1e-4)
    assert np.abs(np.linalg.norm(found, axis=1) - 1).min() > 0.1


@pytest.mark.parametrize("layers", [(-2,), (-1,), (-6,), (-4, -3, -2, -1)], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_settings_give_its_strategies(
    make_api: "MakeApi", encoder: CpuEncoder, reference: Reference, strategy: str, layers: tuple[int, ...]
) -> None:
    api = make_api(encoder, encode_pooling=strategy, encode_layers=list(layers))
    texts = [SHIP, BREAD]
    np.testing.assert_allclose(vectors(api, texts), reference(texts, strategy, layers), atol=1e-4)


@pytest.mark.parametrize("pooling", ["weighted_mean", "pooler"])
def test_settings_give_our_poolings_too(make_api: "MakeApi", encoder: CpuEncoder, pooling: str) -> None:
    api = make_api(encoder, encode_pooling=pooling, **({} if pooling == "pooler" else {"encode_layers": [-1]}))
    data = api.post("/v1/features", {"inputs": [SHIP], "features": [{"pooling": pooling}]}).json()["data"]
    np.testing.assert_allclose(vectors(api, [SHIP]), data[0]["features"], atol=1e-6)


def test_layer_that_is_not_there_stops_the_start(make_api: "MakeApi", encoder: CpuEncoder) -> None:
    with pytest.raises(InvalidInputError, match=r"encode_layers\[1\]: layer 9 is not there"):
        make_api(encoder, encode_layers=[-1, 9])


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        (f"{SHIP} ||| {BOAT}", (SHIP, BOAT)),
        (f"{SHIP} ||| {BOAT} ||| {BREAD}", (f"{SHIP} ||| {BOAT}", BREAD)),  # its regular expression is greedy
        (f"  {SHIP} ||| {BOAT}  ", (SHIP, BOAT)),
    ],
)
def test_pairs_are_cut_at_the_last_bars(api: "Api", reference: Reference, text: str, pair: tuple[str, str]) -> None:
    np.testing.assert_allclose(vectors(api, [BREAD, text])[1:], reference([pair]), atol=1e-4)
    assert np.abs(vectors(api, [text]) - reference([" ".join(pair)])).max() > 1e-2


@pytest.mark.parametrize("text", [f"{SHIP} ||| ", f" ||| {SHIP}", f"{SHIP}|||{BOAT}", "|||", " ||| ", f"{SHIP} |||"])
def test_bars_without_a_text_on_both_sides_make_no_pair(api: "Api", reference: Reference, text: str) -> None:
    """It strips the text first and then looks for `(.*) ||| (.*)`."""
    np.testing.assert_allclose(vectors(api, [text]), reference([text]), atol=1e-4)


def test_word_pieces_are_taken_as_they_are(api: "Api", reference: Reference) -> None:
    pieces = ["a", "ship", "un", "##bel", "##ie", "##va", "##bly"]
    found = vectors(api, [pieces, ["ship"]], is_tokenized=True)
    np.testing.assert_allclose(found[0], reference(["a ship unbelievably"])[0], atol=1e-4)
    np.testing.assert_allclose(found[1], reference(["ship"])[0], atol=1e-4)


def test_pieces_that_the_vocabulary_has_not_are_unknown(api: "Api", reference: Reference) -> None:
    found = vectors(api, [["a", "Ship", "qqqqq"]], is_tokenized=True)
    np.testing.assert_allclose(found, reference(["a [UNK] [UNK]"]), atol=1e-4)


def test_a_pair_of_pieces_is_refused(api: "Api") -> None:
    answer = api.post("/encode", {"texts": [["a", "|||", "b"]], "is_tokenized": True})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "texts[0]: a pair must be one string, without is_tokenized"


def test_long_piece_lists_are_cut_at_their_end(api: "Api", reference: Reference) -> None:
    found = vectors(api, [["ship"] * 300], is_tokenized=True)
    np.testing.assert_allclose(found, reference(["ship " * 300]), atol=1e-4)


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
        "model_dir": DEFAULT_ID,
        "max_seq_len": 256,
        "pooling_strategy": "mean",
        "pooling_layer": [-2],
        "http_port": 8080,
        "cpu": True,
        "num_worker": 1,
    }
    other = make_api(encoder, encode_pooling="cls", encode_layers=[-3, -1]).get("/status/server").json()
    assert (other["pooling_strategy"], other["pooling_layer"]) == ("cls", [-3, -1])
