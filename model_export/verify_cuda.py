"""Holds the CUDA graph against the float64 forward pass, on a machine that has no CUDA.

Its structure is checked by ONNX Runtime: the CPU build knows the schemas of all operators, and lacks the kernel of one.
Its numbers are computed node by node, as the kernels compute. What rounding does to them hides many a mistake, so they
are computed twice: without rounding, which must agree with a forward pass of weights that were rounded; and with it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as KernelMissingError

from berth.artifact import GRAPH, Precision
from berth.backends.cuda.graph import POOLED, POOLED_MAX, layout, near_layout
from berth.backends.positions import places_without_padding
from berth.types import Encoding, Float32Array, Layout
from model_export.comparison import Batch, Expected, compare, expected_outputs
from model_export.errors import ExportError, HalfError
from model_export.evaluation import Evaluation, Feeds, Int32Array
from model_export.network import Network
from model_export.reference import States, forward
from model_export.weights import LARGEST_FLOAT16, HalfWeights, Weights

LIMITS: dict[Precision, float] = {"fp32": 5e-5, "fp16": 3e-2}
"""The largest difference of a row, as a share of its length; in fp32, and in fp16 where nothing but weights is rounded,
as on the CPU: sound graphs are off by 4e-6. Rounding takes MiniLM off by 5e-3, 12 random layers of width 60 by 8e-3."""

MIN_COSINE = 0.9999
"""Of any row with its exact form in float16. Measured: 0.999994 on MiniLM, 0.99997 on those random layers."""

LARGEST = LARGEST_FLOAT16 / 4
"""What an intermediate number may be in float16: other texts make larger ones than those of the export do."""

UNROUNDED_TOKENS = 192
"""The length of a text up to which it is computed without rounding too; a longer one brings no other operator in."""

KERNEL_MISSING = "PackedMultiHeadAttention"
"""What ONNX Runtime's CPU build has the schema of, but no kernel."""


def verify_cuda(
    network: Network, weights: Weights, folder: Path, batches: Sequence[Batch], precision: Precision
) -> dict[str, float]:
    """Check the graph and give the figures; raises `ExportError`, or `HalfError` where float16 is the reason."""
    check_structure(folder)
    evaluation = Evaluation(folder)
    if precision == "fp32":
        return _verify(evaluation, batches, network.layout, precision)
    unrounded = _verify_unrounded(network, HalfWeights.of(weights), evaluation, batches)
    try:
        figures = _verify(evaluation, batches, network.layout, precision)
    except ExportError as error:  # what rounding alone has done: without it the graph was right
        _demand_range(evaluation)
        raise HalfError(str(error)) from error
    _demand_range(evaluation)
    if not figures["min_cosine"] >= MIN_COSINE:
        raise HalfError(f"in float16 a row has the cosine {figures['min_cosine']:.6f} with its exact form")
    return figures | {"max_unrounded_difference": unrounded}


def check_structure(folder: Path) -> None:
    """Have ONNX Runtime infer every type and shape; the kernel it does not have is the one error that may be left.

    It names the first kernel that is missing and no other. So it is asked again, with the attention's queries in the
    place of what the attention gives, which is of the same type and shape: then there must be no error.
    """
    try:
        _load(folder, (folder / GRAPH).read_bytes())
    except KernelMissingError as error:
        if KERNEL_MISSING not in str(error):
            raise ExportError(f"ONNX Runtime does not load the graph: {str(error).splitlines()[0]}") from error
        model = onnx.load(folder / GRAPH, load_external_data=False)
        _leave_attention_out(model)
        try:
            _load(folder, model.SerializeToString())
        except KernelMissingError as other:
            raise ExportError(f"ONNX Runtime does not load the graph: {str(other).splitlines()[0]}") from other


def _load(folder: Path, model: bytes) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.strict_shape_type_inference", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except KernelMissingError:
        raise
    except Exception as error:  # ONNX Runtime's errors have no other class in common
        raise ExportError(f"ONNX Runtime does not load the graph: {str(error).splitlines()[0]}") from error


def _leave_attention_out(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "queries"))
    for node in nodes:
        if node.op_type == KERNEL_MISSING and node.input[1]:  # queries, keys and values apart
            model.graph.node.append(onnx.helper.make_node("Identity", [node.input[0]], node.output))
        elif node.op_type == KERNEL_MISSING:
            queries = f"{node.name}.queries"  # [tokens, heads, head size]
            first = onnx.helper.make_node("Gather", [node.input[0], "queries"], [queries], axis=2)
            model.graph.node.extend([first, onnx.helper.make_node("Flatten", [queries], node.output)])
        else:
            model.graph.node.append(node)


def _verify(
    evaluation: Evaluation, batches: Sequence[Batch], layout_of: Layout, precision: Precision
) -> dict[str, float]:
    compared = []
    for encodings, states in batches:
        outputs = evaluation(pack_cuda(encodings, evaluation.inputs, layout_of))
        compared.append(
            (
                *compare(outputs, expected_outputs(states), LIMITS[precision], precision),
                *compare(outputs, _expected_pooled(states), LIMITS[precision], precision),
            )
        )
    errors, cosines, pooled_errors, pooled_cosines = zip(*compared, strict=True)
    return {
        "max_relative_difference": max(*errors, *pooled_errors),
        "max_pooled_difference": max(pooled_errors),
        "min_cosine": min(*cosines, *pooled_cosines),
        "largest_value": evaluation.largest,
        "texts": sum(len(encodings) for encodings, _ in batches),
    }


def _verify_unrounded(network: Network, halved: Weights, evaluation: Evaluation, batches: Sequence[Batch]) -> float:
    errors = []
    for encodings, _ in batches:
        shorter = [encoding for encoding in encodings if len(encoding) <= UNROUNDED_TOKENS]
        states = forward(network, halved, shorter)
        outputs = evaluation(pack_cuda(shorter, evaluation.inputs, network.layout), rounded=False)
        for expected in (expected_outputs(states), _expected_pooled(states)):
            error, _ = compare(outputs, expected, LIMITS["fp32"], "fp16 before rounding")
            errors.append(error)
    return max(errors)


def _demand_range(evaluation: Evaluation) -> None:
    if evaluation.largest > LARGEST:
        raise HalfError(
            f"{evaluation.largest_at} reaches {evaluation.largest:.3g}, and float16 holds at most {LARGEST_FLOAT16:.0f}"
        )


def _expected_pooled(states: Sequence[States]) -> Expected:
    yield POOLED, np.stack([text.hidden[-1].mean(axis=0) for text in states])
    yield POOLED_MAX, np.stack([text.hidden[-1].max(axis=0) for text in states])


def pack_cuda(encodings: Sequence[Encoding], inputs: Sequence[str], layout_of: Layout) -> Feeds:
    """Pack texts for a graph of some inputs, a row of mean pooling for each."""
    lengths = np.array([len(encoding) for encoding in encodings])
    columns = np.arange(lengths.max())
    packed, ids = layout(tuple(lengths.tolist())), np.concatenate([encoding.ids for encoding in encodings])
    feeds: dict[str, Int32Array | Float32Array] = {
        **packed,
        "input_ids": ids,
        "token_type_ids": np.concatenate([encoding.type_ids for encoding in encodings]),
        "pool_rows": packed["first_tokens"][:, None] + np.minimum(columns, lengths[:, None] - 1).astype(np.int32),
        "pool_weights": ((columns < lengths[:, None]) / lengths[:, None]).astype(np.float32),
    }
    if layout_of.window is not None:
        feeds |= near_layout(tuple(lengths.tolist()), layout_of.window)
    places = places_without_padding(encodings, ids, layout_of.padding_id)
    if places is not None:
        feeds["position_ids"] = places
    return {name: feeds[name] for name in inputs}
