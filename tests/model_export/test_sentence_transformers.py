"""What is read of sentence-transformers' files, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from berth.models import DEFAULT_MODEL
from berth.types import Metric, Pooling
from model_export.checkpoint import find_checkpoint
from model_export.errors import ExportError
from model_export.sentence_transformers import Usage, read_usage

OLD = "sentence_transformers.models."


def _read(folder: Path) -> Usage:
    return read_usage(find_checkpoint(str(folder)))


def _write(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def _modules(folder: Path, *types: str, pooling: Any = None) -> Path:
    modules = [{"idx": n, "name": str(n), "path": f"{n}_x" if n else "", "type": kind} for n, kind in enumerate(types)]
    _write(folder, "modules.json", modules)
    _write(folder, "1_x/config.json", pooling or {"pooling_mode": "mean"})
    return folder


def test_without_their_files_it_is_mean_pooling(tmp_path: Path) -> None:
    assert _read(tmp_path) == Usage()
    assert (Usage().pooling, Usage().normalize, Usage().similarity) == (Pooling.MEAN, False, Metric.COSINE)


def test_the_default_model() -> None:
    assert read_usage(find_checkpoint(DEFAULT_MODEL)) == Usage(normalize=True, max_tokens=256)


@pytest.mark.parametrize(
    ("of_sentences", "of_tokenizer", "expected"),
    [
        ({"max_seq_length": 256}, {"model_max_length": 512}, 256),
        ({}, {"model_max_length": 256}, 256),
        ({"max_seq_length": None}, {"model_max_length": 1e30}, int(1e30)),
        ({}, {}, None),
        ({}, {"model_max_length": math.inf}, None),
        ({}, {"max_len": 128}, 128),
        ({}, {"model_max_length": 64, "max_len": 128}, 64),
        ({}, {"model_max_length": math.nan}, None),
        ({"max_seq_length": None}, {"model_max_length": -math.inf}, None),
    ],
)
def test_the_limit(tmp_path: Path, of_sentences: object, of_tokenizer: object, expected: int | None) -> None:
    _write(tmp_path, "sentence_bert_config.json", of_sentences)
    _write(tmp_path, "tokenizer_config.json", of_tokenizer)
    assert _read(tmp_path).max_tokens == expected


OTHER_STATES = {"text": {"method": "forward", "method_output_name": "pooler_output"}}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("processing_kwargs", {"text": {"truncation": False}}),
        ("tokenizer_args", {"strip_accents": True}),
        ("processor_kwargs", {"model_max_length": 64}),
        ("config_args", {"hidden_act": "relu"}),
        ("config_kwargs", {"num_hidden_layers": 2}),
        ("model_args", {"num_hidden_layers": 2, "dtype": "float16"}),
        ("model_kwargs", "all"),
        ("tokenizer_name_or_path", "bert-base-cased"),
        ("transformer_task", "fill-mask"),
        ("modality_config", OTHER_STATES),
        ("module_output_name", "sentence_embedding"),
        ("query_length", 32),
        ("document_length", 180),
        ("query_expansion", {"strategy": "fixed", "length": 32}),
        ("from_tomorrow", 1),
    ],
)
def test_another_way_to_feed_or_read_the_encoder_is_refused(
    tiny_copy: Path, refused: Callable[..., None], field: str, value: object
) -> None:
    _write(tiny_copy, "sentence_bert_config.json", {"max_seq_length": 30, field: value})
    refused(tiny_copy, f"sentence_bert_config.json: {field} {value!r} is not implemented")


@pytest.mark.parametrize(
    "config",
    [
        {"do_lower_case": False, "model_args": {"trust_remote_code": True, "add_pooling_layer": False}},
        {"model_kwargs": {"torch_dtype": "float16", "attn_implementation": "sdpa"}, "unpad_inputs": False},
        {"tokenizer_args": {}, "config_args": {"trust_remote_code": True}, "processing_kwargs": {}},
        {"transformer_task": None, "query_length": None, "document_length": None, "query_expansion": None},
    ],
    ids=str,
)
def test_what_changes_no_vector_is_passed_over(tmp_path: Path, config: dict[str, Any]) -> None:
    _write(tmp_path, "sentence_bert_config.json", config)
    assert _read(tmp_path) == Usage()


@pytest.mark.parametrize("limit", [0, 2, -1, True, "256"])
def test_a_limit_that_is_none_is_refused(tiny_copy: Path, refused: Callable[..., None], limit: object) -> None:
    _write(tiny_copy, "sentence_bert_config.json", {"max_seq_length": limit})
    refused(tiny_copy, f"sentence_bert_config.json: max_seq_length {limit!r} does not hold [CLS], a token and [SEP]")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prompts": ["query: "]}, "prompts does not map names to texts"),
        ({"prompts": {"query": 1}}, "prompts does not map names to texts"),
        (
            {"prompts": {"a": "b"}, "default_prompt_name": "query"},
            "default_prompt_name 'query' is not among the prompts",
        ),
        ({"prompts": {"": "b"}, "default_prompt_name": ""}, "default_prompt_name '' is not among the prompts"),
        ({"prompts": {}, "default_prompt_name": []}, "default_prompt_name [] is not among the prompts"),
        ({"truncate_dim": 0}, "truncate_dim 0 is not a number of dimensions"),
        ({"truncate_dim": -16}, "truncate_dim -16 is not a number of dimensions"),
        ({"truncate_dim": 16.0}, "truncate_dim 16.0 is not a number of dimensions"),
        ({"truncate_dim": True}, "truncate_dim True is not a number of dimensions"),
        ({"similarity_fn_name": ["cosine"]}, "similarity_fn_name ['cosine'] is not one of cosine,"),
        (
            {"model_type": "SparseEncoder"},
            "model_type 'SparseEncoder' is not implemented, SentenceTransformer alone is",
        ),
        ({"model_type": None}, "model_type None is not implemented"),
        ({"query_prefix": "[Q] "}, "query_prefix '[Q] ' is not implemented"),
        ({"similarity_fn_name": "jaccard"}, "similarity_fn_name 'jaccard' is not one of cosine, dot, dot_product,"),
    ],
)
def test_prompts_and_metrics_that_are_none_are_refused(
    tiny_copy: Path, refused: Callable[..., None], config: object, message: str
) -> None:
    _write(tiny_copy, "config_sentence_transformers.json", config)
    refused(tiny_copy, f"config_sentence_transformers.json: {message}")


@pytest.mark.parametrize(
    ("name", "metric"),
    [("cosine", Metric.COSINE), ("dot", Metric.DOT), ("euclidean", Metric.EUCLIDEAN), (None, Metric.COSINE)],
)
def test_metrics(tmp_path: Path, name: str | None, metric: Metric) -> None:
    _write(tmp_path, "config_sentence_transformers.json", {"similarity_fn_name": name, "prompts": {"document": None}})
    assert _read(tmp_path).similarity is metric
    assert _read(tmp_path).prompts == {"document": ""}


def test_what_the_model_was_made_with_and_how_it_is_cut(tmp_path: Path) -> None:
    made = {
        "__version__": {"sentence_transformers": "6.2.0"},
        "requirements": None,
        "model_type": "SentenceTransformer",
    }
    _write(tmp_path, "config_sentence_transformers.json", made | {"truncate_dim": 16, "from_tomorrow": None})
    assert _read(tmp_path) == Usage(truncate_dim=16)


@pytest.mark.parametrize("name", ["roberta", "xlm-roberta", "distilbert"])
def test_the_encoders_file_has_older_names(tmp_path: Path, name: str) -> None:
    _write(tmp_path, "sentence_bert_config.json", {})
    _write(tmp_path, f"sentence_{name}_config.json", {"max_seq_length": 128, "do_lower_case": True})
    assert _read(tmp_path) == Usage(max_tokens=128, lower_case=True)
    _write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 64})
    assert _read(tmp_path) == Usage(max_tokens=64), "the first that says something"


def test_a_folder_with_an_older_name_is_read_alike(tiny_copy: Path, refused: Callable[..., None]) -> None:
    _write(tiny_copy, "sentence_roberta_config.json", {"query_length": 32})
    refused(tiny_copy, "sentence_roberta_config.json: query_length 32 is not implemented")


def test_an_encoder_in_a_folder_of_its_own(tmp_path: Path, tiny_checkpoint: Path) -> None:
    _modules(tmp_path, OLD + "Transformer", OLD + "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    _write(tmp_path, "modules.json", modules)
    _write(tmp_path, "0_Transformer/sentence_bert_config.json", {"max_seq_length": 17, "do_lower_case": True})
    usage = _read(tmp_path)
    assert (usage.folder, usage.max_tokens, usage.lower_case) == ("0_Transformer", 17, True)


def test_a_folder_outside_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    _modules(tmp_path, OLD + "Transformer", OLD + "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "../other"
    _write(tmp_path, "modules.json", modules)
    with pytest.raises(ExportError, match="not inside the checkpoint"):
        _read(tmp_path)
