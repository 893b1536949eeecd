"""The network as an ONNX graph for the CPU: packed rows everywhere, padded ones for the attention of several texts."""

from onnx import TensorProto

from berth.backends.cpu.packing import INPUTS
from model_export.builder import MICROSOFT, Shape
from model_export.graphs.graph import Graph
from model_export.network import Activation


class CpuGraph(Graph):
    """The network in float32."""

    def inputs(self) -> None:
        for name, axes in INPUTS.items():
            kind = {"alone": TensorProto.BOOL, "attention_bias": TensorProto.FLOAT}.get(name, TensorProto.INT32)
            self.builder.input(name, self.shape(axes), kind)
        self.builder.integers("hidden_rows", [-1, self.network.hidden_size])
        self.builder.integers("one_text", [1, -1, self.network.hidden_size])
        self.builder.integers("head_rows", [-1, self.network.head_size])

    def embeddings(self, result: str) -> str:
        return self.add_and_norm("embeddings.norm", *self.summed_embeddings(), result)

    def shape(self, axes: list[str]) -> Shape:
        """Give an input's shape; an axis is known by its size or else by its name."""
        return [self.network.heads if axis == "heads" else int(axis) if axis.isdigit() else axis for axis in axes]

    def attention(self, name: str, x: str) -> str:
        parts = [self.linear(f"{name}.{part}", x) for part in ("query", "key", "value")]
        y = self.linear(f"{name}.attention_output", self.context(name, parts))
        return self.add_and_norm(f"{name}.attention_norm", x, y, f"{name}.attention_norm")

    def context(self, name: str, parts: list[str]) -> str:
        """Compute the attention, of one text in another way than of several; the two differ by what rounding does."""
        return self.builder.choose(
            f"{name}.context.chosen",
            "alone",
            lambda: self.context_of_one(f"{name}.context.of_one", parts),
            lambda: self.context_of_many(name, parts),
            ["tokens", self.network.hidden_size],
        )

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
        )  # [sequences, heads, longest, longest]
        # The bias masks the keys past a text's end. The queries there are computed for nothing and never read again.
        biased = self.builder.op("Add", f"{name}.scores.biased", scores, "attention_bias")
        weights = self.builder.op("Softmax", f"{name}.attention", biased, axis=-1)
        context = self.builder.op("MatMul", f"{name}.context", weights, value)  # [sequences, heads, longest, head_size]
        return self.packed(context)

    def padded(self, x: str) -> str:
        rows = self.builder.op("Reshape", f"{x}.rows", x, "head_rows")  # [tokens * heads, head_size]
        # [sequences, heads, longest, head_size]
        return self.builder.op("Gather", f"{x}.padded", rows, "attention_rows")

    def packed(self, x: str) -> str:
        rows = self.builder.op("Reshape", f"{x}.rows", x, "head_rows")  # [sequences * heads * longest, head_size]
        packed = self.builder.op("Gather", f"{x}.packed", rows, "context_rows")  # [tokens, heads, head_size]
        return self.builder.op("Reshape", f"{x}.packed.rows", packed, "hidden_rows")  # [tokens, hidden]

    def linear(self, name: str, x: str) -> str:
        # Weights are stored as in the checkpoint, [outputs, inputs]; ONNX Runtime packs them for its kernels at load.
        return self.builder.op("Gemm", name, x, self.weight(f"{name}.weight"), self.weight(f"{name}.bias"), transB=1)

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

    def add_and_norm(self, name: str, x: str, y: str, result: str) -> str:
        total = self.builder.op("Add", f"{name}.sum", x, y)
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.builder.op("LayerNormalization", result, total, scale, bias, epsilon=self.network.epsilon)
