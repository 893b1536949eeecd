"""The network as an ONNX graph for the CPU: packed rows everywhere, padded ones for the attention alone."""

from pathlib import Path

import onnx
from onnx import TensorProto

from model_export.builder import MICROSOFT, GraphBuilder, Shape
from model_export.network import Activation, Network
from model_export.progress import layers_of
from model_export.weights import Weights
from service.inference.artifact import GRAPH
from service.inference.packing import INPUTS


def write_graph(network: Network, weights: Weights, folder: Path) -> None:
    """Write `model.onnx` and `weights.bin`."""
    with GraphBuilder(folder) as builder:
        CpuGraph(network, weights, builder).build()
        model = builder.model()
    onnx.save_model(model, folder / GRAPH)
    onnx.checker.check_model(folder / GRAPH)


class CpuGraph:
    """The float32 network; x is always [tokens, hidden] and its rows are the packed tokens."""

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        self.network = network
        self.weights = weights
        self.builder = builder

    def build(self) -> None:
        """Lay out inputs, embeddings, layers and pooler; each layer's rows are an output."""
        hidden = self.network.hidden_size
        for name, axes in INPUTS.items():
            self.builder.input(
                name, self.shape(axes), TensorProto.FLOAT if name == "attention_bias" else TensorProto.INT32
            )
        self.builder.integers("hidden_rows", [-1, hidden])
        self.builder.integers("head_rows", [-1, self.network.head_size])
        x = self.builder.output(self.embeddings("hidden_state_0"), ["tokens", hidden])
        for layer in layers_of(self.network.layers, "writing"):
            x = self.attention(f"layer.{layer}", x)
            x = self.feed_forward(f"layer.{layer}", x, f"hidden_state_{layer + 1}")
            self.builder.output(x, ["tokens", hidden])
        if self.weights.has_pooler:
            self.builder.output(self.pooler(x, "pooler_output"), ["units", hidden])

    def embeddings(self, result: str) -> str:
        words, types, positions = (
            self.builder.op("Gather", f"embeddings.{table}", self.weight(f"embeddings.{table}.weight"), ids)
            for table, ids in (("word", "input_ids"), ("type", "token_type_ids"), ("position", "position_ids"))
        )
        x = self.builder.op("Add", "embeddings.words_and_types", words, types)
        return self.add_and_norm("embeddings.norm", x, positions, result)

    def shape(self, axes: list[str]) -> Shape:
        """Give an input's shape; an axis is known by its size or else by its name."""
        return [self.network.heads if axis == "heads" else int(axis) if axis.isdigit() else axis for axis in axes]

    def attention(self, name: str, x: str) -> str:
        query, key, value = (self.padded(self.linear(f"{name}.{part}", x)) for part in ("query", "key", "value"))
        scale = self.network.head_size**-0.5
        scores = self.builder.op(
            "FusedMatMul", f"{name}.scores", query, key, domain=MICROSOFT, transB=1, alpha=scale
        )  # [units, heads, longest, longest]
        # The bias masks the keys past a text's end. The queries there are computed for nothing and never read again.
        biased = self.builder.op("Add", f"{name}.scores.biased", scores, "attention_bias")
        weights = self.builder.op("Softmax", f"{name}.attention", biased, axis=-1)
        context = self.builder.op("MatMul", f"{name}.context", weights, value)  # [units, heads, longest, head_size]
        y = self.linear(f"{name}.attention_output", self.packed(context))
        return self.add_and_norm(f"{name}.attention_norm", x, y, f"{name}.attention_norm")

    def padded(self, x: str) -> str:
        rows = self.builder.op("Reshape", f"{x}.rows", x, "head_rows")  # [tokens * heads, head_size]
        return self.builder.op("Gather", f"{x}.padded", rows, "attention_rows")  # [units, heads, longest, head_size]

    def packed(self, x: str) -> str:
        rows = self.builder.op("Reshape", f"{x}.rows", x, "head_rows")  # [units * heads * longest, head_size]
        packed = self.builder.op("Gather", f"{x}.packed", rows, "context_rows")  # [tokens, heads, head_size]
        return self.builder.op("Reshape", f"{x}.packed.rows", packed, "hidden_rows")  # [tokens, hidden]

    def feed_forward(self, name: str, x: str, result: str) -> str:
        inner = self.activation(f"{name}.activation", self.linear(f"{name}.inner", x))  # [tokens, intermediate]
        return self.add_and_norm(f"{name}.output_norm", x, self.linear(f"{name}.outer", inner), result)

    def activation(self, name: str, x: str) -> str:
        match self.network.activation:
            case Activation.GELU:
                return self.builder.op("Gelu", name, x)
            case Activation.GELU_TANH:
                return self.builder.op("Gelu", name, x, approximate="tanh")
            case Activation.RELU:
                return self.builder.op("Relu", name, x)

    def pooler(self, x: str, result: str) -> str:
        first = self.builder.op("Gather", "pooler.first", x, "first_tokens")  # [units, hidden]
        return self.builder.op("Tanh", result, self.linear("pooler", first))

    def add_and_norm(self, name: str, x: str, y: str, result: str) -> str:
        total = self.builder.op("Add", f"{name}.sum", x, y)
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.builder.op("LayerNormalization", result, total, scale, bias, epsilon=self.network.epsilon)

    def linear(self, name: str, x: str) -> str:
        matrix = self.builder.weight(f"{name}.weight", self.weights[f"{name}.weight"].T)  # [inputs, outputs]
        product = self.builder.op("MatMul", f"{name}.product", x, matrix)
        return self.builder.op("Add", name, product, self.weight(f"{name}.bias"))

    def weight(self, name: str) -> str:
        return self.builder.weight(name, self.weights[name])
