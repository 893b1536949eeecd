"""The network as an ONNX graph for the CPU: packed rows everywhere, padded ones for the attention of several texts."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from model_export.builder import MICROSOFT, GraphBuilder, Shape
from model_export.network import Activation, Network
from model_export.progress import layers_of
from model_export.quantize import CODINGS, quantize_columns
from model_export.weights import Weights
from service.inference.artifact import GRAPH, Precision
from service.inference.packing import INPUTS


def write_graph(network: Network, weights: Weights, folder: Path, precision: Precision = "fp32") -> None:
    """Write `model.onnx` and `weights.bin`."""
    with GraphBuilder(folder) as builder:
        graph = Int8Graph if precision == "int8" else CpuGraph
        graph(network, weights, builder).build()
        model = builder.model()
    onnx.save_model(model, folder / GRAPH)
    onnx.checker.check_model(folder / GRAPH)


class CpuGraph:
    """The network; x is always [tokens, hidden] and its rows are the packed tokens."""

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        self.network = network
        self.weights = weights
        self.builder = builder

    def build(self) -> None:
        """Lay out inputs, embeddings, layers and pooler; each layer's rows are an output."""
        hidden = self.network.hidden_size
        for name, axes in INPUTS.items():
            kind = {"alone": TensorProto.BOOL, "attention_bias": TensorProto.FLOAT}.get(name, TensorProto.INT32)
            self.builder.input(name, self.shape(axes), kind)
        self.builder.integers("hidden_rows", [-1, hidden])
        self.builder.integers("one_text", [1, -1, hidden])
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
        parts = [self.linear(f"{name}.{part}", x) for part in ("query", "key", "value")]
        context = self.builder.choose(
            f"{name}.context.chosen",
            "alone",
            lambda: self.context_of_one(f"{name}.context.of_one", parts),
            lambda: self.context_of_many(name, parts),
            ["tokens", self.network.hidden_size],
        )
        y = self.linear(f"{name}.attention_output", context)
        return self.add_and_norm(f"{name}.attention_norm", x, y, f"{name}.attention_norm")

    def context_of_one(self, name: str, parts: list[str]) -> str:
        """Compute the attention of a text alone, which needs no padding: on a long one ORT's own operator is faster."""
        batch = [self.builder.op("Reshape", f"{part}.of_one", part, "one_text") for part in parts]
        context = self.builder.op("MultiHeadAttention", name, *batch, domain=MICROSOFT, num_heads=self.network.heads)
        return self.builder.op("Reshape", f"{name}.rows", context, "hidden_rows")  # [tokens, hidden]

    def context_of_many(self, name: str, parts: list[str]) -> str:
        query, key, value = map(self.padded, parts)
        scale = self.network.head_size**-0.5
        scores = self.builder.op(
            "FusedMatMul", f"{name}.scores", query, key, domain=MICROSOFT, transB=1, alpha=scale
        )  # [units, heads, longest, longest]
        # The bias masks the keys past a text's end. The queries there are computed for nothing and never read again.
        biased = self.builder.op("Add", f"{name}.scores.biased", scores, "attention_bias")
        weights = self.builder.op("Softmax", f"{name}.attention", biased, axis=-1)
        context = self.builder.op("MatMul", f"{name}.context", weights, value)  # [units, heads, longest, head_size]
        return self.packed(context)

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
        return self.builder.op("Add", name, self.product(name, x), self.weight(f"{name}.bias"))

    def product(self, name: str, x: str) -> str:
        matrix = self.builder.weight(f"{name}.weight", self.weights[f"{name}.weight"].T)  # [inputs, outputs]
        return self.builder.op("MatMul", f"{name}.product", x, matrix)

    def weight(self, name: str) -> str:
        return self.builder.weight(name, self.weights[name])


@dataclass(frozen=True, slots=True)
class Rows:
    """An activation in int8, by the names of its values."""

    codes: str  # uint8, [tokens, inputs]
    zero: str  # the code of zero
    steps: str  # what one code is worth in each row, [tokens, 1]


class Int8Graph(CpuGraph):
    """The same network, the products of its layers in int8: of weights coded by column, and rows coded as they come."""

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        super().__init__(network, weights, builder)
        self.rows: dict[str, Rows] = {}
        """What has been coded, by its name: query, key and value share their input's codes."""

    def build(self) -> None:
        """Declare what the coding of rows needs, then lay out the network."""
        self.builder.integers("last_axis", [-1])
        self.builder.constant("one", 1, np.float32)
        self.builder.op("Shape", "token_count", "input_ids")
        for name, coding in CODINGS.items():
            self.builder.constant(f"{name}.zero", coding.zero, np.uint8)
            self.builder.constant(f"{name}.step", 1 / coding.largest, np.float32)
            if coding.smallest_step:
                self.builder.constant(f"{name}.smallest_step", coding.smallest_step, np.float32)
            zero = numpy_helper.from_array(np.array([coding.zero], np.uint8))
            self.builder.op("ConstantOfShape", f"{name}.zeros", "token_count", value=zero)  # [tokens]
        super().build()

    def linear(self, name: str, x: str) -> str:
        # The key's bias is left out: it moves all scores of a query alike, which the softmax does not see.
        return self.product(name, x) if name.endswith(".key") else super().linear(name, x)

    def product(self, name: str, x: str) -> str:
        if name == "pooler":  # a row for each text: nothing is won there
            return super().product(name, x)
        codes, scales = quantize_columns(self.weights[f"{name}.weight"].T)
        matrix, columns = self.builder.weight(f"{name}.weight", codes), self.builder.weight(f"{name}.scales", scales)
        if x not in self.rows:
            self.rows[x] = self.quantized(x)
        rows = self.rows[x]
        product = self.builder.op(
            "MatMulIntegerToFloat", f"{name}.codes", rows.codes, matrix, "one", columns, rows.zero, domain=MICROSOFT
        )
        return self.builder.op("Mul", f"{name}.product", product, rows.steps)

    def quantized(self, x: str) -> Rows:
        """Code each row of x by a step of its own."""
        coding = "rectified" if x.endswith(".activation") else "symmetric"
        sizes = x if coding == "rectified" else self.builder.op("Abs", f"{x}.sizes", x)
        largest = self.builder.op("ReduceMax", f"{x}.largest", sizes, "last_axis", keepdims=1)
        steps = self.builder.op("Mul", f"{x}.steps", largest, f"{coding}.step")  # [tokens, 1]
        if CODINGS[coding].smallest_step:
            steps = self.builder.op("Max", f"{x}.steps.bounded", steps, f"{coding}.smallest_step")
        by_row = self.builder.op("Squeeze", f"{x}.steps.by_row", steps, "last_axis")  # [tokens]
        codes = self.builder.op("QuantizeLinear", f"{x}.codes", x, by_row, f"{coding}.zeros", axis=0)
        return Rows(codes, f"{coding}.zero", steps)
