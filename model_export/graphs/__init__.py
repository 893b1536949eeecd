"""The network as ONNX graphs: a kind of graph a module."""

from pathlib import Path

import onnx

from model_export.builder import GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.graphs.cuda import CudaGraph, HalfCudaGraph
from model_export.graphs.graph import Graph
from model_export.graphs.int8 import Int8Graph
from model_export.graphs.short import ShortGraph
from model_export.network import Network
from model_export.tensor_file import TensorFile
from model_export.weights import Weights
from service.inference.artifact import GRAPH, SHORT_GRAPH, Precision, Target

GRAPHS: dict[Target, dict[Precision, dict[str, type[Graph]]]] = {
    "cpu": {"fp32": {GRAPH: CpuGraph, SHORT_GRAPH: ShortGraph}, "int8": {GRAPH: Int8Graph}},
    "cuda": {"fp16": {GRAPH: HalfCudaGraph}, "fp32": {GRAPH: CudaGraph}},
}
"""The graphs of an artifact, by the names of their files."""


def write_graphs(network: Network, weights: Weights, folder: Path, target: Target, precision: Precision) -> None:
    """Write the graphs, and `weights.bin`, which they share."""
    models: dict[str, onnx.ModelProto] = {}
    with TensorFile(folder) as file:
        for name, kind in GRAPHS[target][precision].items():
            builder = GraphBuilder(file)
            kind(network, weights, builder).build()
            models[name] = builder.model(kind.opset)
    for name, model in models.items():
        onnx.save_model(model, folder / name)
        onnx.checker.check_model(folder / name)
