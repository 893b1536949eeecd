"""The network as an ONNX graph, a file a target."""

from pathlib import Path

import onnx

from model_export.builder import GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.graphs.cuda import CudaGraph, HalfCudaGraph
from model_export.graphs.graph import Graph
from model_export.graphs.int8 import Int8Graph
from model_export.network import Network
from model_export.weights import Weights
from service.inference.artifact import GRAPH, Precision, Target

GRAPHS: dict[Target, dict[Precision, type[Graph]]] = {
    "cpu": {"fp32": CpuGraph, "int8": Int8Graph},
    "cuda": {"fp16": HalfCudaGraph, "fp32": CudaGraph},
}


def write_graph(network: Network, weights: Weights, folder: Path, target: Target, precision: Precision) -> None:
    """Write `model.onnx` and `weights.bin`."""
    kind = GRAPHS[target][precision]
    with GraphBuilder(folder) as builder:
        kind(network, weights, builder).build()
        model = builder.model(kind.opset)
    onnx.save_model(model, folder / GRAPH)
    onnx.checker.check_model(folder / GRAPH)
