"""bert-as-service's formulas, written down here in torch as its source has them, padded and masked as there.

server/bert_serving/server/graph.py and bert/extract_features.py.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, BertModel

from berth.backends.cpu.encoder import CpuEncoder
from berth.models import DEFAULT_MODEL
from model_export.checkpoint import find_checkpoint

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
        folder = find_checkpoint(DEFAULT_MODEL).folder
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


def test_long_piece_lists_are_cut_at_their_end(api: "Api", reference: Reference) -> None:
    found = vectors(api, [["ship"] * 300], is_tokenized=True)
    np.testing.assert_allclose(found, reference(["ship " * 300]), atol=1e-4)
