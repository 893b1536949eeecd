"""The floor: the encoder's matrix products alone, in float32, on batches of the ceiling's very sizes.

A layer has the product for queries, keys and values in one, the attention's two on the padded batch, its output's, and
the feed-forward network's two; nothing between them. The weights are random. A product that nothing reads is an output
of the graph that nobody fetches: ONNX Runtime computes those too.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bench.ceiling import Ceiling
from berth.types import Float32Array


@dataclass(frozen=True, slots=True)
class Sizes:
    """An encoder's sizes, as far as its products go."""

    hidden: int
    heads: int
    intermediate: int
    layers: int
    gated: bool = False
    """Whether the feed-forward has a third product."""


def sizes_of(graph: str, hidden: int, heads: int, layers: int) -> Sizes:
    """Find the feed-forward network's width, which no manifest tells, in an exported graph."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    widths = [max(tensor.dims) for tensor in tensors if len(tensor.dims) == 2 and hidden in tensor.dims]
    twice_a_layer = {width for width in widths if width != hidden and widths.count(width) >= 2 * layers}
    intermediate = min(twice_a_layer, default=4 * hidden)
    return Sizes(hidden, heads, intermediate, layers)


class Floor:
    """The products of an encoder, ready to run on one thread."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self._known: dict[tuple[int, ...], dict[str, Float32Array]] = {}
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = _graph(sizes).SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def measure(self, ceiling: Ceiling, seconds: float) -> float:
        """Give the milliseconds of CPU time a text that the products of the ceiling's batches take."""
        chance = np.random.default_rng(0)
        spent, tokens = 0.0, 0
        for number, lengths in enumerate(cycle(ceiling.batches)):
            feeds = self._feeds(lengths, chance)
            started = time.thread_time()
            self._session.run(["states"], feeds)
            if number >= 3:
                spent += time.thread_time() - started
                tokens += sum(lengths)
            if spent >= seconds:
                break
        return spent * 1000 / tokens * ceiling.text_tokens

    def run(self, lengths: Sequence[int]) -> None:
        """Run the products of one batch."""
        key = tuple(lengths)
        if key not in self._known:
            self._known[key] = self._feeds(lengths, np.random.default_rng(0))
        self._session.run(["states"], self._known[key])

    def _feeds(self, lengths: Sequence[int], chance: np.random.Generator) -> dict[str, Float32Array]:
        heads, width, longest = self._sizes.heads, self._sizes.hidden // self._sizes.heads, max(lengths)
        padded = (len(lengths), heads)
        shapes = {
            "states": (sum(lengths), self._sizes.hidden),
            "queries": (*padded, longest, width),
            "keys": (*padded, width, longest),
            "values": (*padded, longest, width),
        }
        names = {"states": "input", "queries": "queries", "keys": "keys", "values": "values"}
        # the scale keeps the numbers of a chain of layers far from infinity and from denormals
        scale = np.float32((width * longest) ** -0.25)
        return {
            names[name]: chance.standard_normal(shape, dtype=np.float32) * (1 if name == "states" else scale)
            for name, shape in shapes.items()
        }


def _graph(sizes: Sizes) -> onnx.ModelProto:
    hidden, inner = sizes.hidden, sizes.intermediate
    chance = np.random.default_rng(0)
    nodes, weights = [], []
    loose: list[tuple[str, int]] = []

    def product(name: str, left: str, right: str) -> str:
        nodes.append(helper.make_node("MatMul", [left, right], [name]))
        return name

    def weight(name: str, rows: int, columns: int) -> str:
        values = chance.standard_normal((rows, columns), dtype=np.float32) / np.float32(rows**0.5)
        weights.append(numpy_helper.from_array(values, name))
        return name

    states, context = "input", "queries"
    for layer in range(sizes.layers):
        last = layer == sizes.layers - 1
        loose.append((product(f"qkv_{layer}", states, weight(f"w_qkv_{layer}", hidden, 3 * hidden)), 3 * hidden))
        scores = product(f"scores_{layer}", context, "keys")
        context = product(f"context_{layer}", scores, "values")
        states = product(f"out_{layer}", states, weight(f"w_out_{layer}", hidden, hidden))
        if sizes.gated:
            loose.append((product(f"gate_{layer}", states, weight(f"w_gate_{layer}", hidden, inner)), inner))
        states = product(f"up_{layer}", states, weight(f"w_up_{layer}", hidden, inner))
        states = product("states" if last else f"down_{layer}", states, weight(f"w_down_{layer}", inner, hidden))

    def value(name: str, *axes: str | int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes))

    head = hidden // sizes.heads
    inputs = [
        value("input", "tokens", hidden),
        value("queries", "sequences", sizes.heads, "longest", head),
        value("keys", "sequences", sizes.heads, head, "longest"),
        value("values", "sequences", sizes.heads, "longest", head),
    ]
    outputs = [
        value("states", "tokens", hidden),
        value(context, "sequences", sizes.heads, "longest", head),
        *(value(name, "tokens", width) for name, width in loose),
    ]
    graph = helper.make_graph(nodes, "floor", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
