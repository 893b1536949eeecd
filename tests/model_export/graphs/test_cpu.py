"""The graphs against transformers: every layer and the pooler, of every shape of BERT that is supported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertForMaskedLM, BertForSequenceClassification

from model_export.checkpoint import DEFAULT_ID, find_checkpoint
from model_export.export import export
from model_export.tensor_file import PAGE
from service.inference.artifact import GRAPH, SHORT_GRAPH, WEIGHTS
from service.inference.packing import INPUTS
from service.inference.types import Encoding, Float32Array

Run = Callable[[Path, Sequence[Encoding]], dict[str, Float32Array]]
Draw = Callable[..., list[Encoding]]
LENGTHS = (5, 40, 1, 2, 17, 40, 3)

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gelu_new": {"hidden_act": "gelu_new"},
    "relu": {"hidden_act": "relu"},
    "large epsilon": {"layer_norm_eps": 0.1},
    "one type": {"type_vocab_size": 1},
    "one head": {"num_attention_heads": 1},
    "one layer": {"num_hidden_layers": 1},
    "wide": {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 32},
    "half": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "sequence classification": {"model_class": BertForSequenceClassification},
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_output_agrees_with_transformers(
    tmp_path: Path,
    make_checkpoint: Callable[..., Path],
    run_graph: Run,
    run_short: Run,
    run_torch: Run,
    draw: Draw,
    variant: Any,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **variant)
    artifact = export(str(checkpoint), tmp_path / "artifact").folder
    texts = draw(LENGTHS, type_vocab_size=variant.get("type_vocab_size", 3))
    expected = run_torch(checkpoint, texts)
    _agree(run_graph(artifact, texts), expected)
    del expected["pooler_output"]
    _agree(run_short(artifact, texts), expected)


def test_the_default_model_agrees_with_transformers(
    minilm: Path, run_graph: Run, run_short: Run, run_torch: Run, draw: Draw
) -> None:
    texts = draw([256, 12, 1, 100], vocab_size=30522, type_vocab_size=2)
    expected = run_torch(find_checkpoint(DEFAULT_ID).folder, texts)
    _agree(run_graph(minilm, texts), expected)
    del expected["pooler_output"]
    _agree(run_short(minilm, texts), expected)


def test_a_model_without_pooler_has_no_pooler_output(
    tmp_path: Path, make_checkpoint: Callable[..., Path], run_graph: Run, run_torch: Run, draw: Draw
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", BertForMaskedLM)
    summary = export(str(checkpoint), tmp_path / "artifact")
    outputs = run_graph(summary.folder, draw(LENGTHS))
    assert not summary.manifest.has_pooler
    assert summary.left_out
    assert all(name.startswith("cls.") for name in summary.left_out)
    expected = run_torch(checkpoint, draw(LENGTHS))
    del expected["pooler_output"]  # which transformers made up
    _agree(outputs, expected)


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_neighbours_do_not_matter(tiny_artifact: Path, run_graph: Run, draw: Draw, lengths: list[int]) -> None:
    _same_alone(tiny_artifact, run_graph, draw(lengths))


def test_neighbours_do_not_matter_to_the_default_model(minilm: Path, run_graph: Run, draw: Draw) -> None:
    _same_alone(minilm, run_graph, draw([3, 256, 1, 30, 30, 77], vocab_size=30522, type_vocab_size=2))


def test_the_graphs_share_one_file_of_weights(tiny_artifact: Path) -> None:
    graphs = [onnx.load(tiny_artifact / name, load_external_data=False).graph for name in (GRAPH, SHORT_GRAPH)]
    places = [
        {tensor.name: tensor.external_data[1].value for tensor in graph.initializer if tensor.external_data}
        for graph in graphs
    ]
    batches, short = places
    assert short.items() <= batches.items()
    assert len(short) > 30


def test_the_graph_is_small_and_its_weights_can_be_mapped(tiny_artifact: Path) -> None:
    model = onnx.load(tiny_artifact / GRAPH, load_external_data=False)
    onnx.checker.check_model(tiny_artifact / GRAPH, full_check=False)
    assert [value.name for value in model.graph.input] == list(INPUTS)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert types.pop("attention_bias") == onnx.TensorProto.FLOAT
    assert types.pop("alone") == onnx.TensorProto.BOOL
    assert set(types.values()) == {onnx.TensorProto.INT32}
    places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer]
    outside = [place for place in places if place]
    assert {place["location"] for place in outside} == {WEIGHTS}
    assert all(int(place["offset"]) % PAGE == 0 for place in outside)
    assert (tiny_artifact / GRAPH).stat().st_size < 50_000


def _agree(actual: dict[str, Float32Array], expected: dict[str, Float32Array]) -> None:
    assert actual.keys() == expected.keys()
    for name, rows in expected.items():
        np.testing.assert_allclose(actual[name], rows, rtol=0, atol=1e-5, err_msg=name)


def _same_alone(artifact: Path, run_graph: Run, texts: list[Encoding]) -> None:
    together = run_graph(artifact, texts)
    alone = [run_graph(artifact, [text]) for text in texts]
    for name, rows in together.items():
        np.testing.assert_allclose(rows, np.concatenate([one[name] for one in alone]), rtol=0, atol=1e-5, err_msg=name)
