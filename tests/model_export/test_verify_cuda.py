"""A CUDA graph that is wrong does not pass, and one that float16 does not do for becomes one of float32."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from berth.artifact import GRAPH, WEIGHTS, Precision, read_artifact
from model_export import export as export_module
from model_export import verify_cuda
from model_export.__main__ import main
from model_export.errors import ExportError
from model_export.export import export
from model_export.graphs import write_graph
from model_export.network import Network
from model_export.samples import GOLDEN_TEXTS
from model_export.verify_cuda import check_structure
from model_export.weights import Weights

Scaled = Callable[[float, str], str]


def test_the_artifact_is_whole(tiny_cuda: Path) -> None:
    artifact = read_artifact(tiny_cuda)
    manifest = artifact.manifest
    assert (manifest.target, manifest.precision, manifest.probe_layer) == ("cuda", "fp16", None)
    assert [len(each.vector) for each in artifact.golden_vectors()] == [60] * len(GOLDEN_TEXTS)
    figures = manifest.verification
    assert figures["max_unrounded_difference"] < 1e-5
    assert 1e-4 < figures["max_pooled_difference"] < 1e-2
    assert figures["min_cosine"] > 0.9999
    assert 1 < figures["largest_value"] < 1000
    assert 4e-3 <= manifest.probe_tolerance == max(4e-3, 4 * figures["max_pooled_difference"])


def test_an_export_of_the_same_is_the_same(tiny_checkpoint: Path, tiny_cuda: Path, tmp_path: Path) -> None:
    again = export(str(tiny_checkpoint), tmp_path / "again", "cuda", "fp16").manifest
    assert again.files == read_artifact(tiny_cuda).manifest.files


def _bias_of_float32(model: onnx.ModelProto) -> None:
    [bias] = [tensor for tensor in model.graph.initializer if tensor.name == "layer.1.qkv.bias"]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias).astype(np.float32), bias.name))


def _transposed_weight(model: onnx.ModelProto) -> None:
    [weight] = [tensor for tensor in model.graph.initializer if tensor.name == "layer.2.inner.weight"]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).T, weight.name))


def _offsets_of_float32(model: onnx.ModelProto) -> None:
    [value] = [value for value in model.graph.input if value.name == "token_offset"]
    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _wrong_output_type(model: onnx.ModelProto) -> None:
    [value] = [value for value in model.graph.output if value.name == "hidden_state_3"]
    value.type.tensor_type.elem_type = TensorProto.FLOAT


def _wrong_output_shape(model: onnx.ModelProto) -> None:
    [value] = [value for value in model.graph.output if value.name == "pooled"]
    value.type.tensor_type.shape.dim[1].dim_value = 61


def _unknown_operator(model: onnx.ModelProto) -> None:
    [node] = [node for node in model.graph.node if node.name == "layer.0.activation"]
    node.op_type = "BiasGelo"


def _other_kernel_missing(model: onnx.ModelProto) -> None:
    [node] = [node for node in model.graph.node if node.name == "layer.0.inner.product"]
    node.op_type, node.domain = "GemmFastGelu", "com.microsoft"


DAMAGES = [
    _bias_of_float32,
    _transposed_weight,
    _offsets_of_float32,
    _wrong_output_type,
    _wrong_output_shape,
    _unknown_operator,
    _other_kernel_missing,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_wrong_structure_is_refused(
    tiny_cuda: Path, tmp_path: Path, damage: Callable[[onnx.ModelProto], None]
) -> None:
    model = onnx.load(tiny_cuda / GRAPH)
    damage(model)
    onnx.save_model(model, tmp_path / GRAPH, save_as_external_data=True, location=WEIGHTS, convert_attribute=False)
    with pytest.raises(ExportError, match="ONNX Runtime does not load the graph: ") as caught:
        check_structure(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_swapped_parts_of_the_packed_product_are_refused(
    tiny_checkpoint: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    def write(network: Network, weights: Weights, *rest: Any) -> None:
        query, key = "layer.0.query.bias", "layer.0.value.bias"
        sources = weights.sources | {query: weights.sources[key], key: weights.sources[query]}
        write_graph(network, replace(weights, sources=sources), *rest)

    monkeypatch.setattr(export_module, "write_graph", write)
    refused(tiny_checkpoint, "hidden_state_1 of the graph is off the float64 forward pass by ", precision, "cuda")


@pytest.fixture
def scaled(tmp_path: Path, make_checkpoint: Callable[..., Path], change_weights: Callable[..., None]) -> Scaled:
    """Give a function that makes a checkpoint of ReLU, with one matrix and its bias many times larger."""

    def make(factor: float, part: str) -> str:
        def multiply(stored: dict[str, NDArray[Any]]) -> None:
            for kind in ("weight", "bias"):
                stored[f"{part}.{kind}"] *= np.float32(factor)

        checkpoint = make_checkpoint(tmp_path / "checkpoint", hidden_act="relu")
        change_weights(checkpoint, multiply)
        return str(checkpoint)

    return make


def test_a_feed_forward_that_overflows_is_written_in_float32(
    tmp_path: Path, scaled: Scaled, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = scaled(5e4, "encoder.layer.1.intermediate.dense")
    assert main([checkpoint, str(tmp_path / "artifact"), "--target", "cuda"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "float16" in line]
    assert line.startswith("  in fp32, not as asked: layer.1.")
    assert line.endswith(", and float16 holds at most 65504")
    manifest = read_artifact(tmp_path / "artifact").manifest
    assert (manifest.target, manifest.precision, manifest.probe_tolerance) == ("cuda", "fp32", 1e-4)
    assert manifest.verification["largest_value"] > 65504
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "artifact" / GRAPH).graph.initializer}
    assert TensorProto.FLOAT16 not in kinds


def test_numbers_near_the_end_of_the_range_are_too_large_already(tmp_path: Path, scaled: Scaled) -> None:
    checkpoint = scaled(5e3, "encoder.layer.1.intermediate.dense")
    summary = export(checkpoint, tmp_path / "artifact", "cuda")
    assert summary.manifest.precision == "fp32"
    assert 65504 / 4 < summary.manifest.verification["largest_value"] < 65504


def test_weights_that_float16_does_not_hold_are_written_in_float32(tmp_path: Path, scaled: Scaled) -> None:
    checkpoint = scaled(1e6, "encoder.layer.2.intermediate.dense")
    summary = export(checkpoint, tmp_path / "artifact", "cuda", "fp16")
    assert summary.manifest.precision == "fp32"
    assert summary.note is not None
    assert summary.note.startswith("layer.2.inner.weight holds ")


def test_a_model_that_float16_is_too_coarse_for_is_written_in_float32(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_cuda, "MIN_COSINE", 0.9999999)
    summary = export(str(tiny_checkpoint), tmp_path / "artifact", "cuda")
    assert summary.manifest.precision == "fp32"
    assert summary.note is not None
    assert summary.note.startswith("in float16 a row has the cosine 0.9999")
    monkeypatch.setitem(verify_cuda.LIMITS, "fp16", 1e-4)
    summary = export(str(tiny_checkpoint), tmp_path / "artifact", "cuda")
    assert summary.manifest.precision == "fp32"
    assert summary.note is not None
    assert summary.note.endswith("; fp16 allows 1e-04")


def test_a_model_that_float16_does_for_has_no_note(tiny_checkpoint: Path, tmp_path: Path) -> None:
    assert export(str(tiny_checkpoint), tmp_path / "artifact", "cuda").note is None
