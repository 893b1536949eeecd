"""The network as an ONNX graph, a file a target."""

from pathlib import Path

import onnx

from model_export.builder import GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.graphs.int8 import Int8Graph
from model_export.network import Network
from model_export.weights import Weights
from service.inference.artifact import GRAPH, Precision


def write_graph(network: Network, weights: Weights, folder: Path, precision: Precision = "fp32") -> None:
    """Write `model.onnx` and `weights.bin`."""
    with GraphBuilder(folder) as builder:
        graph = Int8Graph if precision == "int8" else CpuGraph
        graph(network, weights, builder).build()
        model = builder.model()
    onnx.save_model(model, folder / GRAPH)
    onnx.checker.check_model(folder / GRAPH)
