"""The network as ONNX graphs: a kind of graph a module."""

from pathlib import Path

import onnx

from berth.artifact import GRAPH, Precision, Target, WeightBits
from model_export.builder import GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.graphs.cuda import CudaGraph, HalfCudaGraph
from model_export.graphs.graph import Graph
from model_export.graphs.int8 import Int8Graph
from model_export.network import Network
from model_export.tensor_file import TensorFile
from model_export.weights import Weights

GRAPHS: dict[Target, dict[Precision, type[Graph]]] = {
    "cpu": {"fp32": CpuGraph, "int8": Int8Graph},
    "cuda": {"fp16": HalfCudaGraph, "fp32": CudaGraph},
}
"""The kinds of graph, by target and precision."""


def write_graph(
    network: Network,
    weights: Weights,
    folder: Path,
    target: Target,
    precision: Precision,
    weight_bits: WeightBits | None = None,
) -> None:
    """Write the graph, and `weights.bin` beside it; the bits are those of int8's weights, 8 by default."""
    kind = GRAPHS[target][precision]
    with TensorFile(folder) as file:
        builder = GraphBuilder(file)
        int8 = kind is Int8Graph
        graph = Int8Graph(network, weights, builder, weight_bits or 8) if int8 else kind(network, weights, builder)
        graph.build()
        model = builder.model(kind.opset)
    onnx.save_model(model, folder / GRAPH)
    onnx.checker.check_model(folder / GRAPH)
