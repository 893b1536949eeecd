"""The forward pass in NumPy, float64, one text at a time: what the graph is held against. It shares no code with it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from berth.artifact import Precision, WeightBits
from berth.types import Encoding
from model_export import quantize
from model_export.network import Activation, Network
from model_export.progress import layers_of
from model_export.weights import Weights

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """What the encoder makes of one text: [tokens, hidden] for each layer, [hidden] for the pooler."""

    hidden: list[Float64Array]
    pooler: Float64Array | None


def forward(
    network: Network,
    weights: Weights,
    encodings: Sequence[Encoding],
    precision: Precision = "fp32",
    weight_bits: WeightBits | None = None,
) -> list[States]:
    """Run texts through the network layer by layer, so that one layer's weights are in memory at a time.

    With int8 the products of the layers are those of rounded rows and rounded weights; all else is float64 still.
    """
    linear = partial(_int8_linear, weight_bits=weight_bits or 8) if precision == "int8" else _linear
    states = [[rows] for rows in _embeddings(network, weights, encodings)]
    for layer in layers_of(network.layers, "verifying"):
        block = _Block(network, weights, f"layer.{layer}", linear)
        for hidden in states:
            hidden.append(block(hidden[-1]))
    if not weights.has_pooler:
        return [States(hidden, None) for hidden in states]
    pooler = _linear(weights, "pooler")
    return [States(hidden, np.tanh(pooler(hidden[-1][0]))) for hidden in states]


def _embeddings(network: Network, weights: Weights, encodings: Sequence[Encoding]) -> list[Float64Array]:
    words, types, positions = (weights[f"embeddings.{table}.weight"] for table in ("word", "type", "position"))
    norm = _norm(network, weights, "embeddings.norm")
    return [
        norm(
            words[encoding.ids].astype(np.float64)
            + types[encoding.type_ids].astype(np.float64)
            + positions[: len(encoding)].astype(np.float64)
        )
        for encoding in encodings
    ]


Rows = Callable[[Float64Array], Float64Array]
Linear = Callable[[Weights, str], Rows]


class _Block:
    """One layer, its weights in float64."""

    def __init__(self, network: Network, weights: Weights, name: str, linear: Linear) -> None:
        self.heads = network.heads
        self.activation = ACTIVATIONS[network.activation]
        self.query, self.key, self.value, self.attention_output, self.inner, self.outer = (
            linear(weights, f"{name}.{part}")
            for part in ("query", "key", "value", "attention_output", "inner", "outer")
        )
        self.attention_norm = _norm(network, weights, f"{name}.attention_norm")
        self.output_norm = _norm(network, weights, f"{name}.output_norm")

    def __call__(self, x: Float64Array) -> Float64Array:
        """Take [tokens, hidden] to [tokens, hidden]."""
        x = self.attention_norm(x + self.attention_output(self.attend(x)))
        return self.output_norm(x + self.outer(self.activation(self.inner(x))))

    def attend(self, x: Float64Array) -> Float64Array:
        tokens, hidden = x.shape
        query, key, value = (
            part(x).reshape(tokens, self.heads, -1).swapaxes(0, 1)  # [heads, tokens, head size]
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.swapaxes(1, 2) / math.sqrt(hidden // self.heads)  # [heads, tokens, tokens]
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        context: Float64Array = shares @ value
        return context.swapaxes(0, 1).reshape(tokens, hidden)


def _linear(weights: Weights, name: str) -> Rows:
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)
    return lambda x: x @ matrix.T + bias


def _int8_linear(weights: Weights, name: str, weight_bits: WeightBits) -> Rows:
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)
    columns = np.abs(matrix).max(axis=1) / (2 ** (weight_bits - 1) - 1)
    columns[columns == 0] = 1
    codes = np.rint(matrix / columns[:, None])
    coding = quantize.RECTIFIED if name.endswith(".outer") else quantize.SYMMETRIC

    def linear(x: Float64Array) -> Float64Array:
        largest = x.max(axis=1) if coding.smallest_step else np.abs(x).max(axis=1)
        steps = np.maximum(largest / coding.largest, coding.smallest_step or np.finfo(np.float32).tiny)[:, None]
        rounded = np.clip(np.rint(x / steps), -coding.zero, coding.largest)
        rows: Float64Array = (rounded @ codes.T) * steps * columns + bias
        return rows

    return linear


def _norm(network: Network, weights: Weights, name: str) -> Rows:
    scale, bias = weights[f"{name}.weight"].astype(np.float64), weights[f"{name}.bias"].astype(np.float64)

    def norm(x: Float64Array) -> Float64Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + network.epsilon)
        rows: Float64Array = centred / deviation * scale + bias
        return rows

    return norm


def _gelu(x: Float64Array) -> Float64Array:
    # NumPy has no error function; Python's is called number by number, at some 50 ns each.
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().data), np.float64, x.size)
    return x * (1 + erf.reshape(x.shape)) / 2


def _gelu_tanh(x: Float64Array) -> Float64Array:
    rows: Float64Array = x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return rows


def _relu(x: Float64Array) -> Float64Array:
    rows: Float64Array = np.maximum(x, 0)
    return rows


ACTIVATIONS: dict[Activation, Rows] = {
    Activation.GELU: _gelu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.RELU: _relu,
}
