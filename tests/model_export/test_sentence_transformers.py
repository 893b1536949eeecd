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

MODULES = ("Transformer", "Pooling", "Normalize")
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
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode_max_tokens": True}, Pooling.MAX),
        ({"pooling_mode_weightedmean_tokens": True}, Pooling.WEIGHTED_MEAN),
        ({"pooling_mode_lasttoken": True}, Pooling.LAST),
        ({"pooling_mode_mean_tokens": False}, Pooling.MEAN),
        ({"pooling_mode": "cls"}, Pooling.CLS),
        ({"pooling_mode": ["max"]}, Pooling.MAX),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, Pooling.LAST),
        ({"pooling_mode": "weightedmean"}, Pooling.WEIGHTED_MEAN),
        ({"pooling_mode": ["mean", "max"]}, Pooling.MEAN_MAX),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, Pooling.CLS),
    ],
)
def test_poolings(tmp_path: Path, config: dict[str, Any], pooling: Pooling) -> None:
    assert _read(_modules(tmp_path, OLD + "Transformer", OLD + "Pooling", pooling=config)).pooling is pooling


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "the pooling mean_sqrt_len_tokens is not implemented"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "the pooling cls + mean is not"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, "the pooling max + mean is not"),
        ({"pooling_mode": ["max", "mean"]}, "the pooling max + mean is not implemented"),
        ({"pooling_mode": "attention"}, "the pooling attention is not implemented"),
        ({"pooling_mode": "mean", "include_prompt": False}, "include_prompt false (the prompt is not pooled) is not"),
    ],
)
def test_other_poolings_are_refused(
    tiny_copy: Path, refused: Callable[..., None], config: dict[str, Any], message: str
) -> None:
    _modules(tiny_copy, OLD + "Transformer", OLD + "Pooling", pooling=config)
    refused(tiny_copy, f"{tiny_copy}/1_x/config.json: {message}")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ([OLD + "Transformer", OLD + "Pooling", OLD + "Dense"], "the module Dense is not implemented"),
        ([OLD + "Transformer", OLD + "Pooling", OLD + "Dense", OLD + "Normalize"], "the module Dense is not"),
        (["custom_st.Transformer", OLD + "Pooling"], "the module custom_st.Transformer is not implemented"),
        ([OLD + "Transformer"], "Transformer: expected Transformer, Pooling and perhaps Normalize"),
        ([OLD + "Transformer", OLD + "Normalize", OLD + "Pooling"], "Transformer, Normalize, Pooling: expected"),
        ([], ": expected Transformer, Pooling"),
    ],
)
def test_other_modules_are_refused(
    tiny_copy: Path, refused: Callable[..., None], types: list[str], message: str
) -> None:
    _modules(tiny_copy, *types)
    refused(tiny_copy, message)


@pytest.mark.parametrize("content", [{}, [1], [{"idx": 0}], "modules"])
def test_modules_that_are_none_are_refused(tiny_copy: Path, refused: Callable[..., None], content: object) -> None:
    _write(tiny_copy, "modules.json", content)
    refused(tiny_copy, "modules.json: not a list of modules with idx, path and type")


def test_a_pooling_without_its_file_is_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    _modules(tiny_copy, OLD + "Transformer", OLD + "Pooling")
    (tiny_copy / "1_x" / "config.json").unlink()
    refused(tiny_copy, "1_x/config.json: no such file, but modules.json names it")


def test_normalized_tokens_are_refused(tiny_copy: Path, refused: Callable[..., None]) -> None:
    _modules(tiny_copy, *(OLD + module for module in MODULES))
    _write(tiny_copy, "2_x/config.json", {"module_input_name": "token_embeddings"})
    refused(tiny_copy, "2_x/config.json: normalizing token_embeddings is not implemented")


def test_class_paths_of_all_versions_are_known(tmp_path: Path) -> None:
    _modules(
        tmp_path,
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.normalize.Normalize",
    )
    assert _read(tmp_path).normalize


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
        ({"truncate_dim": 16}, "truncate_dim 16 is not implemented; requests have `dimensions`"),
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


def test_an_encoder_in_a_folder_of_its_own(tmp_path: Path, tiny_checkpoint: Path) -> None:
    _modules(tmp_path, OLD + "Transformer", OLD + "Pooling")
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    _write(tmp_path, "modules.json", modules)
    _write(tmp_path, "0_Transformer/sentence_bert_config.json", {"max_seq_length": 17, "do_lower_case": True})
    usage = _read(tmp_path)
    assert (usage.folder, usage.max_tokens, usage.lower_case) == ("0_Transformer", 17, True)


def test_a_folder_outside_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, "modules.json", [{"idx": 0, "path": "../other", "type": OLD + "Transformer"}])
    with pytest.raises(ExportError, match="expected Transformer, Pooling"):
        _read(tmp_path)
