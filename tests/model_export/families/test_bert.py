"""BERT's config: what is read, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model_export.families.bert import BERT, MODULES
from model_export.network import Activation, Network

BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}


def test_a_config_older_than_most_fields_is_enough() -> None:
    network = BERT.network(BASE)
    assert network == Network(
        hidden_size=768,
        layers=12,
        heads=12,
        intermediate_size=3072,
        vocab_size=30522,
        positions=512,
        type_vocab_size=2,
        epsilon=1e-12,
        activation=Activation.GELU,
    )


def test_every_tensor_has_a_name_in_the_checkpoint() -> None:
    names = {BERT.source(MODULES, name) for name in BERT.network(BASE).shapes()}
    assert len(names) == 5 + 12 * 16 + 2
    assert ("encoder.layer.11.attention.output.LayerNorm.bias", None) in names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "mish"}, "config.json: hidden_act 'mish' is not one of gelu, gelu_python, gelu_new,"),
        ({"hidden_act": None}, "config.json: hidden_act: "),
        ({"position_embedding_type": "relative_key"}, "config.json: position_embedding_type: "),
        ({"is_decoder": True}, "config.json: is_decoder: "),
        ({"add_cross_attention": True}, "config.json: add_cross_attention: "),
        ({"num_attention_heads": 7}, "config.json: hidden_size 60 is not a multiple of num_attention_heads 7"),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers: "),
        ({"hidden_size": "many"}, "config.json: hidden_size: "),
        ({"layer_norm_eps": 0}, "config.json: layer_norm_eps: "),
        ({"hidden_size": None}, "config.json: hidden_size: "),
        ({"max_position_embeddings": 20}, "tensor embeddings.position_embeddings.weight is [40, 60], but config.json"),
        ({"model_type": "t5"}, "model_type 't5' is not supported; supported: albert, bert, "),
        ({"model_type": None}, "model_type None is not supported; supported: "),
        ({"model_type": ["bert"]}, "model_type ['bert'] is not supported; supported: "),
        ({"auto_map": {"AutoModel": "o/r--m.JinaBertModel"}}, "auto_map: JinaBertModel is code on the hub"),
        ({"auto_map": "o/r--m.Model"}, "auto_map: 'o/r--m.Model' is code on the hub"),
        ({"pruned_heads": {"1": [0]}}, "config.json: pruned_heads: "),
        ({"quantization_config": {"bits": 4}}, "config.json: quantization_config: "),
        ({"num_hidden_layers": 10**9}, "config.json: num_hidden_layers: "),
    ],
)
def test_another_kind_of_bert_is_refused(
    tiny_copy: Path, refused: Callable[..., None], change: dict[str, Any], message: str
) -> None:
    file = tiny_copy / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    refused(tiny_copy, message)


@pytest.mark.parametrize("field", BASE)
def test_a_missing_field_is_named(tiny_copy: Path, refused: Callable[..., None], field: str) -> None:
    file = tiny_copy / "config.json"
    config = json.loads(file.read_text())
    del config[field]
    file.write_text(json.dumps(config))
    refused(tiny_copy, f"config.json: {field}: Field required")


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "there is no config.json, so this is not a checkpoint")
