"""The network as an ONNX graph for the CPU: packed rows everywhere, padded ones for the attention of several texts."""

from onnx import TensorProto

from berth.backends.cpu.packing import INPUTS, MASKED, NEAR_INPUTS
from model_export.builder import MICROSOFT, Shape
from model_export.graphs.graph import Graph
from model_export.network import Activation, Reach

KINDS = {
    "alone": TensorProto.BOOL,
    "attention_bias": TensorProto.FLOAT,
    "near_inside": TensorProto.BOOL,
}
"""Of inputs that are not int32."""


class CpuGraph(Graph):
    """The network in float32."""

    def inputs(self) -> None:
        near = self.network.near is not None
        for name, axes in (INPUTS | NEAR_INPUTS if near else INPUTS).items():
            if self.used(name):
                self.builder.input(name, self.shape(axes), KINDS.get(name, TensorProto.INT32))
        self.builder.integers("hidden_rows", [-1, self.network.hidden_size])
        self.builder.integers("one_text", [1, -1, self.network.hidden_size])
        self.builder.integers("head_rows", [-1, self.network.head_size])
        if self.network.rotaries():
            self.turning()
        if self.network.buckets is not None:
            self.biased_by_distance()
        if near:
            self.builder.constant("near.masked", MASKED, "float32")
            self.builder.constant("near.scale", self.network.head_size**-0.5, "float32")
            self.builder.integers("near.last_axis", [-1])

    def used(self, name: str) -> bool:
        if name == "first_tokens":  # declared by all graphs of the CPU, pooler or not
            return True
        return super().used(name)

    def shape(self, axes: list[str]) -> Shape:
        """Give an input's shape; an axis is known by its size or else by its name."""
        return [self.network.heads if axis == "heads" else int(axis) if axis.isdigit() else axis for axis in axes]

    def biased_by_distance(self) -> None:
        """Lay out `bias`, which all layers add to their scores: that of each distance, masked past a text's end."""
        unmasked = self.bias_of_distances("bias.unmasked", "attention_rows")
        self.builder.integers("bias.second_axis", [1])
        self.builder.integers("bias.last_axis", [3])
        self.builder.constant("bias.outside", MASKED / 2, "float32")
        self.builder.choose(
            "bias",
            "alone",
            lambda: self.builder.op("Identity", "bias.of_one", unmasked),
            lambda: self.masked_bias(unmasked),
            ["sequences", self.network.heads, "longest", "longest"],
        )

    def masked_bias(self, unmasked: str) -> str:
        # The keys past a text's end are its first token's, and get that one's bias, or MASKED would not be enough.
        first = self.builder.op(
            "Slice", "bias.of_first", unmasked, "bias.first_axis", "bias.second_axis", "bias.last_axis"
        )
        outside = self.builder.op("Add", "bias.masked", first, "attention_bias")  # [sequences, heads, longest, longest]
        inside = self.builder.op("Greater", "bias.inside", "attention_bias", "bias.outside")
        return self.builder.op("Where", "bias.of_many", inside, unmasked, outside)

    def embeddings(self, result: str) -> str:
        network = self.network
        normed = result if network.embedding_size is None else "embeddings.normed"
        parts = self.summed_embeddings()
        total = parts[0] if len(parts) == 1 else self.builder.op("Add", "embeddings.norm.sum", *parts)
        x = self.norm(normed, total, "embeddings.norm")
        return x if network.embedding_size is None else self.plain_linear(result, x, "embeddings.projection")

    def attention(self, layer: int, x: str) -> str:
        name = f"layer.{layer}.attention_norm"
        return self.add_and_norm(name, x, self.attended(layer, x), f"{self.network.weights_of(layer)}.attention_norm")

    def feed_forward(self, layer: int, x: str, result: str) -> str:
        return self.add_and_norm(result, x, self.fed(layer, x), f"{self.network.weights_of(layer)}.output_norm")

    def attended(self, layer: int, x: str) -> str:
        """Lay out attention, from the rows that queries, keys and values are made of to its output."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        query, key, value = (
            self.linear(f"{name}.{part}", x, f"{weights}.{part}") for part in ("query", "key", "value")
        )
        if reach := self.rotary_of(layer):
            query, key = self.turned(query, reach), self.turned(key, reach)
        parts = [query, key, value]
        near = self.network.reach_of(layer) is Reach.NEAR
        context = self.context_of_near(name, parts) if near else self.context(name, parts)
        return self.linear(f"{name}.attention_output", context, f"{weights}.attention_output")

    def context(self, name: str, parts: list[str]) -> str:
        """Compute the attention, of one text in another way than of several; the two differ by what rounding does."""
        return self.choose_context(name, parts, "alone")

    def choose_context(self, name: str, parts: list[str], alone: str) -> str:
        return self.builder.choose(
            f"{name}.context.chosen",
            alone,
            lambda: self.context_of_one(f"{name}.context.of_one", parts),
            lambda: self.context_of_many(name, parts),
            ["tokens", self.network.hidden_size],
        )

    def context_of_one(self, name: str, parts: list[str]) -> str:
        """Compute the attention of a text alone, which needs no padding: on a long one ORT's own operator is faster."""
        batch = [self.builder.op("Reshape", f"{part}.of_one", part, "one_text") for part in parts]
        bias = [] if self.network.buckets is None else ["", "", "bias"]
        context = self.builder.op(
            "MultiHeadAttention", name, *batch, *bias, domain=MICROSOFT, num_heads=self.network.heads
        )
        return self.builder.op("Reshape", f"{name}.rows", context, "hidden_rows")  # [tokens, hidden]

    def context_of_many(self, name: str, parts: list[str]) -> str:
        query, key, value = (self.gathered(part, "attention_rows", "padded") for part in parts)
        scores = self.scores(name, query, key)  # [sequences, heads, longest, longest]
        # The bias masks the keys past a text's end. The queries there are computed for nothing and never read again.
        bias = "attention_bias" if self.network.buckets is None else "bias"
        biased = self.builder.op("Add", f"{name}.scores.biased", scores, bias)
        weights = self.builder.op("Softmax", f"{name}.attention", biased, axis=-1)
        context = self.builder.op("MatMul", f"{name}.context", weights, value)  # [sequences, heads, longest, head_size]
        return self.packed(context, "context_rows")

    def context_of_near(self, name: str, parts: list[str]) -> str:
        """Compute the attention of chunks of queries with the keys that they reach, of one text or several.

        A key that is out of reach gets the score of the query with its own key, less what `MASKED` says: that one is
        within reach, so the weight of what is masked is as little as in `context_of_many`.
        """
        query = self.gathered(parts[0], "near_query_rows", "near")  # [chunks, heads, queries, head size]
        own = self.gathered(parts[1], "near_query_rows", "own")
        key, value = (self.gathered(part, "near_key_rows", "near") for part in parts[1:])
        scores = self.scores(name, query, key)  # [chunks, heads, queries, keys]
        products = self.builder.op("Mul", f"{name}.own.products", query, own)
        total = self.builder.op("ReduceSum", f"{name}.own.total", products, "near.last_axis", keepdims=1)
        scaled = self.builder.op("Mul", f"{name}.own.scaled", total, "near.scale")
        outside = self.builder.op("Add", f"{name}.own.masked", scaled, "near.masked")  # [chunks, heads, queries, 1]
        masked = self.builder.op("Where", f"{name}.scores.masked", "near_inside", scores, outside)
        weights = self.builder.op("Softmax", f"{name}.attention", masked, axis=-1)
        context = self.builder.op("MatMul", f"{name}.context", weights, value)
        return self.packed(context, "near_context_rows")

    def scores(self, name: str, query: str, key: str) -> str:
        scale = self.network.head_size**-0.5
        return self.builder.op("FusedMatMul", f"{name}.scores", query, key, domain=MICROSOFT, transB=1, alpha=scale)

    def gathered(self, x: str, rows: str, name: str) -> str:
        """See packed rows as those of their heads, and lay them out as an input says."""
        of_heads = self.builder.op("Reshape", f"{x}.{name}.rows", x, "head_rows")  # [tokens * heads, head_size]
        return self.builder.op("Gather", f"{x}.{name}", of_heads, rows)

    def packed(self, x: str, rows: str) -> str:
        of_heads = self.builder.op("Reshape", f"{x}.rows", x, "head_rows")  # [sequences * heads * longest, head_size]
        packed = self.builder.op("Gather", f"{x}.packed", of_heads, rows)  # [tokens, heads, head_size]
        return self.builder.op("Reshape", f"{x}.packed.rows", packed, "hidden_rows")  # [tokens, hidden]

    def linear(self, name: str, x: str, weights: str) -> str:
        return self.plain_linear(name, x, weights)

    def plain_linear(self, name: str, x: str, weights: str) -> str:
        # Weights are stored as in the checkpoint, [outputs, inputs]; ONNX Runtime packs them for its kernels at load.
        bias = [self.weight(f"{weights}.bias")] if f"{weights}.bias" in self.weights else []
        return self.builder.op("Gemm", name, x, self.weight(f"{weights}.weight"), *bias, transB=1)

    def fed(self, layer: int, x: str) -> str:
        """Lay out a feed-forward block without its norm."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        inner = self.linear(f"{name}.inner", x, f"{weights}.inner")  # [tokens, intermediate]
        if self.network.gated:
            gate = self.activation(f"{name}.gate.activation", self.linear(f"{name}.gate", x, f"{weights}.gate"))
            inner = self.builder.op("Mul", f"{name}.gated", gate, inner)
        else:
            inner = self.activation(f"{name}.activation", inner)
        return self.linear(f"{name}.outer", inner, f"{weights}.outer")

    def activation(self, name: str, x: str) -> str:
        match self.network.activation:
            case Activation.GELU:
                return self.builder.op("Gelu", name, x)
            case Activation.GELU_TANH:
                return self.builder.op("Gelu", name, x, approximate="tanh")
            case Activation.RELU:
                return self.builder.op("Relu", name, x)
            case Activation.SILU:
                return self.builder.op("QuickGelu", name, x, domain=MICROSOFT, alpha=1.0)

    def add_and_norm(self, result: str, x: str, y: str, weights: str) -> str:
        return self.norm(result, self.builder.op("Add", f"{result}.sum", x, y), weights)

    def norm(self, name: str, x: str, weights: str) -> str:
        parts = [self.weight(f"{weights}.{part}") for part in ("weight", "bias") if f"{weights}.{part}" in self.weights]
        return self.builder.op("LayerNormalization", name, x, *parts, epsilon=self.network.epsilon)
