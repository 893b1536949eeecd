"""The network as an ONNX graph for CUDA: packed rows everywhere, the operators that ONNX Runtime has fast kernels for.

What the kernels ask for and what they compute in is read from ONNX Runtime's sources (contrib_ops/cuda/bert; the
schemas are in docs/ContribOperators.md):

- PackedMultiHeadAttention (packed_multihead_attention.cc, packed_multihead_attention_impl.cu) takes query, key, value,
  bias, token_offset and cumulative_sequence_length. With key and value left out, query is [tokens, heads, 3, head
  size]; the bias stays [3 x heads x head size], that of all queries, then of all keys, then of all values. The flash
  and the memory-efficient kernels keep scores and softmax in float32 and want a head size that is a multiple of 8; any
  other falls to an unfused kernel that pads. The mask filter is not read: there is no padding to be masked.
- SkipLayerNormalization (skip_layer_norm_impl.cu, layer_norm.cuh) takes input, skip, gamma, beta and bias. The sum is
  stored in the graph's type, mean and variance are float32 since pull request 28682; a build without it needs the
  provider option enable_skip_layer_norm_strict_mode, for it has an epsilon of float16, which 1e-12 is not.
- EmbedLayerNormalization is left out: its type inference asks for an output that nobody wants.
- BiasGelu is by the error function, FastGelu by its tanh approximation; both add a bias first.
- ReduceMax has CUDA kernels for the operator of opset 18, not of 20 (core/providers/cuda/reduction/reduction_ops.cc).
- float32 products are computed in TF32 unless the provider option use_tf32 is 0; the pooling's is always float32.
"""

import numpy as np
from onnx import TensorProto

from berth.backends.cuda.graph import INPUTS, POOLED, POOLED_MAX
from berth.types import Float32Array
from model_export.builder import MICROSOFT, GraphBuilder
from model_export.graphs.graph import Graph
from model_export.network import Activation, Network
from model_export.weights import HalfWeights, Weights

HEAD_STEP = 8
"""Heads are filled up with zeros to a multiple of this, or the fast attention kernels do not take them."""


class CudaGraph(Graph):
    """The network in float32."""

    opset = 18  # the newest whose ReduceMax has a CUDA kernel

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        super().__init__(network, weights, builder)
        self.head_size = -(-network.head_size // HEAD_STEP) * HEAD_STEP

    def inputs(self) -> None:
        for name, axes in INPUTS.items():
            if name != "first_tokens" or self.weights.has_pooler:
                kind = TensorProto.FLOAT if name == "pool_weights" else TensorProto.INT32
                self.builder.input(name, list(axes), kind)
        self.builder.integers("second_axis", [1])
        self.builder.integers("heads", [-1, self.network.heads, 3, self.head_size])

    def embeddings(self, result: str) -> str:
        norm = (self.weight("embeddings.norm.weight"), self.weight("embeddings.norm.bias"))
        return self.skip_norm(result, *self.summed_embeddings(), *norm)

    def attention(self, name: str, x: str) -> str:
        parts = [f"{name}.{part}" for part in ("query", "key", "value")]
        matrices = [self.filled(self.weights[f"{part}.weight"]) for part in parts]  # each [heads, head size, hidden]
        biases = [self.filled(self.weights[f"{part}.bias"]) for part in parts]  # each [heads, head size]
        # [heads, 3, head size, hidden], so that the product's columns lie as the attention reads them
        columns = np.stack(matrices, axis=1).reshape(-1, self.network.hidden_size).T
        product = self.builder.op("MatMul", f"{name}.qkv.product", x, self.tensor(f"{name}.qkv.weight", columns))
        context = self.builder.op(
            "PackedMultiHeadAttention",
            f"{name}.context",
            self.builder.op("Reshape", f"{name}.qkv", product, "heads"),  # [tokens, heads, 3, head size]
            *("", "", self.tensor(f"{name}.qkv.bias", np.concatenate(biases).ravel())),
            *("token_offset", "cumulative_sequence_length"),
            domain=MICROSOFT,
            num_heads=self.network.heads,
            scale=self.network.head_size**-0.5,
        )  # [tokens, heads * head size]
        rows = self.filled(self.weights[f"{name}.attention_output.weight"].T)  # [heads, head size, hidden]
        matrix = self.tensor(f"{name}.attention_output.weight", rows.reshape(-1, self.network.hidden_size))
        y = self.builder.op("MatMul", f"{name}.attention_output.product", context, matrix)
        bias = self.weight(f"{name}.attention_output.bias")
        return self.add_and_norm(f"{name}.attention_norm", x, y, bias, f"{name}.attention_norm")

    def filled(self, rows: Float32Array) -> Float32Array:
        """Part the first axis [heads * head size] into heads, each with rows of zeros up to the size in the graph."""
        heads = rows.reshape(self.network.heads, self.network.head_size, *rows.shape[1:])
        missing = self.head_size - self.network.head_size
        return np.pad(heads, [(0, 0), (0, missing), *[(0, 0)] * (rows.ndim - 1)])

    def feed_forward(self, name: str, x: str, result: str) -> str:
        inner = self.activation(f"{name}.activation", self.product(f"{name}.inner", x), f"{name}.inner.bias")
        y = self.product(f"{name}.outer", inner)
        return self.add_and_norm(f"{name}.output_norm", x, y, self.weight(f"{name}.outer.bias"), result)

    def activation(self, name: str, product: str, bias: str) -> str:
        bias = self.weight(bias)
        match self.network.activation:
            case Activation.GELU:
                return self.builder.op("BiasGelu", name, product, bias, domain=MICROSOFT)
            case Activation.GELU_TANH:
                return self.builder.op("FastGelu", name, product, bias, domain=MICROSOFT)
            case Activation.RELU:
                return self.builder.op("Relu", name, self.builder.op("Add", f"{name}.biased", product, bias))

    def add_and_norm(self, name: str, x: str, y: str, bias: str, result: str) -> str:
        return self.skip_norm(result, y, x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), bias)

    def skip_norm(self, result: str, *inputs: str) -> str:
        return self.builder.op(
            "SkipLayerNormalization", result, *inputs, domain=MICROSOFT, epsilon=self.network.epsilon
        )

    def heads(self, x: str) -> None:
        super().heads(x)
        tokens = self.builder.op("Gather", "pool.tokens", x, "pool_rows")  # [rows, longest, hidden]
        exact = self.builder.op("Cast", "pool.exact", tokens, to=TensorProto.FLOAT)
        weights = self.builder.op("Unsqueeze", "pool.weights", "pool_weights", "second_axis")  # [rows, 1, longest]
        total = self.builder.op("MatMul", "pool.total", weights, exact)  # [rows, 1, hidden]
        largest = self.builder.op("ReduceMax", "pool.largest", tokens, "second_axis", keepdims=0)  # [rows, hidden]
        rows: list[int | str] = ["rows", self.network.hidden_size]
        self.builder.output(self.builder.op("Squeeze", POOLED, total, "second_axis"), rows, TensorProto.FLOAT)
        maximum = self.builder.op("Cast", POOLED_MAX, largest, to=TensorProto.FLOAT)
        self.builder.output(maximum, rows, TensorProto.FLOAT)


class HalfCudaGraph(CudaGraph):
    """The same network in float16; pooled vectors are summed in float32."""

    data_type = TensorProto.FLOAT16

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        super().__init__(network, HalfWeights.of(weights), builder)

    def tensor(self, name: str, array: Float32Array) -> str:
        return self.builder.weight(name, array.astype(np.float16))
