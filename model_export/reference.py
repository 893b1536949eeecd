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
from model_export.network import Activation, Buckets, Network, Rotary
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
    layers: int | None = None,
) -> list[States]:
    """Run texts through the network layer by layer, so that one layer's weights are in memory at a time.

    With `layers` only the first ones are run, and nothing behind them. With int8 the products of the layers are those
    of rounded rows and rounded weights; all else is float64 still.
    """
    linear = partial(_int8_linear, weight_bits=weight_bits or 8) if precision == "int8" else _linear
    states = [[rows] for rows in _embeddings(network, weights, encodings)]
    bias = None if network.buckets is None else _by_distance(network.buckets, weights, max(map(len, encodings)))
    for layer in layers_of(network.layers if layers is None else layers, "verifying"):
        block = _Block(network, weights, layer, bias, linear)
        for hidden in states:
            hidden.append(block(hidden[-1]))
    if layers is not None:
        return [States(hidden, None) for hidden in states]
    if network.pre_norm:
        final = _norm(network, weights, "final_norm")
        for hidden in states:
            hidden[-1] = final(hidden[-1])
    if not weights.has_pooler:
        return [States(hidden, None) for hidden in states]
    pooler = _linear(weights, "pooler")
    return [States(hidden, np.tanh(pooler(hidden[-1][0]))) for hidden in states]


def _embeddings(network: Network, weights: Weights, encodings: Sequence[Encoding]) -> list[Float64Array]:
    names = [name for name in ("word", "type", "position", "task") if f"embeddings.{name}.weight" in weights]
    tables = {name: weights[f"embeddings.{name}.weight"] for name in names}
    norm = _norm(network, weights, "embeddings.norm")
    project = _linear(weights, "embeddings.projection") if network.embedding_size is not None else None
    states = []
    for encoding in encodings:
        rows = tables["word"][encoding.ids].astype(np.float64)
        if "type" in tables:
            rows += tables["type"][encoding.type_ids if network.type_vocab_size > 1 else np.zeros(len(encoding), int)]
        if "position" in tables:
            rows += tables["position"][_positions(network, encoding)]
        if "task" in tables:
            rows += tables["task"][0]
        rows = norm(rows)
        states.append(rows if project is None else project(rows))
    return states


def _positions(network: Network, encoding: Encoding) -> NDArray[np.intp]:
    if network.padding_id is None:
        return np.arange(len(encoding)) + network.first_position
    counted = encoding.ids != network.padding_id
    return np.where(counted, np.cumsum(counted) - 1, -1) + network.first_position


Rows = Callable[[Float64Array], Float64Array]
Linear = Callable[[Weights, str, bool], Rows]
"""Makes a product of its weights; the last argument says whether what comes in is never far under zero."""


class _Block:
    """One layer, its weights in float64."""

    def __init__(
        self, network: Network, weights: Weights, layer: int, bias: Float64Array | None, linear: Linear
    ) -> None:
        name = network.weights_of(layer)
        self.network = network
        self.activation = ACTIVATIONS[network.activation]
        self.query, self.key, self.value, self.attention_output, self.inner = (
            linear(weights, f"{name}.{part}", False) for part in ("query", "key", "value", "attention_output", "inner")
        )
        self.gate = linear(weights, f"{name}.gate", False) if network.gated else None
        rectified = not network.gated and network.activation is not Activation.SILU
        self.outer = linear(weights, f"{name}.outer", rectified)
        has_norm = not network.pre_norm or layer > 0
        self.attention_norm: Rows = _norm(network, weights, f"{name}.attention_norm") if has_norm else lambda x: x
        self.output_norm = _norm(network, weights, f"{name}.output_norm")
        near = network.near if network.near is not None and layer in network.near.layers else None
        self.reach = None if near is None else near.reach
        self.rotary = network.rotary if near is None else near.rotary
        self.bias = bias  # [heads, tokens, tokens] of the longest text

    def __call__(self, x: Float64Array) -> Float64Array:
        """Take [tokens, hidden] to [tokens, hidden]."""
        if self.network.pre_norm:
            x = x + self.attention_output(self.attend(self.attention_norm(x)))
            return x + self.feed(self.output_norm(x))
        x = self.attention_norm(x + self.attention_output(self.attend(x)))
        return self.output_norm(x + self.feed(x))

    def feed(self, x: Float64Array) -> Float64Array:
        if self.gate is None:
            return self.outer(self.activation(self.inner(x)))
        return self.outer(self.activation(self.gate(x)) * self.inner(x))

    def attend(self, x: Float64Array) -> Float64Array:
        tokens, hidden = x.shape
        query, key, value = (
            part(x).reshape(tokens, self.network.heads, -1).swapaxes(0, 1)  # [heads, tokens, head size]
            for part in (self.query, self.key, self.value)
        )
        if self.rotary is not None:
            query, key = _turned(query, self.rotary), _turned(key, self.rotary)
        scores = query @ key.swapaxes(1, 2) / math.sqrt(hidden // self.network.heads)  # [heads, tokens, tokens]
        if self.bias is not None:
            scores += self.bias[:, :tokens, :tokens]
        if self.reach is not None:
            distances = np.abs(np.arange(tokens)[:, None] - np.arange(tokens))
            scores = np.where(distances <= self.reach, scores, -np.inf)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        context: Float64Array = shares @ value
        return context.swapaxes(0, 1).reshape(tokens, hidden)


def _turned(x: Float64Array, rotary: Rotary) -> Float64Array:
    """Turn [heads, tokens, head size] by its places; the angles are float32, as the models were trained with them."""
    half = x.shape[-1] // 2
    pairs = np.arange(0, 2 * half, 2, dtype=np.float32) / np.float32(2 * half)
    speeds = (1 / np.float32(rotary.theta) ** pairs / np.float32(rotary.factor)).astype(np.float32)
    angles = (np.arange(x.shape[1], dtype=np.float32)[:, None] * speeds).astype(np.float64)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _by_distance(buckets: Buckets, weights: Weights, tokens: int) -> Float64Array:
    """Lay the bias of each pair of places out, [heads, tokens, tokens]."""
    table = weights["buckets.weight"].astype(np.float64)
    distances = np.arange(tokens) - np.arange(tokens)[:, None]  # of key from query
    half = buckets.count // 2
    exact = half // 2
    far = np.maximum(np.abs(distances), 1).astype(np.float32)
    logarithms = np.log(far / np.float32(exact)) / np.float32(math.log(buckets.max_distance / exact))
    coarse = exact + (logarithms * np.float32(half - exact)).astype(np.int64)
    places = np.where(np.abs(distances) < exact, np.abs(distances), np.minimum(coarse, half - 1))
    bias: Float64Array = table[places + np.where(distances > 0, half, 0)].transpose(2, 0, 1)
    return bias


def _linear(weights: Weights, name: str, _: bool = False) -> Rows:
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), _bias(weights, name)
    return lambda x: x @ matrix.T + bias


def _bias(weights: Weights, name: str) -> Float64Array | float:
    return weights[f"{name}.bias"].astype(np.float64) if f"{name}.bias" in weights else 0.0


def _int8_linear(weights: Weights, name: str, rectified: bool, weight_bits: WeightBits) -> Rows:
    coding = quantize.RECTIFIED if rectified else quantize.SYMMETRIC
    matrix, bias = weights[f"{name}.weight"].astype(np.float64), _bias(weights, name)
    columns = np.abs(matrix).max(axis=1) / (2 ** (weight_bits - 1) - 1)
    columns[columns == 0] = 1
    codes = np.rint(matrix / columns[:, None])

    def linear(x: Float64Array) -> Float64Array:
        largest = x.max(axis=1) if coding.smallest_step else np.abs(x).max(axis=1)
        steps = np.maximum(largest / coding.largest, coding.smallest_step or np.finfo(np.float32).tiny)[:, None]
        rounded = np.clip(np.rint(x / steps), -coding.zero, coding.largest)
        rows: Float64Array = (rounded @ codes.T) * steps * columns + bias
        return rows

    return linear


def _norm(network: Network, weights: Weights, name: str) -> Rows:
    scale, bias = weights[f"{name}.weight"].astype(np.float64), _bias(weights, name)

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


def _silu(x: Float64Array) -> Float64Array:
    rows: Float64Array = x * (1 + np.tanh(x / 2)) / 2
    return rows


ACTIVATIONS: dict[Activation, Rows] = {
    Activation.GELU: _gelu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.RELU: _relu,
    Activation.SILU: _silu,
}
