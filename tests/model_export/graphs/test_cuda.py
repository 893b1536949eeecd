"""The CUDA graph's form: its inputs and outputs, and the types of its weights."""

from pathlib import Path

import onnx

from berth.artifact import GRAPH
from berth.backends.cuda.graph import INPUTS, POOLED, POOLED_MAX
from model_export.export import export


def test_inputs_and_outputs_are_what_the_encoder_expects(tiny_cuda: Path) -> None:
    graph = onnx.load(tiny_cuda / GRAPH, load_external_data=False).graph
    axes = {value.name: [axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in graph.input}
    assert axes == INPUTS
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    states = {name: kind for name, kind in types.items() if name not in INPUTS}
    assert {types.pop(name) for name in ("pool_weights", POOLED, POOLED_MAX)} == {onnx.TensorProto.FLOAT}
    assert {types[name] for name in INPUTS if name in types} == {onnx.TensorProto.INT32}
    halves = {name for name, kind in states.items() if kind == onnx.TensorProto.FLOAT16}
    assert halves == {*(f"hidden_state_{layer}" for layer in range(4)), "pooler_output"}
    assert states.keys() - halves == {POOLED, POOLED_MAX}


def test_the_weights_are_half_as_large(tmp_path: Path, tiny_checkpoint: Path, tiny_cuda: Path) -> None:
    exact = export(str(tiny_checkpoint), tmp_path / "exact", "cuda", "fp32").folder
    tensors = [onnx.load(folder / GRAPH, load_external_data=False).graph.initializer for folder in (tiny_cuda, exact)]
    kinds = [{tensor.data_type for tensor in found} - {onnx.TensorProto.INT64} for found in tensors]
    assert kinds == [{onnx.TensorProto.FLOAT16}, {onnx.TensorProto.FLOAT}]
