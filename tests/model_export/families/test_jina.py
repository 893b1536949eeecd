"""Jina v3's adapters: one is merged into the weights that have it, or none."""

from typing import Any

import numpy as np
import pytest

from berth.types import Float32Array
from model_export.errors import ExportError
from model_export.families import family_of
from model_export.families.jina import JINA, JINA_CODE, AdaptedTensors, adapted
from model_export.tensors import Tensors

CONFIG = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "vocab_size": 20,
    "max_position_embeddings": 30,
    "hidden_act": "gelu",
    "lora_adaptations": ["retrieval.query", "separation"],
    "lora_rank": 3,
    "lora_alpha": 6,
}
PLACE = "roberta.encoder.layers.0.mixer.Wqkv.parametrizations.weight"
TABLE = "roberta.embeddings.word_embeddings.parametrizations.weight"


class Stored(Tensors):
    """Tensors that are in memory."""

    def __init__(self, tensors: dict[str, Float32Array]) -> None:
        self.tensors = tensors

    def names(self) -> list[str]:
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def read(self, name: str) -> Float32Array:
        return self.tensors[name]


@pytest.fixture
def stored() -> Stored:
    """Give a linear weight and a table, each with two adapters of rank 3, and a bias without."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        f"{PLACE}.original": (24, 8),
        f"{PLACE}.0.lora_A": (2, 3, 8),
        f"{PLACE}.0.lora_B": (2, 24, 3),
        f"{TABLE}.original": (20, 8),
        f"{TABLE}.0.lora_A": (2, 20, 3),
        f"{TABLE}.0.lora_B": (2, 3, 8),
        "roberta.encoder.layers.0.mixer.Wqkv.bias": (24,),
    }
    return Stored({name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()})


def _adapt(stored: Stored, adapter: str | None) -> AdaptedTensors:
    return adapted(CONFIG, stored, adapter)


def test_names_and_shapes_are_plain(stored: Stored) -> None:
    names = [f"{place.partition('.parametrizations')[0]}.weight" for place in (PLACE, TABLE)]
    merged = _adapt(stored, None)
    assert sorted(merged.names()) == sorted([*names, "roberta.encoder.layers.0.mixer.Wqkv.bias"])
    assert [merged.shape(name) for name in names] == [(24, 8), (20, 8)]


def test_without_an_adapter_weights_are_the_originals(stored: Stored) -> None:
    read = _adapt(stored, None).read("roberta.encoder.layers.0.mixer.Wqkv.weight")
    np.testing.assert_array_equal(read, stored.tensors[f"{PLACE}.original"])


@pytest.mark.parametrize(("adapter", "place"), [("retrieval.query", 0), ("separation", 1)])
def test_an_adapter_is_added_by_its_scale(stored: Stored, adapter: str, place: int) -> None:
    merged, tensors = _adapt(stored, adapter), stored.tensors
    linear = tensors[f"{PLACE}.0.lora_B"][place] @ tensors[f"{PLACE}.0.lora_A"][place]
    table = tensors[f"{TABLE}.0.lora_A"][place] @ tensors[f"{TABLE}.0.lora_B"][place]
    for name, where, change in (
        ("roberta.encoder.layers.0.mixer.Wqkv.weight", PLACE, linear),
        ("roberta.embeddings.word_embeddings.weight", TABLE, table),
    ):
        expected = tensors[f"{where}.original"] + 2 * change  # alpha 6 over rank 3
        np.testing.assert_allclose(merged.read(name), expected, rtol=1e-5, atol=1e-5)


def test_an_adapter_without_weights_is_refused() -> None:
    plain = Stored({"roberta.encoder.layers.0.mixer.Wqkv.weight": np.zeros((24, 8), np.float32)})
    with pytest.raises(ExportError, match="no weights of the adapter 'separation'"):
        _adapt(plain, "separation")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{PLACE}.0.lora_A", (2, 4, 8), "config.json asks for 2 adapters of rank 3"),
        (f"{PLACE}.0.lora_B", (1, 24, 3), "config.json asks for 2 adapters of rank 3"),
        (f"{TABLE}.0.lora_B", (2, 3, 9), "config.json asks for 2 adapters of rank 3"),
        (f"{PLACE}.original", None, "Wqkv.parametrizations.weight.original is missing"),
        (f"{PLACE}.0.lora_B", None, "lora_B is missing"),
    ],
)
def test_adapters_that_do_not_fit_are_refused(
    stored: Stored, name: str, shape: tuple[int, ...] | None, message: str
) -> None:
    if shape is None:
        del stored.tensors[name]
    else:
        stored.tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(ExportError, match=message):
        _adapt(stored, "separation")


@pytest.mark.parametrize(
    "fields", [{}, {"rotary_emb_base": 2e4, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}]
)
def test_its_code_has_its_own_field_of_rotary_positions_alone(fields: dict[str, Any]) -> None:
    with pytest.raises(ExportError, match="rotary_emb_base, and it alone"):
        JINA_CODE.network(CONFIG | {"auto_map": {}, "position_embedding_type": "rotary"} | fields)


def test_an_unknown_adapter_is_refused_with_those_that_there_are(stored: Stored) -> None:
    with pytest.raises(ExportError, match=r"no adapter 'code'; it has: retrieval\.query, separation"):
        _adapt(stored, "code")


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "jina_embeddings_v3"}, JINA),
        ({"model_type": "xlm-roberta", "auto_map": {"AutoModel": "jinaai/x--modeling_lora.XLMRobertaLoRA"}}, JINA_CODE),
    ],
)
def test_its_code_is_told_from_xlm_roberta(config: dict[str, Any], family: object) -> None:
    assert family_of(config) is family
    assert family_of({"model_type": "xlm-roberta"}) is not JINA_CODE


def test_its_code_without_rotary_positions_is_refused() -> None:
    with pytest.raises(ExportError, match="position_embedding_type 'absolute' is not rotary"):
        JINA_CODE.network(CONFIG | {"auto_map": {}, "position_embedding_type": "absolute"})
