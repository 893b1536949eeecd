"""What the graphs of all targets have in common."""

from abc import ABC, abstractmethod

from onnx import TensorProto

from berth.types import Float32Array
from model_export.builder import GraphBuilder
from model_export.network import Network
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
            x = self.attention(f"layer.{layer}", x)
            x = self.feed_forward(f"layer.{layer}", x, f"hidden_state_{layer + 1}")
            self.builder.output(x, rows, self.data_type)
        self.heads(x)

    @abstractmethod
    def inputs(self) -> None:
        """Declare the inputs, and the constants that all layers share."""

    @abstractmethod
    def embeddings(self, result: str) -> str:
        """Sum the three embeddings of each token, and normalize."""

    @abstractmethod
    def attention(self, name: str, x: str) -> str:
        """Lay out a block of attention with its norm."""

    @abstractmethod
    def feed_forward(self, name: str, x: str, result: str) -> str:
        """Lay out a feed-forward block with its norm."""

    def heads(self, x: str) -> None:
        """Lay out what is computed from the last layer: the pooler, if there is one."""
        if self.weights.has_pooler:
            first = self.builder.op("Gather", "pooler.first", x, "first_tokens")  # [sequences, hidden]
            result = self.builder.op("Tanh", "pooler_output", self.linear("pooler", first))
            self.builder.output(result, ["sequences", self.network.hidden_size], self.data_type)

    def summed_embeddings(self) -> tuple[str, str]:
        """Look up the three embeddings of each token; the sum of the first two, and the third."""
        words, types, positions = (
            self.builder.op("Gather", f"embeddings.{table}", self.weight(f"embeddings.{table}.weight"), ids)
            for table, ids in (("word", "input_ids"), ("type", "token_type_ids"), ("position", "position_ids"))
        )
        return self.builder.op("Add", "embeddings.words_and_types", words, types), positions

    def linear(self, name: str, x: str) -> str:
        return self.builder.op("Add", name, self.product(name, x), self.weight(f"{name}.bias"))

    def product(self, name: str, x: str) -> str:
        matrix = self.tensor(f"{name}.weight", self.weights[f"{name}.weight"].T)  # [inputs, outputs]
        return self.builder.op("MatMul", f"{name}.product", x, matrix)

    def weight(self, name: str) -> str:
        return self.tensor(name, self.weights[name])

    def tensor(self, name: str, array: Float32Array) -> str:
        return self.builder.weight(name, array)
