"""The operators of com.microsoft, as an export computes them, against ONNX Runtime's own kernels for the CPU."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from berth.backends.cuda.graph import layout
from berth.types import Float32Array
from model_export.builder import MICROSOFT
from model_export.evaluation import OPERATORS, Evaluation

RANDOM = np.random.default_rng(5)


class Exact:
    """A kernel that stores what it is given."""

    def store(self, x: Float32Array) -> Float32Array:
        return x

    see = store


def numbers(*shape: int) -> Float32Array:
    return RANDOM.normal(0, 2, shape).astype(np.float32)


def of_onnx_runtime(kind: str, inputs: list[Any], **attributes: Any) -> Float32Array:
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in zip(names, inputs, strict=True)
        if name
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(kind, names, ["y"], domain=MICROSOFT, **attributes)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(helper.make_graph([node], "one", declared, [output]), opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [result] = session.run(None, {name: value for name, value in zip(names, inputs, strict=True) if name})
    rows: Float32Array = result
    return rows


@pytest.mark.parametrize("bias", [True, False])
def test_skip_layer_normalization(bias: bool) -> None:
    inputs = [numbers(7, 24), numbers(7, 24), *(numbers(24) for _ in range(2 + bias))]
    actual = OPERATORS[MICROSOFT, "SkipLayerNormalization"](Exact(), *inputs, epsilon=0.01)
    np.testing.assert_allclose(actual, of_onnx_runtime("SkipLayerNormalization", inputs, epsilon=0.01), atol=1e-5)


@pytest.mark.parametrize("kind", ["BiasGelu", "FastGelu"])
def test_bias_and_gelu(kind: str) -> None:
    inputs = [numbers(200, 24) * 2, numbers(24)]
    actual = OPERATORS[MICROSOFT, kind](Exact(), *inputs)
    np.testing.assert_allclose(actual, of_onnx_runtime(kind, inputs), atol=2e-6)


def test_packed_attention_is_that_of_each_text_alone() -> None:
    lengths, heads, size, scale = (5, 1, 9, 3), 3, 8, 0.21
    query, bias = numbers(sum(lengths), heads, 3, size), numbers(3 * heads * size)
    packed = layout(lengths)
    offsets = packed["token_offset"], packed["cumulative_sequence_length"]
    actual = OPERATORS[MICROSOFT, "PackedMultiHeadAttention"](
        Exact(), query, None, None, bias, *offsets, num_heads=heads, scale=scale
    )
    expected = [
        of_onnx_runtime(
            "MultiHeadAttention",
            [*(text[:, :, part].reshape(1, -1, heads * size) for part in range(3)), bias],
            num_heads=heads,
            scale=scale,
        )[0]
        for text in np.split(query, packed["first_tokens"][1:])
    ]
    np.testing.assert_allclose(actual, np.concatenate(expected), atol=1e-5)


def test_numbers_are_rounded_where_they_are_stored_and_the_largest_is_noticed(tmp_path: Any) -> None:
    one = helper.make_tensor("one", TensorProto.FLOAT16, [1], np.array([1], np.float16))
    node = helper.make_node("Add", ["x", "one"], ["y"], name="sum")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([node], "one", values[:1], values[1:], [one])
    (tmp_path / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()
    )
    evaluation = Evaluation(tmp_path)
    feeds: Any = {"x": np.array([2048, 0.5, -65504, -65500], np.float16)}
    assert evaluation(feeds, rounded=False)["y"].tolist() == [2049, 1.5, -65503, -65503]
    assert evaluation(feeds)["y"].tolist() == [2048, 1.5, -65504, -65504]
    assert (evaluation.largest, evaluation.largest_at) == (65503, "sum")
    assert evaluation({"x": np.array([65504, 65504], np.float16) * np.float16(1)})["y"].tolist() == [65504, 65504]
