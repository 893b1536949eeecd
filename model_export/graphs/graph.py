"""What the graphs of all targets have in common."""

from abc import ABC, abstractmethod

import numpy as np
from onnx import TensorProto

from berth.types import Float32Array
from model_export.builder import MICROSOFT, GraphBuilder
from model_export.graphs.positions import bias_by_distance, turns
from model_export.network import Network, Reach
from model_export.progress import layers_of
from model_export.weights import Weights


class Graph(ABC):
    """The network; x is always [tokens, hidden] and its rows are the packed tokens."""

    data_type: int = TensorProto.FLOAT
    """Of weights and of what is computed with them."""
    opset: int = 20

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        self.network = network
        self.weights = weights
        self.builder = builder

    def build(self) -> None:
        """Lay out inputs, embeddings, layers and pooler; each layer's rows are an output."""
        self.inputs()
        rows: list[int | str] = ["tokens", self.network.hidden_size]
        x = self.builder.output(self.embeddings("hidden_state_0"), rows, self.data_type)
        for layer in layers_of(self.network.layers, "writing"):
            last = layer + 1 == self.network.layers
            result = f"hidden_state_{layer + 1}"
            if self.network.pre_norm:
                x = self.layer_with_norms_before(layer, x, f"layer.{layer}.output" if last else result)
                x = self.norm(result, x, "final_norm") if last else x
            else:
                x = self.attention(layer, x)
                x = self.feed_forward(layer, x, result)
            self.builder.output(x, rows, self.data_type)
        self.heads(x)

    def used(self, name: str) -> bool:
        """Say whether the network needs an input of a graph that serves all networks."""
        network = self.network
        needed = {
            "token_type_ids": network.type_vocab_size > 1,
            "position_ids": network.learned_positions or bool(network.rotaries()),
            "first_tokens": self.weights.has_pooler,
        }
        return needed.get(name, True)

    @abstractmethod
    def inputs(self) -> None:
        """Declare the inputs, and the constants that all layers share."""

    @abstractmethod
    def embeddings(self, result: str) -> str:
        """Sum the embeddings of each token, normalize, and project where the tables are narrower."""

    @abstractmethod
    def attention(self, layer: int, x: str) -> str:
        """Lay out a block of attention with its norm behind it."""

    @abstractmethod
    def feed_forward(self, layer: int, x: str, result: str) -> str:
        """Lay out a feed-forward block with its norm behind it."""

    def layer_with_norms_before(self, layer: int, x: str, result: str) -> str:
        """Lay out both blocks, their norms before them."""
        name, weights = f"layer.{layer}", self.network.weights_of(layer)
        before = x
        if self.network.norm_before(layer):
            before = self.norm(f"{name}.attention_norm", x, f"{weights}.attention_norm")
        x = self.builder.op("Add", f"{name}.attended", x, self.attended(layer, before))
        normed = self.norm(f"{name}.output_norm", x, f"{weights}.output_norm")
        return self.builder.op("Add", result, x, self.fed(layer, normed))

    @abstractmethod
    def attended(self, layer: int, x: str) -> str:
        """Lay out attention, from the rows that queries, keys and values are made of to its output."""

    @abstractmethod
    def fed(self, layer: int, x: str) -> str:
        """Lay out a feed-forward block without its norm."""

    @abstractmethod
    def norm(self, name: str, x: str, weights: str) -> str:
        """Lay out a norm."""

    def heads(self, x: str) -> None:
        """Lay out what is computed from the last layer: the pooler, if there is one."""
        if self.weights.has_pooler:
            first = self.builder.op("Gather", "pooler.first", x, "first_tokens")  # [sequences, hidden]
            result = self.builder.op("Tanh", "pooler_output", self.linear("pooler", first, "pooler"))
            self.builder.output(result, ["sequences", self.network.hidden_size], self.data_type)

    def summed_embeddings(self) -> list[str]:
        """Look up the embeddings of each token; gives the sum of all but one, and that one, where there are several."""
        tables = {"word": "input_ids"}
        if self.network.type_vocab_size > 1:
            tables["type"] = "token_type_ids"
        if self.network.learned_positions:
            tables["position"] = self.positions()
        parts = [
            self.builder.op("Gather", f"embeddings.{table}", self.weight(f"embeddings.{table}.weight"), ids)
            for table, ids in tables.items()
        ]
        for table, rows in (("type", self.network.type_vocab_size == 1), ("task", self.network.task_types)):
            if rows:  # of which every token gets the first
                parts.append(self.tensor(f"embeddings.{table}.first", self.weights[f"embeddings.{table}.weight"][0]))
        total, *others = parts
        for place, other in enumerate(others[:-1]):
            total = self.builder.op("Add", f"embeddings.sum.{place}", total, other)
        return [total, *others[-1:]]

    def positions(self) -> str:
        """Give each token's row of the table of positions."""
        if not self.network.first_position:
            return "position_ids"
        first = self.builder.constant("first_position", self.network.first_position, np.int32)
        return self.builder.op("Add", "position_rows", "position_ids", first)

    def turning(self) -> None:
        """Write the cosines and sines of rotary positions, and each token's place as the operator takes it."""
        for reach, rotary in self.network.rotaries().items():
            for name, table in turns(rotary, self.network.head_size, self.network.max_tokens).items():
                self.exact_table(f"rotary.{reach}.{name}", table)
        if self.network.rotaries():
            self.builder.integers("turned_rows", [-1, 1, self.network.hidden_size])
            self.builder.integers("rotary.axis", [1])
            places = self.builder.op("Cast", "rotary.places", "position_ids", to=TensorProto.INT64)
            self.builder.op("Unsqueeze", "rotary.position_ids", places, "rotary.axis")  # [tokens, 1]

    def rotary_of(self, layer: int) -> Reach | None:
        """Say which cosines and sines a layer turns its queries and keys by, if any."""
        reach = self.network.reach_of(layer)
        return reach if reach in self.network.rotaries() else None

    def turned(self, x: str, reach: Reach) -> str:
        """Turn rows by their places. The operator takes [texts, tokens, hidden]: here each token is a text."""
        rows = self.builder.op("Reshape", f"{x}.to_turn", x, "turned_rows")
        tables = (f"rotary.{reach}.cos", f"rotary.{reach}.sin")
        turned = self.builder.op(
            "RotaryEmbedding", f"{x}.turned", rows, "rotary.position_ids", *tables, domain=MICROSOFT
        )
        return self.builder.op("Reshape", f"{x}.turned.rows", turned, "hidden_rows")

    def bias_of_distances(self, result: str, padded: str) -> str:
        """Lay out the bias of each distance, [1, heads, longest, longest]; an input's last axis is the longest text."""
        assert self.network.buckets is not None, "asked for where there are buckets"
        by_distance = bias_by_distance(self.network.buckets, self.weights["buckets.weight"], self.network.max_tokens)
        for name, value in (("zero", 0), ("one", 1), ("last", -1), ("middle", self.network.max_tokens - 1)):
            self.builder.constant(f"bias.{name}", value, "int64")
        self.builder.integers("bias.first_axis", [0])
        self.builder.integers("bias.of_queries", [1])
        table = self.tensor("bias.table", by_distance)  # [heads, 2 x the most tokens - 1], the most negative first
        longest = self.builder.op("Gather", "bias.longest", self.builder.op("Shape", "bias.shape", padded), "bias.last")
        places = self.builder.op("Range", "bias.places", "bias.zero", longest, "bias.one")
        keys = self.builder.op("Unsqueeze", "bias.keys", places, "bias.first_axis")
        queries = self.builder.op("Unsqueeze", "bias.queries", places, "bias.of_queries")
        distances = self.builder.op("Sub", "bias.distances", keys, queries)  # [longest, longest]
        columns = self.builder.op("Add", "bias.columns", distances, "bias.middle")
        of_heads = self.builder.op("Gather", "bias.of_heads", table, columns, axis=1)  # [heads, longest, longest]
        return self.builder.op("Unsqueeze", result, of_heads, "bias.first_axis")

    def linear(self, name: str, x: str, weights: str) -> str:
        product = self.product(name, x, weights)
        if f"{weights}.bias" not in self.weights:
            return product
        return self.builder.op("Add", name, product, self.weight(f"{weights}.bias"))

    def product(self, name: str, x: str, weights: str) -> str:
        matrix = self.tensor(f"{weights}.weight", self.weights[f"{weights}.weight"].T)  # [inputs, outputs]
        return self.builder.op("MatMul", f"{name}.product", x, matrix)

    def weight(self, name: str) -> str:
        return name if name in self.builder else self.tensor(name, self.weights[name])

    def exact_table(self, name: str, array: Float32Array) -> str:
        """Write numbers that are no weights, in the type in which they are computed with."""
        return self.tensor(name, array)

    def tensor(self, name: str, array: Float32Array) -> str:
        return self.builder.weight(name, array)
