"""What is laid out once, whatever the number of layers."""

from pathlib import Path

import onnx
import pytest

from berth.artifact import GRAPH, Precision, Target
from model_export.export import export
from tests.model_export.families.plain import write_plain

KINDS: list[tuple[Target, Precision]] = [("cpu", "fp32"), ("cpu", "int8"), ("cuda", "fp16")]


def _graph(folder: Path, name: str, target: Target, precision: Precision) -> onnx.GraphProto:
    artifact = export(str(write_plain(folder / "checkpoint", name)), folder / "artifact", target, precision).folder
    graph: onnx.GraphProto = onnx.load(artifact / GRAPH, load_external_data=False).graph
    return graph


@pytest.mark.parametrize(("target", "precision"), KINDS)
def test_the_bias_of_distances_is_looked_up_once_a_run(tmp_path: Path, target: Target, precision: Precision) -> None:
    graph = _graph(tmp_path, "mpnet", target, precision)
    assert [node.name for node in graph.node if "bias.table" in node.input] == ["bias.of_heads"]
    inside = [attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g")]
    nodes = [*graph.node, *(node for branch in inside for node in branch.node)]
    assert sum("bias" in node.input for node in nodes) >= 3, "each layer adds it"


@pytest.mark.parametrize(("target", "precision"), KINDS)
def test_weights_that_layers_share_are_written_once(tmp_path: Path, target: Target, precision: Precision) -> None:
    graph = _graph(tmp_path, "albert", target, precision)
    places = {tensor.name: tensor.external_data[1].value for tensor in graph.initializer if tensor.external_data}
    matrices = {name: place for name, place in places.items() if name.startswith("layer.") and "weight" in name}
    of_first = {place for name, place in matrices.items() if name.startswith("layer.0.")}
    assert of_first
    assert set(matrices.values()) == of_first


def test_near_attention_is_a_layers_own(tmp_path: Path) -> None:
    graph = _graph(tmp_path, "modernbert", "cpu", "fp32")
    near = {node.name for node in graph.node if "near_query_rows" in node.input}
    assert near
    assert not any(name.startswith("layer.0.") for name in near), "the first layer attends to all"
