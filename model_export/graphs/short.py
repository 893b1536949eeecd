"""The network as an ONNX graph for the CPU, for a short text alone.

A few rows are too little work to hide the reading of the weights from memory behind. As ONNX Runtime lays the right
factor of a product out, each row that is past its kernel's twelve reads it once more. Here the weights are the left
factor, which is read once and from end to end: x is [tokens, hidden] where it is normalized, and in between the
columns are the tokens. The metadata say where the matrices lie, for whoever runs the graph to lay them into memory that
is faster to read than a file's pages.
"""

from onnx import TensorProto

from model_export.builder import MICROSOFT, GraphBuilder
from model_export.graphs.cpu import CpuGraph
from model_export.network import Network
from model_export.weights import Weights
from service.inference.artifact import MATRICES
from service.inference.packing import SHORT_INPUTS


class ShortGraph(CpuGraph):
    """The network in float32, without the pooler: what wants that goes through the graph for batches."""

    def __init__(self, network: Network, weights: Weights, builder: GraphBuilder) -> None:
        super().__init__(network, weights, builder)
        self.matrices: list[str] = []

    def inputs(self) -> None:
        for name, axes in SHORT_INPUTS.items():
            self.builder.input(name, self.shape(axes), TensorProto.INT32)
        self.builder.integers("hidden_columns", [self.network.hidden_size, -1])
        self.builder.integers("head_columns", [self.network.heads, self.network.head_size, -1])

    def attention(self, name: str, x: str) -> str:
        query, key, value = (self.by_head(f"{name}.{part}", x) for part in ("query", "key", "value"))
        scale = self.network.head_size**-0.5
        scores = self.builder.op(
            "FusedMatMul", f"{name}.scores", query, key, domain=MICROSOFT, transA=1, alpha=scale
        )  # [heads, tokens, tokens]
        weights = self.builder.op("Softmax", f"{name}.attention", scores, axis=-1)
        context = self.builder.op("FusedMatMul", f"{name}.context", value, weights, domain=MICROSOFT, transB=1)
        columns = self.builder.op("Reshape", f"{name}.context.columns", context, "hidden_columns")
        y = self.rows_of(self.columns(f"{name}.attention_output", columns))
        return self.add_and_norm(f"{name}.attention_norm", x, y, f"{name}.attention_norm")

    def by_head(self, name: str, x: str) -> str:
        columns = self.columns(name, x, of_rows=True)
        return self.builder.op("Reshape", f"{name}.by_head", columns, "head_columns")  # [heads, head_size, tokens]

    def feed_forward(self, name: str, x: str, result: str) -> str:
        inner = self.activation(f"{name}.activation", self.columns(f"{name}.inner", x, of_rows=True))
        return self.add_and_norm(f"{name}.output_norm", x, self.rows_of(self.columns(f"{name}.outer", inner)), result)

    def columns(self, name: str, x: str, *, of_rows: bool = False) -> str:
        """Multiply weights and x, [inputs, tokens], or rows of it, [tokens, inputs]; gives [outputs, tokens]."""
        bias = self.tensor(f"{name}.bias", self.weights[f"{name}.bias"][:, None])  # [outputs, 1]
        self.matrices.append(self.weight(f"{name}.weight"))
        return self.builder.op("Gemm", name, self.matrices[-1], x, bias, transB=int(of_rows))

    def rows_of(self, columns: str) -> str:
        return self.builder.op("Transpose", f"{columns}.rows", columns, perm=[1, 0])  # [tokens, outputs]

    def heads(self, _: str) -> None:
        """Leave the pooler out; all else is laid out."""
        self.builder.index(MATRICES, self.matrices)
