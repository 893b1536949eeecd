"""Builds an ONNX graph node by node, its weights in a file of their own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import TensorProto, helper, numpy_helper

from model_export.tensor_file import Array, TensorFile

IR_VERSION = 10
MICROSOFT = "com.microsoft"

Shape = list[int | str]


class GraphBuilder:
    """A graph under construction. Values are known by their names, as in ONNX itself."""

    def __init__(self, file: TensorFile) -> None:
        self._file = file
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._weights: set[str] = set()
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Shape, data_type: int) -> str:
        """Declare an input."""
        self._inputs.append(helper.make_tensor_value_info(name, data_type, shape))
        return name

    def output(self, value: str, shape: Shape, data_type: int) -> str:
        """Declare a value an output."""
        self._outputs.append(helper.make_tensor_value_info(value, data_type, shape))
        return value

    def op(self, kind: str, name: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, named like the node."""
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def choose(
        self, name: str, condition: str, then: Callable[[], str], otherwise: Callable[[], str], shape: Shape
    ) -> str:
        """Add a node that runs one of two branches, whose nodes the functions add; each gives its float32 result."""
        branches = {"then_branch": self._branch(then, shape), "else_branch": self._branch(otherwise, shape)}
        return self.op("If", name, condition, **branches)

    def _branch(self, build: Callable[[], str], shape: Shape) -> onnx.GraphProto:
        outside, self._nodes = self._nodes, []
        result = build()
        inside, self._nodes = self._nodes, outside
        return helper.make_graph(inside, result, [], [helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)])

    def integers(self, name: str, values: list[int]) -> str:
        """Add a small constant, as shapes and axes are given to operators."""
        return self.constant(name, values, np.int64)

    def constant(self, name: str, value: float | list[int], dtype: DTypeLike) -> str:
        """Add a small constant of some type."""
        self._initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def __contains__(self, name: str) -> bool:
        """Say whether there is a weight of a name."""
        return name in self._weights

    def weight(self, name: str, array: Array, stored_as: str | None = None) -> str:
        """Put a tensor into the weights' file, if it is not there yet by its name or another, and refer to it."""
        if name in self._weights:
            return name
        self._weights.add(name)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        for key, value in self._file.place(stored_as or name, array).items():
            tensor.external_data.add(key=key, value=value)
        self._initializers.append(tensor)
        return name

    def model(self, opset: int) -> onnx.ModelProto:
        """Close the graph; its operators are those of an opset of ONNX, and ONNX Runtime's own."""
        graph = helper.make_graph(self._nodes, "berth", self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="berth")
