"""What is read of modules.json and of each module's config, and what is refused."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from berth.artifact import Dense, Normalize
from berth.types import Pooling
from model_export.checkpoint import find_checkpoint
from model_export.errors import ExportError
from model_export.modules import DenseModule, Modules, read_modules
from model_export.sentence_transformers import read_usage

OLD = "sentence_transformers.models."
DENSE = {"in_features": 60, "out_features": 4, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}

Refused = Callable[..., None]


def _read(folder: Path) -> Modules:
    return read_modules(find_checkpoint(str(folder)))


def _write(folder: Path, name: str, content: object) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def _modules(folder: Path, *types: str, **configs: Any) -> Path:
    """Write modules of some types; `configs` are those of their kinds, by their names in lower case."""
    modules = []
    for place, kind in enumerate(types):
        path = f"{place}_x" if place else ""
        modules.append({"idx": place, "name": str(place), "path": path, "type": kind if "." in kind else OLD + kind})
        usual = {"Pooling": {"pooling_mode": "mean"}, "Dense": DENSE}.get(kind, {})
        if path and (config := configs.get(kind.lower(), usual)):
            _write(folder, f"{path}/config.json", config)
    _write(folder, "modules.json", modules)
    return folder


def test_without_the_file_it_is_mean_pooling(tmp_path: Path) -> None:
    assert _read(tmp_path) == Modules()
    assert (Modules().pooling, Modules().normalize, Modules().include_prompt) == (Pooling.MEAN, False, True)


@pytest.mark.parametrize(
    ("config", "poolings"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, [Pooling.CLS]),
        ({"pooling_mode_mean_tokens": True}, [Pooling.MEAN]),
        ({"pooling_mode_max_tokens": True}, [Pooling.MAX]),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, [Pooling.MEAN_SQRT_LEN]),
        ({"pooling_mode_weightedmean_tokens": True}, [Pooling.WEIGHTED_MEAN]),
        ({"pooling_mode_lasttoken": True}, [Pooling.LAST]),
        ({"pooling_mode_mean_tokens": False}, [Pooling.MEAN]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, [Pooling.CLS, Pooling.MEAN]),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, [Pooling.MAX, Pooling.MEAN]),
        ({"pooling_mode": "cls", "word_embedding_dimension": 60}, [Pooling.CLS]),
        ({"pooling_mode": ["max"], "embedding_dimension": 60}, [Pooling.MAX]),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, [Pooling.LAST]),
        ({"pooling_mode": "weightedmean"}, [Pooling.WEIGHTED_MEAN]),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, [Pooling.MEAN_SQRT_LEN]),
        ({"pooling_mode": ["mean", "max"]}, [Pooling.MEAN_MAX]),
        ({"pooling_mode": ["max", "mean"]}, [Pooling.MAX, Pooling.MEAN]),
        ({"pooling_mode": ["mean", "max", "cls"]}, [Pooling.MEAN, Pooling.MAX, Pooling.CLS]),
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, [Pooling.CLS]),
    ],
    ids=str,
)
def test_poolings(tmp_path: Path, config: dict[str, Any], poolings: list[Pooling]) -> None:
    read = _read(_modules(tmp_path, "Transformer", "Pooling", pooling=config))
    assert [read.pooling, *read.further_poolings] == poolings
    assert read.pooled_width(60) == (120 if read.pooling is Pooling.MEAN_MAX else 60 * len(poolings))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_whether_a_prompt_is_pooled(tmp_path: Path, include_prompt: bool) -> None:
    config = {"pooling_mode": "mean", "include_prompt": include_prompt}
    assert _read(_modules(tmp_path, "Transformer", "Pooling", pooling=config)).include_prompt is include_prompt


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling_mode": "attention"}, "pooling_mode 'attention' is not one of cls, max, mean,"),
        ({"pooling_mode": ["mean", ["max"]]}, "pooling_mode ['max'] is not one of"),
        ({"pooling_mode": None}, "pooling_mode None is not one of"),
        ({"pooling_mode": []}, "pooling_mode [] names no pooling"),
        ({"pooling_mode": "mean", "include_prompt": None}, "include_prompt None is neither true nor false"),
        ({"pooling_mode": "mean", "include_prompt": 0}, "include_prompt 0 is neither true nor false"),
        (
            {"pooling_mode": "mean", "pooling_mode_first_token": True},
            "pooling_mode_first_token True is not implemented",
        ),
    ],
)
def test_other_poolings_are_refused(tiny_copy: Path, refused: Refused, config: dict[str, Any], message: str) -> None:
    _modules(tiny_copy, "Transformer", "Pooling", pooling=config)
    refused(tiny_copy, f"{tiny_copy}/1_x/config.json: {message}")


LAYER = DenseModule("2_x", Dense(inputs=60, outputs=4, activation="Tanh"), bias=True)


@pytest.mark.parametrize(
    ("behind", "projection", "normalize"),
    [
        ([], (), False),
        (["Normalize"], (), True),
        (["Normalize", "Normalize"], (), True),
        (["Dense"], (LAYER,), False),
        (["Dense", "Normalize"], (LAYER,), True),
        (["Dropout", "Normalize", "Dropout"], (), True),
    ],
    ids=str,
)
def test_what_stands_behind_the_pooling(
    tmp_path: Path, behind: list[str], projection: tuple[Any, ...], normalize: bool
) -> None:
    read = _read(_modules(tmp_path, "Transformer", "Pooling", *behind))
    assert (read.projection, read.normalize) == (projection, normalize)


def test_normalizations_between_layers_stay_there(tmp_path: Path) -> None:
    names = ["Transformer", "Normalize", "Pooling", "Normalize", "Dropout", "Normalize", "Dense", "Normalize", "Dense"]
    read = _read(_modules(tmp_path, *names))
    kinds = [each if isinstance(each, Normalize) else each.folder for each in read.projection]
    assert kinds == [Normalize(), "6_x", Normalize(), "8_x"]
    assert not read.normalize


@pytest.mark.parametrize(
    ("config", "activation", "bias"),
    [
        ({}, "Tanh", True),
        ({"activation_function": "torch.nn.modules.linear.Identity", "bias": False}, "Identity", False),
        ({"activation_function": "torch.nn.ReLU", "use_residual": False}, "ReLU", True),
        ({"module_input_name": "sentence_embedding", "module_output_name": None}, "Tanh", True),
        ({"module_output_name": "sentence_embedding"}, "Tanh", True),
    ],
    ids=str,
)
def test_dense(tmp_path: Path, config: dict[str, Any], activation: str, bias: bool) -> None:
    config = {"in_features": 60, "out_features": 4} | config
    [module] = _read(_modules(tmp_path, "Transformer", "Pooling", "Dense", dense=config)).projection
    assert module == DenseModule("2_x", Dense(inputs=60, outputs=4, activation=activation), bias)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"activation_function": "torch.nn.modules.activation.PReLU"},
            "PReLU' is not implemented; of torch.nn there are",
        ),
        ({"activation_function": "torch.tanh"}, "activation_function 'torch.tanh' is not implemented"),
        ({"activation_function": "custom.Tanh"}, "activation_function 'custom.Tanh' is not implemented"),
        ({"activation_function": None}, "activation_function None is not implemented"),
        ({"in_features": "60"}, "in_features and out_features must be sizes, not '60' and 4"),
        ({"out_features": 0}, "in_features and out_features must be sizes, not 60 and 0"),
        ({"bias": None}, "bias None is neither true nor false"),
        ({"use_residual": True}, "use_residual True is not implemented"),
        ({"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings' is not implemented"),
        ({"module_output_name": "scores"}, "module_output_name 'scores' is not implemented"),
        ({"init_weight": 1}, "init_weight 1 is not implemented"),
    ],
)
def test_other_layers_are_refused(tiny_copy: Path, refused: Refused, config: dict[str, Any], message: str) -> None:
    _modules(tiny_copy, "Transformer", "Pooling", "Dense", dense=DENSE | config)
    refused(tiny_copy, message)


def test_a_dense_without_its_file_is_refused(tiny_copy: Path, refused: Refused) -> None:
    _modules(tiny_copy, "Transformer", "Pooling", "Dense", dense={})
    refused(tiny_copy, "2_x/config.json: in_features and out_features must be sizes, not None and None")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings' is not implemented"),
        ({"module_output_name": "other"}, "module_output_name 'other' is not implemented"),
        ({"p": 1}, "p 1 is not implemented"),
    ],
)
@pytest.mark.parametrize("names", [["Pooling", "Normalize"], ["Normalize", "Pooling"]], ids=str)
def test_other_normalizations_are_refused(
    tiny_copy: Path, refused: Refused, names: list[str], config: dict[str, Any], message: str
) -> None:
    _modules(tiny_copy, "Transformer", *names, normalize=config)
    refused(tiny_copy, f"_x/config.json: {message}")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (["Transformer", "Pooling", "LayerNorm"], "the module LayerNorm is not implemented"),
        (["Transformer", "WordWeights", "Pooling"], "the module WordWeights is not implemented"),
        (["Transformer", "CNN", "Pooling"], "the module CNN is not implemented"),
        (["Transformer", "Pooling", "LSTM"], "the module LSTM is not implemented"),
        (["Transformer", "WeightedLayerPooling", "Pooling"], "the module WeightedLayerPooling is not implemented"),
        (["StaticEmbedding", "Normalize"], "the module StaticEmbedding is not implemented"),
        (["Router", "Pooling"], "the module Router is not implemented"),
        (["custom_st.Transformer", "Pooling"], "modules.json: custom_st.Transformer is code that no family covers"),
        (["Transformer", "custom_st.Pooling"], "the module custom_st.Pooling is not implemented"),
        (["Transformer"], "Transformer: expected Transformer, Pooling, and what"),
        (["Pooling"], "Pooling: expected Transformer, Pooling, and what"),
        (["Normalize", "Transformer", "Pooling"], "Normalize, Transformer, Pooling: expected Transformer"),
        (["Transformer", "Dense", "Pooling"], "Transformer, Dense, Pooling: expected Transformer"),
        (["Transformer", "Dropout", "Pooling"], "Transformer, Dropout, Pooling: expected Transformer"),
        (["Transformer", "Pooling", "custom_st.Transformer"], "expected Transformer, Pooling, and what"),
        (["Transformer", "Pooling", "Pooling"], "Transformer, Pooling, Pooling: expected Transformer"),
        ([], "modules.json: it names no module"),
    ],
)
def test_other_modules_are_refused(tiny_copy: Path, refused: Refused, types: list[str], message: str) -> None:
    _modules(tiny_copy, *types)
    refused(tiny_copy, message)


@pytest.mark.parametrize("content", [{}, [1], [{"idx": 0}], "modules", [{"name": "", "path": 0, "type": OLD}]])
def test_modules_that_are_none_are_refused(tiny_copy: Path, refused: Refused, content: object) -> None:
    _write(tiny_copy, "modules.json", content)
    refused(tiny_copy, "modules.json: not a list of modules with name, path and type")


def test_modules_of_one_name_are_refused(tiny_copy: Path, refused: Refused) -> None:
    """sentence-transformers keeps the later one in the place of the earlier."""
    modules = json.loads((_modules(tiny_copy, "Transformer", "Pooling", "Normalize") / "modules.json").read_text())
    modules[2]["name"] = "1"
    _write(tiny_copy, "modules.json", modules)
    refused(tiny_copy, "modules.json: two modules have the name '1', of which one would be lost")


def test_a_pooling_without_its_file_is_refused(tiny_copy: Path, refused: Refused) -> None:
    _modules(tiny_copy, "Transformer", "Pooling")
    (tiny_copy / "1_x" / "config.json").unlink()
    refused(tiny_copy, "1_x/config.json: no such file, but modules.json names it")


def test_class_paths_of_all_versions_are_known(tmp_path: Path) -> None:
    _modules(
        tmp_path,
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.dense.Dense",
        "sentence_transformers.base.modules.normalize.Normalize",
    )
    _write(tmp_path, "1_x/config.json", {"pooling_mode": "cls"})
    _write(tmp_path, "2_x/config.json", DENSE)
    assert _read(tmp_path) == Modules(pooling=Pooling.CLS, projection=(LAYER,), normalize=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([OLD, "../x", "/"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
WHOLE: dict[str, Any] = {
    "modules.json": [
        {"idx": place, "name": str(place), "path": f"{place}_x" if place else "", "type": OLD + kind}
        for place, kind in enumerate(["Transformer", "Pooling", "Dense", "Normalize"])
    ],
    "1_x/config.json": {"pooling_mode": ["mean", "cls"], "include_prompt": False, "pooling_mode_cls_token": True},
    "2_x/config.json": DENSE | {"module_input_name": "sentence_embedding", "module_output_name": None},
    "3_x/config.json": {"module_input_name": "sentence_embedding"},
    "sentence_bert_config.json": {"max_seq_length": 128, "do_lower_case": True, "transformer_task": None},
    "config_sentence_transformers.json": {
        "prompts": {"query": "q: "},
        "default_prompt_name": "query",
        "similarity_fn_name": "dot",
        "truncate_dim": 2,
        "model_type": "SentenceTransformer",
    },
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_files_say_they_are_read_or_refused_in_one_line(tmp_path: Path, data: st.DataObject) -> None:
    files = copy.deepcopy(WHOLE)
    name = data.draw(st.sampled_from(list(files)))
    part = files[name]
    if isinstance(part, list):
        part = part[data.draw(st.integers(0, len(part) - 1))]
    if data.draw(st.booleans()):
        part[data.draw(st.sampled_from(list(part)) | st.text(max_size=8))] = data.draw(VALUES)
    else:
        files[name] = data.draw(VALUES)
    for file, content in files.items():
        _write(tmp_path, file, content)
    lines: list[str] = []
    try:
        usage = read_usage(find_checkpoint(str(tmp_path)))
        assert usage.pooled_width(60) > 0
        assert usage.projection[-1:] != (Normalize(),)
    except ExportError as refused:
        lines = str(refused).splitlines()
    assert len(lines) <= 1
