"""Writes an ONNX graph node by node, its weights into a file beside it."""

from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from model_export.quantize import Int8Array
from service.inference.artifact import WEIGHTS
from service.inference.types import Float32Array

IR_VERSION = 10
MICROSOFT = "com.microsoft"
PAGE = 4096
"""Weights begin at a multiple of this, so that ONNX Runtime maps them instead of copying them."""

Shape = list[int | str]
Float16Array = NDArray[np.float16]


class GraphBuilder:
    """A graph under construction. Values are known by their names, as in ONNX itself."""

    def __init__(self, folder: Path) -> None:
        self._weights: BinaryIO = (folder / WEIGHTS).open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __enter__(self) -> Self:
        """Nothing to prepare: the weights' file is open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the weights' file."""
        self._weights.close()

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

    def integers(self, name: str, values: list[int]) -> str:
        """Add a small constant, as shapes and axes are given to operators."""
        return self.constant(name, values, np.int64)

    def constant(self, name: str, value: float | list[int], dtype: DTypeLike) -> str:
        """Add a small constant of some type."""
        self._initializers.append(numpy_helper.from_array(np.array(value, dtype=dtype), name))
        return name

    def weight(self, name: str, array: Float32Array | Float16Array | Int8Array) -> str:
        """Write a tensor to the weights' file and refer to it."""
        self._weights.seek(-self._weights.tell() % PAGE, 1)
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
        place = {"location": WEIGHTS, "offset": self._weights.tell(), "length": array.nbytes}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        self._weights.write(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data.cast("B"))
        self._initializers.append(tensor)
        return name

    def model(self, opset: int) -> onnx.ModelProto:
        """Close the graph; its operators are those of an opset of ONNX, and ONNX Runtime's own."""
        graph = helper.make_graph(self._nodes, "berth", self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="berth")
