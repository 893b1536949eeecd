"""The fields of config.json against transformers': each one is obeyed as there, refused by name, or without effect."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from model_export.errors import ExportError
from model_export.families import family_of
from model_export.network import Network
from tests.model_export.families.checkpoints import SIZES
from tests.model_export.families.variants import FAMILIES, VARIANTS

NATIVE = [name for name in FAMILIES if VARIANTS[name].model_type == name]
ROTARY = ("nomic_bert", "gte", "jina_embeddings_v3", "modernbert")
COUNTED_FROM_PADDING = ("roberta", "xlm-roberta", "camembert")

WITHOUT_EFFECT = {
    *("transformers_version", "architectures", "_name_or_path", "dtype", "initializer_range", "use_cache"),
    *("output_hidden_states", "output_attentions", "return_dict", "chunk_size_feed_forward", "is_encoder_decoder"),
    # Of heads, which the encoder's vectors are not made by.
    *("id2label", "label2id", "problem_type", "tie_word_embeddings", "decoder_bias", "classifier_pooling"),
    *("classifier_bias", "classifier_activation", "sparse_prediction", "sparse_pred_ignore_index"),
    *("summary_type", "summary_use_proj", "summary_activation"),
    # Of training.
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "classifier_dropout_prob"),
    *("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout", "summary_last_dropout"),
    *("embedding_dropout", "mlp_dropout", "initializer_cutoff_factor", "deterministic_flash_attn"),
    # The tokenizer's matter; RoBERTa counts positions from the padding's id.
    *("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id"),
    "sinusoidal_pos_embds",  # a table all the same, and among the tensors
}


SWITCHED_ON = {"ernie": {"use_task_id": True}}
"""Fields by which others have an effect."""


def written(model_type: str, **fields: Any) -> dict[str, Any]:
    """Give a config.json as transformers writes it, whole."""
    given = {**SIZES, **VARIANTS[model_type].config, **SWITCHED_ON.get(model_type, {}), **fields}
    config: dict[str, Any] = CONFIG_MAPPING[model_type](
        **{name: value for name, value in given.items() if value is not None}
    ).to_dict()
    return config


def network_of(config: dict[str, Any]) -> Network | None:
    """Read a config.json; None where it is refused."""
    try:
        return family_of(config).network(config)
    except ExportError:
        return None


def effective(model_type: str) -> list[str]:
    fields = written(model_type).keys() - WITHOUT_EFFECT - {"model_type"}
    return sorted(fields | ({"pad_token_id"} if model_type in COUNTED_FROM_PADDING else set()))


def changes(field: str, value: Any) -> Iterator[Any]:
    """Give other values that transformers would take for a field."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value * 2, value + 2)
        case float():
            yield value * 3
        case str():
            yield from ("silu" if value == "relu" else "relu", "quick_gelu", "laplace", "tanh")
        case [str(), *_]:
            yield from (value[::-1], [*value, value[0]], value[1:], value[:1] * len(value))
        case {"rope_theta": theta, **others}:
            yield {**others, "rope_theta": theta * 2}
            yield from ({**value, "rope_type": kind, "factor": 2.0} for kind in ("linear", "dynamic", "yarn"))
            yield {**value, "rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}
        case {"full_attention": of_full, **others}:
            yield from ({**others, "full_attention": each} for each in changes(field, of_full))
            yield from ({**value, "sliding_attention": each} for each in changes(field, value["sliding_attention"]))
        case _:
            raise AssertionError(f"{field} {value!r}: say what else it may be")


@pytest.mark.parametrize(("model_type", "field"), [(name, field) for name in NATIVE for field in effective(name)])
def test_a_changed_field_changes_the_network_or_is_refused(model_type: str, field: str) -> None:
    config = written(model_type)
    network = network_of(config)
    assert network is not None
    for value in changes(field, config[field]):
        assert network_of(config | {field: value}) != network, value


@pytest.mark.parametrize(("model_type", "field"), [(name, field) for name in NATIVE for field in effective(name)])
def test_a_missing_field_is_transformers_default_or_refused(model_type: str, field: str) -> None:
    config = written(model_type)
    del config[field]
    found = network_of(config)
    if found is not None:
        assert found == network_of(CONFIG_MAPPING[model_type].from_dict(dict(config)).to_dict())


ROTARY_FIELDS: list[dict[str, Any]] = [
    {"rope_theta": 5e4},
    {"rope_scaling": None},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 5e4},
    {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
    {"rope_parameters": {"rope_theta": 5e4}},
    {"rope_parameters": {"rope_theta": 50000, "rope_type": "default"}},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4}},
    {"rope_parameters": {"rope_type": "default", "factor": 2.0, "rope_theta": 5e4}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 5e4}, "rope_theta": 1e3},
    {"rope_parameters": {"rope_type": "default"}, "rope_theta": 1e3},
    {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e4, "partial_rotary_factor": 0.5}},
    {"rope_parameters": None, "rope_theta": 1e3},
]
MODERNBERT_FIELDS: list[dict[str, Any]] = [
    {"global_attn_every_n_layers": 2},
    {"global_attn_every_n_layers": 1},
    {"global_attn_every_n_layers": 2, "layer_types": None},
    {"local_attention": 9},
    {"local_attention": 1},
    {"sliding_window": 7},
    {"global_rope_theta": 9e4},
    {"local_rope_theta": 3e3},
    {"global_rope_theta": 9e4, "local_rope_theta": None},
    {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 3e3}}},
    {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0}}},
    {"rope_parameters": {"sliding_attention": {"rope_theta": 3e3}}, "local_rope_theta": 2e3},
    {"rope_scaling": {"type": "linear", "factor": 2.0}},
    {"rope_theta": 5e4},
    {"layer_types": ["sliding_attention", "full_attention", "chunked_attention"]},
    {"norm_bias": True, "mlp_bias": True},
]


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        *product([name for name in ROTARY if name != "modernbert"], ROTARY_FIELDS),
        *product(["modernbert"], MODERNBERT_FIELDS),
    ],
)
def test_fields_of_rotary_positions_and_windows_mean_what_they_do_there(
    model_type: str, fields: dict[str, Any]
) -> None:
    """By today's names and by those of older files, alone and at odds with each other."""
    config = {
        name: value for name, value in written(model_type).items() if name not in ("rope_parameters", "layer_types")
    }
    found = network_of(config | fields)
    if found is None:
        return
    theirs = CONFIG_MAPPING[model_type].from_dict(config | fields).to_dict()
    assert found == network_of(theirs)
