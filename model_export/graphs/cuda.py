"""The network as an ONNX graph for CUDA: packed rows everywhere, the operators that ONNX Runtime has fast kernels for.

What the kernels ask for and what they compute in is read from ONNX Runtime's sources (contrib_ops/cuda/bert; the
schemas are in docs/ContribOperators.md):

- PackedMultiHeadAttention (packed_multihead_attention.cc, packed_multihead_attention_impl.cu) takes query, key, value,
  bias, token_offset and cumulative_sequence_length. With key and value left out, query is [tokens, heads, 3, head
  size]; the bias stays [3 x heads x head size], that of all queries, then of all keys, then of all values. The flash
  and the memory-efficient kernels keep scores and softmax in float32 and want a head size that is a multiple of 8; any
  other falls to an unfused kernel that pads. The mask filter is not read: there is no padding to be masked.
  With rotary positions query, key and value are three inputs [tokens, heads x head size], turned before it; an
  attention bias [1, heads, longest, longest] comes behind the lengths, and with it no flash kernel is taken.
- SkipLayerNormalization (skip_layer_norm_impl.cu, layer_norm.cuh) takes input, skip, gamma, beta and bias. The sum is
  stored in the graph's type, mean and variance are float32 since pull request 28682; a build without it needs the
  provider option enable_skip_layer_norm_strict_mode, for it has an epsilon of float16, which 1e-12 is not.
- EmbedLayerNormalization is left out: its type inference asks for an output that nobody wants.
- BiasGelu is by the error function, FastGelu by its tanh approximation; both add a bias first. Without a bias it is
  Gelu and FastGelu; QuickGelu with alpha 1 is x times its logistic function.
- ReduceMax has CUDA kernels for the operator of opset 18, not of 20 (core/providers/cuda/reduction/reduction_ops.cc).
- float32 products are computed in TF32 unless the provider option use_tf32 is 0; the pooling's is always float32.
"""

import numpy as np
from onnx import TensorProto

from berth.backends.cuda.graph import INPUTS, NEAR_INPUTS, POOLED, POOLED_MAX
from berth.types import Float32Array
from model_export.builder import MICROSOFT, GraphBuilder
from model_export.graphs.graph import Graph
from model_export.network import Activation, Network, Reach
from model_export.weights import HalfWeights, Weights

HEAD_STEP = 8
"""Heads are filled up with zeros to a multiple of this, or the fast attention kernels do not take them."""

OFFSETS = ("token_offset", "cumulative_sequence_length")


class CudaGraph(Graph):
    """The network in float32."""

    opset = 18  # the newest whose ReduceMax has a CUDA kernel

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        super().__init__(network, weights, builder)
        step = 1 if network.rotaries() else HEAD_STEP  # turned heads stay as they are
        self.head_size = -(-network.head_size // step) * step

    def inputs(self) -> None:
        near = self.network.near is not None
        for name, axes in (INPUTS | NEAR_INPUTS if near else INPUTS).items():
            if self.used(name):
                kind = TensorProto.FLOAT if name in ("pool_weights", "near_bias") else TensorProto.INT32
                self.builder.input(name, [int(axis) if axis.isdigit() else axis for axis in axes], kind)
        if near:
            self.builder.op("Cast", "near.bias", "near_bias", to=self.data_type)
        self.builder.integers("second_axis", [1])
        self.builder.integers("heads", [-1, self.network.heads, 3, self.head_size])
        if self.network.rotaries():
            self.builder.integers("hidden_rows", [-1, self.network.hidden_size])
            self.turning()
        if self.network.buckets is not None:
            self.bias_of_distances("bias", "token_offset")

    def embeddings(self, result: str) -> str:
        network = self.network
        normed = result if network.embedding_size is None else "embeddings.normed"
        parts = self.summed_embeddings()
        if len(parts) == 1:
            x = self.norm(normed, parts[0], "embeddings.norm")
        else:
            total, other = parts
            if other.endswith(".first"):  # a row alone is no skip
                total = self.builder.op("Add", "embeddings.norm.sum", total, other)
                x = self.norm(normed, total, "embeddings.norm")
            else:
                norm = [self.weight(f"embeddings.norm.{part}") for part in ("weight", "bias")]
                x = self.skip_norm(normed, total, other, *norm)
        return x if network.embedding_size is None else self.linear(result, x, "embeddings.projection")

    def attention(self, layer: int, x: str) -> str:
        weights = self.network.weights_of(layer)
        y = self.attended_product(layer, x)
        return self.add_and_norm(f"layer.{layer}.attention_norm", x, y, weights, "attention_output", "attention_norm")

    def attended(self, layer: int, x: str) -> str:
        return self.biased(self.attended_product(layer, x), f"{self.network.weights_of(layer)}.attention_output")

    def attended_product(self, layer: int, x: str) -> str:
        """Lay out attention, but for the bias of its output."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        context = self.turned_context(layer, x) if self.network.rotaries() else self.packed_context(layer, x)
        matrix = f"{weights}.attention_output.weight"
        if matrix not in self.builder:
            rows = self.filled(self.weights[matrix].T)  # [heads, head size, hidden]
            self.tensor(matrix, rows.reshape(-1, self.network.hidden_size))
        return self.builder.op("MatMul", f"{name}.attention_output.product", context, matrix)

    def packed_context(self, layer: int, x: str) -> str:
        """Lay out attention of queries, keys and values that come of one product."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        parts = [f"{weights}.{part}" for part in ("query", "key", "value")]
        if f"{weights}.qkv.weight" not in self.builder:
            matrices = [self.filled(self.weights[f"{part}.weight"]) for part in parts]  # [heads, head size, hidden]
            biases = [self.filled(self.weights[f"{part}.bias"]) for part in parts]  # each [heads, head size]
            # [heads, 3, head size, hidden], so that the product's columns lie as the attention reads them
            columns = np.stack(matrices, axis=1).reshape(-1, self.network.hidden_size).T
            self.tensor(f"{weights}.qkv.weight", columns)
            self.tensor(f"{weights}.qkv.bias", np.concatenate(biases).ravel())
        product = self.builder.op("MatMul", f"{name}.qkv.product", x, f"{weights}.qkv.weight")
        queries = self.builder.op("Reshape", f"{name}.qkv", product, "heads")  # [tokens, heads, 3, head size]
        return self.packed_attention(f"{name}.context", queries, "", "", f"{weights}.qkv.bias")

    def turned_context(self, layer: int, x: str) -> str:
        """Lay out attention of queries and keys that are turned by their places."""
        name, weights, reach = f"layer.{layer}", self.network.weights_of(layer), self.network.reach_of(layer)
        query, key, value = (
            self.linear(f"{name}.{part}", x, f"{weights}.{part}") for part in ("query", "key", "value")
        )
        turned = [self.turned(query, reach), self.turned(key, reach)]
        if self.network.reach_of(layer) is Reach.NEAR:
            return self.near_context(name, [*turned, value])
        none = np.zeros(3 * self.network.hidden_size, np.float32)
        return self.packed_attention(f"{name}.context", *turned, value, self.tensor("no_bias", none))

    def near_context(self, name: str, parts: list[str]) -> str:
        """Lay out attention of chunks of queries with the keys that they reach, each chunk as a text of a batch."""
        rows = ("near_query_rows", "near_key_rows", "near_key_rows")
        chunks = [
            self.builder.op("Gather", f"{part}.near", part, of) for part, of in zip(parts, rows, strict=True)
        ]  # each [chunks, queries or keys, hidden]
        context = self.builder.op(
            "MultiHeadAttention",
            f"{name}.near",
            *chunks,
            *("", "", "near.bias"),
            domain=MICROSOFT,
            num_heads=self.network.heads,
            scale=self.network.head_size**-0.5,
        )
        in_chunks = self.builder.op("Reshape", f"{name}.near.rows", context, "hidden_rows")
        return self.builder.op("Gather", f"{name}.context", in_chunks, "near_context_rows")  # [tokens, hidden]

    def packed_attention(self, name: str, *parts: str) -> str:
        bias = [] if self.network.buckets is None else ["bias"]
        return self.builder.op(
            "PackedMultiHeadAttention",
            name,
            *parts,
            *OFFSETS,
            *bias,
            domain=MICROSOFT,
            num_heads=self.network.heads,
            scale=self.network.head_size**-0.5,
        )  # [tokens, heads * head size]

    def filled(self, rows: Float32Array) -> Float32Array:
        """Part the first axis [heads * head size] into heads, each with rows of zeros up to the size in the graph."""
        heads = rows.reshape(self.network.heads, self.network.head_size, *rows.shape[1:])
        missing = self.head_size - self.network.head_size
        return np.pad(heads, [(0, 0), (0, missing), *[(0, 0)] * (rows.ndim - 1)])

    def feed_forward(self, layer: int, x: str, result: str) -> str:
        y = self.fed_product(layer, x)
        return self.add_and_norm(result, x, y, self.network.weights_of(layer), "outer", "output_norm")

    def fed(self, layer: int, x: str) -> str:
        return self.biased(self.fed_product(layer, x), f"{self.network.weights_of(layer)}.outer")

    def fed_product(self, layer: int, x: str) -> str:
        """Lay out a feed-forward block, but for its last bias."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        if self.network.gated:
            gate = self.activation(f"{name}.gate.activation", *self.factors(layer, x, "gate"))
            inner = self.builder.op("Mul", f"{name}.gated", gate, self.linear(f"{name}.inner", x, f"{weights}.inner"))
        else:
            inner = self.activation(f"{name}.activation", *self.factors(layer, x, "inner"))
        return self.product(f"{name}.outer", inner, f"{weights}.outer")

    def factors(self, layer: int, x: str, part: str) -> list[str]:
        """Give a product, and its bias if it has one, for an operator that adds it."""
        weights = f"{self.network.weights_of(layer)}.{part}"
        product = self.product(f"layer.{layer}.{part}", x, weights)
        return [product, self.weight(f"{weights}.bias")] if f"{weights}.bias" in self.weights else [product]

    def activation(self, name: str, product: str, *bias: str) -> str:
        match self.network.activation:
            case Activation.GELU:
                return self.builder.op("BiasGelu" if bias else "Gelu", name, product, *bias, domain=MICROSOFT)
            case Activation.GELU_TANH:
                return self.builder.op("FastGelu", name, product, *bias, domain=MICROSOFT)
        if bias:
            product = self.builder.op("Add", f"{name}.biased", product, *bias)
        if self.network.activation is Activation.RELU:
            return self.builder.op("Relu", name, product)
        return self.builder.op("QuickGelu", name, product, domain=MICROSOFT, alpha=1.0)

    def add_and_norm(self, result: str, x: str, y: str, weights: str, bias: str, norm: str) -> str:
        parts = [self.weight(f"{weights}.{norm}.{part}") for part in ("weight", "bias")]
        biases = [self.weight(f"{weights}.{bias}.bias")] if f"{weights}.{bias}.bias" in self.weights else []
        return self.skip_norm(result, y, x, *parts, *biases)

    def skip_norm(self, result: str, *inputs: str) -> str:
        return self.builder.op(
            "SkipLayerNormalization", result, *inputs, domain=MICROSOFT, epsilon=self.network.epsilon
        )

    def norm(self, name: str, x: str, weights: str) -> str:
        parts = [self.weight(f"{weights}.{part}") for part in ("weight", "bias") if f"{weights}.{part}" in self.weights]
        return self.builder.op("LayerNormalization", name, x, *parts, epsilon=self.network.epsilon)

    def biased(self, product: str, weights: str) -> str:
        """Add a bias, if there is one."""
        if f"{weights}.bias" not in self.weights:
            return product
        return self.builder.op("Add", f"{product}.biased", product, self.weight(f"{weights}.bias"))

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

    def exact_table(self, name: str, array: Float32Array) -> str:
        exact = self.builder.weight(f"{name}.exact", array)  # rounded in the graph, where the verification sees it
        return self.builder.op("Cast", name, exact, to=TensorProto.FLOAT16)
