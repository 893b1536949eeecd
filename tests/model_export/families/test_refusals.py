"""What a family does not compute is refused in one line that names it, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from berth.artifact import Precision
from model_export.__main__ import main
from model_export.export import export
from model_export.families import FAMILIES
from tests.model_export.families.plain import plain_config, read_stored, write_plain, write_stored
from tests.model_export.families.variants import VARIANTS

Refused = Callable[..., None]

SPELLINGS = [
    *("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra", "ernie, tasks", "albert"),
    *("nomic_bert", "nomic_bert, code", "gte", "new", "jina_embeddings_v3", "modernbert", "modernbert, old"),
]
"""A variant of each family, and of each spelling of its config.json."""

BERT_LIKE = ("bert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "ernie, tasks", "albert")
ROTARY = ("nomic_bert", "gte", "jina_embeddings_v3")
LIKE_BERT: list[tuple[dict[str, Any], str]] = [
    ({"position_embedding_type": "relative_key_query"}, "config.json: position_embedding_type: "),
    ({"is_decoder": True}, "config.json: is_decoder: "),
    ({"add_cross_attention": True}, "config.json: add_cross_attention: "),
    ({"hidden_act": "mish"}, "config.json: hidden_act 'mish' is not one of gelu,"),
    ({"transformers_weights": "other.safetensors"}, "config.json: transformers_weights: "),
    ({"num_attention_heads": 7}, "config.json: hidden_size 60 is not a multiple of num_attention_heads 7"),
    ({"pruned_heads": {"0": [1]}}, "config.json: pruned_heads: "),
    ({"quantization_config": {"quant_method": "gptq"}}, "config.json: quantization_config: "),
    ({"layer_norm_eps": -1e-12}, "config.json: layer_norm_eps: "),
    ({"num_hidden_layers": 10**9}, "config.json: num_hidden_layers: "),
    ({"max_position_embeddings": 10**9}, "config.json: max_position_embeddings: "),
]
WITH_ROTARY: list[tuple[dict[str, Any], str]] = [
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "rope_parameters: rope_type 'yarn'"),
    ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, "rope_parameters: factor 0 is not a positive number"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "a partial_rotary_factor is not"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "config.json: rope_scaling: "),
    ({"num_attention_heads": 4}, "config.json: heads of 15 numbers have no halves for rotary positions"),
]
OF_ONE: dict[str, list[tuple[dict[str, Any], str]]] = {
    "mpnet": [({"relative_attention_num_buckets": 16}, "config.json: relative_attention_num_buckets: ")],
    "distilbert": [
        ({"activation": "mish"}, "config.json: activation 'mish' is not one of gelu,"),
        ({"num_attention_heads": 6}, "config.json: num_attention_heads 6 and n_heads 5 disagree"),
        ({"num_hidden_layers": 2}, "config.json: num_hidden_layers 2 and n_layers 3 disagree"),
        ({"n_heads": 7}, "config.json: hidden_size 60 is not a multiple of n_heads 7"),
        ({"pruned_heads": {"0": [1]}}, "config.json: pruned_heads: "),
    ],
    "electra": [
        ({"embedding_size": 32}, "embeddings.word_embeddings.weight is [400, 28], but config.json asks for [400, 32]")
    ],
    "ernie, tasks": [({"use_task_id": False}, "embeddings.task_type_embeddings.weight [3, 60] is not part of")],
    "albert": [
        ({"inner_group_num": 2}, "config.json: inner_group_num: "),
        ({"num_hidden_groups": 4}, "config.json: num_hidden_groups 4 is above num_hidden_layers 3"),
        ({"num_hidden_groups": 2}, "albert_layer_groups.1.albert_layers.0.attention.query.weight [60, 60] is missing"),
    ],
    "nomic_bert": [({"head_dim": 20}, "config.json: head_dim 20 is not hidden_size / num_attention_heads, 12")],
    "nomic_bert, code": [
        ({"prenorm": True}, "config.json: prenorm: "),
        ({"causal": True}, "config.json: causal: "),
        ({"parallel_block": True}, "config.json: parallel_block: "),
        ({"use_rms_norm": True}, "config.json: use_rms_norm: "),
        ({"activation_function": "gelu"}, "config.json: activation_function: "),
        ({"rotary_emb_fraction": 0.5}, "config.json: rotary_emb_fraction: "),
        ({"rotary_emb_interleaved": True}, "config.json: rotary_emb_interleaved: "),
        ({"rotary_emb_scale_base": 512.0}, "config.json: rotary_emb_scale_base: "),
        ({"rotary_scaling_factor": 2.0}, "config.json: rotary_scaling_factor: "),
        ({"scale_attn_weights": False}, "config.json: scale_attn_weights: "),
        ({"scale_attn_by_inverse_layer_idx": True}, "config.json: scale_attn_by_inverse_layer_idx: "),
        ({"n_head": 4}, "config.json: heads of 15 numbers have no halves"),
        ({"n_inner": 50}, "but config.json asks for [50, 60]"),
        ({"qkv_proj_bias": True}, "encoder.layers.0.attn.Wqkv.bias [60] is missing"),
    ],
    "nomic_bert, both": [
        ({"num_attention_heads": 6}, "config.json: n_head 5 and num_attention_heads 6 disagree"),
        ({"layer_norm_eps": 1e-5}, "config.json: layer_norm_epsilon 1e-12 and layer_norm_eps 1e-05 disagree"),
        ({"rope_parameters": {"rope_theta": 2e4}}, "rotary_emb_base 10000.0 and rope_parameters disagree"),
    ],
    "jina_embeddings_v3": [({"rope_theta": 1e3}, "rope_parameters, rope_theta and rotary_emb_base disagree")],
    "gte": [({"type_vocab_size": 0}, "tensor embeddings.token_type_embeddings.weight [1, 60] is not part of a gte")],
    "new": [
        ({"logn_attention_scale": True}, "config.json: logn_attention_scale: "),
        ({"rope_scaling": {"type": "ntk", "factor": 8.0, "mixed_b": 0.6}}, "rope_scaling: mixed_b is not implemented"),
        ({"rope_scaling": {"type": "dynamic", "factor": 8.0}}, "config.json: rope_scaling {'type': 'dynamic'"),
        ({"rope_scaling": {"type": "ntk", "factor": 0.5}}, "is not of type ntk with a factor above 1"),
        ({"rope_scaling": {"type": "ntk", "factor": float("nan")}}, "is not of type ntk with a factor above 1"),
        ({"rope_scaling": {"type": "ntk", "factor": 10**400}}, "is not of type ntk with a factor above 1"),
        (
            {"num_attention_heads": 61, "rope_scaling": {"type": "ntk", "factor": 2.0}},
            "hidden_size 60 is not a multiple of num_attention_heads 61",
        ),
        ({"layer_norm_type": "rms_norm"}, "config.json: layer_norm_type: "),
        ({"position_embedding_type": "absolute"}, "config.json: position_embedding_type: "),
        ({"pack_qkv": False}, "config.json: pack_qkv: "),
        ({"auto_map": {"AutoModel": "o/r--modeling.NewSparseModel"}}, "NewSparseModel is code on the hub that no"),
    ],
    "modernbert": [
        ({"layer_types": ["full_attention"]}, "config.json: layer_types has 1 entries for 3 layers"),
        ({"layer_types": ["full_attention"] * 2 + ["chunked_attention"]}, "config.json: layer_types.2: "),
        ({"hidden_activation": "mish"}, "config.json: hidden_activation 'mish' is not one of"),
        ({"local_attention": 0}, "config.json: local_attention: "),
        ({"sliding_window": 7}, "config.json: sliding_window 7 is not half of local_attention"),
        ({"head_dim": 16}, "config.json: head_dim: "),
        ({"norm_bias": True}, "embeddings.norm.bias [60] is missing"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}},
            "config.json: rope_parameters.full_attention: rope_type 'yarn'",
        ),
        ({"rope_parameters": {"chunked_attention": {}}}, "rope_parameters: chunked_attention is no layer type"),
    ],
}
CASES = [
    *((name, *case) for name in BERT_LIKE for case in LIKE_BERT),
    *((name, *case) for name in ROTARY for case in WITH_ROTARY),
    *((name, *case) for name, cases in OF_ONE.items() for case in cases),
]


@pytest.mark.parametrize(("name", "fields", "message"), CASES)
def test_a_field_that_the_family_does_not_obey(
    tmp_path: Path, refused: Refused, name: str, fields: dict[str, Any], message: str
) -> None:
    refused(write_plain(tmp_path / "checkpoint", name, **fields), message)


@pytest.mark.parametrize("model_type", ["deberta-v2", "t5", "NEW", "", None, 3, ["bert"], {"bert": 1}])
def test_an_unknown_model_type_is_refused_with_those_that_are_known(
    tmp_path: Path, refused: Refused, model_type: Any
) -> None:
    folder = write_plain(tmp_path / "checkpoint", "bert", model_type=model_type)
    known = ", ".join(dict.fromkeys(family.name for family in FAMILIES))
    refused(folder, f"model_type {model_type!r} is not supported; supported: {known}")


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(
    "auto_map",
    [
        {"AutoModel": "owner/name--modeling.OtherModel"},
        {"AutoConfig": "configuration.Config", "AutoModel": "modeling.OtherModel"},
        {"AutoModelForMaskedLM": "modeling.OtherModel"},
        "modeling.OtherModel",
    ],
    ids=["AutoModel", "with its config", "of a head alone", "no object"],
)
def test_code_that_no_family_covers(tmp_path: Path, refused: Refused, name: str, auto_map: Any) -> None:
    folder = write_plain(tmp_path / "checkpoint", name, auto_map=auto_map)
    refused(folder, "OtherModel")


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_tensor_that_is_missing(tmp_path: Path, refused: Refused, name: str) -> None:
    folder = write_plain(tmp_path / "checkpoint", name)
    stored = read_stored(folder)
    for tensor in [each for each in stored if not each.startswith("pooler")]:
        write_stored(folder, {other: array for other, array in stored.items() if other != tensor})
        refused(folder, f"tensor {tensor} ")


@pytest.mark.parametrize("name", SPELLINGS)
def test_half_a_pooler(tmp_path: Path, refused: Refused, name: str) -> None:
    """A pooler may be missing, but not a part of it."""
    folder = write_plain(tmp_path / "checkpoint", name)
    stored = read_stored(folder)
    for tensor in [each for each in stored if each.startswith("pooler")]:
        write_stored(folder, {other: array for other, array in stored.items() if other != tensor})
        refused(folder, f"tensor {tensor} ")


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_tensor_of_another_shape(tmp_path: Path, refused: Refused, name: str) -> None:
    folder = write_plain(tmp_path / "checkpoint", name)
    stored = read_stored(folder)
    for tensor, array in stored.items():
        longer = np.concatenate([array, array[:1]])
        for other in (longer, array[None], array[:-1], *([array.T.copy()] if _is_oblong(array) else [])):
            write_stored(folder, stored | {tensor: other})
            refused(folder, f"tensor {tensor} is {list(other.shape)}, but config.json asks for {list(array.shape)}")


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize(
    "tensor",
    [
        "embeddings.extra.weight",
        "encoder.layer.3.attention.self.query.weight",
        "encoder.layer.0.attention.self.query.lora_A",
        "layers.0.attn.q_norm.weight",
        "pooler.dense.weight.scale",
        "0.linear.weight",
    ],
)
def test_a_tensor_too_many(tmp_path: Path, refused: Refused, name: str, tensor: str) -> None:
    folder = write_plain(tmp_path / "checkpoint", name)
    write_stored(folder, read_stored(folder) | {tensor: np.ones((2, 60), np.float32)})
    refused(folder, f"tensor {tensor} [2, 60] is not part of a {plain_config(name)['model_type']} encoder")


@pytest.mark.parametrize(
    ("name", "number", "precision"),
    [*((name, np.nan, "fp32") for name in SPELLINGS), ("bert", -np.inf, "int8"), ("gte", np.inf, "int8")],
)
def test_a_number_that_is_not_finite(
    tmp_path: Path, refused: Refused, name: str, number: float, precision: Precision
) -> None:
    """In each kind of tensor, also in rows of tables that no text has and in biases that int8 leaves out."""
    folder = write_plain(tmp_path / "checkpoint", name)
    stored = read_stored(folder)
    kinds = {tensor.replace(".1.", ".#."): tensor for tensor in stored}.values()
    chosen = list(kinds)[:: max(1, len(kinds) // 3)]
    for tensor in chosen:
        damaged = stored[tensor].copy()
        damaged.flat[0] = number
        write_stored(folder, stored | {tensor: damaged})
        refused(folder, f"tensor {tensor} holds a number that is not finite", precision)


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_plain(tmp_path / "checkpoint", "modernbert", local_attention="wide")
    assert main([str(folder), str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert not shown.out
    assert shown.err.startswith("error: config.json: local_attention: ")
    assert shown.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SPELLINGS)
def test_what_is_refused_here_is_exported_otherwise(tmp_path: Path, name: str) -> None:
    """The checkpoints that are damaged above are good ones before that."""
    summary = export(str(write_plain(tmp_path / "checkpoint", name)), tmp_path / "artifact")
    assert summary.manifest.family == plain_config(name)["model_type"]
    assert VARIANTS[name].model_type in (summary.manifest.family, "gte")


def _is_oblong(array: np.ndarray[Any, Any]) -> bool:
    return array.ndim == 2 and array.shape[0] != array.shape[1]


@pytest.mark.parametrize("padding", [88, 600])
def test_positions_that_leave_no_room_for_a_text(tmp_path: Path, refused: Refused, padding: int) -> None:
    checkpoint = write_plain(tmp_path / "checkpoint", "roberta", pad_token_id=padding)
    refused(checkpoint, f"max_position_embeddings leaves a text {89 - padding} tokens")


def test_an_adapter_of_peft_beside_the_weights(tmp_path: Path, refused: Refused) -> None:
    checkpoint = write_plain(tmp_path / "checkpoint", "roberta")
    (checkpoint / "adapter_config.json").write_text("{}")
    refused(checkpoint, "adapter_config.json: ")
