"""The graph for the CPU with the products of its layers in int8."""

from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from berth.artifact import WeightBits
from model_export.builder import MICROSOFT, GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.network import Activation, Network
from model_export.quantize import CODINGS, quantize_columns
from model_export.weights import Weights

LONG = 512
"""Tokens of a text up to which all scores of all heads are laid out, alone or not; of 8,192 they would be gigabytes."""


@dataclass(frozen=True, slots=True)
class Rows:
    """An activation in int8, by the names of its values."""

    codes: str  # uint8, [tokens, inputs]
    zero: str  # the code of zero
    steps: str  # what one code is worth in each row, [tokens, 1]


class Int8Graph(CpuGraph):
    """The same network, the products of its layers in int8: of weights coded by column, and rows coded as they come."""

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder, weight_bits: WeightBits = 8) -> None:
        super().__init__(network, weights, builder)
        self.weight_bits = weight_bits
        self.rows: dict[str, Rows] = {}
        """What has been coded, by its name: query, key and value share their input's codes."""

    def inputs(self) -> None:
        """Declare what the coding of rows needs too."""
        super().inputs()
        self.builder.integers("last_axis", [-1])
        self.builder.op("Shape", "token_count", "input_ids")
        for name, coding in CODINGS.items():
            self.builder.constant(f"{name}.zero", coding.zero, np.uint8)
            self.builder.constant(f"{name}.step", 1 / coding.largest, np.float32)
            if coding.smallest_step:
                self.builder.constant(f"{name}.smallest_step", coding.smallest_step, np.float32)
            zero = numpy_helper.from_array(np.array([coding.zero], np.uint8))
            self.builder.op("ConstantOfShape", f"{name}.zeros", "token_count", value=zero)  # [tokens]

        if self.network.max_tokens > LONG:
            self.builder.constant("long", LONG, np.int64)
            tokens = self.builder.op("Size", "tokens", "input_ids")
            is_long = self.builder.op("Greater", "is_long", tokens, "long")
            self.builder.op("And", "long_alone", "alone", is_long)

    def context(self, name: str, parts: list[str]) -> str:
        # One way for all: what the two differ by, 1e-7, turns codes over, and a text would have one vector alone and
        # another in company. A long one is hardly ever in company.
        if self.network.max_tokens <= LONG:
            return self.context_of_many(name, parts)
        return self.choose_context(name, parts, "long_alone")

    def linear(self, name: str, x: str, weights: str) -> str:
        if name == "pooler":  # a row for each text: nothing is won there
            return self.plain_linear(name, x, weights)
        product = self.product(name, x, weights)
        # A key's bias moves all scores of a query alike, which the softmax does not see, unless it is turned with it.
        unseen = name.endswith(".key") and not self.network.rotaries()
        if unseen or f"{weights}.bias" not in self.weights:
            return product
        return self.builder.op("Add", name, product, self.weight(f"{weights}.bias"))

    def product(self, name: str, x: str, weights: str) -> str:
        # In 8 bits each product has a tensor of its own, if all are one in the file: where ONNX Runtime makes products
        # exact it rewrites the tensor of each, and stops at one that it has met before.
        shared = self.weight_bits == 7 or self.network.shared is None
        matrix, columns = f"{weights if shared else name}.weight", f"{weights}.scales"
        if matrix not in self.builder:
            codes, scales = quantize_columns(self.weights[f"{weights}.weight"].T, self.weight_bits)
            self.builder.weight(matrix, codes, f"{weights}.weight")
            self.builder.weight(columns, scales)
        if x not in self.rows:
            self.rows[x] = self.quantized(x)
        rows = self.rows[x]
        # The steps by row, which the operator's text does not promise: its kernel multiplies the result by them.
        factors = [rows.codes, matrix, rows.steps, columns, rows.zero]
        return self.builder.op("MatMulIntegerToFloat", f"{name}.product", *factors, domain=MICROSOFT)

    def quantized(self, x: str) -> Rows:
        """Code each row of x by a step of its own."""
        rectified = x.endswith(".activation") and self.network.activation is not Activation.SILU
        coding = "rectified" if rectified else "symmetric"
        sizes = x if coding == "rectified" else self.builder.op("Abs", f"{x}.sizes", x)
        largest = self.builder.op("ReduceMax", f"{x}.largest", sizes, "last_axis", keepdims=1)
        steps = self.builder.op("Mul", f"{x}.steps", largest, f"{coding}.step")  # [tokens, 1]
        if CODINGS[coding].smallest_step:
            steps = self.builder.op("Max", f"{x}.steps.bounded", steps, f"{coding}.smallest_step")
        by_row = self.builder.op("Squeeze", f"{x}.steps.by_row", steps, "last_axis")  # [tokens]
        codes = self.builder.op("QuantizeLinear", f"{x}.codes", x, by_row, f"{coding}.zeros", axis=0)
        return Rows(codes, f"{coding}.zero", steps)
